"""Ctrl-C and SIGTERM as a request that training answers between two steps, never as an exception inside one.

Simulators and libraries catch exceptions broadly; a flag cannot be swallowed. A second signal ends the process at
once, which is safe at any moment because every file is renamed into place whole.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

STATUS = 128
"""A process ended by signal n has exit status 128 + n: 130 for Ctrl-C, 143 for SIGTERM."""


class Interrupted(Exception):
    """The user asked to stop and the run has stopped; `status` is the command's exit status."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = STATUS + number


class Interrupts:
    """While this context is open, the first signal is noted in `number` and the second ends the process.

    In another thread than the main one signals do not arrive, and nothing is installed.
    """

    def __init__(self, saving: str = "finishing the step") -> None:
        self.number: int | None = None
        self.saving = saving
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            names = ("SIGINT", "SIGTERM", "SIGBREAK")  # the last is Windows' Ctrl-Break
            numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self, message: str = "interrupted") -> None:
        """Stop here if a signal has arrived.

        Raises:
            Interrupted: it has.
        """
        if self.number is not None:
            raise Interrupted(self.number, message)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            os._exit(STATUS + number)
        self.number = number
        os.write(2, f"\n{self.saving}; once more to stop at once\n".encode())  # print is not safe in a handler
