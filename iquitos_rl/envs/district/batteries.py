"""Charges and discharges many batteries at once (`energy_model.py`, Battery.charge and StorageDevice._charge).

D batteries; SOC is a share of the nameplate capacity. Power is limited by SOC, efficiency depends on power; two passes
resolve both. As in CityLearn, an SOC below 1 - depth of discharge is raised to that at no cost, and capacity fades with
every kWh charged or discharged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Battery
from iquitos_rl.envs.district import curves
from iquitos_rl.envs.district.curves import Curves

TINY = 1e-6
"""ZERO_DIVISION_PLACEHOLDER of CityLearn."""


class Batteries(NamedTuple):
    """Parameters, (D,) each, or (1,) if all batteries have the same value."""

    capacity: Tensor
    """kWh."""
    lowest_soc: Tensor
    """1 - depth of discharge."""
    nominal_power: Tensor
    """kW."""
    nominal_energy: Tensor
    """Nominal power over one step, as a share of capacity."""
    kept: Tensor
    """Share of the SOC that is left after the standby losses of one step."""
    fade: Tensor
    """capacity_loss_coefficient."""
    efficiency: Curves
    """Round-trip efficiency by share of nominal power; in fast mode by energy per step as share of capacity."""
    available: Curves
    """Available share of nominal power by SOC; in fast mode available energy per step as share of capacity."""

    def select(self, device: Tensor) -> Batteries:
        """The batteries with these indices, of any shape; fields then have that shape instead of (D,)."""
        *parameters, efficiency, available = self
        chosen = (values if values.shape[-1] == 1 else values[device] for values in parameters)
        return Batteries._make((*chosen, efficiency.select(device), available.select(device)))


class Traits(NamedTuple):
    """What holds for all batteries of a group. Decided once, it saves work in every step."""

    constant_efficiency: bool
    constant_power: bool
    ordinary_power: bool
    """The available power is never negative and never above nominal."""
    fades: bool
    leaks: bool


class Exchange(NamedTuple):
    """Result of one step of the batteries."""

    soc: Tensor
    """(..., D)."""
    degraded: Tensor
    """(..., D) capacity left in kWh in exact mode; in fast mode share lost, which float32 resolves better."""
    energy: Tensor
    """(..., D) energy at the terminals, positive to charge: kWh in exact mode, share of capacity in fast mode."""


def parameter(values: Sequence[float], dtype: torch.dtype, where: torch.device) -> Tensor:
    """(D,) values, or (1,) if all are equal."""
    array = np.asarray(values, dtype=np.float64)
    return torch.as_tensor(array[:1] if (array == array[:1]).all() else array, dtype=dtype, device=where)


def make_batteries(
    batteries: Sequence[Battery], hours: float, exact: bool, where: torch.device
) -> tuple[Batteries, Traits]:
    """Parameters for steps of `hours`; a battery of capacity 0 does nothing."""
    dtype = torch.float64 if exact else torch.float32

    def each(values: list[float]) -> Tensor:
        return parameter(values, dtype, where)

    nominal = [b.nominal_power * hours / max(b.capacity, TINY) for b in batteries]
    efficiency = [b.power_efficiency_curve for b in batteries]
    available = [b.capacity_power_curve for b in batteries]
    traits = Traits(
        constant_efficiency=all(np.ptp(curve[1]) == 0 for curve in efficiency),
        constant_power=all(np.ptp(curve[1]) == 0 for curve in available),
        ordinary_power=all(
            curve[1].min() >= 0 and curve[1].max() <= 1 and curve[0, 0] <= 0 and curve[0, -1] >= 1
            for curve in available
        ),
        fades=any(b.capacity_loss_coefficient > 0 for b in batteries),
        leaks=any(b.loss_coefficient > 0 for b in batteries),
    )
    if not exact:
        efficiency = [curve * [[max(n, TINY)], [1.0]] for curve, n in zip(efficiency, nominal)]
        available = [curve * [[1.0], [n]] for curve, n in zip(available, nominal)]
    stacked = Batteries(
        capacity=each([b.capacity for b in batteries]),
        lowest_soc=each([b.lowest_soc for b in batteries]),
        nominal_power=each([b.nominal_power for b in batteries]),
        nominal_energy=each(nominal),
        kept=each([1.0 - b.loss_coefficient * hours for b in batteries]),
        fade=each([b.capacity_loss_coefficient for b in batteries]),
        efficiency=curves.make_curves(efficiency, dtype, where),
        available=curves.make_curves(available, dtype, where),
    )
    return stacked, traits


def initial_soc(batteries: Sequence[Battery], exact: bool, where: torch.device) -> Tensor:
    """(D,) SOC at the start of an episode, rounded to float32 as in CityLearn."""
    socs = [max(b.initial_soc, b.lowest_soc) for b in batteries]
    return torch.tensor(socs, dtype=torch.float32, device=where).to(torch.float64 if exact else torch.float32)


def single(x: Tensor) -> Tensor:
    """Round to float32, in which CityLearn stores its series."""
    return x.to(torch.float32).to(x.dtype)


def stored(x: Tensor, exact: bool) -> Tensor:
    """What CityLearn keeps of a number in its series; in fast mode the number itself."""
    return single(x) if exact else x


def exchange_exact(b: Batteries, soc: Tensor, degraded: Tensor, energy: Tensor, hours: float) -> Exchange:
    """One step in float64, with CityLearn's order of operations and roundings.

    Args:
        soc: (..., D).
        degraded: (..., D) capacity left, kWh.
        energy: (..., D) kWh wanted, negative to discharge.
    """
    lowest = b.lowest_soc * b.capacity
    stored = torch.maximum(lowest, soc * b.capacity)
    power = b.nominal_power * curves.exact(b.available, stored / b.capacity.clamp(min=TINY))
    wanted = torch.minimum(energy.abs(), power.clamp(min=0) * hours)
    charging = energy >= 0
    room = torch.where(charging, degraded - stored, stored - lowest).clamp(min=0)
    limited = wanted
    for _ in range(2):
        share = (limited / hours / b.nominal_power.clamp(min=TINY)).clamp(0, 1)
        root = curves.exact(b.efficiency, share).sqrt()
        limited = torch.minimum(wanted, torch.where(charging, room / root, room * root))
    after = stored + torch.where(charging, limited * root, -limited / root)
    after = torch.where(charging, torch.minimum(after, b.capacity), torch.maximum(after, lowest))
    moved = after - stored
    balance = single(torch.where(moved >= 0, moved / root, moved * root))
    faded = degraded - b.fade * b.capacity * balance.abs() / (2 * degraded.clamp(min=TINY))
    return Exchange(single(after / b.capacity.clamp(min=TINY)), faded.clamp(min=0), balance)


def exchange_fast(
    b: Batteries, traits: Traits, soc: Tensor, lost: Tensor, charge: Tensor, discharge: Tensor | None
) -> Exchange:
    """One step in shares of capacity, without masks. Autograd can go through it: what it keeps is not overwritten.

    Args:
        soc: (..., D).
        lost: (..., D) share of capacity lost by fading.
        charge: (..., D) wanted energy at the terminals, share of capacity, >= 0.
        discharge: the same, 0 wherever `charge` is not 0; None if no battery discharges.
    """
    stored = torch.maximum(soc, b.lowest_soc)
    available = b.available.y[0] if traits.constant_power else curves.fast(b.available, stored)
    if not traits.ordinary_power:
        available = available.clamp(min=0)
    into = torch.minimum(charge, available)
    whole = 1 - lost
    room = (whole - stored).relu()
    root = _root(b, traits, into)
    if not traits.constant_efficiency:
        root = _root(b, traits, torch.minimum(into, room / root))
    gained = torch.minimum(into * root, room)
    after, moved = stored + gained, gained / root
    energy = moved
    if discharge is not None:
        out = torch.minimum(discharge, available)
        room = stored - b.lowest_soc
        root = _root(b, traits, out)
        if not traits.constant_efficiency:
            root = _root(b, traits, torch.minimum(out, room * root))
        drawn = torch.minimum(out / root, room)
        after = after - drawn
        given = drawn * root
        moved, energy = moved + given, moved - given
    if traits.fades:
        lost = torch.addcdiv(lost, moved * b.fade, whole.clamp(min=TINY), value=0.5).clamp(max=1)
    return Exchange(after, lost, energy)


def stand_by(b: Batteries, soc: Tensor) -> Tensor:
    """SOC at the start of the next step (`energy_model.py`, StorageDevice.next_time_step)."""
    return torch.maximum(soc * b.kept, b.lowest_soc).clamp(max=1)


def _root(b: Batteries, traits: Traits, energy: Tensor) -> Tensor:
    """One-way efficiency at this energy per step, share of capacity."""
    if traits.constant_efficiency:
        return b.efficiency.y[0].sqrt()
    if not traits.ordinary_power:
        energy = torch.minimum(energy, b.nominal_energy)  # where the curve ends
    return curves.fast(b.efficiency, energy).sqrt()
