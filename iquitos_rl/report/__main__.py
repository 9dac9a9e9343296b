"""Write the report of a finished run: `python -m iquitos_rl.report outputs/RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path

from iquitos_rl.cli import run_command
from iquitos_rl.report import write_report


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m iquitos_rl.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="output folder of a finished run")
    arguments = parser.parse_args(argv)

    def report() -> int:
        print(write_report(arguments.run))
        return 0

    return run_command(report)


if __name__ == "__main__":
    raise SystemExit(main())
