"""What every command shares: one sentence for a mistake, a proper exit status, output that any console can show."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import AuditError
from iquitos_rl.machine.interrupt import Interrupted


def run_command(body: Callable[[], int]) -> int:
    """Run a command's body and turn what it raises into an exit status.

    0 success, 1 an audit failed or a simulator died, 2 the user's input is at fault, 130 or 143 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a cp1252 console must not end a run of hours
    try:
        return body()
    except UserError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return 2
    except WorkerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.status
    except AuditError as error:
        print(f"audit failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def one_line(text: str) -> str:
    """The text with whatever is not printable, such as line ends and control characters in a user's input, escaped."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def make_output(path: Path) -> Path:
    """Create the output folder.

    Raises:
        UserError: it holds something already, or cannot be created.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"--output {path}: it exists and is not empty; results are never overwritten")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be created: {error.strerror}") from None
    return path
