"""Tanks on a demand that is fixed, in a linear programme: what a tank gives its device need not deliver.

A relaxation of CityLearn's tanks (`envs/district/end_uses.py`): a tank may give and take in one step, and may waste
what it holds. Neither is worth anything, so a plan does neither, unless an hour is free of charge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.programme import Programme
from iquitos_rl.cases.site import Floats, Ints, Site
from iquitos_rl.cases.thermal import END_USES, EndUse
from iquitos_rl.envs.task.thermal import tanks


class Heat(NamedTuple):
    """A plan's thermal side; energies in kWh per step."""

    change: Floats
    """(H, B) electricity of the devices beyond what they use while every tank rests."""
    tank: Floats
    """(H, B, U) thermal energy into each tank, negative out of it; U = 3 end uses."""


def add_tanks(programme: Programme, site: Site, net_rows: Ints) -> Callable[[Floats], Heat]:
    """Add every tank that obeys actions; returns what maps a solution to the thermal side of the plan.

    Args:
        net_rows: (H, B) index of the programme's rows `everything planned - import <= PV - load`, whose right side
            counts what the devices use while every tank rests.
    """
    count, buildings = net_rows.shape
    moved = [
        (tank.building, tank.use, *_add_tank(programme, site, tank.building, tank.use, tank.reach, net_rows))
        for tank in tanks(site)
    ]

    def heat(x: Floats) -> Heat:
        change, energy = np.zeros((count, buildings)), np.zeros((count, buildings, len(END_USES)))
        for b, use, take, give in moved:
            energy[:, b, use] = x[take] - x[give]
            cop = site.buildings[b].end_uses[use].cop[:count]
            change[:, b] += energy[:, b, use] / cop
            change[0, b] -= x[give[0]] / cop[0]
        return Heat(change, energy)

    return heat


def _add_tank(programme: Programme, site: Site, b: int, use: int, reach: float, net_rows: Ints) -> tuple[Ints, Ints]:
    """Add a tank; returns the variables of what it takes and gives, thermal kWh at its terminals."""
    own: EndUse = site.buildings[b].end_uses[use]
    tank, hours, count = own.tank, site.hours_per_step, len(net_rows)
    most = own.device.nominal_power * own.cop[:count]
    demand = np.minimum(own.demand[:count], most)
    root, kept = np.sqrt(tank.efficiency), min(max(1 - tank.loss_coefficient * hours, 0.0), 1.0)
    asked = reach * tank.capacity * hours
    take = programme.variables(count, 0.0, upper=min(asked, tank.max_input_power * hours))
    give = programme.variables(count, 0.0, upper=np.minimum(demand, min(asked, tank.max_output_power * hours)))
    stored = programme.variables(count, 0.0, upper=tank.capacity)
    programme.put(net_rows[:, b], take, 1 / own.cop[:count])
    saved = -1 / own.cop[:count]
    saved[0] *= 2  # in the first row CityLearn books twice what a tank gives, see `end_uses.first_row`
    programme.put(net_rows[:, b], give, saved)
    power = programme.rows(most - demand)
    programme.put(power, take, 1.0)
    programme.put(power, give, -1.0)
    right = np.zeros(count)
    right[0] = tank.initial_soc * tank.capacity
    balance = programme.rows(right)
    programme.put(balance, stored, 1.0)
    programme.put(balance, take, -root)
    programme.put(balance, give, 1 / root)
    programme.put(balance[1:], stored[:-1], -kept)
    return take, give
