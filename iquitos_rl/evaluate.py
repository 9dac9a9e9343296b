"""`python -m iquitos_rl.evaluate RUN --case iquitos-38 --output DIR`: evaluate a saved policy on CityLearn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import entry, loading
from iquitos_rl.machine.command import command


def evaluate(
    run: Annotated[Path, Parameter(help="output folder of a training run, or its policy folder")],
    /,
    *,
    case: Annotated[str, Parameter(help="preset or schema folder to evaluate on")],
    output: Annotated[Path, Parameter(help="new folder for the results")],
    year_seed: Annotated[
        int | None, Parameter(help="year of a preset (default: 1000, the first that is never trained on)")
    ] = None,
) -> int:
    """Evaluate a saved policy on CityLearn, next to the uncontrolled site and the optimum."""
    from iquitos_rl.runs.request import refuse_mistyped

    refuse_mistyped(case)
    loading()
    from iquitos_rl.runs.evaluation import evaluate_run

    print(evaluate_run(run, case, year_seed, output), flush=True)
    print(f"results in {output}; a page of them: {command('report', str(output))}", flush=True)
    return 0


main = entry("evaluate", evaluate)

if __name__ == "__main__":
    raise SystemExit(main())
