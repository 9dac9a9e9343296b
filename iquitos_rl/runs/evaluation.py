"""What a run's agents are compared with, evaluated here or taken from the store; and a saved policy's evaluation."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iquitos_rl.agents.policy_file import load_policy
from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.agents.start import policy_folder
from iquitos_rl.baselines.programme import SolverError
from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.env import require_citylearn, resolve_case
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.envs.task.site_task import read_spec
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import evaluate_policy
from iquitos_rl.judging.references import OPTIMUM, UNCONTROLLED, Reference, copy_hours, judge, kept, learn, stored
from iquitos_rl.judging.summary import Judged, make_summary
from iquitos_rl.judging.table import comparison_table
from iquitos_rl.machine.bars import hour_bar, share_bar, waiting
from iquitos_rl.machine.device import choose_device, choose_threads
from iquitos_rl.machine.files import new_folder, write_json
from iquitos_rl.machine.inputs import first_problem
from iquitos_rl.machine.interrupt import Check, Interrupts
from iquitos_rl.runs.folder import SUMMARY
from iquitos_rl.runs.years import EVALUATION_YEAR_SEED, preset_year


def find_reference(
    reference: Reference, cache: Path, output: Path | None, skip: bool = False, check: Check = lambda: None
) -> Judged:
    """Take a reference from the store, or evaluate it; its hours go to `output`, if that is given.

    Args:
        skip: do not evaluate.

    Raises:
        UserError: it must not be evaluated and is not stored, or the site has something that it cannot handle.
        SolverError: the optimum was not found.
    """
    found = stored(reference, cache)
    if found is None and skip:
        text = f"{cache} holds no baseline for these inputs; run once without --skip-baseline"
        raise UserError(f"--skip-baseline: {text}")
    if found is None and reference.name == OPTIMUM:
        with waiting("the optimum: one linear programme over the whole period"):
            found = judge(reference, cache)
    if found is None:
        with hour_bar(f"evaluate {reference.name}", read_site(reference.case).rows - 1, check) as advance:
            found = judge(reference, cache, advance)
    if output is not None:
        copy_hours(reference, cache, output)
    return found


def find_kept(
    baseline: Reference,
    years: list[Path],
    cache: Path,
    output: Path | None,
    skip: bool = False,
    check: Check = lambda: None,
) -> tuple[dict[str, Judged], dict[str, str]]:
    """What every run evaluates next to the uncontrolled site `baseline`, or why one is missing.

    Args:
        years: to train on; without any, only controllers that need none.
    """
    found: dict[str, Judged] = {}
    left_out: dict[str, str] = {}
    for name in kept():
        needs = CONTROLLERS[name].needs
        if name == UNCONTROLLED or (needs != "nothing" and not years):
            continue
        try:
            with share_bar(f"tune the rule {name}", check) as on_share:
                rule = learn(name, years, baseline.task, cache, skip, on_share)
            found[name] = find_reference(baseline._replace(name=name, rule=rule), cache, output, skip, check)
        except (UserError, SolverError) as error:
            left_out[name] = str(error)
            print(f"without {name}: {error}", flush=True)
    return found, left_out


def store_kept(baseline: Reference, years: list[Path], cache: Path, interrupts: Interrupts) -> bool:
    """What `find_kept` will look for, worked out in another process; it stores as it goes, and says nothing."""
    with contextlib.redirect_stdout(io.StringIO()):
        find_reference(baseline, cache, None, check=interrupts.check)
        find_kept(baseline, years, cache, None, check=interrupts.check)
    return True


def load_site_agent(name: str, folder: Path) -> tuple[Any, TaskSettings]:
    """A saved agent on the CPU, and the task that it was trained on.

    Raises:
        UserError: there is no such agent, the policy cannot be read, or it was not trained on a site.
    """
    if name not in AGENTS:
        raise UserError(f"{folder}: unknown agent {name}")
    agent = AGENTS[name].agent.load(folder, device=choose_device("cpu"))
    described = agent.spec.environment
    if "task" not in described:
        raise UserError(f"{folder}: this policy was not trained on a site")
    try:
        read_spec(described)
        return agent, TaskSettings.model_validate(described["task"])
    except ValidationError as error:
        raise UserError(f"{folder}: the policy's task cannot be read: {first_problem(error)}") from None
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None


def evaluate_run(run: Path, case: str, year_seed: int | None, output: Path) -> str:
    """Evaluate a policy next to the uncontrolled site and the optimum; returns the table, files go to `output`.

    Args:
        run: output folder of a training, or a policy's folder.
        case: a preset's name or a schema folder.
        year_seed: the year of a preset, by default the first that is never trained on.
        output: a new folder; it appears when everything is written, so that a stopped evaluation can be repeated.

    Raises:
        UserError: the policy or the case cannot be used, or the folder holds something.
        AuditError: a simulated year contradicts itself.
    """
    year_seed = EVALUATION_YEAR_SEED if year_seed is None else year_seed
    require_citylearn()
    saved = policy_folder(run)
    choose_threads(1)
    name = load_policy(saved)[0]["algorithm"]
    agent, task = load_site_agent(name, saved)
    with new_folder(output) as folder:
        return _evaluate_in(folder, output.parent / "cache", agent, name, task, case, year_seed)


def _evaluate_in(
    output: Path, cache: Path, agent: Any, name: str, task: TaskSettings, case: str, year_seed: int
) -> str:
    """Evaluate an agent in a folder that appears when all is written; returns the table."""
    preset = case in PRESETS
    year = preset_year(case, year_seed, {}, cache) if preset else resolve_case(case)
    site = read_site(year)
    baseline = Reference(UNCONTROLLED, year, site.fingerprint, task)
    references = {UNCONTROLLED: find_reference(baseline, cache, output)}
    others, left_out = find_kept(baseline, [], cache, output)
    result = evaluate_policy(name, agent, year, task, output)
    trained = agent.spec.buildings
    unseen = trained is not None and not trained.shares_a_building(site)
    unseen = unseen or (preset and year_seed >= EVALUATION_YEAR_SEED)
    objective, results = Objective(read_tariff(year), task.objective), {name: result}
    summary = make_summary(case, unseen, objective, references | others, results, [], choose_device("cpu"))
    write_json(output / SUMMARY, {**summary, "left_out": left_out})
    return comparison_table(summary)
