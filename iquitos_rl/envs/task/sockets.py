"""What a vehicle at a socket needs, and the range of actions that lets it leave with its wanted SOC.

With the guard on, an agent's action in [-1, 1] chooses *when* to charge, not *whether*. -1 is the smallest power after
which full power in the remaining steps still reaches the wanted SOC in time; +1 is full power until the wanted SOC is
reached; between them the power is linear. Where a charger of the site can discharge, that is what 0 to 1 means, and
from 0 down to -1 vehicles give back what they can do without. Without the guard the action spans the charger's whole
range. Empty sockets get 0, since CityLearn counts a request there against the site's limits (`building_ops.py`,
_apply_electrical_service).

Shapes: T rows, N sockets; a leading E stands for environments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.cases.site import Battery, Charger, Floats, Site

EMPTY = -1
ROUNDING = 1e-4
"""A vehicle that lags by less than this share of a step's full charge is not late."""
ABOVE_EDGE = 1 + 1e-6
"""A request exactly at the edge of a deadband may be dropped by rounding. The guard asks for this factor more, which
single precision resolves."""


def _charge_gain(charger: Charger, battery: Battery, required_soc: Floats, hours: float) -> Floats:
    """(T,) SOC gained in one step at full power, at the wanted SOC, where a tapering battery charges slowest."""
    available = battery.nominal_power * np.interp(required_soc, *battery.capacity_power_curve)
    efficiency = charger.efficiency
    if charger.charge_efficiency_curve is not None:
        efficiency = float(np.interp(1.0, *charger.charge_efficiency_curve))
    energy = np.minimum(charger.max_charging_power * efficiency, available) * hours
    share = np.clip(energy / hours / max(battery.nominal_power, 1e-6), 0, 1)
    round_trip = np.interp(share, *battery.power_efficiency_curve)
    return energy * np.sqrt(round_trip) / battery.capacity


def _discharge_drop(charger: Charger, battery: Battery, hours: float) -> float:
    """SOC lost in one step at full discharging power."""
    efficiency = charger.efficiency
    if charger.discharge_efficiency_curve is not None:
        efficiency = float(np.interp(1.0, *charger.discharge_efficiency_curve))
    energy = min(charger.max_discharging_power / max(efficiency, 1e-6), battery.nominal_power) * hours
    share = min(energy / hours / max(battery.nominal_power, 1e-6), 1.0)
    round_trip = max(float(np.interp(share, *battery.power_efficiency_curve)), 1e-6)
    return float(energy / np.sqrt(round_trip) / battery.capacity)


def _deadband(charger: Charger) -> float:
    """Share of full charging power below which the charger does nothing."""
    return min(charger.min_charging_power, charger.max_charging_power) / max(charger.max_charging_power, 1e-6)


@dataclass(frozen=True)
class SocketTables:
    """Schedules and limits of every socket of a site; T rows, N sockets."""

    vehicle: NDArray[np.int64]
    """(T, N) index of the connected vehicle, -1 where the socket is empty."""
    steps_left: Floats
    """(T, N) steps until departure, including this one; 0 where empty."""
    required_soc: Floats
    """(T, N) SOC wanted at departure; 0 where empty."""
    arrival_soc: Floats
    """(T, N) SOC of a vehicle that connects in this row; NaN elsewhere."""
    departs: NDArray[np.bool_]
    """(T, N) True in the last row of a visit."""
    gain: Floats
    """(T, N) SOC gained in one step at full power; 1 where empty."""
    drop: Floats
    """(T, N) SOC lost in one step at full discharge; 1 where empty or where the charger cannot discharge."""
    capacity: Floats
    """(T, N) capacity of the connected vehicle's battery, kWh; 0 where empty."""
    floor: Floats
    """(T, N) SOC down to which the connected vehicle can be discharged; 0 where empty."""
    lowest: Floats
    """(N,) lowest action: -1 where the charger can discharge, else 0."""
    smallest: Floats
    """(N,) smallest share of full power that is not dropped, just above the charger's deadband; 0 without one."""


def socket_tables(site: Site) -> SocketTables:
    """Combine every socket's schedule with the parameters of the connected vehicles."""
    chargers = [charger for _, charger in site.sockets]
    shape = (site.rows, len(chargers))

    def column(values: list[NDArray[np.generic]]) -> NDArray[np.generic]:
        return np.stack(values, axis=-1) if values else np.zeros(shape)

    vehicle = column([charger.vehicle for charger in chargers]).astype(np.int64)
    connected = vehicle != EMPTY
    required = column([charger.required_soc for charger in chargers]).astype(np.float64)
    gain, drop, capacity, floor = np.ones(shape), np.ones(shape), np.zeros(shape), np.zeros(shape)
    for n, charger in enumerate(chargers):
        for v in np.unique(vehicle[connected[:, n], n]):
            rows = vehicle[:, n] == v
            battery = site.vehicles[v].battery
            gain[rows, n] = _charge_gain(charger, battery, required[rows, n], site.hours_per_step)
            capacity[rows, n] = battery.capacity
            floor[rows, n] = battery.lowest_soc
            if charger.max_discharging_power > 0:
                drop[rows, n] = _discharge_drop(charger, battery, site.hours_per_step)
    departure = column([charger.departure for charger in chargers]).astype(np.float64)
    return SocketTables(
        vehicle=vehicle,
        steps_left=np.where(connected, departure + 1, 0.0),
        required_soc=np.where(connected, required, 0.0),
        arrival_soc=column([charger.arrival_soc for charger in chargers]).astype(np.float64),
        departs=column([charger.departs for charger in chargers]).astype(bool),
        gain=np.maximum(gain, 1e-6),
        drop=np.maximum(drop, 1e-6),
        capacity=capacity,
        floor=floor,
        lowest=np.array([-1.0 if charger.max_discharging_power > 0 else 0.0 for charger in chargers]),
        smallest=np.array([_deadband(charger) * ABOVE_EDGE for charger in chargers]).clip(max=1),
    )


def steps_needed(soc: Tensor, required_soc: Tensor, gain: Tensor) -> Tensor:
    """(..., N) steps of full power up to the wanted SOC; negative where the SOC is above it."""
    return (required_soc - soc) / gain


def urgency(needed: Tensor, steps_left: Tensor) -> Tensor:
    """(..., N) share of the remaining steps that must run at full power, in [0, 1]; 0 at an empty socket.

    `needed` must be 0 at an empty socket.
    """
    return (needed / steps_left.clamp(min=1)).clamp(0, 1)


def guarded_range(
    needed: Tensor,
    steps_left: Tensor,
    gain: Tensor,
    drop: Tensor | None = None,
    lowest: Tensor | None = None,
    smallest: Tensor | None = None,
    stored: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Lowest and highest action that reach the wanted SOC in time, as shares of full power, (..., N) each.

    The lowest is what this step must charge if all later steps run at full power; if that is negative, a charger that
    can discharge may discharge by as much. The highest reaches the wanted SOC in this step, or a full battery where the
    charger can discharge: what is above the wish can be taken out again.

    Args:
        drop, lowest: see `SocketTables`; both None where no charger can discharge.
        smallest: see `SocketTables`; None where no charger has a deadband.
        stored: SOC of each vehicle and the lowest that it can be discharged to; with `drop`, so that the range holds
            nothing that a battery cannot do.
    """
    behind = needed - (steps_left - 1)
    most = needed.clamp(0, 1)
    if drop is None or lowest is None:
        least = behind.clamp(0, 1)
    else:
        least = torch.where(behind >= 0, behind, behind * gain / drop).clamp(max=1)
        least = torch.maximum(least, lowest)
        full = torch.ones_like(needed)
        if stored is not None:
            soc, floor = stored
            least = torch.maximum(least, (floor - soc).clamp(max=0) / drop)
            full = ((1 - soc) / gain).clamp(0, 1)
        most = torch.where(lowest < 0, full, most)
    if smallest is not None:
        # A request inside the deadband would be dropped, so ask for the deadband's edge. A vehicle that is late by
        # rounding alone must not start the charger.
        least = torch.where(least > ROUNDING, torch.maximum(least, smallest), least)
    return least, torch.maximum(most, least)
