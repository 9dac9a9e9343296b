"""A power outage: each building has its own PV and battery, and nothing else.

What a device may use is what the PV leaves after the devices that CityLearn serves before it. So the order matters: a
discharging battery first, then cooling, heating, hot water, the load, and a charging battery. E environments, B
buildings; energies are kWh per step.

Source: CityLearn 3.0.2, `building.py` (downward_electrical_flexibility, update_electrical_storage,
_clip_outage_electric_loads_to_local_supply) and `power_outage.py` (ReliabilityMetricsPowerOutage).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from iquitos_rl.cases.thermal import END_USES
from iquitos_rl.envs.district.batteries import Exchange, stored
from iquitos_rl.envs.district.end_uses import Devices, Served, serve


class Used(NamedTuple):
    """Electricity that the devices of a building have used so far in a step, (E, B) each; CityLearn's order."""

    cooling: Tensor
    heating: Tensor
    dhw: Tensor
    load: Tensor
    battery: Tensor


class Islanded(NamedTuple):
    """What the devices did in a row in which some buildings may be without the grid, (E, B) or (E, B, U) each."""

    served: Served
    load: Tensor
    battery: Exchange


def islanded(
    devices: Devices,
    exchange: Callable[[Tensor], Exchange],
    outage: Tensor,
    energy: Tensor,
    tank_soc: Tensor,
    tank_action: Tensor,
    demand: Tensor,
    cop: Tensor,
    file_demand: Tensor,
    load: Tensor,
    pv: Tensor,
    hours: float,
    exact: bool,
) -> Islanded:
    """Serve all devices of a row, each from what those before it left.

    Args:
        exchange: charges the batteries with kWh (E, B), negative to discharge, and returns what they did.
        outage: (E, B) bool.
        energy: (E, B) kWh that the batteries are asked for.
        tank_soc, tank_action, demand, cop: (E, B, U).
        file_demand: (E, B, U) as the data give it.
        load, pv: (E, B).
    """
    giving = energy < 0
    most = most_discharge(file_demand, cop, load, pv)
    early = exchange(torch.where(outage, torch.maximum(energy, -most), energy).clamp(max=0))
    used = nothing_used(load)
    used = used._replace(battery=torch.where(giving, early.energy, used.battery))
    parts = []
    for u, name in enumerate(END_USES):

        def left(electricity: Tensor, name: str = name, used: Used = used) -> Tensor:
            return spare(used._replace(**{name: electricity}), pv, outage, exact)

        each = Devices(*(parameter[..., u] for parameter in devices))
        part = serve(each, tank_soc[..., u], tank_action[..., u], demand[..., u], cop[..., u], hours, exact, left)
        used = used._replace(**{name: part.electricity})
        parts.append(part)
    load = torch.minimum(load, spare(used, pv, outage, exact))
    used = used._replace(load=stored(load, exact))
    late = exchange(torch.minimum(energy.clamp(min=0), spare(used, pv, outage, exact)))
    battery = Exchange(*(torch.where(giving, a, b) for a, b in zip(early, late)))
    return Islanded(Served(*(torch.stack(kind, dim=-1) for kind in zip(*parts))), used.load, battery)


def used_by(electricity: Tensor, load: Tensor, battery: Tensor) -> Used:
    """From the electricity (E, B, U) of the end uses, and (E, B) of load and battery."""
    cooling, heating, dhw = electricity.unbind(-1)
    return Used(cooling, heating, dhw, load, battery)


def nothing_used(like: Tensor) -> Used:
    return Used(*[torch.zeros_like(like)] * 5)


def spare(used: Used, pv: Tensor, outage: Tensor, exact: bool) -> Tensor:
    """(E, B) electricity that is left for the next device: infinite where there is no outage.

    CityLearn adds up the series in single precision. Sockets are not among them.
    """
    total = used[0]
    for more in used[1:]:
        total = stored(total + more, exact)
    return torch.where(outage, stored(pv - total, exact).clamp(min=0), torch.inf)


def most_discharge(demand: Tensor, cop: Tensor, load: Tensor, pv: Tensor) -> Tensor:
    """(E, B) most that a battery may give in an outage.

    It discharges before the other devices, so CityLearn looks at what it filled in at the episode's start: the demands
    (E, B, U) and the load of the data, less PV.
    """
    cooling, heating, dhw = (demand / cop).unbind(-1)
    return (cooling + heating + dhw + load - pv).clamp(min=0)


def clipped(used: Used, pv: Tensor, outage: Tensor, exact: bool) -> Used:
    """What CityLearn books in an outage in the first row of an episode: load, hot water, heating and cooling in this
    order, each as far as PV and battery reach."""
    left = pv + (-used.battery).clamp(min=0)
    served = {}
    for name in ("load", "dhw", "heating", "cooling"):
        wanted = getattr(used, name)
        given = torch.minimum(wanted.clamp(min=0), left)
        served[name] = torch.where(outage & (given < wanted), stored(given, exact), wanted)
        left = (left - given).clamp(min=0)
    return used._replace(**served)
