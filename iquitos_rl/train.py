"""Train controllers and judge them on CityLearn: `python -m iquitos_rl.train sac`."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import subprocess
import sys
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.check import check_case
from iquitos_rl.cli import choose_device, make_output, run_command
from iquitos_rl.config import ALGORITHMS, Algorithm, Settings, load_settings
from iquitos_rl.envs.citylearn import CityLearnSite
from iquitos_rl.errors import UserError
from iquitos_rl.report import write_report
from iquitos_rl.runs.baseline import baseline_env, run_baseline, stored_baseline
from iquitos_rl.runs.evaluation import evaluate_policy, hour_bar
from iquitos_rl.runs.files import write_json, write_text
from iquitos_rl.runs.interrupt import Interrupted, Interrupts
from iquitos_rl.runs.resume import (
    LOCK,
    SUMMARY,
    Run,
    differences,
    has_failures,
    latest_run,
    lock_output,
    read_run,
    refuse_changes,
    set_aside,
)
from iquitos_rl.runs.summary import Baseline, Result, machine, make_summary
from iquitos_rl.runs.table import comparison_table
from iquitos_rl.runs.threads import choose_threads
from iquitos_rl.runs.training import Session, Training, store_result, stored_result
from iquitos_rl.runs.years import prepare_years

OUTPUTS = Path("outputs")
LATEST = Path("")
"""`--resume` without a folder."""


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
    parser.add_argument("--amp", choices=["off", "bf16"], help="precision of the networks' products")
    parser.add_argument("--compile", choices=["off", "default", "graphs"], help="torch.compile, or CUDA graphs")
    parser.add_argument("--output", type=Path, help=f"default: {OUTPUTS}/<case>-<algorithm>-<time>")
    parser.add_argument(
        "--resume",
        type=Path,
        nargs="?",
        const=LATEST,
        metavar="DIR",
        help=f"go on with the run in DIR; without DIR: in --output, else the latest of this case in {OUTPUTS}",
    )
    parser.add_argument("--allow-changes", action="store_true", help="resume although settings or data have changed")
    parser.add_argument("--skip-baseline", action="store_true", help="reuse the stored baseline of the same inputs")
    return parser.parse_args(argv)


def load_all(arguments: argparse.Namespace, run: Run | None = None) -> dict[Algorithm, Settings]:
    """Settings of each algorithm that is to be trained; only budget and the algorithms' own settings may differ.

    Those of a run that is gone on with are the base: only what shall change needs to be said again.
    """
    names = ("case", "eval_case", "episodes", "steps", "device", "engine", "num_envs", "seed")
    flags = {name: getattr(arguments, name) for name in names}
    chosen = ALGORITHMS if arguments.algorithm == "all" else (arguments.algorithm,)
    base = run.settings if run is not None else {}
    given = {name: getattr(arguments, name) for name in ("amp", "compile")}
    sets = [*arguments.set, *(f"agent.{name}={value}" for name, value in given.items() if value is not None)]
    return {
        name: load_settings(
            name, AGENTS[name].config, arguments.config, flags, sets, base.get(name), together=len(chosen) > 1
        )
        for name in chosen
    }


def find_run(arguments: argparse.Namespace) -> Run | None:
    """The run that `--resume` means; None where training is to start.

    Raises:
        UserError: there is no such run, or it is of another algorithm.
    """
    if arguments.resume is None:
        return None
    if arguments.resume == LATEST and arguments.output is None:
        case = next(iter(load_all(arguments).values())).run.case
        return latest_run(OUTPUTS, arguments.algorithm, case)
    if arguments.resume != LATEST and arguments.output not in (None, arguments.resume):
        raise UserError(f"--resume {arguments.resume}: goes on in its own folder; leave out --output")
    folder = arguments.output if arguments.resume == LATEST else arguments.resume
    run = read_run(folder)
    if run is None and (arguments.resume != LATEST or not is_unused(folder)):
        raise UserError(f"--resume: {folder} holds no run")
    if run is None:
        print(f"{folder} holds no run yet: it starts", flush=True)
    elif run.algorithm != arguments.algorithm:
        raise UserError(f"--resume: {folder} is a run of {run.algorithm}, not of {arguments.algorithm}")
    return run


def is_unused(folder: Path) -> bool:
    """Whether a folder is missing, or holds only what a run cut off in its first second leaves."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.name == LOCK or path.name.endswith(".tmp") or path.name.startswith("settings") for path in folder.iterdir()
    )


def train_and_judge(
    name: Algorithm,
    settings: Settings,
    train_years: list[Path],
    case: Path,
    device: torch.device,
    output: Path,
    session: Session,
) -> Result:
    """One agent from where it stands to its judged year."""
    training = Training(name, settings, train_years, device, output, session)
    if session.resume and (result := stored_result(output, training)) is not None:
        return result
    timing = training.run()
    agent: Any = training.agent

    def check() -> None:
        session.interrupts.check(f"trained, not judged yet; to go on: {session.hint}")

    check()
    result = evaluate_policy(name, agent, case, settings.run.task, output, check)._replace(timing=timing)
    store_result(output, training, result)
    return result


def attempt(
    name: Algorithm,
    settings: Settings,
    train_years: list[Path],
    case: Path,
    device: torch.device,
    output: Path,
    session: Session,
) -> Result:
    """`train_and_judge` for one of several agents: what stops it is written down, and the others go on."""
    output.mkdir(exist_ok=True)
    try:
        return train_and_judge(name, settings, train_years, case, device, output, session)
    except Interrupted:
        raise
    except Exception as error:
        write_text(output / "error.txt", traceback.format_exc())
        message = f"{type(error).__name__}: {error}"
        print(f"{name} failed: {message}; see {output / 'error.txt'}", file=sys.stderr, flush=True)
        return Result.failure(message)


def open_output(arguments: argparse.Namespace, case: str, stamp: datetime) -> Path:
    """The folder of a run that starts."""
    label = f"{Path(case).name}-{arguments.algorithm}-{stamp:%Y%m%d-%H%M%S}"
    folder = arguments.output or OUTPUTS / label
    if arguments.resume is not None and folder.is_dir() and is_unused(folder):
        return Path(folder)
    return make_output(folder)


def describe(
    arguments: argparse.Namespace, folder: Path, found: Run | None, settings: dict[Algorithm, Settings]
) -> Run:
    """Write down what is trained here and with which settings, unless that is written already."""
    dumps = {str(name): setting.dump() for name, setting in settings.items()}
    threads = next(iter(settings.values())).run.threads
    if found is None:
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run = Run(folder, arguments.algorithm, created, choose_threads(threads), dumps)
    else:
        changes = [text for name in dumps for text in differences(found.settings.get(name, {}), dumps[name])]
        refuse_changes(folder, changes, arguments.allow_changes)
        run = found._replace(threads=choose_threads(found.threads if threads == "auto" else threads), settings=dumps)
        same_budget = all(
            found.settings[name].get(key) == dump[key] for name, dump in dumps.items() for key in ("steps", "episodes")
        )
        if changes or not same_budget or has_failures(folder):
            set_aside(folder, list(dumps))
    if run != found:
        for name, dump in dumps.items():
            path = folder / ("settings.yaml" if len(dumps) == 1 else f"settings_{name}.yaml")
            write_text(path, yaml.safe_dump(dump, sort_keys=False, allow_unicode=True))
            print(f"# {path}\n{path.read_text(encoding='utf-8')}", flush=True)
        run.write()
    return run


def find_baseline(env: CityLearnSite, cache: Path, output: Path, stored: bool, session: Session) -> Baseline:
    """The uncontrolled year; a run that goes on takes the one that it has simulated before."""
    if stored:
        return stored_baseline(env, cache, output)
    if session.resume:
        with contextlib.suppress(UserError):
            return stored_baseline(env, cache, output)
    with hour_bar("evaluate uncontrolled", env.task.rows - 1, session.interrupts.check) as advance:
        return run_baseline(env, cache, output, on_hour=advance)


def train(arguments: argparse.Namespace) -> int:
    with Interrupts("finishing the step and saving") as interrupts:
        found = find_run(arguments)
        settings = load_all(arguments, found)
        first = next(iter(settings.values())).run
        device = choose_device(first.device)
        folder = found.folder if found else open_output(arguments, first.case, datetime.now(timezone.utc))
        with lock_output(folder):
            run = describe(arguments, folder, found, settings)
            if (folder / SUMMARY).is_file():
                print(f"{folder}: this run is complete; train it further with a larger --steps or --episodes")
                return 0
            return train_in(run, settings, device, arguments, interrupts)


def train_in(
    run: Run,
    all_settings: dict[Algorithm, Settings],
    device: torch.device,
    arguments: argparse.Namespace,
    interrupts: Interrupts,
) -> int:
    """Train and judge every agent in the run's folder, and write the summary."""
    started, output = time.perf_counter(), run.folder
    cache = output.parent / "cache"
    settings = next(iter(all_settings.values())).run
    facts = machine(device, run.threads)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)

    years = prepare_years(settings, cache)
    report = check_case(years.evaluate)
    if report.errors:
        raise UserError(f"{years.evaluate}: {report.errors[0]}")
    for warning in report.warnings:
        print(f"warning: {warning}", flush=True)
    interrupts.check()
    env = baseline_env(years.evaluate, settings.task)
    words = ["python", "-m", "iquitos_rl.train", run.algorithm, "--resume", str(output)]
    hint = subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
    session = Session(
        interrupts, arguments.resume is not None, arguments.allow_changes, hint, env.task.sites[0].fingerprint
    )
    baseline = find_baseline(env, cache, output, arguments.skip_baseline, session)

    if len(all_settings) == 1:
        name, own = next(iter(all_settings.items()))
        result = train_and_judge(name, own, years.train, years.evaluate, device, output, session)
        results: dict[str, Result] = {name: result}
    else:
        results = {
            name: attempt(name, own, years.train, years.evaluate, device, output / name, session)
            for name, own in all_settings.items()
        }
    summary = {
        **make_summary(years.name, years.unseen, env.task.objective, baseline, results, list(report.warnings), device),
        "created": run.created,
        "wall_s": round(time.perf_counter() - started, 1),
        "machine": facts,
        "settings": {name: own.dump() for name, own in all_settings.items()},
    }
    write_json(output / SUMMARY, summary)
    page = write_report(output)
    print(comparison_table(summary), flush=True)
    print(f"results in {output}, to read: {page}", flush=True)
    return 1 if any(result.failed for result in results.values()) else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: train(parse_arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
