"""Files and steps as bytes. What a step reads travels to a node without the driver's disk; what it wrote comes home.

Paths in a step are names of files at home. On a node that sees the same disk they are used as they are; on another the
files lie under a folder of that node, at the same path below it.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from iquitos_rl.machine.files import write_bytes
from iquitos_rl.machine.inputs import TENSOR_BYTES, read_bytes

Place = Callable[[Path], Path]
"""Where a file of home lies on this node."""
Files = dict[str, bytes]
"""Content by the path at home."""
STAYS = (".lock", ".tmp")
"""Ends of the names of files that mean something to their own machine only."""


def below(root: Path) -> Place:
    """The place of files on a node that does not see the driver's disk."""
    return lambda path: root / path.relative_to(path.anchor)


def above(root: Path) -> Place:
    """Where a file that lies there is at home."""
    return lambda path: Path(path.anchor) / path.relative_to(root) if path.is_relative_to(root) else path


def listed(path: Path) -> list[Path]:
    """The files at a path, a file or a folder, in the order in which they were written: a run's summary comes last."""
    found = path.rglob("*") if path.is_dir() else [path]
    files = [(file.stat().st_mtime_ns, file) for file in found if file.is_file() and not file.name.endswith(STAYS)]
    return [file for _, file in sorted(files)]


def pack(path: Path, place: Place = lambda path: path) -> Files:
    """The files at a path of home, which lie at `place` of it here; none where there is nothing.

    Raises:
        InputError: one cannot be read.
    """
    here = place(path)
    return {str(path / file.relative_to(here)): read_bytes(file, TENSOR_BYTES) for file in listed(here)}


def unpack(files: Files, place: Place = lambda path: path) -> None:
    """Write files to where they belong here, each of them whole or not at all. Raises OSError."""
    for name, content in files.items():
        target = place(Path(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content)


def digest(files: Files) -> str:
    """SHA-256 of names and contents."""
    found = hashlib.sha256()
    for name in sorted(files):
        found.update(hashlib.sha256(name.encode() + b"\0" + files[name]).digest())
    return found.hexdigest()


def within(files: Files, roots: Iterable[Path]) -> bool:
    """Whether all files are at or below some paths."""
    allowed = list(roots)
    return all(any(Path(name).is_relative_to(root) for root in allowed) for name in files)


def dumps(found: Any, home: Place = lambda path: path) -> bytes:
    """A step or a result, with its paths as names of files at home.

    Args:
        home: where a file that lies here is at home.

    Raises:
        pickle.PicklingError, AttributeError or TypeError: something in it is no function of a module, or no data.
    """
    stream = io.BytesIO()
    _Pickler(stream, home).dump(found)
    return stream.getvalue()


def loads(data: bytes, place: Place = lambda path: path) -> Any:
    """The same again, with its paths where the files lie here. The bytes are of our own driver or node."""
    return _Unpickler(io.BytesIO(data), place).load()


class _Pickler(pickle.Pickler):
    def __init__(self, stream: io.BytesIO, home: Place) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._home = home

    def persistent_id(self, found: Any) -> str | None:
        named = isinstance(found, Path) and found != Path()  # the empty path stands for none, see `LATEST`
        return str(self._home(found.absolute())) if named else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, place: Place) -> None:
        super().__init__(stream)
        self._place = place

    def persistent_load(self, name: str) -> Path:
        return self._place(Path(name))
