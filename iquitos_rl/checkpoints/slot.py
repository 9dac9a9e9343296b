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
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from iquitos_rl.machine.files import digest, write_text
from iquitos_rl.machine.inputs import TENSOR_BYTES, InputError, read_bytes, read_json

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
MANIFEST_KEYS = {"serial": int, "step": int, "about": dict, "tree": dict, "packed": str, "large": dict}
SUFFIX = ".bin"
BLOCK_BYTES = 8 * 2**20
"""Larger tensors are split into blocks of about this size."""


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
        return {path.stem for path in self.folder.glob(f"*{SUFFIX}")}

    def put(self, name: str, data: Any) -> None:
        """Write bytes, whose SHA-256 is `name`, to a temporary file, flush it, rename it."""
        path = self._path(name)
        temporary = path.with_suffix(".tmp")
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def commit(self, body: dict[str, Any]) -> None:
        """Write the manifest, read every file back to verify it, and remove files that the manifest does not name.

        Raises:
            UserError: the manifest cannot be written.
            DamagedError: a file differs from what was written.
        """
        _flush_names(self.folder)  # file names must reach the disk before the manifest
        write_text(self.folder / MANIFEST, json.dumps({"sha256": digest(body), "body": body}, allow_nan=False))
        _flush_names(self.folder)
        named = {body["packed"], *(name for layout in body["large"].values() for name in layout["blocks"])}
        for name in named:
            self.read(name)
        for path in self.folder.iterdir():
            if path.name != MANIFEST and (path.suffix != SUFFIX or path.stem not in named):
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
            raise DamagedError(f"{path} has format {body.get('format')!r}, this program reads {FORMAT_VERSION}")
        for key, kind in MANIFEST_KEYS.items():
            if not isinstance(body.get(key), kind):
                raise DamagedError(f"{path}: {key} is missing or not a {kind.__name__}")
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
        if not isinstance(name, str) or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
            raise DamagedError(f"{self.folder / MANIFEST} names a file {name!r}, which is not a digest")
        return self.folder / f"{name}{SUFFIX}"


def load_large(slot: Slot, layout: dict[str, Any], own: Tensor | None) -> Tensor:
    """Read a large tensor from its blocks, into `own` if that has the same shape and dtype.

    Raises:
        DamagedError: a block is missing or does not fit.
    """
    try:
        shape, blocks = [int(n) for n in layout["shape"]], list(layout["blocks"])
        rows, dtype = shape[0], getattr(torch, layout["dtype"])
        if not isinstance(dtype, torch.dtype):
            raise TypeError(f"{layout['dtype']} is no dtype")
    except (LookupError, OverflowError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{slot.folder / MANIFEST} does not describe a tensor ({error})") from None
    fits = own is not None and own.dtype == dtype and list(own.shape) == shape
    whole = own.detach() if own is not None and fits else None
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


def _flush_names(folder: Path) -> None:
    """Flush a folder's entries to the disk; Windows cannot."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
