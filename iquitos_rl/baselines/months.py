"""The months of several years side by side: a rule's years on the district engine in the time of one month.

A demand charge is billed by the month, and batteries and vehicles forget within days where they stood. So every month
of every year runs as an environment of its own, which starts a few days early and is not counted until its month
begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.baselines.bill import BatchController, Bill, booked_terms, start_at
from iquitos_rl.baselines.rule import Rule, RuleSettings
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import is_month_start
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.envs.vector import StepResult

WARM_UP_HOURS = 168


class Month(NamedTuple):
    """Rows of one year, a step each."""

    year: int
    start: int
    """Where the simulation starts."""
    first: int
    """Where the month starts."""
    end: int
    """Where the next one does; a year's last row has no step."""


class Hour(NamedTuple):
    """One step of every environment."""

    counted: Tensor
    """(E,) bool: it is in the month that the environment is there for."""
    before: dict[str, Tensor]
    """`battery_soc`, `vehicle_soc`, `running_peak` and `net` that the step starts with, (E, ...) each."""
    step: StepResult


def months_of(sites: Sequence[Site]) -> list[Month]:
    """The months of each year in order, the years one after the other."""
    found = []
    for year, site in enumerate(sites):
        starts, warm_up = np.flatnonzero(is_month_start(site)).tolist(), round(WARM_UP_HOURS / site.hours_per_step)
        for first, end in zip(starts, [*starts[1:], site.rows - 1]):
            if first < end:
                found.append(Month(year, max(first - warm_up, 0), first, end))
    return found


def spread_over(months: Sequence[Month], each: int) -> list[Month]:
    """At most `each` months of the same place in a year, taken from the years in turn, so that all years count."""
    places: dict[int, list[Month]] = {}
    in_year: dict[int, int] = {}
    for month in months:
        place = in_year[month.year] = in_year.get(month.year, -1) + 1
        places.setdefault(place, []).append(month)
    chosen = set()
    for place, own in places.items():
        chosen |= {own[(place * each + k) % len(own)] for k in range(min(each, len(own)))}
    return [month for month in months if month in chosen]


def months_bill(site: Site, rule: RuleSettings, settings: TaskSettings = TaskSettings()) -> Bill:
    """The bill of a rule's year, its months side by side."""
    months = months_of([site])
    env = DistrictSite([site], len(months), settings)
    total = torch.zeros((len(Bill._fields), len(months)), dtype=torch.float64)
    with torch.inference_mode():
        for hour in run_months(env, Rule(env.task, rule), months):
            total += booked_terms(hour.step.info) * hour.counted
    return Bill(*(np.asarray(term) for term in total.sum(-1).tolist()))


def longest(months: Sequence[Month]) -> int:
    """Steps until the last of these months is over."""
    return max(month.end - month.start for month in months)


def run_months(env: DistrictSite, controller: BatchController, months: Sequence[Month]) -> Iterator[Hour]:
    """Run a controller through a month in each environment; yields every step, until the last month is over.

    Args:
        months: (E,) of the sites of `env`.
    """
    year, start, first, end = torch.tensor(months, dtype=torch.int64, device=env.device).T
    obs = start_at(env, start, year)
    for k in range(longest(months)):
        state, task_state = env.physics.state, env.state_dict()
        before = {name: task_state[name] for name in ("running_peak", "net")}
        before |= {"battery_soc": state.battery_soc, "vehicle_soc": state.vehicle_soc}
        step = env.step(controller(obs))
        obs, row = step.obs, start + k
        yield Hour((first <= row) & (row < end), before, step)
