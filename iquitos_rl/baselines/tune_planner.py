"""Tuning a planner's few parameters on training years: a year's months, each from another year."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.baselines.bill import Bill, booked_terms
from iquitos_rl.baselines.months import Month, longest, months_of, run_months
from iquitos_rl.baselines.mpc import RecedingHorizon
from iquitos_rl.baselines.planner import Planner
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings

WARM_UP_HOURS = 24
"""Before a month is counted; a plan forgets sooner than a rule where it stood."""


def months_in_turn(sites: Sequence[Site]) -> list[Month]:
    """Every month of a year, of one year after the other."""
    by_year = [[month for month in months_of(sites) if month.year == year] for year in range(len(sites))]
    warm_up = round(WARM_UP_HOURS / sites[0].hours_per_step)
    chosen = [by_year[n % len(sites)][n] for n in range(min(map(len, by_year)))]
    return [month._replace(start=max(month.first - warm_up, 0)) for month in chosen]


@torch.inference_mode()
def planned_bill(
    env: DistrictSite, planner: Planner, months: Sequence[Month], on_share: Callable[[float], None] = lambda _: None
) -> float:
    """The weighted bill of some months.

    Args:
        env: as many environments as months.
    """
    controllers = [RecedingHorizon(env.task, planner, month.year, month.start) for month in months]

    def act(obs: Tensor) -> Tensor:
        rows = [own.predict(seen) for own, seen in zip(controllers, obs.numpy(), strict=True)]
        return torch.from_numpy(np.stack(rows))

    total, steps = torch.zeros((len(Bill._fields), env.num_envs), dtype=torch.float64), longest(months)
    for k, hour in enumerate(run_months(env, act, months)):
        on_share(k / steps)
        total += booked_terms(hour.step.info) * hour.counted
    return float(Bill(*total.numpy()).weighted(env.task.objective.weights).sum())
