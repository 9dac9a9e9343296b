"""The references that a run's agents are compared with: evaluated here, or taken from the store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from iquitos_rl.baselines.programme import SolverError
from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import hour_bar
from iquitos_rl.judging.references import UNCONTROLLED, Reference, copy_hours, judge, kept, learn, stored
from iquitos_rl.judging.summary import Judged


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


def find_kept(
    case: Path,
    fingerprint: str,
    task: TaskSettings,
    train_years: list[Path],
    cache: Path,
    output: Path,
    skip: bool = False,
    check: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Judged], dict[str, str]]:
    """What every run evaluates next to the uncontrolled site, or why one is missing; their hours go to `output`.

    Args:
        fingerprint: of the case's files.
        train_years: without any, only controllers that need none.
    """
    found: dict[str, Judged] = {}
    left_out: dict[str, str] = {}
    for name in kept():
        needs = CONTROLLERS[name].needs
        if name == UNCONTROLLED or (needs != "nothing" and not train_years):
            continue
        try:
            if needs == "rule":
                print(f"the rule {name}: tuned on training years, which may take minutes the first time", flush=True)
            learned = learn(name, train_years, task, cache, skip, check)
            reference = Reference(name, case, fingerprint, task, learned)
            found[name] = find_reference(reference, cache, skip, True, check)
            copy_hours(reference, cache, output)
        except (UserError, SolverError) as error:
            left_out[name] = str(error)
            print(f"without {name}: {error}", flush=True)
    return found, left_out
