"""Write the report of a finished run: `python -m iquitos_rl.report outputs/RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import entry


def report(run: Annotated[Path, Parameter(help="output folder of a finished run or comparison")], /) -> int:
    """Write the report of a run or a comparison again."""
    print(f"reading {run}", flush=True)  # the imports take seconds
    from iquitos_rl.report.page import write_report

    print(write_report(run))
    return 0


main = entry("report", report)

if __name__ == "__main__":
    raise SystemExit(main())
