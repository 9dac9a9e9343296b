"""What nobody foresaw: one sentence on the console, the traceback in a file, exit status 70. Standard library only, so
that it also works where an import fails."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from iquitos_rl.version import __version__

STATUS = 70
"""EX_SOFTWARE of sysexits.h."""
INTERRUPTED = 130
SHOW = "IQUITOS_RL_TRACEBACK"
"""Environment variable, set by `--traceback` and inherited by the processes of a command."""


def sentence(error: BaseException) -> str:
    """Write an error's traceback to a file; returns what the user reads: the error, where that file is, what to do."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in reason)
    if os.environ.get(SHOW):
        return f"unexpected error: {text}\n{_details(error)}"
    try:
        import tempfile  # no command needs it before something fails

        handle, path = tempfile.mkstemp(prefix="iquitos-rl-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(_details(error))
    except OSError as failure:
        place = f"its traceback could not be written ({failure.strerror}): --traceback shows it"
    else:
        place = f"its traceback is in {path}: please report it with that file, SECURITY.md says how"
    return f"unexpected error: {text[:300]}; {place}"


def guarded(body: Callable[[], int]) -> int:
    """Run what may fail before a command's own handling of errors is imported."""
    try:
        return body()
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        _say(sentence(error))
        return STATUS


def install() -> None:
    """Do the same for all that a process raises, for `python -m iquitos_rl.train`, whose imports come first."""
    sys.excepthook = _end


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """Inside this context an error in another thread, or while objects are freed, is one sentence too."""
    before = threading.excepthook, sys.unraisablehook

    def of_thread(found: threading.ExceptHookArgs) -> None:
        _tell_of("a thread in the background stopped", found.exc_value)

    def of_object(found: Any) -> None:
        _tell_of("something could not be cleaned up", found.exc_value)

    threading.excepthook, sys.unraisablehook = of_thread, of_object
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before


def _tell_of(what: str, error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        disk = isinstance(error, OSError)  # which needs no report
        _say(f"warning: {what}: {error}" if disk else f"warning: {what}: {sentence(error)}")


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    interrupted = issubclass(kind, KeyboardInterrupt)
    _say("interrupted" if interrupted else sentence(error))
    os._exit(INTERRUPTED if interrupted else STATUS)


def _details(error: BaseException) -> str:
    facts = f"iquitos_rl {__version__}, Python {platform.python_version()}, {platform.platform()}"
    return f"{facts}\n{' '.join(map(ascii, sys.argv))}\n\n{''.join(traceback.format_exception(error))}"


def _say(text: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
