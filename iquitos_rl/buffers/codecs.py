"""How numbers are stored: three types, and the layout of a row of columns that mixes them.

`uint8` is for columns that always lie in [-1, 1]: the numbers -127/127 ... 127/127, so that -1, 0 and 1 (an empty
socket, an action that is not live, a full battery) come back exact and nothing else is off by more than 1/254. Beyond
[-1, 1] it saturates, and that is counted. `float16` keeps eleven significant bits up to 65,504 and refuses what is
larger. Columns that are a row of a known table are stored as that row's number and come back bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from iquitos_rl.errors import UserError

Codec = Literal["float32", "float16", "uint8"]
DTYPES: dict[Codec, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8}
"""From the widest to the narrowest: a record holds them in this order, so that each is aligned."""
LEVELS = 127
ROW_BYTES = 4
LARGEST: dict[Codec, float] = {
    "float32": torch.finfo(torch.float32).max,
    "float16": torch.finfo(torch.float16).max,
    "uint8": torch.finfo(torch.float32).max,
}


def encode(values: Tensor, codec: Codec) -> Tensor:
    """Finite numbers, any shape, in the storage type of `codec`."""
    if codec == "uint8":
        return (values.clamp(-1, 1) * LEVELS).round().add(LEVELS).to(torch.uint8)
    return values.to(DTYPES[codec])


def decode(stored: Tensor, codec: Codec, out: Tensor | None = None) -> Tensor:
    """What `encode` stored, as float32; written into `out` where it is given, which takes no memory on the way."""
    values = torch.empty(stored.shape, device=stored.device) if out is None else out
    values.copy_(stored)
    return values.sub_(LEVELS).div_(LEVELS) if codec == "uint8" else values


class Part(NamedTuple):
    """The columns of a record that share a codec."""

    codec: Codec
    columns: slice | Tensor
    """Which columns of the observation; a slice wherever they lie side by side."""
    place: slice
    """Which bytes of the record."""


class Layout:
    """Rows of `len(codecs)` numbers as records of `nbytes` bytes.

    Args:
        name: what the numbers are, for messages.
        codecs: one for each column.
        table: (R, X) float32, or None; the first X columns are always one of its rows, and their codecs are not used.
    """

    def __init__(self, name: str, codecs: Sequence[Codec], table: Tensor | None, device: torch.device) -> None:
        self.name, self.table, self.width = name, table, len(codecs)
        known = 0 if table is None else table.shape[1]
        if known > self.width:
            raise UserError(f"the table of {name}s has {known} columns, more than the {self.width} of an {name}")
        offset = 0 if table is None else ROW_BYTES
        self.parts: list[Part] = []
        limits = torch.full((self.width,), LARGEST["float32"])
        for codec in DTYPES:
            columns = [i for i in range(known, self.width) if codecs[i] == codec]
            if columns:
                size = len(columns) * DTYPES[codec].itemsize
                self.parts.append(Part(codec, _compact(columns, device), slice(offset, offset + size)))
                limits[columns] = LARGEST[codec]
                offset += size
        widest = max([ROW_BYTES if table is not None else 1] + [DTYPES[part.codec].itemsize for part in self.parts])
        self.nbytes = -(-offset // widest) * widest
        self._limits = limits.to(device)

    def fitting(self, values: Tensor) -> Tensor:
        """(n, width) bool: which of the numbers can be stored; NaN, infinite and too large ones cannot."""
        return values.abs() <= self._limits

    def refuse(self, values: Tensor, fits: Tensor) -> None:
        """Raise the UserError that names the first number that does not fit."""
        row, column = (~fits).nonzero()[0].tolist()
        value = values[row, column].item()
        kind = "float16" if self._limits[column] == LARGEST["float16"] else "any"
        raise UserError(
            f"{self.name} column {column} of environment {row} is {value}, which {kind} storage cannot hold"
            + ("; set agent.storage to float32" if kind == "float16" and abs(value) < float("inf") else "")
        )

    def encode(self, values: Tensor, row: Tensor | None = None) -> Tensor:
        """Records (n, nbytes) uint8 of finite numbers (n, width); `row` (n,) are their table rows, if any."""
        records = torch.zeros(values.shape[0], self.nbytes, dtype=torch.uint8, device=values.device)
        if self.table is not None:
            assert row is not None
            records[:, :ROW_BYTES] = row.to(torch.int32)[:, None].view(torch.uint8)
        for codec, columns, place in self.parts:
            records[:, place] = encode(values[:, columns], codec).contiguous().view(torch.uint8)
        return records

    def decode(self, records: Tensor) -> Tensor:
        """Numbers (n, width) float32 from records (n, nbytes) on the layout's device."""
        values = torch.empty(records.shape[0], self.width, device=records.device)
        if self.table is not None:
            row = records[:, :ROW_BYTES].view(torch.int32).squeeze(1)
            values[:, : self.table.shape[1]] = self.table.index_select(0, row)
        for codec, columns, place in self.parts:
            stored = records[:, place].view(DTYPES[codec])
            if isinstance(columns, slice):
                decode(stored, codec, out=values[:, columns])
            else:
                values[:, columns] = decode(stored, codec)
        return values

    def saturated(self, values: Tensor) -> Tensor:
        """How many of the numbers (n, width) lie outside the range of uint8, a scalar on their device."""
        columns = [columns for codec, columns, _ in self.parts if codec == "uint8"]
        return sum((values[:, c].abs() > 1).sum() for c in columns) + torch.zeros(
            (), dtype=torch.int64, device=values.device
        )


def _compact(columns: list[int], device: torch.device) -> slice | Tensor:
    if columns[-1] - columns[0] + 1 == len(columns):
        return slice(columns[0], columns[-1] + 1)
    return torch.tensor(columns, device=device)
