"""`simulation_summary.json` of a comparison, and the hours that it shows."""

from __future__ import annotations

import json
from typing import Any

import torch

from iquitos_rl.comparison.plan import Comparison
from iquitos_rl.comparison.runner import Runner
from iquitos_rl.judging.references import OPTIMUM
from iquitos_rl.judging.standings import Record, Standing, as_json
from iquitos_rl.judging.summary import SCHEMA_VERSION, largest
from iquitos_rl.machine.device import choose_device
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_text
from iquitos_rl.runs.folder import SUMMARY

BOUND_TOLERANCE = 1e-6
"""Share of a bill by which single precision may put a controller below the bound."""


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
        for kind in ("timeseries", "trace", "sockets"):
            source = comparison.run(name, seed) / f"{kind}_{name}.csv"
            if source.is_file():
                write_text(comparison.output / source.name, source.read_text(encoding="utf-8"))
    return chosen


def summarise(
    comparison: Comparison, records: list[Record], found: dict[str, Standing], runner: Runner
) -> dict[str, Any]:
    """`simulation_summary.json` of a comparison."""
    years, agents = list(comparison.years), list(comparison.settings.agents)
    paths = {name: [comparison.run(name, seed) / SUMMARY for seed in range(comparison.seeds)] for name in agents}
    finished = {
        name: [json.loads(path.read_text(encoding="utf-8")) for path in own if path.is_file()]
        for name, own in paths.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "comparison",
        "case": comparison.case,
        "evaluated_on": f"{len(years)} unseen year{'s' if len(years) > 1 else ''}",
        "years": years,
        "seeds": comparison.seeds,
        "simulator": "citylearn",
        "currency": comparison.objective.tariff.currency,
        "controllers": {name: own.mean for name, own in found.items()},
        "standings": as_json(found),
        "records": [record._asdict() for record in records],
        "failed": runner.failed,
        "left_out": runner.left_out,
        "audit": {
            **runner.audit,
            "largest_balance_residual_kwh": max(r.figures.get("balance_residual_kwh", 0.0) for r in records),
            "warnings": [*comparison.warnings, *bound_warnings(records)],
        },
        "timing": {name: mean_timing([run["timing"][name] for run in finished[name]]) for name in agents},
        "memory": largest(run["memory"] for own in finished.values() for run in own),
        "machine": machine(choose_device(comparison.settings.run.device), torch.get_num_threads()),
        "versions": versions(),
        "settings": {name: comparison.dump(name, 0) for name in agents},
    }


def mean_timing(found: list[dict[str, float]]) -> dict[str, float]:
    """Means of what all trainings of an agent have measured."""
    keys = [key for key in found[0] if all(key in own for own in found)] if found else []
    return {key: round(sum(own[key] for own in found) / len(found), 2) for key in keys}
