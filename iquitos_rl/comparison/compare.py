"""A comparison from its request to its tables and its `simulation_summary.json`."""

from __future__ import annotations

import time
from typing import Any

import torch

from iquitos_rl.cluster.choose import executor
from iquitos_rl.comparison.plan import Comparison, ComparisonRequest, open_comparison, plan
from iquitos_rl.comparison.runner import Runner, reference_records
from iquitos_rl.envs.citylearn.env import require_citylearn
from iquitos_rl.judging import paired
from iquitos_rl.judging.references import OPTIMUM, copy_hours, kept, opponents
from iquitos_rl.judging.scores import missing_kpis
from iquitos_rl.judging.standings import (
    Record,
    as_csv,
    as_json,
    bills_of,
    co2_markdown,
    markdown,
    standings,
    with_official_scores,
)
from iquitos_rl.judging.summary import SCHEMA_VERSION, largest
from iquitos_rl.judging.table import HOURS, is_year
from iquitos_rl.machine.device import choose_device, choose_threads
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.inputs import read_text
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.report.page import write_report
from iquitos_rl.report.results import read_summary
from iquitos_rl.runs.folder import SUMMARY, lock_output

BOUND_TOLERANCE = 1e-6
"""Share of a bill by which single precision may put a controller below the bound."""


def compare(request: ComparisonRequest) -> int:
    """Carry the comparison out and write its tables; returns the exit status: 1 where a training failed.

    Raises:
        UserError: the input is at fault.
        Failure: a process died, or a simulated year contradicts itself.
        Interrupted: the user asked to stop; the same request resumes the comparison.
    """
    started = time.perf_counter()
    with Interrupts("finishing the step and saving") as interrupts:
        require_citylearn()
        comparison = plan(request)
        open_comparison(comparison)
        choose_threads(1)
        hint = f"stopped; to resume: {request.command}"
        carriers = executor(request.jobs, request.cluster, comparison.output, interrupts, hint)
        with lock_output(comparison.output), carriers as carrier:
            runner = Runner(comparison, carrier)
            references = runner.references()
            records = reference_records(comparison, references)
            records = with_official_scores([*records, *runner.judgements(runner.trainings())])
            for name in kept():
                if name in references:
                    copy_hours(references[name][0], comparison.cache, comparison.output)
            chosen = copy_median_hours(comparison, records)
            summary = {
                **summarise(comparison, records, runner),
                "hours_of_seed": chosen,
                "command": request.command,
                "jobs": request.jobs,
                "core_s": runner.core_s,
                **({} if request.cluster is None else {"cluster": request.cluster}),
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


def bound_warnings(records: list[Record]) -> list[str]:
    """What is better than can be."""
    best = {record.year: record.figures["bill"] for record in records if record.controller == OPTIMUM}
    return [
        f"{record.controller} is below the optimum in {record.year}: either that bound or this figure is wrong"
        for record in records
        if record.year in best and record.figures["bill"] < best[record.year] * (1 - BOUND_TOLERANCE)
    ]


def copy_median_hours(comparison: Comparison, records: list[Record]) -> dict[str, int]:
    """Copy the hours of each agent's median training in the first year next to the tables; returns that seed."""
    chosen: dict[str, int] = {}
    first = next(iter(comparison.years))
    for name in comparison.settings.agents:
        bills = sorted((r.figures["bill"], r.seed) for r in records if (r.controller, r.year) == (name, first))
        if not bills:
            continue
        seed = bills[(len(bills) - 1) // 2][1]
        assert seed is not None
        chosen[name] = seed
        for kind in HOURS:
            source = comparison.run(name, seed) / f"{kind}_{name}.csv"
            if source.is_file():
                write_text(comparison.output / source.name, read_text(source))
    return chosen


def summarise(comparison: Comparison, records: list[Record], runner: Runner) -> dict[str, Any]:
    """`simulation_summary.json` of a comparison."""
    found = standings(records)
    years, agents = list(comparison.years), list(comparison.settings.agents)
    span = "year" if all(is_year(record.figures.get("hours")) for record in records) else "period"
    paths = {name: [comparison.run(name, seed) / SUMMARY for seed in range(comparison.seeds)] for name in agents}
    finished = {name: [read_summary(path) for path in own if path.is_file()] for name, own in paths.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "case": comparison.case,
        "evaluated_on": evaluated_on(len(years), span, comparison.unseen),
        "years": years,
        "seeds": comparison.seeds,
        "simulator": "citylearn",
        "currency": comparison.objective.tariff.currency,
        "controllers": {name: own.mean for name, own in found.items()},
        "standings": as_json(found),
        "paired": paired.as_json(paired.pairs(bills_of(records), agents, opponents())),
        "records": [record._asdict() for record in records],
        "failed": runner.failed,
        "left_out": runner.left_out,
        "audit": {
            **runner.audit,
            "largest_balance_residual_kwh": max(r.figures.get("balance_residual_kwh", 0.0) for r in records),
            "warnings": [*comparison.warnings, *bound_warnings(records), *missing_kpis(records[0].figures)],
        },
        "timing": {
            name: mean_timing([run.get("timing", {}).get(name, {}) for run in own]) for name, own in finished.items()
        },
        "memory": largest(run.get("memory", {}) for own in finished.values() for run in own),
        "machine": machine(choose_device(comparison.settings.run.device), torch.get_num_threads()),
        "versions": versions(),
        "settings": {name: comparison.dump(name, 0) for name in agents},
    }


def evaluated_on(count: int, span: str, unseen: bool) -> str:
    """`3 unseen years`, `the period trained on`."""
    return f"{count} unseen {span}{'s' if count > 1 else ''}" if unseen else f"the {span} trained on"


def mean_timing(found: list[dict[str, float]]) -> dict[str, float]:
    """Means of what all trainings of an agent have measured."""
    keys = [key for key in found[0] if all(key in own for own in found)] if found else []
    return {key: round(sum(own[key] for own in found) / len(found), 2) for key in keys}
