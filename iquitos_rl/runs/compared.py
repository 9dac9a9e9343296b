"""The references that a run's agents are compared with: evaluated here, or taken from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from iquitos_rl.baselines.programme import SolverError
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import hour_bar
from iquitos_rl.judging.references import OPTIMUM, STRONGEST, Reference, copy_hours, find_rule, judge, stored
from iquitos_rl.judging.summary import Judged
from iquitos_rl.runs.years import Years


def find_reference(reference: Reference, cache: Path, skip: bool, reuse: bool, check: Callable[[], None]) -> Judged:
    """Evaluate a reference, or take it from the store.

    Args:
        skip: take it from the store or not at all.
        reuse: take it from the store if it is there.

    Raises:
        UserError: it must not be evaluated and is not stored, or the site has something that it cannot handle.
        SolverError: the optimum was not found.
    """
    if (skip or reuse) and (found := stored(reference, cache)) is not None:
        return found
    if skip:
        raise UserError(
            f"--skip-baseline: {cache} holds no baseline for these inputs; run once without --skip-baseline"
        )
    with hour_bar(f"evaluate {reference.name}", read_site(reference.case).rows - 1, check) as advance:
        return judge(reference, cache, advance)


def find_strongest(
    years: Years, fingerprint: str, task: TaskSettings, cache: Path, output: Path, skip: bool, check: Callable[[], None]
) -> tuple[dict[str, Judged], dict[str, str]]:
    """The strongest rule, tuned on the training years, and the optimum, or why one is missing; their hours go to
    `output`."""
    found: dict[str, Judged] = {}
    left_out: dict[str, str] = {}
    for name in (STRONGEST, OPTIMUM):
        try:
            rule = None
            if name == STRONGEST:
                print(
                    f"the rule {name}: tuned on the training years, which may take minutes the first time", flush=True
                )
                rule = find_rule(name, years.train, task, cache, skip, check)
            reference = Reference(name, years.evaluate, fingerprint, task, rule)
            found[name] = find_reference(reference, cache, skip, True, check)
            copy_hours(reference, cache, output)
        except (UserError, SolverError) as error:
            left_out[name] = str(error)
            print(f"without {name}: {error}", flush=True)
    return found, left_out
