"""Train a controller and judge it on CityLearn: `python -m iquitos_rl.train sac`."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from tqdm import tqdm

from iquitos_rl.agents import AGENTS
from iquitos_rl.agents.progress import Progress
from iquitos_rl.cli import run_command
from iquitos_rl.config import ALGORITHMS, Algorithm, Settings, load_settings
from iquitos_rl.envs.citylearn import CityLearnSite
from iquitos_rl.errors import UserError
from iquitos_rl.runs.baseline import Baseline, baseline_env, run_baseline, stored_baseline
from iquitos_rl.runs.files import write_json, write_text
from iquitos_rl.runs.metrics import MetricsWriter
from iquitos_rl.runs.simulate import simulate_year
from iquitos_rl.runs.summary import (
    SCHEMA_VERSION,
    audit_demand,
    figures,
    machine,
    peak_memory,
    reductions,
    versions,
)
from iquitos_rl.runs.table import comparison_table
from iquitos_rl.runs.threads import choose_threads
from iquitos_rl.runs.timeseries import timeseries, trace, write_csv
from iquitos_rl.runs.years import Years, prepare_years


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m iquitos_rl.train", description=__doc__, allow_abbrev=False)
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("--case", help="preset (iquitos-38, iquitos-128), schema folder, or CityLearn dataset name")
    parser.add_argument("--eval-case", help="schema folder to evaluate on; default: a preset's unseen year")
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. agent.gamma=0.98")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--episodes", type=int, help="years to train on in all")
    budget.add_argument("--steps", type=int, help="hours to train on in all")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--engine", choices=["citylearn"])
    parser.add_argument("--seed", type=int)
    parser.add_argument("--output", type=Path, help="default: outputs/<case>-<algorithm>-<time>")
    parser.add_argument("--skip-baseline", action="store_true", help="reuse the stored baseline of the same inputs")
    return parser.parse_args(argv)


def choose_device(setting: str) -> torch.device:
    """The device a setting means on this machine.

    Raises:
        UserError: cuda was asked for and there is none.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")


def make_output(path: Path) -> Path:
    """Create the output folder.

    Raises:
        UserError: it holds something already, or cannot be created.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--output {path}: it exists and is not empty; results are never overwritten")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be created: {error.strerror}") from None
    return path


def total_steps(settings: Settings, steps_per_year: int) -> int:
    """The budget in transitions."""
    if settings.run.steps is not None:
        return settings.run.steps
    return (settings.run.episodes or 1) * steps_per_year


def train_agent(
    algorithm: Algorithm, settings: Settings, env: CityLearnSite, device: torch.device, output: Path
) -> tuple[Any, dict[str, float]]:
    """Train, showing a progress bar and writing metrics; returns the agent and how long it took."""
    steps = total_steps(settings, env.task.rows - 1)
    agent = AGENTS[algorithm].agent(env, settings.agent, device=device, seed=settings.run.seed)
    writer = MetricsWriter(output)
    process = psutil.Process()
    bar = tqdm(total=steps, unit="step", desc=f"train {algorithm}", file=sys.stdout, ascii=True, mininterval=1.0)

    def report(progress: Progress) -> None:
        bar.update(progress.steps - bar.n)
        memory = {"ram_mib": process.memory_info().rss / 2**20}
        if device.type == "cuda":
            memory["gpu_mib"] = torch.cuda.max_memory_allocated(device) / 2**20
        shown = {name: f"{value:.0f}MiB" for name, value in memory.items()}
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
    return agent, {"train_s": round(seconds, 1), "train_steps": steps, "steps_per_s": round(steps / seconds, 1)}


def evaluate_agent(
    name: str, agent: Any, case: Path, settings: Settings, spec: dict[str, Any], output: Path
) -> tuple[dict[str, float], float]:
    """Let the trained policy run the evaluation year on CityLearn; writes its hours, returns its figures."""
    env = CityLearnSite([case], settings.run.task, spec=spec)
    with hour_bar(f"evaluate {name}", env) as bar:
        year = simulate_year(env, agent.predict, on_hour=lambda hour: _advance(bar))
    write_csv(output / f"timeseries_{name}.csv", timeseries(year))
    write_csv(output / f"trace_{name}.csv", trace(year, env))
    return figures(year), audit_demand(year, env.task.objective)


def hour_bar(text: str, env: CityLearnSite) -> tqdm[Any]:
    return tqdm(total=env.task.rows - 1, unit="h", desc=text, file=sys.stdout, ascii=True, mininterval=1.0)


def _advance(bar: tqdm[Any]) -> None:
    bar.update(1)


def evaluate_baseline(years: Years, settings: Settings, cache: Path, output: Path, skip: bool) -> Baseline:
    env = baseline_env(years.evaluate, settings.run.task)
    if skip:
        return stored_baseline(env, cache, output)
    with hour_bar("evaluate uncontrolled", env) as bar:
        return run_baseline(env, cache, output, on_hour=lambda hour: _advance(bar))


def case_warnings(case: Path) -> list[str]:
    """Plausibility warnings that belong beside every figure of this case."""
    from iquitos_rl.cases.check import check_case

    return list(check_case(case).warnings)


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda: train(parse_arguments(argv)))


def train(arguments: argparse.Namespace) -> int:
    started = time.perf_counter()
    algorithm: Algorithm = arguments.algorithm
    flags = {
        key: getattr(arguments, key) for key in ("case", "eval_case", "episodes", "steps", "device", "engine", "seed")
    }
    settings = load_settings(algorithm, AGENTS[algorithm].config, arguments.config, flags, arguments.set)
    device = choose_device(settings.run.device)
    threads = choose_threads(settings.run.threads)
    stamp = datetime.now(timezone.utc)
    label = Path(settings.run.case).name
    output = make_output(arguments.output or Path("outputs") / f"{label}-{algorithm}-{stamp:%Y%m%d-%H%M%S}")
    cache = output.parent / "cache"

    text = yaml.safe_dump(settings.dump(), sort_keys=False, allow_unicode=True)
    write_text(output / "settings.yaml", text)
    facts = machine(device, threads)
    print(f"settings ({output / 'settings.yaml'}):\n{text}", flush=True)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)

    years = prepare_years(settings.run, cache)
    warnings = case_warnings(years.evaluate)
    for warning in warnings:
        print(f"warning: {warning}", flush=True)
    baseline = evaluate_baseline(years, settings, cache, output, arguments.skip_baseline)
    env = CityLearnSite(years.train, settings.run.task)
    agent, timing = train_agent(algorithm, settings, env, device, output)
    agent.save(output / "policy")
    agent_figures, demand_audit = evaluate_agent(algorithm, agent, years.evaluate, settings, env.policy_spec, output)

    summary = {
        "schema_version": SCHEMA_VERSION,
        "created": stamp.isoformat(timespec="seconds"),
        "case": years.name,
        "evaluated_on": "an unseen year" if years.unseen else "the year trained on",
        "simulator": "citylearn",
        "currency": env.task.objective.tariff.currency,
        "seed": settings.run.seed,
        "controllers": {
            "grid_only": baseline.grid_only,
            "uncontrolled": baseline.uncontrolled,
            algorithm: agent_figures,
        },
        "reductions_percent": {
            algorithm: {
                "vs_grid_only": reductions(agent_figures, baseline.grid_only),
                "vs_uncontrolled": reductions(agent_figures, baseline.uncontrolled),
            }
        },
        "audit": {
            "largest_balance_residual_kwh": max(
                baseline.uncontrolled["balance_residual_kwh"], agent_figures["balance_residual_kwh"]
            ),
            "demand_charge_booked_minus_defined": max(baseline.demand_audit, demand_audit),
            "warnings": warnings,
        },
        "timing": {**timing, "wall_s": round(time.perf_counter() - started, 1)},
        "memory": peak_memory(device),
        "machine": facts,
        "versions": versions(),
        "settings": settings.dump(),
    }
    write_json(output / "simulation_summary.json", summary)
    print(comparison_table(summary), flush=True)
    print(f"results in {output}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
