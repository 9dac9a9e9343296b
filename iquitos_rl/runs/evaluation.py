"""Evaluating a saved policy on a case of the user's choice."""

from __future__ import annotations

from pathlib import Path

from iquitos_rl.agents.policy_file import load_policy
from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import evaluate_policy, hour_bar
from iquitos_rl.judging.references import UNCONTROLLED, Reference, copy_hours, judge
from iquitos_rl.judging.summary import make_summary
from iquitos_rl.judging.table import comparison_table
from iquitos_rl.machine.device import choose_device
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.threads import choose_threads
from iquitos_rl.runs.compared import find_kept
from iquitos_rl.runs.folder import SUMMARY, make_output
from iquitos_rl.runs.years import EVALUATION_YEAR_SEED, preset_year


def evaluate_run(run: Path, case: str, year_seed: int | None, output: Path) -> str:
    """Evaluate a policy next to the uncontrolled site and the optimum; returns the table, files go to `output`.

    Args:
        run: output folder of a training, or a policy's folder.
        case: a preset's name or a schema folder.
        year_seed: the year of a preset, by default the first that is never trained on.
        output: a new folder.

    Raises:
        UserError: the policy or the case cannot be used, or the folder holds something.
        AuditError: a simulated year contradicts itself.
    """
    year_seed = EVALUATION_YEAR_SEED if year_seed is None else year_seed
    folder = run / "policy" if (run / "policy").is_dir() else run
    meta, _ = load_policy(folder)
    name = meta["algorithm"]
    if name not in AGENTS:
        raise UserError(f"{folder}: unknown agent {name}")
    device = choose_device("cpu")
    choose_threads(1)
    agent = AGENTS[name].agent.load(folder, device=device)
    if agent.spec.environment is None:
        raise UserError(f"{folder}: this policy was not trained on a site")
    task = TaskSettings.model_validate(agent.spec.environment["task"])
    cache = make_output(output).parent / "cache"
    preset = case in PRESETS
    year = preset_year(case, year_seed, {}, cache) if preset else resolve_case(case)
    site, objective = read_site(year), Objective(read_tariff(year), task.objective)
    baseline = Reference(UNCONTROLLED, year, site.fingerprint, task)
    with hour_bar("evaluate uncontrolled", site.rows - 1) as advance:
        references = {UNCONTROLLED: judge(baseline, cache, advance)}
    copy_hours(baseline, cache, output)
    others, left_out = find_kept(year, site.fingerprint, task, [], cache, output)
    references |= others
    result = evaluate_policy(name, agent, year, task, output)
    unseen = preset and year_seed >= EVALUATION_YEAR_SEED
    summary = make_summary(case, unseen, objective, references, {name: result}, [], device)
    write_json(output / SUMMARY, {**summary, "left_out": left_out})
    return comparison_table(summary)
