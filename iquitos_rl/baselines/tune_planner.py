"""Tuning a planner's few parameters on training years.

Pattern search (Hooke and Jeeves 1961): go a step up and down in each parameter, keep what is best, halve the steps. A
plan takes milliseconds where a rule takes microseconds, so it is tried on some months, each of another year, and with
fewer values: that is still several times the computing time that a rule gets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.baselines.bill import Bill, booked_terms
from iquitos_rl.baselines.day_ahead import DayAhead
from iquitos_rl.baselines.months import Month, longest, months_of, run_months
from iquitos_rl.baselines.mpc import RecedingHorizon
from iquitos_rl.baselines.planner import KINDS, RANGES, Planner, fit_planner
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import SiteTask, TaskSettings

WARM_UP_HOURS = 24
"""Before a month is counted; a plan forgets sooner than a rule where it stood."""
EVERY = 3
"""Every so many months of a year are tried."""
STEPS = (0.25, 0.125)
"""As shares of a parameter's range."""


def planning(task: SiteTask, planner: Planner, year: int = 0, row: int = 0) -> RecedingHorizon | DayAhead:
    """The controller of a planner; arguments and errors are those of `RecedingHorizon`."""
    return (DayAhead if planner.name == "day-ahead" else RecedingHorizon)(task, planner, year, row)


def tune_planner(
    name: str,
    sites: Sequence[Site],
    settings: TaskSettings = TaskSettings(),
    on_share: Callable[[float], None] = lambda _: None,
) -> Planner:
    """A planner with the least weighted bill over some months of `sites`; equal arguments, equal planner.

    Args:
        name: key of `KINDS`.
        sites: training years of one site.
        on_share: called after each simulated step with the share that is done; what it raises ends the search.

    Raises:
        UserError: the district engine cannot reproduce the site, or the site has what is not planned.
        SolverError: a plan was not found.
    """
    months = months_in_turn(sites)
    env = DistrictSite(sites, len(months), settings)
    best = fit_planner(name, sites, env.task.objective)
    runs, done = 1 + 2 * len(STEPS) * len(KINDS[name].tuned), 0

    def bill(planner: Planner) -> float:
        nonlocal done
        found = planned_bill(env, planner, months, lambda share: on_share((done + share) / runs))
        done += 1
        return found

    least = bill(best)
    for step in STEPS:
        for key in KINDS[name].tuned:
            own = RANGES[key]
            values = (best.parameters[key] + side * step * (own.high - own.low) for side in (-1, 1))
            tried = [best.with_parameters({key: float(np.clip(value, own.low, own.high))}) for value in values]
            bills = [bill(planner) for planner in tried]
            if min(bills) < least:
                best, least = tried[int(np.argmin(bills))], min(bills)
    return best


def months_in_turn(sites: Sequence[Site]) -> list[Month]:
    """Some months of a year, of one year after the other."""
    by_year = [[month for month in months_of(sites) if month.year == year] for year in range(len(sites))]
    warm_up = round(WARM_UP_HOURS / sites[0].hours_per_step)
    chosen = [by_year[n % len(sites)][month] for n, month in enumerate(range(0, min(map(len, by_year)), EVERY))]
    return [month._replace(start=max(month.first - warm_up, 0)) for month in chosen]


@torch.inference_mode()
def planned_bill(
    env: DistrictSite, planner: Planner, months: Sequence[Month], on_share: Callable[[float], None] = lambda _: None
) -> float:
    """The weighted bill of some months.

    Args:
        env: as many environments as months.
    """
    controllers = [planning(env.task, planner, month.year, month.start) for month in months]
    steps, idle = longest(months), np.zeros(env.action_dim, dtype=np.float32)
    running = iter([[month.start + k < month.end for month in months] for k in range(steps)])

    def act(obs: Tensor) -> Tensor:
        each = zip(controllers, obs.numpy(), next(running), strict=True)
        return torch.from_numpy(np.stack([own.predict(seen) if runs else idle for own, seen, runs in each]))

    total = torch.zeros((len(Bill._fields), env.num_envs), dtype=torch.float64)
    for k, hour in enumerate(run_months(env, act, months)):
        on_share(k / steps)
        total += booked_terms(hour.step.info) * hour.counted
    return float(Bill(*total.numpy()).weighted(env.task.objective.weights).sum())
