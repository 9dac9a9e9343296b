"""What every command shares: one sentence for a mistake, a proper exit status, output that any console can show."""

from __future__ import annotations

import sys
from collections.abc import Callable

from iquitos_rl.errors import UserError
from iquitos_rl.runs.simulate import AuditError


def run_command(body: Callable[[], int]) -> int:
    """Run a command's body and turn what it raises into an exit status.

    0 success, 1 an audit failed, 2 the user's input is at fault, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a cp1252 console must not end a run of hours
    try:
        return body()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except AuditError as error:
        print(f"audit failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
