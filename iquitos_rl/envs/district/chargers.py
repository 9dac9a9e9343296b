"""Chargers: from an action to power, and from power to the energy at the vehicle and at the building.

N sockets. An action is a share of the charger's full power, positive to charge. A power below the charger's least power
becomes 0. Source: `electric_vehicle_charger.py`, update_connected_electric_vehicle_soc.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Charger, Floats
from iquitos_rl.envs.district import curves
from iquitos_rl.envs.district.batteries import (
    TINY,
    Batteries,
    Exchange,
    Traits,
    exchange_exact,
    exchange_fast,
    parameter,
    single,
)
from iquitos_rl.envs.district.curves import Curves

SHARP = 1e12
"""Slope that turns the difference of two float32 numbers into 0 or 1."""


class Direction(NamedTuple):
    """Parameters of charging or of discharging, (N,) each, or (1,) if all sockets have the same value."""

    full: Tensor
    """kW at an action of 1."""
    least: Tensor
    """kW, least power from the schema."""
    deadband: Tensor
    """kW below which the charger does nothing: the least power, at most the full power."""
    threshold: Tensor
    """Smallest share of full power, in float32, that does not become 0."""
    efficiency: Tensor
    curve: Curves | None
    """Efficiency by share of full power; None if no socket has such a curve."""


class Chargers(NamedTuple):
    charge: Direction
    discharge: Direction
    discharges: bool
    """Whether any socket can discharge."""
    has_deadband: bool


def make_chargers(chargers: Sequence[Charger], dtype: torch.dtype, where: torch.device) -> Chargers:
    def direction(full: list[float], least: list[float], curve: list[Floats | None]) -> Direction:
        deadband = np.minimum(least, full)
        efficiency = [charger.efficiency for charger in chargers]
        steady = [np.array([[0.0, 1.0], [value, value]]) for value in efficiency]
        filled = [_two_knots(own) if own is not None else flat for own, flat in zip(curve, steady)]
        return Direction(
            full=parameter(full, dtype, where),
            least=parameter(least, dtype, where),
            deadband=parameter(deadband.tolist(), dtype, where),
            threshold=parameter([_threshold(*pair) for pair in zip(full, deadband)], dtype, where),
            efficiency=parameter(efficiency, dtype, where),
            curve=curves.make_curves(filled, dtype, where) if any(own is not None for own in curve) else None,
        )

    return Chargers(
        charge=direction(
            [c.max_charging_power for c in chargers],
            [c.min_charging_power for c in chargers],
            [c.charge_efficiency_curve for c in chargers],
        ),
        discharge=direction(
            [c.max_discharging_power for c in chargers],
            [c.min_discharging_power for c in chargers],
            [c.discharge_efficiency_curve for c in chargers],
        ),
        discharges=any(c.max_discharging_power > 0 for c in chargers),
        has_deadband=any(c.min_charging_power > 0 or c.min_discharging_power > 0 for c in chargers),
    )


def request_exact(chargers: Chargers, action: Tensor) -> Tensor:
    """(E, N) requested kW, positive to charge, for actions (E, N) in [-1, 1]."""
    charging = action > 0
    power = torch.where(charging, action * chargers.charge.full, action * chargers.discharge.full)
    deadband = torch.where(charging, chargers.charge.deadband, chargers.discharge.deadband)
    return torch.where(power.abs() < deadband, torch.zeros_like(power), power)


def request_fast(chargers: Chargers, action: Tensor) -> Tensor:
    """As `request_exact`, without masks."""
    power = _above_deadband(chargers, chargers.charge, action.clamp(min=0)) * chargers.charge.full
    if not chargers.discharges:
        return power
    return power - _above_deadband(chargers, chargers.discharge, (-action).clamp(min=0)) * chargers.discharge.full


def charge_exact(
    chargers: Chargers, vehicles: Batteries, soc: Tensor, degraded: Tensor, power: Tensor, hours: float
) -> tuple[Exchange, Tensor]:
    """Charge and discharge the connected vehicles in CityLearn's order of operations.

    Args:
        vehicles: parameters of the vehicle at each socket.
        soc, degraded: (E, N) of that vehicle, see `batteries.Exchange`.
        power: (E, N) kW requested, 0 at empty sockets.

    Returns:
        The result at the vehicles, and (E, N) kWh that the building's meter counts.
    """
    charging = power > 0
    full = torch.where(charging, chargers.charge.full, chargers.discharge.full)
    share = power.abs() / full.clamp(min=TINY)
    commanded = share * full * hours
    into, out = chargers.charge.efficiency, chargers.discharge.efficiency
    if chargers.charge.curve is not None:
        into = curves.exact_bounded(chargers.charge.curve, share)
    if chargers.discharge.curve is not None:
        out = curves.exact_bounded(chargers.discharge.curve, share)
    efficiency = torch.where(charging, into, out)
    energy = torch.where(charging, commanded * efficiency, -commanded / efficiency.clamp(min=TINY))
    exchange = exchange_exact(vehicles, soc, degraded, energy, hours)
    balance = exchange.energy
    paid = torch.where(balance >= 0, balance / efficiency.clamp(min=TINY), balance * efficiency)
    return exchange, single(torch.where(power == 0, torch.zeros_like(paid), paid))


def charge_fast(
    chargers: Chargers, vehicles: Batteries, traits: Traits, soc: Tensor, lost: Tensor, power: Tensor, hours: float
) -> tuple[Exchange, Tensor]:
    """As `charge_exact`, in shares of capacity, without masks."""
    up = power.clamp(min=0) if chargers.discharges else power
    into = _efficiency(chargers.charge, up)
    charge = up * (into * (hours / vehicles.capacity.clamp(min=TINY)))
    if not chargers.discharges:
        exchange = exchange_fast(vehicles, traits, soc, lost, charge, None)
        return exchange, exchange.energy * (vehicles.capacity / into)
    down = (-power).clamp(min=0)
    out = _efficiency(chargers.discharge, down)
    discharge = down * (hours / (vehicles.capacity.clamp(min=TINY) * out))
    exchange = exchange_fast(vehicles, traits, soc, lost, charge, discharge)
    energy = exchange.energy * vehicles.capacity
    return exchange, energy.clamp(min=0) / into + energy.clamp(max=0) * out


def _above_deadband(chargers: Chargers, direction: Direction, share: Tensor) -> Tensor:
    if not chargers.has_deadband:
        return share
    return share * ((share - direction.threshold) * SHARP + 1).clamp(0, 1)


def _threshold(full: float, deadband: float) -> float:
    """Smallest float32 share whose power CityLearn, in float64, does not find below the deadband."""
    share = np.float32(deadband / full if full > 0 else 0.0)
    while float(share) * full < deadband:
        share = np.nextafter(share, np.float32(1))
    while share > 0 and float(below := np.nextafter(share, np.float32(0))) * full >= deadband:
        share = below
    return float(share)


def _efficiency(direction: Direction, power: Tensor) -> Tensor:
    if direction.curve is None:
        return direction.efficiency
    return curves.fast_bounded(direction.curve, power / direction.full.clamp(min=TINY))


def _two_knots(curve: Floats) -> Floats:
    return curve if curve.shape[1] > 1 else np.stack([curve[:, 0], curve[:, 0] + [1.0, 0.0]], axis=1)
