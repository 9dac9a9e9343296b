"""Writes result files atomically: a reader sees the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import TABLE_BYTES, InputError, read_bytes


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text to a temporary file, flush it to the disk, then rename it.

    Raises:
        UserError: the folder cannot be written to or the disk is full; an existing file stays unchanged.
    """
    try:
        write_bytes(path, text.encode("utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def write_bytes(path: Path, data: Any) -> None:
    """The same for bytes, which raises OSError."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)  # what a killed process left, or a link to somewhere else
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, data: Any) -> None:
    """Write JSON. NaN raises ValueError: leave an unknown value out instead."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def digest(*parts: Any) -> str:
    """SHA-256 of the parts as JSON: equal inputs give equal digests."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 of a folder's files and their names, those of folders in it included.

    Raises:
        InputError: one cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = (hashlib.sha256(read_bytes(path)).hexdigest() for path in files)
    return digest(*((path.relative_to(folder).as_posix(), own) for path, own in zip(files, sums)))


def move_aside(path: Path) -> None:
    """Give what stands in the way, whatever it is, a name of its own next to it. Raises OSError."""
    names = (path.with_name(f"{path.name}.foreign-{n}") for n in itertools.count(1))
    path.rename(next(name for name in names if not os.path.lexists(name)))


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder next to `output`, renamed to it when the block ends without an error.

    Raises:
        UserError: `output` exists and is not an empty folder, or cannot be written.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is not an empty folder: nothing written")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        if output.exists():
            output.rmdir()
        os.replace(temporary, output)
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy all regular files below `source` into an existing folder, `target`, which may lie in it.

    Raises:
        InputError: something in it is no file, as a named pipe is not, or all of it is too large for a case.
    """
    total = 0
    for place, folders, names in os.walk(source):
        folders[:] = [name for name in folders if not os.path.samefile(Path(place, name), target)]
        for name in names:
            path = Path(place, name)
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            content = read_bytes(path)
            total += len(content)
            if total > TABLE_BYTES:
                raise InputError(source, f"holds more than {TABLE_BYTES >> 20:,} MiB, so it is no case")
            copy.write_bytes(content)
