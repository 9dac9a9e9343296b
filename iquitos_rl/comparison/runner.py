"""Carrying a comparison out: what is stored already is taken, the rest runs in as many processes as the user wants."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import TypeVar

from iquitos_rl.assignments import write_layer
from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.comparison.jobs import Task, run_tasks
from iquitos_rl.comparison.plan import Comparison, is_finished
from iquitos_rl.comparison.tasks import (
    LeftOut,
    judge_task,
    own_year,
    reference_task,
    stored_year,
    train_task,
    tune_task,
)
from iquitos_rl.judging.references import UNCONTROLLED, Reference, compared, stored
from iquitos_rl.judging.standings import Record
from iquitos_rl.judging.summary import largest
from iquitos_rl.machine.files import write_text
from iquitos_rl.machine.interrupt import STATUS, Interrupted, Interrupts
from iquitos_rl.runs.request import LATEST, Request

T = TypeVar("T")


class Runner:
    """Carries a comparison's tasks out and tells how far it is."""

    def __init__(self, comparison: Comparison, jobs: int, interrupts: Interrupts, command: str) -> None:
        self.comparison, self.jobs, self.interrupts = comparison, jobs, interrupts
        self.hint = f"stopped; to resume: {command}"
        self.failed: dict[str, str] = {}
        """A training that failed, and how."""
        self.audit: dict[str, float] = {}
        """The largest of each check over all trainings and years."""
        self.left_out: dict[str, str] = {}
        """A reference that this site does not allow, and why."""

    def _run(self, what: str, tasks: Mapping[str, Task[T]]) -> dict[str, T]:
        found: dict[str, T] = {}
        started = time.perf_counter()
        for name, outcome in run_tasks(tasks, self.jobs, self.interrupts, self.hint):
            found[name] = outcome
            print(
                f"{what}: {name}, {len(found)} of {len(tasks)} after {time.perf_counter() - started:,.0f} s", flush=True
            )
        return found

    def references(self) -> dict[str, list[Reference]]:
        """Everything that agents are compared with, evaluated and stored: each controller's years in order."""
        comparison, cache, prints = self.comparison, self.comparison.cache, self.comparison.fingerprints
        task = comparison.settings.run.task
        names = [name for name in compared() if CONTROLLERS[name].needs != "nothing"]
        tuned = self._run(
            "tuned", {name: partial(tune_task, name, comparison.train_years, task, cache) for name in names}
        )
        rules = {name: rule for name, rule in tuned.items() if isinstance(rule, RuleSettings)}
        self.left_out |= {name: rule.reason for name, rule in tuned.items() if isinstance(rule, LeftOut)}
        all_years = {
            name: [
                Reference(name, folder, prints[year], task, rules.get(name))
                for year, folder in comparison.years.items()
            ]
            for name in compared()
            if name not in self.left_out
        }
        missing = {
            f"{name}, {year}": partial(reference_task, reference, cache)
            for name, references in all_years.items()
            for year, reference in zip(comparison.years, references)
            if stored(reference, cache) is None
        }
        for label, outcome in self._run("judged", missing).items():
            if isinstance(outcome, LeftOut):
                self.left_out[label.split(", ")[0]] = outcome.reason
        return {name: references for name, references in all_years.items() if name not in self.left_out}

    def trainings(self) -> dict[str, list[int]]:
        """Every agent trained with every seed: the seeds that have come to an end."""
        comparison = self.comparison
        tasks: dict[str, Task[int]] = {}
        for name, settings in comparison.settings.agents.items():
            config = comparison.output / f"settings_{name}.yaml"
            write_text(config, write_layer(settings.dump()))
            for seed in range(comparison.seeds):
                run = comparison.run(name, seed)
                if is_finished(run):
                    print(f"{run}: trained before", flush=True)
                    continue
                request = Request(
                    name, config, {"seed": seed}, output=run, resume=LATEST, skip_baseline=True, cache=comparison.cache
                )
                tasks[run.name] = partial(train_task, request, comparison.output / f"{run.name}.log")
        for label, status in self._run("trained", tasks).items():
            if status >= STATUS:
                raise Interrupted(status - STATUS, self.hint)
            if status != 0:
                log = comparison.output / f"{label}.log"
                last = (log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
                self.failed[label] = f"{last} (status {status}, {log.name})"
                print(f"{label} failed: {self.failed[label]}", file=sys.stderr, flush=True)
        return {
            name: [seed for seed in range(comparison.seeds) if comparison.run(name, seed).name not in self.failed]
            for name in comparison.settings.agents
        }

    def judgements(self, trained: Mapping[str, list[int]]) -> list[Record]:
        """What each trained policy costs in each year."""
        comparison = self.comparison
        (first, _), *others = comparison.years.items()
        prints = comparison.fingerprints
        runs = [(name, seed, comparison.run(name, seed)) for name, seeds in trained.items() for seed in seeds]
        missing = {
            f"{run.name}, {year}": partial(judge_task, name, run, year, case, prints[year])
            for name, _, run in runs
            for year, case in others
            if stored_year(run, year, prints[year]) is None
        }
        self._run("judged", missing)
        records = []
        for name, seed, run in runs:
            found = {first: own_year(name, run)}
            for year, _ in others:
                judged = stored_year(run, year, prints[year])
                assert judged is not None
                found[year] = judged
            records += [Record(name, seed, year, result.figures) for year, result in found.items()]
            self.audit = largest([self.audit, *(result.audit for result in found.values())])
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
