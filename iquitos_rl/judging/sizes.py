"""What batteries and PV of other sizes would make of a site's bill: uncontrolled, with a rule, at the optimum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.bill import bill_of
from iquitos_rl.baselines.months import months_bill
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.baselines.profiles import fit_profiles, series
from iquitos_rl.baselines.rule import RuleSettings, default_settings
from iquitos_rl.baselines.tune import tune
from iquitos_rl.cases.site import Battery, Site
from iquitos_rl.cases.tariff import read_tariff
from iquitos_rl.envs.task.objective import Objective
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError

HOURS = 2.0
"""In which a battery is emptied at full power, where the case has none to go by."""
ROUND_TRIP = 0.9


class Size(NamedTuple):
    battery_kwh: float
    pv_kw: float


class Sized(NamedTuple):
    """Bills of the period in the tariff's currency."""

    size: Size
    uncontrolled: float
    rule: float
    """With the strongest rule, tuned to this size."""
    optimum: float


def with_size(site: Site, size: Size, battery_hours: float | None, pv_kw: float) -> Site:
    """A site with another battery in the building that has the first one (else in the first), and with all PV scaled.

    Args:
        battery_hours: in which the battery is emptied at full power; those of the site's battery by default.
        pv_kw: what the site's PV stands for.
    """
    factor = size.pv_kw / pv_kw if pv_kw else 0.0
    place = next((b for b, own in enumerate(site.buildings) if own.battery is not None), 0)
    buildings = [replace(building, pv=building.pv * factor) for building in site.buildings]
    known = site.buildings[place].battery
    if size.battery_kwh == 0:
        buildings[place] = replace(buildings[place], battery=None, battery_action=False)
    else:
        hours = battery_hours or (HOURS if known is None else known.capacity / known.nominal_power)
        template = known or plain_battery()
        battery = replace(template, capacity=size.battery_kwh, nominal_power=size.battery_kwh / hours)
        buildings[place] = replace(buildings[place], battery=battery, battery_action=True)
    return replace(site, buildings=tuple(buildings), fingerprint=f"{site.fingerprint}-{size}")


def plain_battery() -> Battery:
    """A new battery with constant efficiency; its size means nothing."""
    flat = np.array([[0.0, 1.0], [1.0, 1.0]])
    return Battery(
        capacity=1.0,
        nominal_power=1.0,
        initial_soc=0.5,
        depth_of_discharge=1.0,
        efficiency=ROUND_TRIP,
        loss_coefficient=0.0,
        capacity_loss_coefficient=0.0,
        power_efficiency_curve=flat * [[1.0], [ROUND_TRIP]],
        capacity_power_curve=flat,
    )


def size_up(
    site: Site,
    sizes: Sequence[Size],
    settings: TaskSettings = TaskSettings(),
    battery_hours: float | None = None,
    pv_kw: float = 0.0,
    on_size: Callable[[Sized], None] = lambda _: None,
) -> list[Sized]:
    """The bills of every size. The rule runs on the district engine, all months side by side, after tuning on the same
    period; the optimum is a plan. So nothing here was judged on unseen data.

    Args:
        battery_hours: see `with_size`.
        pv_kw: see `with_size`.
        on_size: called after each size.

    Raises:
        UserError: PV of a site without PV is asked for, or the site has what is not planned.
        SolverError: the optimum was not found.
    """
    if any(size.pv_kw for size in sizes) and not series(site, "pv").any():
        raise UserError(f"{site.path} has no PV to scale: import it with --set pv.dc_kw=1, or with a PV file")
    objective = Objective(read_tariff(site.path), settings.objective)
    found = []
    for size in sizes:
        own = with_size(site, size, battery_hours, pv_kw)
        found.append(_bills(size, own, objective, settings))
        on_size(found[-1])
    return found


def _bills(size: Size, site: Site, objective: Objective, settings: TaskSettings) -> Sized:
    best = float(optimum(site, objective, settings.ev_guard).bill.total)
    if not site.sockets:
        idle = series(site, "idle_net")[: site.rows - 1]
        uncontrolled = float(bill_of(site, objective, idle).total)
    else:
        uncontrolled = _of(site, default_settings("uncontrolled", fit_profiles([site])), settings)
    if not size.battery_kwh and not site.sockets and all(b.battery is None for b in site.buildings):
        return Sized(size, uncontrolled, uncontrolled, best)
    return Sized(size, uncontrolled, _of(site, tune("strongest", [site], settings), settings), best)


def _of(site: Site, rule: RuleSettings, settings: TaskSettings) -> float:
    return float(months_bill(site, rule, settings).total)
