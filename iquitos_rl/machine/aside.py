"""Work that answers no signal, in a thread, while this one waits for both."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.2


def aside(work: Callable[[], T]) -> T:
    """What `work` returns or raises. A signal is handled at once; if its handler raises, the thread ends with the
    process, and what it returns is dropped. For a long call of a library in C that lets other threads run."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)  # without a limit no signal would be handled on Windows
    return result.result()
