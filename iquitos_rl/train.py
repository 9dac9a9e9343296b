"""Train controllers and judge them on CityLearn: `python -m iquitos_rl.train sac`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml

from iquitos_rl.agents import AGENTS
from iquitos_rl.agents.progress import Progress
from iquitos_rl.cases.check import check_case
from iquitos_rl.cli import choose_device, make_output, run_command
from iquitos_rl.config import ALGORITHMS, Algorithm, Settings, load_settings
from iquitos_rl.errors import UserError
from iquitos_rl.runs.baseline import baseline_env, run_baseline, stored_baseline
from iquitos_rl.runs.engine import make_engine
from iquitos_rl.runs.evaluation import evaluate_policy, hour_bar, progress_bar
from iquitos_rl.runs.files import write_json, write_text
from iquitos_rl.runs.metrics import MetricsWriter
from iquitos_rl.runs.summary import Result, machine, make_summary
from iquitos_rl.runs.table import comparison_table
from iquitos_rl.runs.threads import choose_threads
from iquitos_rl.runs.years import prepare_years


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m iquitos_rl.train", description=__doc__, allow_abbrev=False)
    parser.add_argument("algorithm", choices=[*ALGORITHMS, "all"])
    parser.add_argument("--case", help="preset (iquitos-38, iquitos-128), schema folder, or CityLearn dataset name")
    parser.add_argument("--eval-case", help="schema folder to evaluate on; default: a preset's unseen year")
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. agent.gamma=0.98")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--episodes", type=int, help="site-years to train on in all")
    budget.add_argument("--steps", type=int, help="site-hours to train on in all")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--engine", choices=["auto", "district", "citylearn"])
    parser.add_argument("--num-envs", type=int, help="environments stepped together")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--output", type=Path, help="default: outputs/<case>-<algorithm>-<time>")
    parser.add_argument("--skip-baseline", action="store_true", help="reuse the stored baseline of the same inputs")
    return parser.parse_args(argv)


def load_all(arguments: argparse.Namespace) -> dict[Algorithm, Settings]:
    """Settings of each algorithm that is to be trained; only budget and the algorithms' own settings may differ."""
    names = ("case", "eval_case", "episodes", "steps", "device", "engine", "num_envs", "seed")
    flags = {name: getattr(arguments, name) for name in names}
    chosen = ALGORITHMS if arguments.algorithm == "all" else (arguments.algorithm,)
    return {name: load_settings(name, AGENTS[name].config, arguments.config, flags, arguments.set) for name in chosen}


def train_agent(
    name: Algorithm, settings: Settings, train_years: list[Path], device: torch.device, output: Path
) -> tuple[Any, dict[str, float]]:
    """Train one agent, with a progress bar and metrics; returns it and how long it took."""
    engine = make_engine(settings.run, train_years, device)
    years, hours = settings.run.episodes, engine.steps_per_year
    steps = settings.run.steps if settings.run.steps is not None else (years or 1) * hours
    print(f"training on the {engine.name} engine ({engine.reason}), {steps / hours:.1f} site-years", flush=True)
    agent = AGENTS[name].agent(engine.env, settings.agent, device=device, seed=settings.run.seed)
    writer = MetricsWriter(output)
    process = psutil.Process()
    bar = progress_bar(steps, f"train {name}", "step")

    def report(progress: Progress) -> None:
        bar.update(progress.steps - bar.n)
        memory = {"ram_mib": process.memory_info().rss / 2**20}
        if device.type == "cuda":
            memory["gpu_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        shown = {key: f"{value:.0f}" for key, value in memory.items()}
        if "episode_return" in progress.metrics:
            shown["return"] = f"{progress.metrics['episode_return']:.1f}"
        bar.set_postfix(shown, refresh=False)
        writer.write(progress.steps, {**progress.metrics, **memory, "updates": float(progress.updates)})

    start = time.perf_counter()
    try:
        agent.learn(steps, on_log=report)
    finally:
        bar.close()
        writer.close()
    seconds = time.perf_counter() - start
    agent.save(output / "policy")
    engine.env.close()
    return agent, {"train_s": round(seconds, 1), "steps": steps, "steps_per_s": round(steps / seconds, 1)}


def train_and_judge(
    name: Algorithm, settings: Settings, train_years: list[Path], case: Path, device: torch.device, output: Path
) -> Result:
    """One agent from its first step to its judged year."""
    agent, timing = train_agent(name, settings, train_years, device, output)
    return evaluate_policy(name, agent, case, settings.run.task, output)._replace(timing=timing)


def attempt(
    name: Algorithm, settings: Settings, train_years: list[Path], case: Path, device: torch.device, output: Path
) -> Result:
    """`train_and_judge` for one of several agents: what stops it is written down, and the others go on."""
    output.mkdir()
    try:
        return train_and_judge(name, settings, train_years, case, device, output)
    except Exception as error:
        write_text(output / "error.txt", traceback.format_exc())
        message = f"{type(error).__name__}: {error}"
        print(f"{name} failed: {message}; see {output / 'error.txt'}", file=sys.stderr, flush=True)
        return Result.failure(message)


def train(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    all_settings = load_all(arguments)
    run = next(iter(all_settings.values())).run
    device = choose_device(run.device)
    stamp = datetime.now(timezone.utc)
    label = f"{Path(run.case).name}-{arguments.algorithm}-{stamp:%Y%m%d-%H%M%S}"
    output = make_output(arguments.output or Path("outputs") / label)
    cache = output.parent / "cache"
    facts = machine(device, choose_threads(run.threads))
    for name, settings in all_settings.items():
        path = output / ("settings.yaml" if len(all_settings) == 1 else f"settings_{name}.yaml")
        write_text(path, yaml.safe_dump(settings.dump(), sort_keys=False, allow_unicode=True))
        print(f"# {path}\n{path.read_text(encoding='utf-8')}", flush=True)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)

    years = prepare_years(run, cache)
    report = check_case(years.evaluate)
    if report.errors:
        raise UserError(f"{years.evaluate}: {report.errors[0]}")
    for warning in report.warnings:
        print(f"warning: {warning}", flush=True)
    env = baseline_env(years.evaluate, run.task)
    if arguments.skip_baseline:
        baseline = stored_baseline(env, cache, output)
    else:
        with hour_bar("evaluate uncontrolled", env.task.rows - 1) as advance:
            baseline = run_baseline(env, cache, output, on_hour=advance)

    if len(all_settings) == 1:
        name, settings = next(iter(all_settings.items()))
        result = train_and_judge(name, settings, years.train, years.evaluate, device, output)
        results: dict[str, Result] = {name: result}
    else:
        results = {
            name: attempt(name, settings, years.train, years.evaluate, device, output / name)
            for name, settings in all_settings.items()
        }
    summary = {
        **make_summary(years.name, years.unseen, env.task.objective, baseline, results, list(report.warnings), device),
        "created": stamp.isoformat(timespec="seconds"),
        "wall_s": round(time.perf_counter() - started, 1),
        "machine": facts,
        "settings": {name: settings.dump() for name, settings in all_settings.items()},
    }
    write_json(output / "simulation_summary.json", summary)
    print(comparison_table(summary), flush=True)
    print(f"results in {output}", flush=True)
    return 1 if any(result.failed for result in results.values()) else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: train(parse_arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
