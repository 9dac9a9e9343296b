"""Draw the years that a comparison is judged on, once, when all settings are fixed.

PYTHONPATH=. python benchmarks/draw_years.py benchmarks/judged_years.json
python -m iquitos_rl.compare --case iquitos-38 --judged benchmarks/judged_years.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from iquitos_rl.cli import run_command
from iquitos_rl.comparison.judged_years import FEWEST, draw


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=FEWEST)
    arguments = parser.parse_args()

    def work() -> int:
        print(*draw(arguments.path, arguments.count).seeds)
        return 0

    return run_command(work)


if __name__ == "__main__":
    raise SystemExit(main())
