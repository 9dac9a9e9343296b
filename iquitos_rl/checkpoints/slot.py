"""One checkpoint on disk: a folder of files named by the SHA-256 of their content, and a manifest that lists them.

The rows of a large tensor are split into blocks, one file each: the rows' bytes as they are in memory. An unchanged
block keeps its name, so a save over an older checkpoint writes only changed blocks: for a replay buffer, those with new
rows. All other tensors are in one safetensors file. The manifest is replaced last, in one rename; until then the older
checkpoint stays valid.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from iquitos_rl.machine.available import free_ram, show_size
from iquitos_rl.machine.files import digest, move_aside, write_bytes
from iquitos_rl.machine.inputs import TENSOR_BYTES, InputError, read_bytes, read_json, shown, typed

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
SUFFIX = ".bin"
BLOCK_BYTES = 8 * 2**20
"""Larger tensors are split into blocks of about this size."""


Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, lt=2**62, strict=True)]


class Layout(BaseModel):
    """How a large tensor lies in blocks."""

    dtype: Literal["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
    shape: Annotated[list[Count], Field(min_length=1, max_length=16)]
    blocks: list[Digest]

    @property
    def bytes(self) -> int:
        """Of the whole tensor."""
        return math.prod(self.shape) * getattr(torch, self.dtype).itemsize


class Manifest(BaseModel):
    """What a manifest's body must have, apart from its format."""

    serial: Count
    step: Count
    about: dict[str, Any]
    tree: dict[str, Any]
    packed: Digest
    large: dict[str, Layout]


class DamagedError(Exception):
    """A file of a checkpoint is missing or its content has changed."""


def is_large(tensor: Tensor) -> bool:
    """Whether a tensor is stored in blocks."""
    return tensor.nbytes > BLOCK_BYTES and tensor.ndim > 0


def blocks_of(tensor: Tensor) -> Iterator[Any]:
    """The blocks of a large tensor (N, ...), arrays of bytes: views of its memory where it is on the CPU."""
    for rows in tensor.split(max(1, BLOCK_BYTES // tensor[:1].nbytes)):
        yield rows.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


class Slot:
    """The folder of one checkpoint. `put` any number of files, then `commit`.

    Raises (each method):
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> set[str]:
        """Digests (names) of the files in the folder."""
        if not self.folder.is_dir():
            return set()
        return {path.stem for path in self.folder.iterdir() if _is_own(path) and path.suffix == SUFFIX}

    def put(self, name: str, data: Any) -> None:
        """Write bytes, whose SHA-256 is `name`, to a temporary file, flush it, rename it."""
        path = self._path(name)
        if not self.folder.is_dir():
            _make_way(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        _write(path, data)

    def commit(self, body: dict[str, Any]) -> None:
        """Write the manifest, read every file back to verify it, and remove files that the manifest does not name.

        Raises:
            DamagedError: a file differs from what was written.
        """
        _flush_names(self.folder)  # file names must reach the disk before the manifest
        manifest = json.dumps({"sha256": digest(body), "body": body}, allow_nan=False)
        _write(self.folder / MANIFEST, manifest.encode("utf-8"))
        _flush_names(self.folder)
        named = {body["packed"], *(name for layout in body["large"].values() for name in layout["blocks"])}
        for name in named:
            self.read(name)
        for path in self.folder.iterdir():
            if _is_own(path) and (path.suffix != SUFFIX or path.stem not in named):
                with contextlib.suppress(OSError):  # what cannot be removed only takes space
                    path.unlink(missing_ok=True)

    def manifest(self) -> dict[str, Any] | None:
        """The manifest's body; None without a manifest.

        Raises:
            DamagedError: it cannot be read, its digest differs, or it has another format.
        """
        path = self.folder / MANIFEST
        try:
            found = read_json(path)
            body: dict[str, Any] = found["body"]
            unchanged = isinstance(body, dict) and digest(body) == found["sha256"]
        except InputError as error:
            if error.missing:
                return None
            raise DamagedError(str(error)) from None
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{path} cannot be read ({type(error).__name__})") from None
        if not unchanged:
            raise DamagedError(f"{path} is not what was written (its SHA-256 differs)")
        if body.get("format") != FORMAT_VERSION:
            raise DamagedError(f"{path} has format {shown(body.get('format'))}, this program reads {FORMAT_VERSION}")
        try:
            typed(body, Manifest)
        except ValueError as error:
            raise DamagedError(f"{path} is not a manifest: {error}") from None
        return body

    def read(self, name: str) -> bytes:
        """A file's bytes, verified. A damaged file is removed, so that a later save writes it again.

        Raises:
            DamagedError: it is missing or damaged.
        """
        path = self._path(name)
        try:
            data = read_bytes(path, TENSOR_BYTES)
        except InputError as error:
            raise DamagedError(str(error)) from None
        if hashlib.sha256(data).hexdigest() != name:
            with contextlib.suppress(OSError):
                path.unlink()
            raise DamagedError(f"{path} is not what was written (its SHA-256 differs)")
        return data

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors in a file.

        Raises:
            DamagedError: the file is missing, damaged or not safetensors.
        """
        try:
            return load_tensors(self.read(name))
        except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise DamagedError(f"{self._path(name)} is not a safetensors file ({error})") from None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"


def load_large(slot: Slot, layout: dict[str, Any], own: Tensor | None) -> Tensor:
    """Read a large tensor from its blocks, into `own` if that has the same shape and dtype.

    Raises:
        DamagedError: a block is missing or does not fit.
    """
    known = Layout.model_validate(layout)
    shape, blocks, dtype = known.shape, known.blocks, getattr(torch, known.dtype)
    rows = shape[0]
    fits = own is not None and own.dtype == dtype and list(own.shape) == shape
    whole = own.detach() if own is not None and fits else None
    if whole is None and 2 * known.bytes > free_ram():  # in blocks, and put together
        raise DamagedError(f"{slot.folder / MANIFEST} has a tensor of {show_size(known.bytes)}, more than memory holds")
    parts, row = [], 0
    for name in blocks:
        data = bytearray(slot.read(name))
        try:
            part = torch.frombuffer(data, dtype=dtype).reshape(-1, *shape[1:])
        except (RuntimeError, ValueError):
            part = None
        if part is None or row + len(part) > rows:
            raise DamagedError(f"{slot.folder / name} is not a part of a tensor of shape {shape}")
        if whole is None:
            parts.append(part)
        else:
            whole[row : row + len(part)] = part.to(whole.device)
        row += len(part)
    if row != rows or not blocks:
        raise DamagedError(f"{slot.folder / MANIFEST} names blocks for {row} of {rows} rows")
    return torch.cat(parts) if whole is None else whole


def _is_own(path: Path) -> bool:
    """Whether a slot made this file, or was about to."""
    name = path.name.removesuffix(".tmp").removesuffix(SUFFIX)
    return name != path.name and len(name) == 64 and path.is_file() and not path.is_symlink()


def _write(path: Path, data: Any) -> None:
    """Write a file whatever is in its place; what is no file of ours is moved aside."""
    for place in (path, path.with_name(path.name + ".tmp")):
        _make_way(place)
    write_bytes(path, data)


def _make_way(path: Path) -> None:
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        move_aside(path)


def _flush_names(folder: Path) -> None:
    """Flush a folder's entries to the disk; Windows cannot."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
