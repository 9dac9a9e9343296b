"""A rule's years on the district engine, written down for training around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.baselines.bill import start_years
from iquitos_rl.baselines.rule import Rule, RuleSettings
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import is_month_start, is_peak
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.task.trajectory import Trajectory


def record_years(
    sites: Sequence[Site], rule: RuleSettings, settings: TaskSettings, device: torch.device | str = "cpu"
) -> Trajectory:
    """Let a rule run every year from its first row to its last, all of them side by side. Raises UserError: the
    district engine cannot reproduce the site, or the rule cannot act with this task."""
    env = DistrictSite(sites, len(sites), settings, device=device)
    act = Rule(env.task, rule)
    obs = start_years(env, range(len(sites)))
    rows: list[tuple[Tensor, ...]] = []
    for _ in range(env.task.rows - 1):
        state, before = env.physics.state, env.state_dict()
        step = env.step(act(obs))
        assert env.last_flows is not None
        imported = env.last_flows.net.clamp(min=0) / env.task.hours
        socs = state.battery_soc, state.vehicle_soc
        rows.append((*socs, before["running_peak"], before["net"], step.reward, imported))
        obs = step.obs
    columns = (torch.stack(column, dim=1) for column in zip(*rows, rows[-1], strict=True))
    battery_soc, vehicle_soc, running_peak, net, reward, imported = columns
    peak = torch.from_numpy(is_peak(sites[0], env.task.objective.tariff)).to(env.device)
    demand = imported.unsqueeze(-1) * torch.stack([peak, ~peak], dim=-1).unsqueeze(1)
    demand[:, -1] = 0
    ahead, beyond = peaks_ahead(demand, is_month_start(sites[0]))
    by_row = (column.flatten(0, 1) for column in (battery_soc, vehicle_soc, running_peak, net, reward))
    by_year = (peaks.transpose(0, 1).contiguous() for peaks in (ahead, beyond))
    found = Trajectory._make([*by_row, *by_year, env.task.peak_price])
    row = torch.arange(len(found.reward), device=env.device)
    after = torch.maximum(running_peak, demand).flatten(0, 1)
    return found._replace(reward=found.expected(found.reward, row, found.running_peak, after))


def peaks_ahead(demand: Tensor, month_start: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
    """(S, T, B, 2) each, the highest demand (S, T, B, 2) from each row to its month's end, with the row and without."""
    ahead, beyond = torch.zeros_like(demand), torch.zeros_like(demand)
    starts = np.flatnonzero(month_start).tolist()
    for first, last in zip(starts, [*starts[1:], demand.shape[1]], strict=True):
        ahead[:, first:last] = demand[:, first:last].flip(1).cummax(1).values.flip(1)
        beyond[:, first : last - 1] = ahead[:, first + 1 : last]
    return ahead, beyond
