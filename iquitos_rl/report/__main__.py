"""Write the report of a finished run: `python -m iquitos_rl.report outputs/RUN`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import entry


def report(
    run: Annotated[Path, Parameter(help="output folder of a finished run or comparison")],
    /,
    *,
    battery_cost: Annotated[
        float | None, Parameter(help="what the battery cost, to say when it is paid back (default: what it may cost)")
    ] = None,
) -> int:
    """Write the report of a run or a comparison again."""
    print(f"reading {run}", flush=True)  # the imports take seconds
    from iquitos_rl.errors import UserError
    from iquitos_rl.report.page import write_report

    if battery_cost is not None and not 0 < battery_cost < 1e12:
        raise UserError(f"--battery-cost must be above 0, not {battery_cost:g}")
    print(write_report(run, battery_cost))
    return 0


main = entry("report", report)

if __name__ == "__main__":
    raise SystemExit(main())
