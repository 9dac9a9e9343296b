"""Cooling, heating and hot water: a heat pump or heater that meets a demand, and a tank between them.

E environments, B buildings, U = 3 end uses: cooling, heating, domestic hot water. All end uses obey the same formulas,
so they are an axis of every tensor. A building without a device has one without power, and one without a tank has one
without capacity, as in CityLearn. Energies are kWh per step, powers kW, thermal ones too.

In exact mode everything is float64 and rounded where CityLearn stores single precision; in fast mode the same formulas
run in float32 and without masks, which a CPU computes 20 times as slowly as a product.

Source: CityLearn 3.0.2, `energy_model.py` (HeatPump, ElectricHeater, StorageTank) and `building.py`
(update_energy_from_*_device, update_*_storage).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Floats
from iquitos_rl.cases.thermal import EndUse
from iquitos_rl.envs.district.batteries import TINY, stored

COOLING, HEATING = 0, 1


class Devices(NamedTuple):
    """Parameters of devices and tanks, (B, U) each."""

    power: Tensor
    """Nominal electric power of the device, kW."""
    capacity: Tensor
    """Of the tank, kWh."""
    root: Tensor
    """One-way efficiency of the tank."""
    kept: Tensor
    """Share of the tank's SOC that is left after one step of standby."""
    most_in: Tensor
    """Most energy into the tank in a step, kWh; infinite where nothing limits it."""
    most_out: Tensor


class Served(NamedTuple):
    """What one step did, (E, B, U) each unless said otherwise."""

    soc: Tensor
    """Of the tanks after the action, before standby losses."""
    balance: Tensor
    """kWh that the tank took (positive) or gave (negative)."""
    delivered: Tensor
    """kWh thermal that the device delivered to the demand."""
    electricity: Tensor
    """kWh electric that the device used."""


def make_devices(buildings: Sequence[Sequence[EndUse]], hours: float, exact: bool, where: torch.device) -> Devices:
    """Parameters of the end uses of all buildings, for steps of so many hours."""
    dtype = torch.float64 if exact else torch.float32

    def each(field: str) -> Tensor:
        values = [[getattr(use.tank, field) for use in uses] for uses in buildings]
        return torch.tensor(values, dtype=torch.float64)

    power = torch.tensor([[use.device.nominal_power for use in uses] for uses in buildings], dtype=torch.float64)
    parameters = (
        power,
        each("capacity"),
        each("efficiency").pow(0.5),
        1 - each("loss_coefficient") * hours,
        each("max_input_power") * hours,
        each("max_output_power") * hours,
    )
    return Devices(*(parameter.to(where, dtype) for parameter in parameters))


def initial_socs(buildings: Sequence[Sequence[EndUse]], exact: bool, where: torch.device) -> Tensor:
    """(B, U) SOC of the tanks at the start of an episode; CityLearn stores it in single precision."""
    socs = [[use.tank.initial_soc for use in uses] for uses in buildings]
    return torch.tensor(socs, dtype=torch.float32).to(where, torch.float64 if exact else torch.float32)


def rows(buildings: Sequence[Sequence[EndUse]]) -> tuple[Floats, Floats]:
    """(T, B, U) each: the demand in kWh, and the COP of each device (of a heater its efficiency)."""
    demand = np.stack([np.stack([use.demand for use in uses], axis=-1) for uses in buildings], axis=1)
    cop = np.stack([np.stack([use.cop for use in uses], axis=-1) for uses in buildings], axis=1)
    return demand, cop


def charge(d: Devices, soc: Tensor, energy: Tensor, exact: bool) -> tuple[Tensor, Tensor]:
    """SOC and balance of the tanks (..., B, U) after they were asked to take `energy` kWh, negative to give."""
    energy = torch.maximum(torch.minimum(energy, d.most_in), -d.most_out)
    before = (soc * d.capacity).clamp(min=0)
    taking = energy >= 0
    full = torch.minimum(before + energy * d.root, d.capacity)
    after = torch.where(taking, full, (before + energy / d.root).clamp(min=0))
    moved = after - before
    balance = torch.where(moved >= 0, moved / d.root, moved * d.root)
    soc = after / d.capacity.clamp(min=TINY)
    return stored(soc, exact), stored(balance, exact)


def serve(
    d: Devices,
    soc: Tensor,
    action: Tensor,
    demand: Tensor,
    cop: Tensor,
    hours: float,
    exact: bool,
    spare: Callable[[Tensor], Tensor] | None = None,
) -> Served:
    """Meet the demand and charge or discharge the tanks.

    A tank that gives goes first, and the device delivers the rest. A tank that takes goes last, and gets what the
    demand leaves of the device's power.

    Args:
        soc, action, demand, cop: (E, B, U); actions as a share of the tank's capacity.
        spare: in an outage, the electricity (E, B, U) that is left for the device once it has used so much; None where
            nothing limits it.
    """
    wanted = action * d.capacity * hours
    if not exact:
        return _serve_fast(d, soc, wanted, demand, cop, spare)
    given_soc, given = charge(d, soc, torch.maximum(-demand, wanted), exact)
    giving = action < 0
    from_tank = torch.where(giving, -given, torch.zeros_like(given)).clamp(min=0)
    power = d.power if spare is None else torch.minimum(spare(torch.zeros_like(demand)), d.power)
    delivered = torch.minimum(stored(demand - from_tank, exact), power * cop)
    electricity = stored((delivered / cop).clamp(min=0), exact)
    left = d.power - electricity
    if spare is not None:
        left = torch.minimum(spare(electricity), left)
    taken_soc, taken = charge(d, soc, torch.minimum(left * cop, wanted.clamp(min=0)), exact)
    electricity = torch.where(giving, electricity, stored(electricity + taken.clamp(min=0) / cop, exact))
    return Served(
        soc=torch.where(giving, given_soc, taken_soc),
        balance=torch.where(giving, given, taken),
        delivered=stored(delivered, exact),
        electricity=electricity,
    )


def _serve_fast(
    d: Devices, soc: Tensor, wanted: Tensor, demand: Tensor, cop: Tensor, spare: Callable[[Tensor], Tensor] | None
) -> Served:
    """As `serve`, for energies `wanted` (E, B, U) of the tanks in kWh: a tank that gives takes 0, and the reverse."""
    before = soc * d.capacity
    asked = torch.minimum(torch.minimum((-wanted).relu(), demand), d.most_out)
    drawn = torch.minimum(asked / d.root, before)
    given = drawn * d.root
    power = d.power if spare is None else torch.minimum(spare(torch.zeros_like(demand)), d.power)
    delivered = torch.minimum(demand - given, cop * power)
    electricity = (delivered / cop).relu()
    left = (d.power - electricity).relu()  # rounded below 0, it would fill a tank of no capacity with less than nothing
    if spare is not None:
        left = torch.minimum(spare(electricity), left)
    offered = torch.minimum(torch.minimum(wanted.relu(), left * cop), d.most_in)
    gained = torch.minimum(offered * d.root, d.capacity - before)
    taken = gained / d.root
    return Served(
        soc=(before - drawn + gained) / d.capacity.clamp(min=TINY),
        balance=taken - given,
        delivered=delivered,
        electricity=torch.addcdiv(electricity, taken, cop),
    )


def stand_by(d: Devices, soc: Tensor, exact: bool) -> Tensor:
    """SOC at the start of the next step."""
    return stored((soc * d.kept).clamp(0, 1), exact)


def first_row(served: Served, cop: Tensor, first: Tensor, exact: bool) -> Tensor:
    """(E, B, U) electricity that CityLearn books: `served.electricity` but for the first row of an episode.

    There it divides the sum of what the device and the tank moved, so that what a tank gives counts against the device
    (`building.py`, update_variables).

    Args:
        first: (E, 1, 1) bool.
    """
    if exact:
        return torch.where(first, stored((served.delivered + served.balance) / cop, exact), served.electricity)
    given = served.balance.clamp(max=0) * first
    return torch.addcdiv(served.electricity, given, cop)
