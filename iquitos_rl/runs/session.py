"""A training from its request to its summary: find or open the folder, train and evaluate each agent, report."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import torch

from iquitos_rl.assignments import write_layer
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import Settings
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import UNCONTROLLED, Reference, copy_hours
from iquitos_rl.judging.summary import Result, make_summary
from iquitos_rl.judging.table import comparison_table
from iquitos_rl.machine.device import choose_device
from iquitos_rl.machine.facts import machine
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.machine.threads import choose_threads
from iquitos_rl.report.page import write_report
from iquitos_rl.runs.compared import find_kept, find_reference
from iquitos_rl.runs.folder import SUMMARY, Run, is_unused, lock_output, make_output
from iquitos_rl.runs.outcome import attempt, train_and_evaluate
from iquitos_rl.runs.request import OUTPUTS, Request
from iquitos_rl.runs.resume import differences, find_run, has_failures, refuse_changes, set_aside
from iquitos_rl.runs.training import Session
from iquitos_rl.runs.years import prepare_years


def train(request: Request) -> int:
    """Do what is asked; returns the exit status: 1 where an agent failed.

    Raises:
        UserError: the input is at fault.
        Failure: a simulator died, or a simulated year contradicts itself.
        Interrupted: the user asked to stop; the run can be resumed.
    """
    with Interrupts("finishing the step and saving") as interrupts:
        found = find_run(request)
        settings = request.settings(found.settings if found else None)
        device = choose_device(settings.run.device)
        folder = found.folder if found else _open_output(request, settings.run.case)
        with lock_output(folder):
            run = _describe(request, folder, found, settings)
            if (folder / SUMMARY).is_file():
                print(f"{folder}: this run is complete; train it further with a larger --steps or --episodes")
                return 0
            return train_in(run, settings, device, request, interrupts)


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
        changes = [text for name in dumps for text in differences(found.settings.get(name, {}), dumps[name])]
        refuse_changes(folder, changes, request.allow_changes)
        run = found._replace(threads=choose_threads(found.threads if threads == "auto" else threads), settings=dumps)
        same_budget = all(
            found.settings.get(name, {}).get(key) == dump[key]
            for name, dump in dumps.items()
            for key in ("steps", "episodes")
        )
        if changes or not same_budget or has_failures(folder):
            set_aside(folder, list(dumps))
    if run != found:
        for name, dump in dumps.items():
            path = folder / ("settings.yaml" if len(dumps) == 1 else f"settings_{name}.yaml")
            write_text(path, write_layer(dump))
            print(f"# {path}\n{path.read_text(encoding='utf-8')}", flush=True)
        run.write()
    return run


def train_in(run: Run, settings: Settings, device: torch.device, request: Request, interrupts: Interrupts) -> int:
    """Train and evaluate every agent in the run's folder, and write the summary."""
    started, output, task = time.perf_counter(), run.folder, settings.run.task
    cache = request.cache or output.parent / "cache"
    facts = machine(device, run.threads)
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)

    years = prepare_years(settings.run, cache, interrupts.check)
    report = check_case(years.evaluate)
    if report.errors:
        raise UserError(f"{years.evaluate}: {report.errors[0]}")
    for warning in report.warnings:
        print(f"warning: {warning}", flush=True)
    interrupts.check()
    site = read_site(years.evaluate)
    objective = Objective(read_tariff(years.evaluate), task.objective)
    words = ["python", "-m", "iquitos_rl.train", run.algorithm, "--resume", str(output)]
    hint = subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
    session = Session(interrupts, request.resume is not None, request.allow_changes, hint, cache, site.fingerprint)
    baseline, skip = Reference(UNCONTROLLED, years.evaluate, site.fingerprint, task), request.skip_baseline
    references = {UNCONTROLLED: find_reference(baseline, cache, skip, session.resume, interrupts.check)}
    copy_hours(baseline, cache, output)

    results: dict[str, Result] = {}
    for name, own in settings.agents.items():
        if len(settings.agents) == 1:
            results[name] = train_and_evaluate(name, own, years, device, output, session)
        else:
            results[name] = attempt(name, own, years, device, output / name, session)
    evaluated = years.evaluate, site.fingerprint, task
    others, left_out = find_kept(*evaluated, years.train, cache, output, skip, interrupts.check)
    references |= others
    summary = {
        **make_summary(years.name, years.unseen, objective, references, results, list(report.warnings), device),
        "left_out": left_out,
        "created": run.created,
        "wall_s": round(time.perf_counter() - started, 1),
        "machine": facts,
        "settings": settings.dump(),
    }
    write_json(output / SUMMARY, summary)
    page = write_report(output)
    print(comparison_table(summary), flush=True)
    print(f"results in {output}, to read: {page}", flush=True)
    return 1 if any(result.failed for result in results.values()) else 0
