"""Appliances in a site's task: an action of at least 0 starts the cycle that may run, below 0 it waits.

So doing nothing is an ordinary household, whose machines start as soon as they may. With the guard on, a cycle starts
in the last row in which it may: an agent decides when a machine runs, not whether. E environments, A appliances, S
years of T rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.appliance import NOTHING, Appliance
from iquitos_rl.cases.site import Building, Floats, Site

Series = dict[str, tuple[Floats, float, float]]


def action_names(site: Site) -> list[str]:
    """Names of the actions, in order: `Building_1/washing_machine`."""
    return [f"{site.buildings[b].name}/{own.name}" for b, own in site.appliances]


def exogenous(building: Building) -> Series:
    """Columns that no action changes: whether a cycle may start, how many steps remain to start it, and its energy."""
    columns: Series = {}
    for own in building.appliances:
        name, open_now = f"{building.name}/{own.name}", own.cycle != NOTHING
        left, energy = steps_left(own), cycle_kwh(own)
        columns[f"{name}/may_start"] = open_now.astype(np.float64), 0.0, 1.0
        columns[f"{name}/steps_left"] = left, 0.0, float(left.max(initial=0))
        columns[f"{name}/cycle_kwh"] = energy, 0.0, float(energy.max(initial=0))
    return columns


def endogenous(site: Site) -> list[tuple[str, float, float]]:
    """Name and bounds of the columns that actions change: whether a cycle waits, and the kWh that those started before
    use in the next step."""
    names = action_names(site)
    most = [float(own.profiles.max(initial=0)) for _, own in site.appliances]
    return [
        *((f"{name}/waiting", 0.0, 1.0) for name in names),
        *((f"{name}/running_kwh", 0.0, max(kwh, 1e-6)) for name, kwh in zip(names, most)),
    ]


def commands(action: Tensor, last_chance: Tensor | None) -> Tensor:
    """An agent's actions (E, A) in [-1, 1] as CityLearn's: 1 starts, 0 does not.

    Args:
        last_chance: (E, A) bool, whether a cycle can start in this row for the last time; None without the guard.
    """
    starts = action >= 0
    return (starts if last_chance is None else starts | last_chance).to(action.dtype)


def last_chances(sites: Sequence[Site]) -> Tensor | None:
    """(S * T, A) bool, whether a cycle can start in a row for the last time; None without appliances."""
    if not sites[0].appliances:
        return None
    return torch.from_numpy(np.concatenate([np.stack([own.closes for _, own in s.appliances], -1) for s in sites]))


def observe(waiting: Tensor, running_kwh: Tensor) -> Tensor:
    """(E, 2 A) values of `endogenous`."""
    return torch.cat([waiting.to(running_kwh.dtype), running_kwh], dim=-1)


def steps_left(own: Appliance) -> Floats:
    """(T,) steps, this one included, in which the cycle may still start; 0 where none may."""
    rows = np.arange(len(own.cycle))
    last = np.minimum.accumulate(np.where(own.closes, rows, len(rows))[::-1])[::-1]
    return np.where(own.cycle == NOTHING, 0, last - rows + 1).astype(np.float64)


def cycle_kwh(own: Appliance) -> Floats:
    """(T,) kWh of the cycle that may start, 0 where none may."""
    return np.append(own.profiles.sum(1), 0.0)[own.cycle]
