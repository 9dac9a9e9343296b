"""What the rest of a month may still come to: the highest imports of training years, planned with perfect foresight.

B buildings, P demand charges, Q quantiles; kW.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from iquitos_rl.baselines.horizon import controllable, solve, year_horizon
from iquitos_rl.baselines.recording import peaks_ahead
from iquitos_rl.baselines.stays import read_stays
from iquitos_rl.cases.site import Floats, Ints, Site
from iquitos_rl.cases.tariff import is_month_start
from iquitos_rl.envs.task.objective import Objective

DAYS = 32


def fit_later_peaks(sites: Sequence[Site], objective: Objective, quantiles: int) -> Floats:
    """(12, 32, B, P, Q) by calendar month and days left of it: equally likely highest imports of the hours left.

    A month that no year has is taken for the mean of those that some have.
    """
    found: list[tuple[Ints, Ints, Floats]] = []
    for site in sites:
        horizon = year_horizon(site, objective)
        plan = solve(horizon, controllable(site), read_stays(site, guard=True), objective)
        demand = np.maximum(plan.net, 0)[:, :, None] / site.hours_per_step * horizon.counts[:, None, :]
        starts = is_month_start(site)[: len(demand)]
        ahead = peaks_ahead(torch.from_numpy(demand[None]), starts)[0][0].numpy()
        found.append((site.month[: len(demand)] - 1, days_left(site)[: len(demand)], ahead))
    month, left, ahead = (np.concatenate(parts) for parts in zip(*found))
    share = (np.arange(quantiles) + 0.5) / quantiles
    table = np.full((12, DAYS, *ahead.shape[1:], quantiles), np.nan)
    for m, d in np.unique(np.stack([month, left], axis=-1), axis=0).tolist():
        table[m, d] = np.moveaxis(np.quantile(ahead[(month == m) & (left == d)], share, axis=0), 0, -1)
    known = ~np.isnan(table)
    mean_of_months = np.where(known, table, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, table, mean_of_months)


def days_left(site: Site) -> Ints:
    """(T,) whole days after each row in its month."""
    starts = np.flatnonzero(is_month_start(site))
    ends = np.append(starts[1:], site.rows)[np.cumsum(is_month_start(site)) - 1]
    return np.asarray((ends - 1 - np.arange(site.rows)) * site.hours_per_step // 24, dtype=np.int64).clip(0, DAYS - 1)
