"""Handles Ctrl-C and SIGTERM with a flag that training checks between two steps, and that stops other work at once.

A step must come to its end, since what it did is saved. A second signal ends the process, which is safe because files
are written under a temporary name and then renamed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Check = Callable[[], None]
"""Called now and then by what takes long or waits; what it raises, such as `Interrupted`, ends that."""
STATUS = 128
"""Signal n gives exit status 128 + n: 130 for Ctrl-C, 143 for SIGTERM."""


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside this context Ctrl-C waits. A process that is started in it starts so, until `release`: it has no handler
    while it imports, and would end with a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def release() -> None:
    """Let signals through that were held when this process was started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


class Interrupted(BaseException):
    """Raised when the run has stopped at the user's request; `status` is the command's exit status.

    No `Exception`, so that nobody who handles what a library may raise takes it for that.
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = STATUS + number


class Interrupts:
    """Context manager: the first signal is stored in `number`, the second ends the process.

    Outside of the main thread it does nothing, since Python delivers signals to the main thread only.
    """

    def __init__(self, saving: str = "finishing the step") -> None:
        self.number: int | None = None
        self.saving = saving
        self.message = "interrupted"
        """What the user reads when nothing more precise is known; a run says here how to resume it."""
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGINT", "SIGTERM", "SIGBREAK")  # SIGBREAK: Ctrl-Break on Windows
            numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self, message: str | None = None) -> None:
        """Raise Interrupted if a signal has arrived."""
        if self.number is not None:
            raise Interrupted(self.number, message or self.message)

    @contextlib.contextmanager
    def at_once(self, on: bool = True) -> Iterator[None]:
        """Inside this context a signal raises `Interrupted` where it arrives: for work that takes long between two
        checks and that may be cut off anywhere, since files are renamed when they are whole. `on=False` for work
        inside of it that must come to the end of its step."""
        before, self._at_once = self._at_once, on
        try:
            yield
        finally:
            self._at_once = before
        if before:
            self.check()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            os._exit(STATUS + number)
        self.number = number
        if self._at_once:
            raise Interrupted(number, self.message)
        with contextlib.suppress(OSError):  # nobody may be listening
            # print is not safe in a handler
            os.write(2, f"\n{self.saving}; interrupt again to stop at once\n".encode())
