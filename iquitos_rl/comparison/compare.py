"""A comparison from its request to its tables."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.comparison.plan import Comparison, open_comparison, plan
from iquitos_rl.comparison.runner import Runner, reference_records
from iquitos_rl.comparison.summary import copy_median_hours, summarise
from iquitos_rl.config import load_settings, shipped_agents
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import copy_hours, kept
from iquitos_rl.judging.standings import as_csv, co2_markdown, markdown, standings
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.machine.threads import choose_threads
from iquitos_rl.report.page import write_report
from iquitos_rl.runs.folder import SUMMARY, lock_output
from iquitos_rl.runs.request import OUTPUTS


@dataclass(frozen=True)
class ComparisonRequest:
    agents: tuple[str, ...] = ()
    """Names of the registry; none means every agent with a shipped YAML file."""
    seeds: int = 5
    """Trainings of each agent, with seeds 0, 1, ..."""
    eval_years: int = 3
    """Years of a preset to evaluate on."""
    eval_cases: tuple[str, ...] = ()
    """Schema folders to evaluate on instead."""
    jobs: int = 1
    """Processes that train and simulate at the same time."""
    config: Path | None = None
    """The user's YAML file of settings."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Run settings by name; None leaves one to the files."""
    sets: tuple[str, ...] = ()
    """`key=value` texts, see `load_settings`."""
    output: Path | None = None
    command: str = ""
    """What the user typed: it resumes the comparison, and the report shows it."""


def compare(request: ComparisonRequest) -> int:
    """Carry the comparison out and write its tables; returns the exit status: 1 where a training failed.

    Raises:
        UserError: the input is at fault.
        Failure: a process died, or a simulated year contradicts itself.
        Interrupted: the user asked to stop; the same request resumes the comparison.
    """
    started = time.perf_counter()
    with Interrupts("finishing the step and saving") as interrupts:
        comparison = _plan(request)
        open_comparison(comparison)
        choose_threads(1)
        with lock_output(comparison.output):
            runner = Runner(comparison, request.jobs, interrupts, request.command)
            references = runner.references()
            records = reference_records(comparison, references)
            records += runner.judgements(runner.trainings())
            for name in kept():
                if name in references:
                    copy_hours(references[name][0], comparison.cache, comparison.output)
            chosen = copy_median_hours(comparison, records)
            found = standings(records)
            summary = {
                **summarise(comparison, records, found, runner.failed, runner.left_out, runner.audit),
                "hours_of_seed": chosen,
                "command": request.command,
                "jobs": request.jobs,
                "wall_s": round(time.perf_counter() - started, 1),
            }
            write_json(comparison.output / SUMMARY, summary)
            text = markdown(summary)
            write_text(comparison.output / "comparison.md", text)
            write_text(comparison.output / "comparison.csv", as_csv(records))
            write_text(comparison.output / "co2_comparison.md", co2_markdown(summary))
            page = write_report(comparison.output)
            print(f"{text}\nresults in {comparison.output}, to read: {page}", flush=True)
            return 1 if runner.failed else 0


def _plan(request: ComparisonRequest) -> Comparison:
    """What is compared.

    Raises:
        UserError: an agent is unknown, there is to be none of something, or see `load_settings` and `plan`.
    """
    for name in request.agents:
        if name not in AGENTS:
            raise UserError(f"--agents {name}: there are {', '.join(AGENTS)}")
    for name in ("seeds", "eval_years", "jobs"):
        if getattr(request, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(request, name)}: at least 1")
    flags = dict(request.flags)
    if request.eval_cases:
        flags["eval_case"] = request.eval_cases[0]
    if request.jobs > 1:
        flags["threads"] = 1  # each process has a core
    agents = [name for name in AGENTS if name in request.agents] or shipped_agents()
    settings = load_settings(agents, request.config, flags, request.sets)
    output = request.output or OUTPUTS / f"compare-{Path(settings.run.case).name}"
    cache = output.parent / "cache"
    return plan(output, cache, settings, request.seeds, request.eval_years, list(request.eval_cases))
