"""The one way out to the console: a reader that has gone, or a full disk, never ends what a command does.

What cannot be written is dropped, and at the end the command says so on the other stream, if that still works.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STREAMS = {"stdout": "standard output", "stderr": "standard error"}


class Output:
    """A text stream that never raises: after the first failure everything is dropped.

    Args:
        stream: None stands for one that was closed before the process started.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.lost = "it is closed" if stream is None else ""
        """Why nothing can be written any more, empty while it can."""
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a cp1252 console must not end a run of hours

    def write(self, text: str) -> int:
        if not self.lost:
            try:
                self.stream.write(text)
            except BlockingIOError:
                pass  # a reader that is slow: this text is dropped, the next may pass
            except UnicodeError:
                self.write(text.encode("ascii", "replace").decode("ascii"))
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if not self.lost:
            try:
                self.stream.flush()
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                self._give_up(error)

    def isatty(self) -> bool:
        try:
            return bool(self.stream.isatty()) and not self.lost
        except (AttributeError, OSError, ValueError):
            return False

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _give_up(self, error: Exception) -> None:
        self.lost = getattr(error, "strerror", None) or str(error) or type(error).__name__
        # What is left in the stream's buffer is written when the process ends, and would fail then.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Inside this context prints, bars, warnings and logs never raise for the console's sake."""
    open_missing()
    before, loud = {name: getattr(sys, name) for name in STREAMS}, logging.raiseExceptions
    logging.raiseExceptions = False
    outputs = {name: Output(stream) for name, stream in before.items()}
    for name, output in outputs.items():
        setattr(sys, name, output)
    try:
        yield
    finally:
        for output in outputs.values():
            output.flush()
        for name, output in outputs.items():
            if output.lost:
                other = next(own for key, own in outputs.items() if key != name)
                other.write(f"note: {STREAMS[name]} could not be written ({output.lost}); the rest of it is lost\n")
                other.flush()
        for name, stream in before.items():
            setattr(sys, name, stream)
        logging.raiseExceptions = loud


def protect() -> None:
    """The same for the rest of this process, which is one of several and has nothing to say at its end."""
    open_missing()
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)  # type: ignore[assignment]


def open_missing() -> None:
    """Put the null device in the place of standard streams that the shell closed: else the next file that is opened
    would get their number, and what libraries print."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Inside this context what is printed is added to a file; where it cannot be, it is dropped."""
    flags = (
        os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    )  # a pipe without a reader must not block
    try:
        file = open(os.open(path, flags, 0o666), "w", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError:
        file = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    output: Any = Output(file)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield
    finally:
        output.flush()
        with contextlib.suppress(OSError):
            file.close()
