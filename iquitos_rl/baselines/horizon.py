"""A stretch of hours as a linear programme: what the optimum of a year and each plan of a receding horizon solve.

The bill is that of `envs/task/objective.py`, weighted as in the reward. Each building's import is at least its net
consumption, and each month's highest import in each period at least every import in it; prices are not negative, so
both hold with equality where it matters.

H steps, B buildings. Energies are kWh per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.fleet import add_fleet
from iquitos_rl.baselines.profiles import series
from iquitos_rl.baselines.programme import Programme
from iquitos_rl.baselines.stays import Stays, best_power, best_root, kept_share, lowest_soc
from iquitos_rl.baselines.tanks import Heat, add_tanks
from iquitos_rl.cases.site import Battery, Bools, Floats, Ints, Site
from iquitos_rl.envs.task.objective import Objective, is_month_start, is_peak
from iquitos_rl.envs.task.thermal import hvacs
from iquitos_rl.errors import UserError


class Horizon(NamedTuple):
    """What is known, or expected, of the hours ahead."""

    surplus_load: Floats  # (H, B) load and thermal devices less PV, while nothing is stored
    price: Floats  # (H, B)
    carbon: Floats  # (H, B) kg per kWh
    month: Ints  # (H,) counts months, the present one 0
    peak_period: Bools  # (H,)
    running_peak: Floats  # (B, 2) kW so far in the present month, peak and off-peak period
    battery_soc: Floats  # (B,) SOC at the start; ignored where a building has no battery
    hours_per_step: float
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
    """A whole year, known in advance, without the last row, which CityLearn never simulates. Raises UserError: a price
    or a carbon intensity is negative, so that wasting energy could pay, or the site has what is not planned here."""
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
    for name, values in (("price", price), ("carbon intensity", carbon)):
        if (values < 0).any():
            row = int(np.flatnonzero((values < 0).any(-1))[0])
            raise UserError(f"{site.path}: the optimum needs {name} that is not negative, but row {row} is")
    return Horizon(
        surplus_load=load + heat - pv,
        price=price,
        carbon=carbon,
        month=np.cumsum(is_month_start(site))[:rows].astype(np.int64) - 1,
        peak_period=is_peak(site, objective.tariff)[:rows],
        running_peak=np.zeros((len(site.buildings), 2)),
        battery_soc=np.array([b.battery.initial_soc if b.battery else 0.0 for b in site.buildings]),
        hours_per_step=site.hours_per_step,
    )


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
    net_rows = programme.rows(-horizon.surplus_load.ravel()).reshape(count, buildings)  # planned - import <= PV - load
    programme.put(net_rows, imported, -1.0)
    _add_demand(programme, horizon, objective, imported)
    planned = {b: battery for b, battery in enumerate(batteries) if battery is not None}
    of_battery = {
        b: _add_battery(programme, battery, float(horizon.battery_soc[b]), horizon, net_rows[:, b])
        for b, battery in planned.items()
    }
    energy_of = add_fleet(programme, stays, net_rows, weights.shortfall * settings.shortfall_price)
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


def _add_demand(programme: Programme, horizon: Horizon, objective: Objective, imported: Ints) -> None:
    """Charge the highest import of each month and period, in kW, from what has been run up already."""
    tariff = objective.tariff
    rates = np.array([tariff.demand_charge_peak, tariff.demand_charge_off_peak]) * objective.weights.demand
    if not rates.any():
        return
    stretch = np.cumsum(np.diff(horizon.peak_period, prepend=horizon.peak_period[:1]))
    spans = [(horizon.month, horizon.running_peak, 1.0), (stretch, 0.0, horizon.levelling)]
    for span, so_far, share in spans if horizon.levelling > 0 else spans[:1]:
        run_up = np.zeros((int(span[-1]) + 1, imported.shape[1], 2))
        run_up[0] = so_far
        cost = np.broadcast_to(rates * share, run_up.shape).ravel()
        highest = programme.variables(run_up.size, cost, lower=run_up.ravel()).reshape(run_up.shape)
        rows = programme.rows(np.zeros(imported.size)).reshape(imported.shape)
        programme.put(rows, imported, 1 / horizon.hours_per_step)
        programme.put(rows, highest[span, :, np.where(horizon.peak_period, 0, 1)], -1.0)


def _add_battery(programme: Programme, battery: Battery, soc: float, horizon: Horizon, net_rows: Ints) -> list[Ints]:
    """Add a battery; returns the variables of charging, discharging and energy stored after each step."""
    count, hours = len(net_rows), horizon.hours_per_step
    root, lowest, kept = best_root(battery), lowest_soc(battery) * battery.capacity, kept_share(battery, hours)
    limit = best_power(battery) * hours
    charge, discharge = (programme.variables(count, 0.0, upper=limit) for _ in range(2))
    stored = programme.variables(count, -horizon.readiness * hours, lower=lowest, upper=battery.capacity)
    programme.put(net_rows, charge, 1.0)
    programme.put(net_rows, discharge, -1.0)
    # Stored energy may also be less than this: a real battery loses more than one at its best.
    right = np.full(count, (1 - kept) * lowest)
    right[0] = max(soc * battery.capacity, lowest)
    balance = programme.rows(right)
    programme.put(balance, stored, 1.0)
    programme.put(balance, charge, -root)
    programme.put(balance, discharge, 1 / root)
    programme.put(balance[1:], stored[:-1], -kept)
    return [charge, discharge, stored]
