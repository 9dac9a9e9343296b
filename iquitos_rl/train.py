"""Train controllers and judge them on CityLearn: `python -m iquitos_rl.train sac`."""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import yaml

from iquitos_rl.agents import AGENTS
from iquitos_rl.baselines.programme import SolverError
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cli import make_output, run_command
from iquitos_rl.config import ALGORITHMS, Algorithm, Settings, load_settings
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import evaluate_policy, hour_bar
from iquitos_rl.judging.references import (
    OPTIMUM,
    STRONGEST,
    UNCONTROLLED,
    Reference,
    copy_hours,
    find_rule,
    judge,
    stored,
)
from iquitos_rl.judging.summary import Judged, Result, make_summary
from iquitos_rl.judging.table import comparison_table
from iquitos_rl.machine.device import choose_device
from iquitos_rl.machine.facts import machine
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.interrupt import Interrupted, Interrupts
from iquitos_rl.machine.threads import choose_threads
from iquitos_rl.report import write_report
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
from iquitos_rl.runs.training import Session, Training, store_result, stored_result
from iquitos_rl.runs.years import Years, prepare_years

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
    parser.add_argument(
        "--compile", choices=["auto", "off", "default", "graphs"], help="CUDA graphs (auto on a GPU) or torch.compile"
    )
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
    parser.add_argument(
        "--skip-baseline",
        action="store_true",
        help="work out no baseline, rule or optimum: reuse what is stored of them",
    )
    parser.add_argument("--cache", type=Path, help="where built years and baselines are kept; default: beside --output")
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
    # What is judged is what was saved, on the CPU: one observation at a time is slower on a GPU than the simulator.
    agent: Any = AGENTS[name].agent.load(output / "policy")

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


def find_reference(reference: Reference, cache: Path, skip: bool, reuse: bool, check: Callable[[], None]) -> Judged:
    """What agents are judged beside: worked out here, or taken from the store.

    Args:
        skip: take it from the store or not at all.
        reuse: take it from the store if it is there.

    Raises:
        UserError: it is not to be worked out and not stored, or the site has what it cannot handle.
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
    cache = arguments.cache or output.parent / "cache"
    settings = next(iter(all_settings.values())).run
    facts = machine(device, run.threads)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)

    years = prepare_years(settings, cache, interrupts.check)
    report = check_case(years.evaluate)
    if report.errors:
        raise UserError(f"{years.evaluate}: {report.errors[0]}")
    for warning in report.warnings:
        print(f"warning: {warning}", flush=True)
    interrupts.check()
    site = read_site(years.evaluate)
    objective = Objective(read_tariff(years.evaluate), settings.task.objective)
    words = ["python", "-m", "iquitos_rl.train", run.algorithm, "--resume", str(output)]
    hint = subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
    session = Session(interrupts, arguments.resume is not None, arguments.allow_changes, hint, cache, site.fingerprint)
    baseline = Reference(UNCONTROLLED, years.evaluate, site.fingerprint, settings.task)
    skip = arguments.skip_baseline
    references = {UNCONTROLLED: find_reference(baseline, cache, skip, session.resume, interrupts.check)}
    copy_hours(baseline, cache, output)

    if len(all_settings) == 1:
        name, own = next(iter(all_settings.items()))
        result = train_and_judge(name, own, years.train, years.evaluate, device, output, session)
        results: dict[str, Result] = {name: result}
    else:
        results = {
            name: attempt(name, own, years.train, years.evaluate, device, output / name, session)
            for name, own in all_settings.items()
        }
    beside, left_out = find_strongest(years, site.fingerprint, settings.task, cache, output, skip, interrupts.check)
    references |= beside
    summary = {
        **make_summary(years.name, years.unseen, objective, references, results, list(report.warnings), device),
        "left_out": left_out,
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
