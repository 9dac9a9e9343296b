"""`python -m iquitos_rl.report outputs/RUN`: write a run's report again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import make_app, run_app


def report(run: Annotated[Path, Parameter(help="output folder of a finished run or comparison")], /) -> int:
    """Write the report of a run or a comparison again."""
    from iquitos_rl.report import write_report

    print(write_report(run))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_app(make_app("python -m iquitos_rl.report", report), argv)


if __name__ == "__main__":
    raise SystemExit(main())
