"""How numbers are stored: the table of codecs, and the layout of a row of columns that mixes them.

`uint8` is for columns that always lie in [-1, 1]: the numbers -127/127 ... 127/127, so that -1, 0 and 1 (an empty
socket, an action that is not live, a full battery) come back exact and nothing else is off by more than 1/254. Beyond
[-1, 1] it saturates, and that is counted. `float16` keeps eleven significant bits up to 65,504 and refuses what is
larger. Columns that are a row of a known table are stored as that row's number and come back bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from iquitos_rl.buffers.registry import CODECS as CODECS
from iquitos_rl.errors import UserError

LEVELS = 127
ROW_BYTES = 4
FLOAT32_MAX = torch.finfo(torch.float32).max


class Codec(NamedTuple):
    """How the numbers of a record that share it become bytes."""

    nbytes: Callable[[int], int]
    """Bytes that k numbers take, of each record."""
    encode: Callable[[Tensor], Tensor]
    """Finite numbers (n, k) float32 to bytes (n, nbytes(k)) uint8."""
    decode: Callable[[Tensor, Tensor], object]
    """Writes the numbers of bytes (n, nbytes(k)) uint8 into its second argument, (n, k) float32."""
    align: int = 1
    """The first byte's place in a record is a multiple of this."""
    largest: float = FLOAT32_MAX
    """Numbers of a larger magnitude are refused."""
    bounded: bool = False
    """Whether it saturates outside [-1, 1]: it stores actions and `Exogenous.coarse` columns, and float16 the rest."""
    dtype: torch.dtype | None = None
    """The type that it is a plain cast to, if it is one: only such codecs store rollouts."""


def cast(dtype: torch.dtype) -> Codec:
    """The codec that rounds to a type."""
    number = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return Codec(
        nbytes=dtype.itemsize.__mul__,
        encode=partial(_cast, dtype),
        decode=partial(_copy, dtype),
        align=dtype.itemsize,
        largest=min(float(number.max), FLOAT32_MAX),
        dtype=dtype,
    )


def _cast(dtype: torch.dtype, values: Tensor) -> Tensor:
    return values.to(dtype).contiguous().view(torch.uint8)


def _copy(dtype: torch.dtype, stored: Tensor, out: Tensor) -> object:
    return out.copy_(stored.view(dtype))


def _to_levels(values: Tensor) -> Tensor:
    return (values.clamp(-1, 1) * LEVELS).round().add(LEVELS).to(torch.uint8)


def _from_levels(stored: Tensor, out: Tensor) -> object:
    return out.copy_(stored).sub_(LEVELS).div_(LEVELS)


UINT8 = Codec(nbytes=int, encode=_to_levels, decode=_from_levels, bounded=True)
BYTES = "bytes"
"""Whole numbers from 0 to 255: what an environment's columns of type uint8 are stored as, whatever the storage of the
others. It is none of the codecs to choose from, since it cannot hold anything else."""
FLOAT32, FLOAT16 = cast(torch.float32), cast(torch.float16)


class Part(NamedTuple):
    """The columns of a record that share a codec."""

    codec: Codec
    columns: slice | Tensor  # which columns of the observation; a slice where they are adjacent
    numbers: int  # how many
    place: slice  # which bytes of the record


class Layout:
    """Rows of `len(codecs)` numbers as records of `nbytes` bytes.

    Args:
        name: what the numbers are, for messages.
        codecs: the name of one for each column.
        table: (R, X) float32, or None; the first X columns are always one of its rows, and their codecs are not used.
    """

    def __init__(self, name: str, codecs: Sequence[str], table: Tensor | None, device: torch.device) -> None:
        self.name, self.table, self.width, self._codecs = name, table, len(codecs), codecs
        known = 0 if table is None else table.shape[1]
        if known > self.width:
            raise UserError(f"the table of {name}s has {known} columns, more than the {self.width} of an {name}")
        offset = 0 if table is None else ROW_BYTES
        self.parts: list[Part] = []
        limits = torch.full((self.width,), FLOAT32_MAX)
        used = {codec: cast(torch.uint8) if codec == BYTES else CODECS.require(codec) for codec in set(codecs[known:])}
        # The most aligned first: each part then starts where it must.
        for kind, codec in sorted(used.items(), key=lambda item: (-item[1].align, codecs.index(item[0], known))):
            columns = [i for i in range(known, self.width) if codecs[i] == kind]
            size = codec.nbytes(len(columns))
            self.parts.append(Part(codec, _compact(columns, device), len(columns), slice(offset, offset + size)))
            limits[columns] = codec.largest
            offset += size
        widest = max([ROW_BYTES if table is not None else 1] + [part.codec.align for part in self.parts])
        self.nbytes = -(-offset // widest) * widest
        self._limits = limits.to(device)

    def fitting(self, values: Tensor) -> Tensor:
        """(n, width) bool: which of the numbers can be stored; NaN, infinite and too large ones cannot."""
        return values.abs() <= self._limits

    def check(self, values: Tensor, fits: Tensor) -> None:
        """Raise the UserError that names the first number that does not fit, if there is one."""
        if fits.all():
            return
        row, column = (~fits).nonzero()[0].tolist()
        value = values[row, column].item()
        kind = self._codecs[column] if self._limits[column] < FLOAT32_MAX else "any"
        raise UserError(
            f"{self.name} column {column} of environment {row} is {value}, which {kind} storage cannot hold"
            + ("; set agent.storage to float32" if kind != "any" and abs(value) < float("inf") else "")
        )

    def encode(self, values: Tensor, row: Tensor | None = None) -> Tensor:
        """Records (n, nbytes) uint8 of finite numbers (n, width); `row` (n,) are their table rows, if any."""
        records = torch.zeros(values.shape[0], self.nbytes, dtype=torch.uint8, device=values.device)
        if self.table is not None:
            assert row is not None
            records[:, :ROW_BYTES] = row.to(torch.int32)[:, None].view(torch.uint8)
        for codec, columns, _, place in self.parts:
            records[:, place] = codec.encode(values[:, columns])
        return records

    def decode(self, records: Tensor) -> Tensor:
        """Numbers (n, width) float32 from records (n, nbytes) on the layout's device."""
        values = torch.empty(records.shape[0], self.width, device=records.device)
        if self.table is not None:
            row = records[:, :ROW_BYTES].view(torch.int32).squeeze(1)
            values[:, : self.table.shape[1]] = self.table.index_select(0, row)
        for codec, columns, count, place in self.parts:
            if isinstance(columns, slice):
                codec.decode(records[:, place], values[:, columns])
            else:
                scattered = values.new_empty(len(values), count)
                codec.decode(records[:, place], scattered)
                values[:, columns] = scattered
        return values

    def saturated(self, values: Tensor) -> Tensor:
        """How many of the numbers (n, width) a codec saturates, a scalar on their device."""
        columns = [part.columns for part in self.parts if part.codec.bounded]
        nothing = torch.zeros((), dtype=torch.int64, device=values.device)
        return sum(((values[:, c].abs() > 1).sum() for c in columns), nothing)


def _compact(columns: list[int], device: torch.device) -> slice | Tensor:
    if columns[-1] - columns[0] + 1 == len(columns):
        return slice(columns[0], columns[-1] + 1)
    return torch.tensor(columns, device=device)
