"""A training from its request to its summary: find or open the folder, train and evaluate each agent, report."""

from __future__ import annotations

import sys
import time
import traceback
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.assignments import write_layer
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import AgentSettings, Settings
from iquitos_rl.envs.citylearn.env import require_citylearn
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import evaluate_policy
from iquitos_rl.judging.references import UNCONTROLLED, Reference
from iquitos_rl.judging.summary import Result, has_costs, make_summary
from iquitos_rl.judging.table import comparison_table
from iquitos_rl.machine.bars import waiting
from iquitos_rl.machine.command import command
from iquitos_rl.machine.device import choose_device, choose_threads
from iquitos_rl.machine.facts import machine
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.inputs import InputError, read_typed
from iquitos_rl.machine.interrupt import Interrupted, Interrupts
from iquitos_rl.report.page import write_report
from iquitos_rl.runs.evaluation import find_kept, find_reference, store_kept
from iquitos_rl.runs.executor import Executor, Step
from iquitos_rl.runs.folder import (
    NO_DIFFERENCE,
    RESULT,
    SUMMARY,
    Run,
    differences,
    has_failures,
    is_unused,
    latest_run,
    lock_output,
    make_output,
    read_run,
    refuse_changes,
    set_aside,
)
from iquitos_rl.runs.jobs import Pool, cores
from iquitos_rl.runs.request import LATEST as LATEST
from iquitos_rl.runs.request import Request as Request
from iquitos_rl.runs.timings import Timings
from iquitos_rl.runs.training import Session, Training
from iquitos_rl.runs.years import prepare_years, require_case

OUTPUTS = Path("outputs")
LONG_YEAR = 2_000
"""Rows of a year from which on a second process evaluates references: it takes seconds to start."""


def train(request: Request) -> int:
    """Do what is asked; returns the exit status: 1 where an agent failed.

    Raises:
        UserError: the input is at fault.
        Failure: a simulator died, or a simulated year contradicts itself.
        Interrupted: the user asked to stop; the run can be resumed.
    """
    with Interrupts("finishing the step and saving") as interrupts:
        found = _find_run(request)
        settings = request.settings(found.settings if found else None)
        require_case(settings.run.case)
        require_citylearn()  # before anything is written, and before the minutes until it is needed
        device = choose_device(settings.run.device)
        folder = found.folder if found else _open_output(request, settings.run.case)
        with lock_output(folder, request.patience_s):
            run = _describe(request, folder, found, settings)
            if (folder / SUMMARY).is_file():
                print(f"{folder}: this run is complete; train it further with a larger --steps or --episodes")
                return 0
            return train_in(run, settings, device, request, interrupts)


def _find_run(request: Request) -> Run | None:
    """The run that is to be resumed; None where training is to start."""
    if request.resume is None:
        return None
    if request.resume == LATEST and request.output is None:
        return latest_run(OUTPUTS, request.agent, request.settings().run.case)
    if request.resume != LATEST and request.output not in (None, request.resume):
        raise UserError(f"--resume {request.resume}: a run resumes in its own folder; leave out --output")
    folder = request.output or request.resume
    run = read_run(folder)
    if run is None and (request.resume != LATEST or not is_unused(folder)):
        raise UserError(f"--resume: {folder} holds no run")
    if run is None:
        print(f"{folder} holds no run yet: it starts", flush=True)
    elif run.algorithm != request.agent:
        raise UserError(f"--resume: {folder} is a run of {run.algorithm}, not of {request.agent}")
    return run


def _open_output(request: Request, case: str) -> Path:
    """The folder of a run that starts."""
    label = f"{Path(case).name}-{request.agent}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"
    folder = request.output or OUTPUTS / label
    if request.resume is not None and folder.is_dir() and is_unused(folder):
        return folder
    return make_output(folder)


def _describe(request: Request, folder: Path, found: Run | None, settings: Settings) -> Run:
    """Write down what is trained here and with which settings, unless that is written already."""
    dumps, threads = settings.dump(), settings.run.threads
    if found is None:
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        run = Run(folder, request.agent, created, choose_threads(threads), dumps)
    else:
        pairs = [(found.settings.get(name, {}), dump) for name, dump in dumps.items()]
        refuse_changes(folder, [text for pair in pairs for text in differences(*pair)], request.allow_changes)
        run = found._replace(threads=choose_threads(found.threads if threads == "auto" else threads), settings=dumps)
        if any(differences(*pair, but=NO_DIFFERENCE) for pair in pairs) or has_failures(folder):
            set_aside(folder, list(dumps))
    if run != found:
        for name, dump in dumps.items():
            path = folder / ("settings.yaml" if len(dumps) == 1 else f"settings_{name}.yaml")
            text = write_layer(dump)
            write_text(path, text)
            print(f"# {path}\n{text}", flush=True)
        run.write()
    return run


def train_in(run: Run, settings: Settings, device: torch.device, request: Request, interrupts: Interrupts) -> int:
    """Train and evaluate every agent in the run's folder, and write the summary."""
    hint = command("train", run.algorithm, "--resume", str(run.folder))
    interrupts.message = f"stopped; to resume: {hint}"
    if request.quick:
        print("quick: little training, to see how a run goes; its figures say little", flush=True)
    if request.skip_baseline or cores() < 2:
        with interrupts.at_once():
            return _train_with(None, run, settings, device, request, interrupts, hint)
    with Pool(1, interrupts, interrupts.message) as helper, interrupts.at_once():
        return _train_with(helper, run, settings, device, request, interrupts, hint)


def _train_with(
    helper: Executor | None,
    run: Run,
    settings: Settings,
    device: torch.device,
    request: Request,
    interrupts: Interrupts,
    hint: str,
) -> int:
    """`train_in`, with a second process that evaluates what agents are compared with, or without one."""
    started, output, task, skip = time.perf_counter(), run.folder, settings.run.task, request.skip_baseline
    cache, timings = request.cache or output.parent / "cache", Timings()
    facts = machine(device, run.threads)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)

    with timings.phase("years"):
        years = prepare_years(settings.run, cache, interrupts.check, helper)
        report = check_case(years.evaluate)
    if report.errors:
        raise UserError(f"{years.evaluate}: {report.errors[0]}")
    for warning in report.warnings:
        print(f"warning: {warning}", flush=True)
    interrupts.check()
    site = read_site(years.evaluate)
    baseline = Reference(UNCONTROLLED, years.evaluate, site.fingerprint, task)
    if helper is not None and site.rows < LONG_YEAR:
        helper = None
    if helper is None:
        with timings.phase("references"):
            find_reference(baseline, cache, None, skip, interrupts.check)
    else:
        helper.submit("references", Step(partial(store_kept, baseline, years.train, cache)))
    resume, watch = request.resume is not None, helper.check if helper else lambda: None
    session = Session(
        interrupts, resume, request.allow_changes, hint, cache, device, years, site.fingerprint, timings, watch
    )
    if len(settings.agents) == 1:
        results = {name: _train_and_evaluate(name, own, output, session) for name, own in settings.agents.items()}
    else:
        results = {name: _attempt(name, own, output / name, session) for name, own in settings.agents.items()}
    with timings.phase("references"):
        if helper is not None:
            with waiting("waiting for what the agents are compared with"):
                for _ in helper.finished():  # each stores what it finds
                    pass
        references = {UNCONTROLLED: find_reference(baseline, cache, output, skip, interrupts.check)}
        others, left_out = find_kept(baseline, years.train, cache, output, skip, interrupts.check)
    objective, warnings = Objective(read_tariff(years.evaluate), task.objective), list(report.warnings)
    summary = {
        **make_summary(years.name, years.unseen, objective, references | others, results, warnings, device),
        "left_out": left_out,
        "created": run.created,
        "wall_s": round(time.perf_counter() - started, 1),
        "phases": timings.sums(),
        "machine": facts,
        "settings": settings.dump(),
    }
    write_json(output / SUMMARY, summary)
    with timings.phase("report"):
        page = write_report(output)
    timings.write(output)
    print(comparison_table(summary), flush=True)
    print(f"results in {output}, to read: {page}", flush=True)
    return 1 if any(result.failed for result in results.values()) else 0


def _train_and_evaluate(name: str, settings: AgentSettings, output: Path, session: Session) -> Result:
    """Train an agent from where it stands, and evaluate it on CityLearn."""
    training = Training(name, settings, output, session)
    if session.resume and (stored := _stored_result(output, training)) is not None:
        return stored
    with session.timings.phase("training"), session.interrupts.at_once(False):
        timing = training.run()
    # What was saved is evaluated, on the CPU: one observation at a time is slower on a GPU than the simulator.
    agent: Any = AGENTS[name].agent.load(output / "policy")

    session.interrupts.message = f"trained, not evaluated yet; to resume: {session.hint}"
    check = session.interrupts.check
    with session.timings.phase("evaluation"):
        result = evaluate_policy(name, agent, session.years.evaluate, settings.run.task, output, check)
    result = result._replace(timing=timing)
    write_json(output / RESULT, {"steps": training.agent.steps, "result": result._asdict()})
    return result


class _Stored(NamedTuple):
    """What `RESULT` holds."""

    steps: int
    result: Result


def _stored_result(output: Path, training: Training) -> Result | None:
    """The evaluation of this agent after as many steps, if the command was interrupted after it."""
    try:
        steps, result = read_typed(output / RESULT, _Stored)
    except InputError:
        return None  # evaluating again is always right
    return result if steps == training.agent.steps >= training.total and has_costs(result.figures) else None


def _attempt(name: str, settings: AgentSettings, output: Path, session: Session) -> Result:
    """`_train_and_evaluate` for one of several agents: an error is written down, and the other agents continue."""
    output.mkdir(exist_ok=True)
    try:
        return _train_and_evaluate(name, settings, output, session)
    except Interrupted:
        raise
    except Exception as error:
        write_text(output / "error.txt", traceback.format_exc())
        message = f"{type(error).__name__}: {error}"
        print(f"{name} failed: {message}; see {output / 'error.txt'}", file=sys.stderr, flush=True)
        return Result.failure(message)
