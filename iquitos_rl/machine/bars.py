"""Bars and counters of what takes longer than two seconds."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tqdm import tqdm

TICK_SECONDS = 1.0


def progress_bar(total: int, text: str, unit: str) -> tqdm[Any]:
    """A bar that any console can show, and that does not fill a log file with one line a second."""
    interval = 30.0
    columns: int | None = None
    lines: int | None = None
    if sys.stdout.isatty():
        interval = 0.5
        columns, lines = shutil.get_terminal_size()  # 80, 24 on one that says 0, where tqdm alone would show nothing
        columns -= 1
    out = sys.stdout
    return tqdm(
        total=total, unit=unit, desc=text, file=out, ascii=True, mininterval=interval, ncols=columns, nrows=lines
    )


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say what takes long inside this context and cannot tell how far it is; a terminal counts the seconds."""
    print(text, end="" if sys.stdout.isatty() else "\n", flush=True)
    over = threading.Event()

    def count() -> None:
        started = time.monotonic()
        while not over.wait(TICK_SECONDS):
            print(f"\r{text}: {time.monotonic() - started:.0f} s", end="", flush=True)

    thread = threading.Thread(target=count, daemon=True)
    if sys.stdout.isatty():
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()
            print(flush=True)


@contextlib.contextmanager
def hour_bar(text: str, hours: int, check: Callable[[], None] = lambda: None) -> Iterator[Callable[[int], None]]:
    """A progress bar over a year; yields what to call with the number of hours done, which calls `check` too."""
    with progress_bar(hours, text, "h") as bar:

        def advance(hour: int) -> None:
            bar.update(hour - bar.n)
            check()

        yield advance


@contextlib.contextmanager
def share_bar(text: str, check: Callable[[], None] = lambda: None) -> Iterator[Callable[[float], None]]:
    """A bar in percent; yields what to call with the share done, 0 to 1, which shows the bar and calls `check` too."""
    bar: tqdm[Any] | None = None

    def advance(share: float) -> None:
        nonlocal bar
        if bar is None:
            bar = progress_bar(100, text, "%")
        bar.update(int(100 * share) - bar.n)
        check()

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()
