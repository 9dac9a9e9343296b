"""A rule's years on the district engine, written down for training around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.baselines.months import Month, longest, months_of, run_months
from iquitos_rl.baselines.rule import Rule, RuleSettings
from iquitos_rl.cases.site import Site
from iquitos_rl.cases.tariff import counted
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import is_month_start
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.task.trajectory import Trajectory

BEFORE = ("battery_soc", "vehicle_soc", "running_peak", "net")


@torch.no_grad()  # not inference mode: autograd may go through steps that are counted from these rewards
def record_years(
    sites: Sequence[Site],
    rule: RuleSettings,
    settings: TaskSettings,
    device: torch.device | str = "cpu",
    spec: dict[str, Any] | None = None,
    on_share: Callable[[float], None] = lambda share: None,
) -> Trajectory:
    """Let a rule run every month of every year, all of them side by side. Raises UserError: the district engine cannot
    reproduce the site, or the rule cannot act with this task.

    Args:
        spec: as in `SiteTask`.
    """
    months = months_of(sites)
    hours = longest(months)
    env = DistrictSite(sites, len(months), settings, spec, device=device)
    rows: list[tuple[Tensor, ...]] = []
    for k, hour in enumerate(run_months(env, Rule(env.task, rule), months), 1):
        on_share(k / hours)
        assert env.last_flows is not None
        imported = env.last_flows.net.clamp(min=0) / env.task.hours
        rows.append((*(hour.before[name] for name in BEFORE), hour.step.reward, imported))
    columns = (_in_order(torch.stack(column, dim=1), months) for column in zip(*rows, strict=True))
    battery_soc, vehicle_soc, running_peak, net, reward, imported = columns
    counts = np.stack([counted(*year) for year in zip(sites, env.task.tariffs)])
    demand = imported.unsqueeze(-1) * torch.from_numpy(counts).to(env.device).unsqueeze(2)
    demand[:, -1] = 0
    starts, calendar = np.unique([is_month_start(site) for site in sites], axis=0, return_inverse=True)
    each = [peaks_ahead(demand, own) for own in starts]
    ahead, beyond = (torch.cat(peaks, dim=1) for peaks in zip(*each, strict=True))
    by_row = (column.flatten(0, 1) for column in (battery_soc, vehicle_soc, running_peak, net, reward))
    by_year = (peaks.transpose(0, 1).contiguous() for peaks in (ahead, beyond))
    each_row = np.arange(sites[0].rows)
    place = torch.from_numpy((calendar.reshape(-1, 1) * len(each_row) + each_row).ravel()).to(env.device)
    found = Trajectory._make([*by_row, *by_year, env.task.peak_price, place])
    row = torch.arange(len(found.reward), device=env.device)
    after = torch.maximum(running_peak[..., : demand.shape[-1]], demand).flatten(0, 1)
    return found._replace(reward=found.expected(found.reward, row, found.running_peak, after))


def _in_order(steps: Tensor, months: Sequence[Month]) -> Tensor:
    """(S, T, ...) by year and row, the last row repeated, of (M, K, ...) by month and step."""
    parts = [steps[m, month.first - month.start : month.end - month.start] for m, month in enumerate(months)]
    years = torch.cat(parts).unflatten(0, (months[-1].year + 1, -1))
    return torch.cat([years, years[:, -1:]], dim=1)


def peaks_ahead(demand: Tensor, month_start: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """(S, T, B, P) each, the highest demand (S, T, B, P) from each row to its month's end, with the row and without."""
    ahead, beyond = torch.zeros_like(demand), torch.zeros_like(demand)
    starts = np.flatnonzero(month_start).tolist()
    for first, last in zip(starts, [*starts[1:], demand.shape[1]], strict=True):
        ahead[:, first:last] = demand[:, first:last].flip(1).cummax(1).values.flip(1)
        beyond[:, first : last - 1] = ahead[:, first + 1 : last]
    return ahead, beyond
