"""Every vehicle's stays at the sockets of a site, with the best that its charger and battery could do.

Efficiency depends on power and available power on the SOC. To stay a valid bound for every controller, a plan takes the
best value of each curve, ignores capacity fade, deadbands and connection limits, and underestimates standing losses.
For a site that has none of these the figures are exact.

V stays. Energies are kWh, at the meter unless said otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iquitos_rl.cases.site import Battery, Bools, Building, Charger, Floats, Ints, Site
from iquitos_rl.envs.task.sockets import EMPTY, socket_tables


class Stays(NamedTuple):
    """Each field (V,), one entry for each stay, sorted by vehicle and row."""

    building: Ints
    socket: Ints
    vehicle: Ints
    first: Ints  # row of the first step
    last: Ints  # row of the last step that is simulated
    arrival: Floats  # SOC before the first step; NaN where it is what the vehicle's previous stay left
    required: Floats  # SOC wanted after the last step; 0 where the stay goes on beyond the last simulated row
    capacity: Floats
    lowest: Floats  # SOC below which the battery never is
    kept: Floats  # share of the SOC above `lowest` that standing leaves, at best
    charge_limit: Floats  # energy per step
    gain: Floats  # kWh in the battery for each kWh at the meter
    discharge_limit: Floats
    drop: Floats  # kWh out of the battery for each kWh given at the meter
    most_missing: Floats
    """kWh that may at most be missing at the end: the EV guard keeps a departure safe; infinite where it cannot."""


def select(stays: Stays, chosen: Bools | Ints) -> Stays:
    """The stays that a mask or indices choose."""
    return Stays._make(field[chosen] for field in stays)


def best(curve: Floats, beyond: bool) -> float:
    """Highest value on [0, 1] of a piecewise linear function that goes on straight `beyond` its knots, or level."""
    x, y = curve
    values = [*y[(x >= 0) & (x <= 1)], *np.interp([0.0, 1.0], x, y)]
    if beyond and len(x) > 1:
        if x[0] > 0:
            values.append(y[0] - x[0] * (y[1] - y[0]) / (x[1] - x[0]))
        if x[-1] < 1:
            values.append(y[-1] + (1 - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2]))
    return float(max(values))


def best_root(battery: Battery) -> float:
    """One-way efficiency of a battery at its best."""
    return float(np.sqrt(best(battery.power_efficiency_curve, beyond=True)))


def best_power(battery: Battery) -> float:
    """kW that a battery takes or gives at its best."""
    return battery.nominal_power * max(best(battery.capacity_power_curve, beyond=True), 0.0)


def kept_share(battery: Battery, hours: float) -> float:
    """Share of the SOC above the lowest that one step of standing leaves, at best.

    CityLearn's max(soc * kept, lowest) is convex in the SOC; this is the line above it.
    """
    lowest = battery.lowest_soc
    kept = max(min(1.0 - battery.loss_coefficient * hours, 1.0), lowest)
    return (kept - lowest) / (1 - lowest) if lowest < 1 else 1.0


def _pair(building: Building, charger: Charger, battery: Battery, hours: float) -> tuple[float, ...]:
    """What a charger can do with a vehicle: `charge_limit`, `gain`, `discharge_limit` and `drop` of `Stays`; whether
    the EV guard can keep its promise, which takes powers and efficiencies for constants; and the factor by which a
    guarded charge may exceed what is wanted."""
    curves = charger.charge_efficiency_curve, charger.discharge_efficiency_curve
    into, out = (charger.efficiency if curve is None else best(curve, beyond=False) for curve in curves)
    root, power, active = best_root(battery), best_power(battery), float(building.socket_action)
    constant = all(np.ptp(curve[1]) == 0 for curve in (battery.power_efficiency_curve, battery.capacity_power_curve))
    flat = all(curve is None for curve in curves)
    ordinary = flat and building.service is None and battery.loss_coefficient == 0
    charging, discharging = charger.max_charging_power, charger.max_discharging_power
    return (
        active * hours * min(charging, power / max(into, 1e-6)),
        into * root,
        active * hours * min(discharging, power * out),
        1 / max(out * root, 1e-6),
        building.socket_action and constant and ordinary and discharging <= power * out,
        max(charging * into / max(power, 1e-6), 1.0),
    )


def read_stays(site: Site, guard: bool) -> Stays:
    """All stays that begin before the last row, which CityLearn never simulates.

    Args:
        guard: whether the EV guard is on, see `iquitos_rl.envs.task.sockets`.
    """
    tables, rows, hours = socket_tables(site), site.rows - 1, site.hours_per_step
    at, leaving = tables.vehicle[:rows], tables.steps_left[:rows] == 1
    starts = at != EMPTY
    starts[1:] &= (at[1:] != at[:-1]) | leaving[:-1] | ~np.isnan(tables.arrival_soc[1:rows])
    # A stay ends before the next one or before the socket is empty.
    ends = at != EMPTY
    ends[:-1] &= starts[1:] | (at[1:] == EMPTY)
    (socket, first), last = np.nonzero(starts.T), np.nonzero(ends.T)[1]
    order = np.lexsort((first, at[first, socket]))
    socket, first, last = socket[order], first[order], last[order]
    vehicle, leaves = at[first, socket].astype(np.int64), leaving[last, socket]

    owners = np.array([b for b, _ in site.sockets], dtype=np.int64)
    batteries = [v.battery for v in site.vehicles]
    pairs = {
        (n, v): _pair(site.buildings[owners[n]], site.sockets[n][1], batteries[v], hours)
        for n, v in sorted(set(zip(socket.tolist(), vehicle.tolist())))
    }
    own = [pairs[key] for key in zip(socket.tolist(), vehicle.tolist())]
    charge_limit, gain, discharge_limit, drop, guarded, overshoot = np.array(own, np.float64).reshape(-1, 6).T.copy()

    def from_vehicle(values: list[float]) -> Floats:
        return np.array(values, dtype=np.float64)[vehicle]

    lowest, arrival = from_vehicle([b.lowest_soc for b in batteries]), tables.arrival_soc[first, socket]
    begins = np.append(True, vehicle[1:] != vehicle[:-1])[: len(vehicle)] & np.isnan(arrival)
    arrival = np.where(begins, from_vehicle([b.initial_soc for b in batteries]), arrival)
    stays = Stays(
        building=owners[socket],
        socket=socket,
        vehicle=vehicle,
        first=first,
        last=last,
        arrival=np.maximum(arrival, lowest),
        required=np.where(leaves, tables.required_soc[last, socket], 0.0),
        capacity=from_vehicle([b.capacity for b in batteries]),
        lowest=lowest,
        kept=from_vehicle([kept_share(b, hours) for b in batteries]),
        charge_limit=charge_limit,
        gain=gain,
        discharge_limit=discharge_limit,
        drop=drop,
        most_missing=np.where(leaves, np.inf, 0.0),
    )
    reachable = stays.arrival + (last - first + 1) * charge_limit * gain / stays.capacity
    missing = np.maximum(stays.required - np.minimum(reachable, _health(site, stays, overshoot)), 0) * stays.capacity
    safe = guard & leaves & (guarded > 0) & ~np.isnan(stays.arrival)
    return stays._replace(most_missing=np.where(safe, missing, stays.most_missing))


def _health(site: Site, stays: Stays, overshoot: Floats) -> Floats:
    """(V,) least share of its capacity that each vehicle's battery can have left at the end, guarded and charging only.

    Fading by `fade * moved / 2 / left` for each share of capacity moved leaves at least sqrt(1 - fade * all moved).
    """
    wanted = overshoot * np.maximum(stays.required - stays.arrival, 0)
    steps, health = (stays.last - stays.first + 1).astype(np.float64), np.ones(len(overshoot))
    for v in np.unique(stays.vehicle):
        battery, mine = site.vehicles[v].battery, stays.vehicle == v
        possible = steps[mine] * best_power(battery) * site.hours_per_step / max(battery.capacity, 1e-6)
        needed = wanted[mine] / best_root(battery)
        charging_only = (stays.discharge_limit[mine] == 0).all()
        known = charging_only & ~np.isnan(needed) & (stays.required[mine] > 0)
        moved = np.where(known, needed, possible).sum()
        health[mine] = np.sqrt(max(1 - battery.capacity_loss_coefficient * moved, 0.0))
    return health


def all_charging(stays: Stays) -> Bools:
    """(V,) whether a stay is on its own: the vehicle only charges, and no later stay depends on how it ends."""
    follows = np.append(np.isnan(stays.arrival[1:]) & (stays.vehicle[1:] == stays.vehicle[:-1]), False)
    return (stays.discharge_limit == 0) & ~np.isnan(stays.arrival) & ~follows[: len(stays.first)]
