"""Carrying a comparison out: what is stored already is taken, an executor does the rest."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import TypeVar

from iquitos_rl.assignments import write_layer
from iquitos_rl.baselines.planner import Planner
from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.comparison.plan import Comparison
from iquitos_rl.comparison.tasks import judge_task, own_year, reference_task, stored_year, train_task, tune_task
from iquitos_rl.judging.references import (
    REFERENCES_FOLDER,
    RULES_FOLDER,
    TUNING_YEARS,
    UNCONTROLLED,
    Reference,
    compared,
    rule_files,
    store_of,
    stored,
)
from iquitos_rl.judging.standings import Record
from iquitos_rl.judging.summary import largest
from iquitos_rl.machine.files import write_text
from iquitos_rl.machine.inputs import read_bytes
from iquitos_rl.runs.executor import Executor, Step, carry_out
from iquitos_rl.runs.session import LATEST, Request

T = TypeVar("T")
ORPHAN_SECONDS = 60.0
"""How long a training waits for one before it that has lost its node, or its parent, and lives on for a moment."""


class Runner:
    """Carries a comparison's tasks out and tells how far it is."""

    def __init__(self, comparison: Comparison, executor: Executor) -> None:
        self.comparison, self.executor = comparison, executor
        self.failed: dict[str, str] = {}
        """A training that failed, and how."""
        self.audit: dict[str, float] = {}
        """The largest of each check over all trainings and years."""
        self.core_s: dict[str, float] = {}
        """Seconds of a core, at most, that steps took, by what they did; what was stored before took none."""
        self.left_out: dict[str, str] = {}
        """A reference that this site does not allow, and why."""

    def _run(self, what: str, steps: Mapping[str, Step[T]]) -> dict[str, T]:
        found: dict[str, T] = {}
        started = time.perf_counter()
        for name, outcome in carry_out(steps, self.executor):
            found[name] = outcome
            seconds = time.perf_counter() - started
            print(f"{what}: {name}, {len(found)} of {len(steps)} after {seconds:,.0f} s", flush=True)
        if steps:
            share = min(len(steps), self.executor.room) * (time.perf_counter() - started)
            self.core_s[what] = round(self.core_s.get(what, 0.0) + share, 1)
        return found

    def references(self) -> dict[str, list[Reference]]:
        """Everything that agents are compared with, evaluated and stored: each controller's years in order."""
        own, cache, task = self.comparison, self.comparison.cache, self.comparison.settings.run.task
        names = [name for name in compared() if CONTROLLERS[name].needs != "nothing"]
        tunings = {
            name: Step(
                partial(tune_task, name, own.train_years, task, cache),
                reads=tuple(own.train_years[:TUNING_YEARS]),
                writes=rule_files(name, own.train_years, task, cache),
            )
            for name in names
        }
        tuned = self._run("tuned", tunings)
        rules = {name: rule for name, rule in tuned.items() if isinstance(rule, RuleSettings | Planner)}
        self.left_out |= {name: reason for name, reason in tuned.items() if isinstance(reason, str)}
        all_years = {
            name: [
                Reference(name, folder, own.fingerprints[year], task, rules.get(name))
                for year, folder in own.years.items()
            ]
            for name in compared()
            if name not in self.left_out
        }
        missing = {
            f"{name}, {year}": Step(
                partial(reference_task, reference, cache),
                reads=(reference.case,),
                writes=(store_of(reference, cache),),
            )
            for name, references in all_years.items()
            for year, reference in zip(own.years, references)
            if stored(reference, cache) is None
        }
        for label, outcome in self._run("judged", missing).items():
            if isinstance(outcome, str):
                self.left_out[label.split(", ")[0]] = outcome
        return {name: references for name, references in all_years.items() if name not in self.left_out}

    def trainings(self) -> dict[str, list[int]]:
        """Every agent trained with every seed: the seeds that have come to an end."""
        own, seeds = self.comparison, range(self.comparison.seeds)
        steps: dict[str, Step[int]] = {}
        named = own.folders
        inputs = (
            *named.values(),
            *own.train_years,
            *own.years.values(),
            own.cache / RULES_FOLDER,
            own.cache / REFERENCES_FOLDER,
        )
        for name, settings in own.settings.agents.items():
            config = own.output / f"settings_{name}.yaml"
            write_text(config, write_layer(settings.dump()))
            for seed in seeds:
                run, flags = own.run(name, seed), {"seed": seed}
                if own.is_finished(name, seed):
                    print(f"{run}: trained before", flush=True)
                    continue
                request = Request(
                    *(name, config, flags),
                    output=run,
                    resume=LATEST,
                    skip_baseline=True,
                    cache=own.cache,
                    patience_s=ORPHAN_SECONDS,
                )
                log = own.output / f"{run.name}.log"
                steps[run.name] = Step(
                    partial(train_task, request, log),
                    reads=(config, *inputs),
                    writes=(run, log),
                    cases=named,
                    gpus=float(settings.run.device == "cuda"),
                )
        for label, status in self._run("trained", steps).items():
            if status != 0:
                log = own.output / f"{label}.log"
                last = (read_bytes(log).decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
                self.failed[label] = f"{last} (status {status}, {log.name})"
                print(f"{label} failed: {self.failed[label]}", file=sys.stderr, flush=True)
        return {name: [n for n in seeds if own.run(name, n).name not in self.failed] for name in own.settings.agents}

    def judgements(self, trained: Mapping[str, list[int]]) -> list[Record]:
        """What each trained policy costs in each year."""
        own, prints = self.comparison, self.comparison.fingerprints
        (first, _), *others = own.years.items()
        runs = [(name, seed, own.run(name, seed)) for name, seeds in trained.items() for seed in seeds]
        missing = {
            f"{run.name}, {year}": Step(
                partial(judge_task, name, run, year, case, prints[year]),
                reads=(run / "policy", case),
                writes=(run / "years" / f"{year}.json",),
            )
            for name, _, run in runs
            for year, case in others
            if stored_year(run, year, prints[year]) is None
        }
        self._run("judged", missing)
        records = []
        for name, seed, run in runs:
            for year in own.years:
                result = own_year(name, run) if year == first else stored_year(run, year, prints[year])
                assert result is not None
                records.append(Record(name, seed, year, result.figures))
                self.audit = largest([self.audit, result.audit])
        return records


def reference_records(comparison: Comparison, references: Mapping[str, list[Reference]]) -> list[Record]:
    """What the references cost in each year, and what the grid alone would have."""
    records = []
    for name, own in references.items():
        for year, reference in zip(comparison.years, own):
            judged = stored(reference, comparison.cache)
            assert judged is not None
            if name == UNCONTROLLED:
                records.append(Record("grid_only", None, year, judged.grid_only))
            records.append(Record(name, None, year, judged.figures))
    return sorted(records, key=lambda record: record.controller != "grid_only")
