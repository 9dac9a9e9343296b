"""Does SAC learn as well from compressed replay storage as from float32?

    PYTHONPATH=. python benchmarks/storage.py --output benchmarks/results

Pendulum-v1 at the settings of its row in `learning_rows.py`, and iquitos-38 at the shipped settings, only shorter; the
same seeds for both storages. A policy on Pendulum is judged by its return, one on the site by its bill on years that
neither train nor judge anything else, on the district engine. A finished run is a file in OUTPUT/storage, and is not
repeated while its settings stay the same; OUTPUT/storage.md is written at the end.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from learning import evaluate
from learning import train as train_row
from learning_rows import ROWS
from learning_table import RESAMPLES, interval, verdict

from iquitos_rl.agents.sac import SAC
from iquitos_rl.baselines.bill import BatchController, run_year
from iquitos_rl.baselines.guided import Guide
from iquitos_rl.baselines.rule import Rule
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cli import run_command
from iquitos_rl.config import load_settings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.runs.engine import choose_guidance, make_engine
from iquitos_rl.runs.years import prepare_years, preset_year

CPU = torch.device("cpu")
PRESET = "iquitos-38"
SITE_STEPS = 150_000
VALIDATION_YEARS = (500, 501, 502)
"""Year seeds that no run trains on and no summary judges on."""
SEEDS = 5
PENDULUM = next(row for row in ROWS if row.name == "sac-Pendulum-v1")


class Score(NamedTuple):
    """How good a policy is; more is better."""

    value: float
    cpu_seconds: float
    """Of training and judging."""


class Task(NamedTuple):
    """What is trained on."""

    name: str
    unit: str
    compressed: str
    """The storage to compare with float32; for sites the one that `auto` takes."""
    settings: dict[str, Any]
    """What decides a run's outcome, beside storage and seed."""
    run: Callable[[str, int], Score]


def pendulum() -> Task:
    def run(storage: str, seed: int) -> Score:
        started = time.process_time()
        policy, _ = train_row(PENDULUM._replace(ours={**PENDULUM.ours, "storage": storage}), seed)
        return Score(fmean(evaluate(policy, PENDULUM.env)), time.process_time() - started)

    return Task(PENDULUM.env, "return", "float16", {"steps": PENDULUM.steps, **PENDULUM.ours}, run)


def site(folder: Path) -> Task:
    """The shipped settings; the rule that they steer around is tuned once and kept in `folder`."""
    settings = load_settings(["sac"], None, {"case": PRESET}).agents["sac"]
    years = [read_site(year) for year in prepare_years(settings.run, folder).train]
    validation = [read_site(preset_year(PRESET, seed, {}, folder)) for seed in VALIDATION_YEARS]
    rule, _ = choose_guidance(settings.run, years, folder)
    assert rule is not None, "the shipped settings steer around a rule"
    judged = DistrictSite(validation, len(validation), settings.run.task)
    engine = cache(lambda: make_engine(settings.run, years, CPU, rule))  # once: a run starts it anew from its own seed

    def run(storage: str, seed: int) -> Score:
        env = engine().env
        started = time.process_time()
        agent = SAC(env, settings.agent.model_copy(update={"storage": storage}), seed=seed).learn(SITE_STEPS)
        return Score(-bill(judged, guided(agent, judged)), time.process_time() - started)

    alone = -bill(judged, Rule(judged.task, rule))
    shown = {**settings.dump(), "steps": SITE_STEPS, "validation_years": VALIDATION_YEARS, "rule": alone}
    return Task(PRESET, "minus the yearly bill", "uint8", json.loads(json.dumps(shown)), run)


def guided(agent: SAC, env: DistrictSite) -> BatchController:
    """The agent around its rule, for several environments at once."""
    assert agent.spec.environment is not None
    guide = Guide.from_json(env.task, agent.spec.environment["guide"])

    def act(obs: torch.Tensor) -> torch.Tensor:
        seen = guide.see(obs)
        action = agent.predict(seen)
        assert isinstance(action, torch.Tensor)
        return guide.act(seen, action)

    return act


def bill(env: DistrictSite, act: BatchController) -> float:
    """Mean yearly bill over the environments' years, one each."""
    return float(run_year(env, act, range(env.num_envs)).total.mean())


def measured(path: Path, task: Task, storage: str, seed: int) -> dict[str, Any]:
    """The run in a file where it was made with the present settings, else a new one, which is stored there."""
    settings = {**task.settings, "storage": storage}
    if path.exists():
        run: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if run["settings"] == settings:
            return run
    score = task.run(storage, seed)
    run = {
        "task": task.name,
        "storage": storage,
        "seed": seed,
        "settings": settings,
        "score": score.value,
        "cpu_seconds": round(score.cpu_seconds, 1),
        "machine": machine(CPU, torch.get_num_threads()),
        "versions": versions(),
    }
    write_json(path, run)
    print(f"{path.stem}: {score.value:,.1f}, {score.cpu_seconds:.0f} CPU s", flush=True)
    return run


def page(tasks: Sequence[Task], runs: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    last = [run for group in runs.values() for run in group][-1]
    lines = [
        "| task | steps | judged by | float32 | compressed | storage | compressed is | CPU s a run |",
        "|---|---:|---|---:|---:|---|---|---:|",
    ]
    seeds = []
    for task in tasks:
        both = [[run["score"] for run in runs[task.name, name]] for name in ("float32", task.compressed)]
        seconds = fmean(run["cpu_seconds"] for name in ("float32", task.compressed) for run in runs[task.name, name])
        found = [interval(scores) for scores in both]
        shown = [f"{each.mean:,.1f} [{each.low:,.1f}, {each.high:,.1f}]" for each in found]
        outcome = verdict(found[1], found[0])
        lines.append(
            f"| {task.name} | {task.settings['steps']:,} | {task.unit} | {' | '.join(shown)} | {task.compressed} "
            f"| {outcome} | {seconds:.0f} |"
        )
        for name, scores in zip(("float32", task.compressed), both):
            seeds.append(f"* {task.name}, {name}: {', '.join(f'{score:,.1f}' for score in scores)}")
        if "rule" in task.settings:
            seeds.append(f"* {task.name}, the rule alone: {task.settings['rule']:,.1f}")
    table, each = "\n".join(lines), "\n".join(seeds)
    return f"""# Returns by storage of the replay buffer

{table}

SAC. Interquartile mean over training seeds and its 95 % bootstrap interval ({RESAMPLES:,} draws of the seeds); "level":
the two overlap. `{PRESET}`: mean over the year seeds {", ".join(map(str, VALIDATION_YEARS))}, on the district engine.

By seed:

{each}

Command: `python benchmarks/storage.py --output DIR`

Machine: {", ".join(f"{key} {value}" for key, value in last["machine"].items())}

Versions: {", ".join(f"{key} {value}" for key, value in last["versions"].items())}
"""


def benchmark(arguments: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    folder = arguments.output / "storage"
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [pendulum(), site(arguments.cache)]
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for task in tasks:
        for storage in ("float32", task.compressed):
            paths = [folder / f"{task.name}-{storage}-{seed}.json" for seed in range(arguments.seeds)]
            runs[task.name, storage] = [measured(path, task, storage, seed) for seed, path in enumerate(paths)]
    write_text(arguments.output / "storage.md", page(tasks, runs))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("outputs"), help="for case files and the tuned rule")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many, counted from 0")
    arguments = parser.parse_args(argv)
    if arguments.seeds < 2:
        parser.error("--seeds must be at least 2")
    return run_command(lambda: benchmark(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
