"""Judge a saved policy on CityLearn: `python -m iquitos_rl.evaluate RUN --case iquitos-38`."""

from __future__ import annotations

import argparse
from pathlib import Path

from iquitos_rl.agents import AGENTS
from iquitos_rl.agents.policy_file import load_policy
from iquitos_rl.baselines.programme import SolverError
from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cli import make_output, run_command
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import evaluate_policy, hour_bar
from iquitos_rl.judging.references import UNCONTROLLED, Reference, copy_hours, judge, kept
from iquitos_rl.judging.summary import make_summary
from iquitos_rl.judging.table import comparison_table
from iquitos_rl.machine.device import choose_device
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.threads import choose_threads
from iquitos_rl.runs.years import EVALUATION_YEAR_SEED, preset_year


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m iquitos_rl.evaluate", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, help="output folder of a training run, or its policy folder")
    parser.add_argument("--case", required=True, help="preset or schema folder to be judged on")
    parser.add_argument("--year-seed", type=int, default=EVALUATION_YEAR_SEED, help="year of a preset")
    parser.add_argument("--output", type=Path, required=True, help="new folder for the results")
    return parser.parse_args(argv)


def evaluate(arguments: argparse.Namespace) -> int:
    folder = arguments.run / "policy" if (arguments.run / "policy").is_dir() else arguments.run
    meta, _ = load_policy(folder)
    name = meta["algorithm"]
    if name not in AGENTS:
        raise UserError(f"{folder}: unknown algorithm {name}")
    device = choose_device("cpu")
    choose_threads(1)
    agent = AGENTS[name].agent.load(folder, device=device)
    if agent.spec.environment is None:
        raise UserError(f"{folder}: this policy was not trained on a site")
    task = TaskSettings.model_validate(agent.spec.environment["task"])
    output = make_output(arguments.output)
    cache = output.parent / "cache"
    preset = arguments.case in PRESETS
    case = preset_year(arguments.case, arguments.year_seed, {}, cache) if preset else resolve_case(arguments.case)
    site, objective = read_site(case), Objective(read_tariff(case), task.objective)
    baseline = Reference(UNCONTROLLED, case, site.fingerprint, task)
    with hour_bar("evaluate uncontrolled", site.rows - 1) as advance:
        references = {UNCONTROLLED: judge(baseline, cache, advance)}
    copy_hours(baseline, cache, output)
    left_out = {}
    for other in kept():
        if other == UNCONTROLLED or CONTROLLERS[other].needs != "nothing":
            continue
        reference = baseline._replace(name=other)
        try:
            references[other] = judge(reference, cache)
            copy_hours(reference, cache, output)
        except (UserError, SolverError) as error:
            left_out[other] = str(error)
            print(f"without {other}: {error}", flush=True)
    result = evaluate_policy(name, agent, case, task, output)
    unseen = preset and arguments.year_seed >= EVALUATION_YEAR_SEED
    summary = make_summary(arguments.case, unseen, objective, references, {name: result}, [], device)
    write_json(output / "simulation_summary.json", {**summary, "left_out": left_out})
    print(comparison_table(summary), flush=True)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: evaluate(parse_arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
