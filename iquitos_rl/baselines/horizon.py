"""A stretch of hours as a linear programme: what the optimum of a year and each plan of a receding horizon solve.

The bill is that of `cases/tariff.py`, weighted as in the reward. Each building's import is at least its net
consumption, and the month's highest import of each demand charge at least every import that it counts. Both hold with
equality where it matters, as long as a kWh costs something and earns no more than it costs. In other hours
(`odd_hours`) switches see to it that a building does not import and export at once.

H steps, B buildings, P demand charges. Energies are kWh per step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from iquitos_rl.baselines.fleet import add_fleet, unroll
from iquitos_rl.baselines.profiles import series
from iquitos_rl.baselines.programme import Programme
from iquitos_rl.baselines.stays import Stays, best_power, best_root, kept_share
from iquitos_rl.baselines.tanks import Heat, add_tanks
from iquitos_rl.cases.site import Battery, Bools, Floats, Ints, Site
from iquitos_rl.cases.tariff import counted, export_prices, is_month_start
from iquitos_rl.envs.task.objective import Objective
from iquitos_rl.envs.task.thermal import hvacs
from iquitos_rl.errors import UserError


class Horizon(NamedTuple):
    """What is known, or expected, of the hours ahead."""

    surplus_load: Floats  # (H, B) load and thermal devices less PV, while nothing is stored
    price: Floats  # (H, B)
    carbon: Floats  # (H, B) kg per kWh
    month: Ints  # (H,) counts months, the present one 0
    counts: Bools  # (H, P) whether a charge looks at the hour
    due: Bools  # (H, P) whether a charge is due in the hour's month
    running_peak: Floats  # (B, C) kW so far, see `Tariff.meters`
    battery_soc: Floats  # (B,) SOC at the start; ignored where a building has no battery
    hours_per_step: float
    export_price: Floats | None = None  # (H,)
    levelling: float = 0.0
    """Price of the highest import in each stretch of hours of one period, as a share of the month's: keeps a plan level
    where the month's peak leaves it free, so that an hour that turns out higher than expected does not set a new one.
    """
    readiness: float = 0.0
    """Currency that a stored kWh is worth for each hour that it is kept: among hours of equal price a plan then
    charges in the earlier one, in case PV falls short later."""


class Plan(NamedTuple):
    """What to do in each hour."""

    net: Floats  # (H, B)
    battery: Floats  # (H, B) energy taken, negative where given
    battery_soc: Floats  # (H, B) after the hour
    vehicles: Floats  # (H, B)
    heat: Heat | None  # None where nothing thermal was planned
    cost: float
    """The weighted bill of these hours with the demand charge already run up, and what levelling and readiness add."""


def year_horizon(site: Site, objective: Objective) -> Horizon:
    """A whole year, known in advance, without the last row, which CityLearn never simulates. Raises UserError: a carbon
    intensity is negative, or the site has what is not planned here."""
    if site.unsupported:
        raise UserError(f"{site.path}: the optimum does not know {'; '.join(site.unsupported)}")
    if site.appliances:
        raise UserError(f"{site.path}: no plan is computed for sites with appliances")
    if any(b.outage is not None and b.outage.any() for b in site.buildings):
        raise UserError(f"{site.path}: no plan is computed for sites with power outages")
    if hvacs(site):
        raise UserError(f"{site.path}: no plan is computed where a network says what cooling or heating leads to")
    if site.drift is not None:
        missing = "the SOC of every arriving vehicle, which the files leave blank"
        raise UserError(f"{site.path}: the optimum needs {missing}")
    rows = site.rows - 1
    price, carbon, heat = (series(site, name)[:rows] for name in ("price", "carbon", "heat_kwh"))
    load, pv = (series(site, name)[:rows] for name in ("load", "pv"))
    if (carbon < 0).any():
        row = int(np.flatnonzero((carbon < 0).any(-1))[0])
        raise UserError(f"{site.path}: the optimum needs carbon intensity that is not negative, but row {row} is")
    tariff = objective.tariff
    earned = export_prices(site, tariff)
    return Horizon(
        surplus_load=load + heat - pv,
        price=price,
        carbon=carbon,
        month=np.cumsum(is_month_start(site))[:rows].astype(np.int64) - 1,
        counts=counted(site, tariff)[:rows],
        due=np.stack([charge.due(site.month[:rows]) for charge in tariff.charges], axis=-1),
        running_peak=np.zeros((len(site.buildings), len(tariff.meters))),
        battery_soc=np.array([b.battery.initial_soc if b.battery else 0.0 for b in site.buildings]),
        hours_per_step=site.hours_per_step,
        export_price=None if earned is None else earned[:rows],
    )


def odd_hours(horizon: Horizon, objective: Objective) -> Bools:
    """(H, B) whether a kWh imported pays, or a kWh exported earns more than one imported costs, or costs something that
    a limit to exports would save."""
    weights, tariff = objective.weights, objective.tariff
    cost = weights.energy * horizon.price + weights.carbon * objective.settings.carbon_price * horizon.carbon
    if horizon.export_price is None:
        return np.asarray(cost < 0)
    earned = weights.export * horizon.export_price[:, None]
    return np.asarray((cost < np.maximum(earned, 0)) | ((earned < 0) & (tariff.export_limit_kw is not None)))


def controllable(site: Site) -> list[Battery | None]:
    """(B,) the batteries that obey actions."""
    return [building.battery if building.battery_action else None for building in site.buildings]


def solve(
    horizon: Horizon,
    batteries: Sequence[Battery | None],
    stays: Stays,
    objective: Objective,
    tanks_of: Site | None = None,
) -> Plan:
    """The cheapest plan for a horizon.

    Args:
        batteries: (B,) see `controllable`.
        stays: rows count from the horizon's first.
        tanks_of: a site whose tanks are planned too; the horizon then begins with its first row.

    Raises:
        SolverError: the solver failed.
    """
    weights, settings = objective.weights, objective.settings
    count, buildings = horizon.surplus_load.shape
    programme = Programme()
    cost = weights.energy * horizon.price + weights.carbon * settings.carbon_price * horizon.carbon
    imported = programme.variables(count * buildings, cost.ravel()).reshape(count, buildings)
    planned = {b: battery for b, battery in enumerate(batteries) if battery is not None}
    odd = odd_hours(horizon, objective)
    exact = odd if horizon.export_price is None else odd | (horizon.export_price < 0)[:, None]
    net_rows = mixed_rows(programme, -horizon.surplus_load, exact)  # planned - import + export <= PV - load
    programme.put(net_rows, imported, -1.0)
    if odd.any() or horizon.export_price is not None:
        _add_export(programme, horizon, objective, net_rows, imported, odd, _reach(horizon, planned, stays))
    _add_demand(programme, horizon, objective, imported)
    of_battery = {
        b: _add_battery(programme, battery, float(horizon.battery_soc[b]), horizon, net_rows[:, b], cost[:, b] < 0)
        for b, battery in planned.items()
    }
    missing_price = weights.shortfall * settings.shortfall_price
    energy_of = add_fleet(programme, stays, net_rows, missing_price, (cost < 0).any(-1))
    heat_of = None if tanks_of is None else add_tanks(programme, tanks_of, net_rows)
    x, total = programme.solve()

    battery_kwh, soc = np.zeros((2, count, buildings))
    for b, (charge, discharge, level) in of_battery.items():
        battery_kwh[:, b] = x[charge] - x[discharge]
        soc[:, b] = x[level] / planned[b].capacity
    vehicles, net = energy_of(x), horizon.surplus_load + battery_kwh
    heat = None if heat_of is None else heat_of(x)
    if heat is not None:
        net = net + heat.change
    return Plan(net + vehicles, battery_kwh, soc, vehicles, heat, total)


def mixed_rows(programme: Programme, right: Floats, equal: Bools) -> Ints:
    """Add rows `... <= right` and, where `equal`, `... = right`; their indices have the shape of both."""
    found = np.empty(right.shape, dtype=np.int64)
    for kind in (False, True):
        some = equal == kind
        found[some] = programme.rows(right[some], equal=kind)
    return found


def _reach(horizon: Horizon, batteries: Mapping[int, Battery], stays: Stays) -> tuple[Floats, Floats]:
    """(H, B) kWh each that a building can import and export at most."""
    most = np.maximum(horizon.surplus_load, 0.0), np.maximum(-horizon.surplus_load, 0.0)
    owner, row = unroll(stays.first, stays.last)
    for own, limit in zip(most, (stays.charge_limit, stays.discharge_limit)):
        np.add.at(own, (row, stays.building[owner]), limit[owner])
        for b, battery in batteries.items():
            own[:, b] += best_power(battery) * horizon.hours_per_step
    return most


def _add_export(
    programme: Programme,
    horizon: Horizon,
    objective: Objective,
    net_rows: Ints,
    imported: Ints,
    odd: Bools,
    reach: tuple[Floats, Floats],
) -> None:
    """What is exported, up to the limit, and what it earns; in odd hours either imports or exports are nothing.

    In an odd hour with a limit, what is lost beyond it is a variable too, and another switch lets it be more than
    nothing only where the limit is reached.
    """
    limit_kw, import_most, export_most = objective.tariff.export_limit_kw, *reach
    earned = np.zeros(len(odd)) if horizon.export_price is None else horizon.export_price
    price = np.broadcast_to(-objective.weights.export * earned[:, None], odd.shape)
    limit = np.inf if limit_kw is None else limit_kw * horizon.hours_per_step
    exported = programme.variables(odd.size, price.ravel(), upper=limit).reshape(odd.shape)
    programme.put(net_rows, exported, 1.0)
    if not odd.any():
        return
    buys = programme.switches(int(odd.sum()))
    programme.put(rows := programme.rows(np.zeros(len(buys))), imported[odd], 1.0)
    programme.put(rows, buys, -import_most[odd])
    programme.put(rows := programme.rows(export_most[odd]), exported[odd], 1.0)
    programme.put(rows, buys, export_most[odd])
    if np.isfinite(limit):
        lost, full = programme.variables(len(buys), 0.0), programme.switches(len(buys))
        programme.put(net_rows[odd], lost, 1.0)
        programme.put(rows := programme.rows(np.zeros(len(buys))), lost, 1.0)
        programme.put(rows, full, -export_most[odd])
        programme.put(rows := programme.rows(np.zeros(len(buys))), full, limit)
        programme.put(rows, exported[odd], -1.0)
        programme.put(rows := programme.rows(np.ones(len(buys))), full, 1.0)
        programme.put(rows, buys, 1.0)


def _add_demand(programme: Programme, horizon: Horizon, objective: Objective, imported: Ints) -> None:
    """Charge the highest import of each month and charge, in kW, from what has been run up already."""
    charges = objective.tariff.charges
    changes = (np.diff(horizon.counts, axis=0, prepend=horizon.counts[:1]) != 0).any(-1)
    stretch = np.cumsum(changes)
    of_year = dict(zip(objective.tariff.ratcheted, horizon.running_peak.T[len(charges) :]))
    for p, charge in enumerate(charges):
        rate, rows = charge.price * objective.weights.demand, horizon.counts[:, p]
        if not rate:
            continue
        so_far, highest = horizon.running_peak[:, p], of_year.get(p)
        share = 0.0 if highest is not None else 1.0
        monthly = _add_peaks(programme, horizon, imported, rows, horizon.month, so_far, rate * share)
        if highest is not None:
            _add_ratchet(programme, horizon, monthly, rate * horizon.due[:, p], charge.ratchet, highest)
        if horizon.levelling > 0:
            _add_peaks(programme, horizon, imported, rows, stretch, 0.0, rate * horizon.levelling)


def _add_peaks(
    programme: Programme, horizon: Horizon, imported: Ints, rows: Bools, span: Ints, so_far: ArrayLike, cost: float
) -> Ints:
    """(spans, B) variables, the highest import of some rows in each span of hours, kW."""
    lower = np.zeros((int(span[-1]) + 1, imported.shape[1]))
    lower[0] = so_far
    highest = programme.variables(lower.size, cost, lower=lower.ravel()).reshape(lower.shape)
    bound = programme.rows(np.zeros(imported[rows].size)).reshape(imported[rows].shape)
    programme.put(bound, imported[rows], 1 / horizon.hours_per_step)
    programme.put(bound, highest[span[rows]], -1.0)
    return highest


def _add_ratchet(
    programme: Programme, horizon: Horizon, monthly: Ints, rate: Floats, share: float, highest: Floats
) -> None:
    """Charge each month's highest import (M, B), or a share of the highest of the months before, at a rate (H,)."""
    months, buildings = monthly.shape
    first = np.searchsorted(horizon.month, np.arange(months))
    lower = np.tile(share * highest, (months, 1))
    billed = programme.variables(lower.size, np.repeat(rate[first], buildings), lower=lower.ravel()).reshape(
        lower.shape
    )
    for m in range(months):
        for before in range(m + 1):
            rows = programme.rows(np.zeros(buildings))
            programme.put(rows, monthly[before], 1.0 if before == m else share)
            programme.put(rows, billed[m], -1.0)


def _add_battery(
    programme: Programme, battery: Battery, soc: float, horizon: Horizon, net_rows: Ints, wasteful: Bools
) -> list[Ints]:
    """Add a battery; returns the variables of charging, discharging and energy stored after each step.

    Args:
        wasteful: (H,) hours in which it would pay to waste energy. A battery with constant efficiency cannot.
    """
    count, hours = len(net_rows), horizon.hours_per_step
    root, lowest, kept = best_root(battery), battery.lowest_soc * battery.capacity, kept_share(battery, hours)
    limit = best_power(battery) * hours
    charge, discharge = (programme.variables(count, 0.0, upper=limit) for _ in range(2))
    stored = programme.variables(count, -horizon.readiness * hours, lower=lowest, upper=battery.capacity)
    programme.put(net_rows, charge, 1.0)
    programme.put(net_rows, discharge, -1.0)
    # Stored energy may also be less than this: a real battery loses more than one at its best.
    right = np.full(count, (1 - kept) * lowest)
    right[0] = max(soc * battery.capacity, lowest)
    constant = kept == 1 and np.ptp(battery.power_efficiency_curve[1]) == 0
    balance = mixed_rows(programme, right, wasteful & constant)
    if wasteful.any():
        takes = programme.switches(int(wasteful.sum()))
        programme.put(rows := programme.rows(np.zeros(len(takes))), charge[wasteful], 1.0)
        programme.put(rows, takes, -limit)
        programme.put(rows := programme.rows(np.full(len(takes), limit)), discharge[wasteful], 1.0)
        programme.put(rows, takes, limit)
    programme.put(balance, stored, 1.0)
    programme.put(balance, charge, -root)
    programme.put(balance, discharge, 1 / root)
    programme.put(balance[1:], stored[:-1], -kept)
    return [charge, discharge, stored]
