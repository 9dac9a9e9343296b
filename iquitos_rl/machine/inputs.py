"""The one way in for every file that a command is given or finds: whole, of bounded size, never a pipe or a device.

JSON from these files is bounded too: in depth, in the number of values, and in the digits of a number. What cannot be
read is an `InputError`, one sentence that names the file.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from iquitos_rl.errors import UserError

if TYPE_CHECKING:  # every command reads files, and most of `--help` is the time that pydantic takes
    from pydantic import ValidationError

T = TypeVar("T")
MIB = 1 << 20
SETTINGS_BYTES = MIB // 4
JSON_BYTES = 64 * MIB
TABLE_BYTES = 1024 * MIB
TENSOR_BYTES = 8192 * MIB
"""Most bytes of a file: of settings, of a description, of a CSV table, of tensors."""
DEPTH = 100
"""Most levels of lists and objects inside each other: far more than any file of ours has, far less than Python's
recursion limit."""
VALUES = 5_000_000
DIGITS = 100
"""Most digits of a whole number: one with more is no quantity, and cannot be turned into a float."""
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFLNK: "a link"}
# A device is what is left. A pipe without a writer must not block, a terminal must not become ours.
FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


class InputError(UserError):
    """A file that cannot be used."""

    def __init__(self, path: Path | str, reason: str, missing: bool = False) -> None:
        super().__init__(f"{shown(path)} {reason}")
        self.reason = reason
        """Why, to follow the file's name: `cannot be read: it is a folder, not a file`."""
        self.missing = missing
        """Whether there is no such file."""

    def __reduce__(self) -> Any:  # between processes: an exception is made again from its arguments
        return (UserError, (str(self),))


def read_bytes(path: Path | str, most: int = TABLE_BYTES, cut: bool = False) -> bytes:
    """A regular file's bytes; with `cut` only the first of them, where there are more than `most`.

    Raises:
        InputError: there is none, it cannot be read, is something else than a file, or has more than `most` bytes.
    """
    try:
        _require_regular(path, os.stat(path).st_mode)  # opening a device may already do something
        with os.fdopen(os.open(path, FLAGS), "rb") as file:
            found = os.fstat(file.fileno())
            _require_regular(path, found.st_mode)
            if found.st_size > most and not cut:
                raise _too_large(path, found.st_size, most)
            data = file.read(min(found.st_size, most) + 1)
            while len(data) <= most and (more := file.read(MIB)):  # it grows, or its size is not told
                data += more
    except FileNotFoundError as error:
        raise InputError(path, f"cannot be read: {error.strerror}", missing=True) from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InputError(path, f"cannot be the name of a file: {error}") from None
    except MemoryError:
        raise InputError(path, "cannot be read: there is not enough memory for it") from None
    if len(data) > most and not cut:
        raise _too_large(path, len(data), most)
    return data[:most]


def read_text(path: Path | str, most: int = TABLE_BYTES) -> str:
    """A regular file's text; line ends become \\n.

    Raises:
        InputError: as `read_bytes`, or it is not UTF-8.
    """
    try:
        text = read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(path, f"is not text in UTF-8 (byte {error.start})") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path | str, most: int = JSON_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        InputError: as `read_text`, or it is not JSON, or one beyond the bounds.
    """
    text = read_text(path, most)
    try:
        return json_value(text)
    except ValueError as error:
        raise InputError(path, f"is not JSON in UTF-8: {error}") from None


def read_typed(path: Path | str, kind: type[T]) -> T:
    """What a JSON file holds, as a NamedTuple or dataclass whose fields say what there must be; no number in it is
    infinite or NaN.

    Raises:
        InputError: as `read_json`, or it holds something else.
    """
    content = read_json(path)
    try:
        return typed(content, kind)
    except ValueError as error:
        raise InputError(path, f"is not such a file as it should be: {error}") from None


def typed(content: Any, kind: type[T]) -> T:
    """What a file held, as the type that it should have.

    Raises:
        ValueError: it has another; the message says where, in one line.
    """
    from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

    try:
        if issubclass(kind, BaseModel):
            return kind.model_validate(content)
        return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(content)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, and where, in a few words."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return shown(f"{place}: {first['msg']}" if place else first["msg"])


def json_value(text: str) -> Any:
    """What a JSON text means.

    Raises:
        ValueError: it is not JSON, or nested too deeply, or of too many values; the message is one line.
    """
    if text.count(",") + text.count("[") + text.count("{") > VALUES:
        raise ValueError(f"it has more than {VALUES:,} values")
    try:
        value = json.loads(text, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEPTH} levels deep") from None
    _check(value)
    return value


def shown(name: object) -> str:
    """A name from outside for a message: on one line, without what a console would obey, cut where it is long."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(name))
    return text if len(text) <= 300 else f"{text[:200]}...{text[-80:]}"


def is_text(value: str) -> bool:
    """Whether a text can be written anywhere: JSON and YAML can name halves of characters, which no file can hold."""
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _whole(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a whole number has {len(digits):,} digits, at most {DIGITS} are read")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:30]} is no finite number")
    return value


def _check(value: Any) -> None:
    """Raise ValueError where a value is too deep or holds a text that cannot be written."""
    level = [value]
    for _ in range(DEPTH):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, str):
                _require_text(item)
            elif isinstance(item, dict):
                for key in item:
                    _require_text(key)
                inner += item.values()
            elif isinstance(item, list):
                inner += [x for x in item if isinstance(x, (str, dict, list))]
        if not (level := inner):
            return
    raise ValueError(f"it is nested more than {DEPTH} levels deep")


def _require_text(text: str) -> None:
    if not is_text(text):
        raise ValueError(f"a text in it is no Unicode: {ascii(text)[:80]}")


def _require_regular(path: Path | str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError(path, f"cannot be read: it is {KINDS.get(stat.S_IFMT(mode), 'a device')}, not a file")


def _too_large(path: Path | str, size: int, most: int) -> InputError:
    return InputError(path, f"has {size / MIB:,.1f} MiB or more, at most {most / MIB:,.2f} MiB are read")
