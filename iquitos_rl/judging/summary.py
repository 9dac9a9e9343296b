"""From simulated years to the figures that are published: `simulation_summary.json` and its parts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from iquitos_rl.baselines.bill import Bill, bill_of, demand_cost, gap_share
from iquitos_rl.baselines.horizon import Plan
from iquitos_rl.baselines.optimum import Optimum
from iquitos_rl.baselines.profiles import series
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.citylearn.env import Flows
from iquitos_rl.envs.task.objective import Objective
from iquitos_rl.judging.scores import judged_figures, missing_kpis
from iquitos_rl.judging.series import Booked, Thermal, site_series
from iquitos_rl.judging.simulate import Year, outages
from iquitos_rl.judging.table import is_year
from iquitos_rl.machine.facts import peak_memory, versions

SCHEMA_VERSION = 4
DEMAND_AUDIT = "demand_charge_booked_minus_defined"
TERMS = ("energy_cost", "demand_cost", "carbon_cost", "shortfall_cost")
"""What a bill is the sum of."""
OTHER_TERMS = ("export_cost", "fixed_cost", "comfort_cost", "unserved_cost")
"""And these, where the tariff has them, or the site has thermal devices."""
OTHER_KWH = ("thermal_kwh", "unserved_kwh", "lost_export_kwh")


COMPARED = ("bill", "co2_kg", "import_kwh", "energy_cost", "demand_cost")
"""Figures by which agents are told apart from references; every controller has them."""


def bill_terms(info: Collection[str]) -> tuple[str, ...]:
    """The terms of a bill that a year has."""
    return (*TERMS, *(term for term in OTHER_TERMS if term in info))


def figures(year: Year) -> dict[str, float]:
    """A year's figures: energy in kWh, carbon in kg, money in the tariff's currency.

    `battery_cycles` are equivalent full cycles: half the battery's throughput over its capacity. `self_consumption` is
    the share of PV that was not exported. A share that does not exist (no PV, no departure) is left out.
    """
    total = {name: float(values.sum()) for name, values in year.info.items()}
    result = {
        "bill": sum(total[term] for term in bill_terms(total)),
        **{name: total[name] for name in (*bill_terms(total), *OTHER_KWH) if name in total},
        "co2_kg": total["carbon_kg"],
        **{key: total[key] for key in ("import_kwh", "export_kwh")},
        **energy_figures(year.site, year.flows, total["export_kwh"]),
        "ev_kwh": total["ev_kwh"],
        "departures": total["departures"],
        "departures_served": total["served"],
        "ev_missing_kwh": total["missing_kwh"],
        "balance_residual_kwh": year.balance_residual_kwh,
        "hours": year.hours * year.site.hours_per_step,
        "reward": float(year.reward.sum()),
        **({} if year.series is None else judged_figures(year.site, year.series)),
    }
    departures = total["departures"]
    return result | ({"served_share": total["served"] / departures} if departures > 0 else {})


def energy_figures(site: Site, flows: Flows, exported: float) -> dict[str, float]:
    """Figures that depend on a year's energies alone, whether they were simulated or planned."""
    capacity = sum(b.battery.capacity for b in site.buildings if b.battery is not None)
    pv, throughput = float(flows.pv.sum()), float(np.abs(flows.battery).sum())
    result = {
        "load_kwh": float(flows.load.sum()),
        "pv_kwh": pv,
        "ev_kwh": float(flows.sockets.sum()),
        "battery_throughput_kwh": throughput,
        "peak_import_kw": float(flows.net.clip(min=0).sum(-1).max()) / site.hours_per_step,
    }
    if pv > 0:
        result["self_consumption"] = 1 - exported / pv
    if capacity > 0:
        result["battery_cycles"] = throughput / 2 / capacity
    return result


def grid_only(year: Year, objective: Objective) -> dict[str, float]:
    """The same loads and vehicles without PV and batteries: what the grid alone would have cost.

    Computed from the uncontrolled year's own hours, not simulated: without PV and batteries nothing else changes, but
    that nothing is served in an outage.
    """
    site, flows, hours = year.site, year.flows, year.hours
    building = np.array([b for b, _ in site.sockets], dtype=np.int64)
    vehicles = np.stack([flows.sockets[:, building == b].sum(-1) for b in range(len(site.buildings))], axis=-1)
    consumption = (flows.load + flows.other + flows.appliances + vehicles) * ~outages(site, hours)
    co2 = float(import_co2(site, consumption).sum())
    alone = planned_costs(objective, bill_of(site, objective, consumption))
    simulated = ("shortfall_cost", "comfort_cost", "unserved_cost")
    costs = alone | {term: float(year.info[term].sum()) for term in simulated if term in year.info}
    energy = {"import_kwh": consumption, "load_kwh": flows.load, "ev_kwh": vehicles}
    energy |= {"thermal_kwh": flows.other} if site.thermal else {}
    sums = {name: float(kwh.sum()) for name, kwh in energy.items()}
    return {"bill": sum(costs.values()), **costs, "co2_kg": co2, **sums}


def planned_flows(site: Site, plan: Plan) -> Flows:
    """The energies of a plan, in the form of a simulated year's; it has vehicles by building."""
    rows = len(plan.net)
    load, pv, heat = (series(site, name)[:rows] for name in ("load", "pv", "heat_kwh"))
    heat = heat if plan.heat is None else heat + plan.heat.change
    return Flows(load, pv, plan.battery, heat, plan.vehicles, plan.net, plan.battery_soc, np.zeros_like(plan.net))


def planned_heat(site: Site, plan: Plan) -> Thermal | None:
    """The thermal side of a plan, as a simulator books it; None where nothing thermal was planned."""
    if plan.heat is None:
        return None
    rows, moved = len(plan.net), plan.heat.tank
    demand = np.stack([np.stack([use.demand[:rows] for use in b.end_uses], -1) for b in site.buildings], axis=1)
    delivered = demand + moved.clip(max=0)
    return Thermal(demand, delivered, moved, series(site, "load")[:rows], series(site, "indoor_temperature")[:rows])


def import_co2(site: Site, net_kwh: Floats) -> Floats:
    """(K, B) kg of CO2 of the import in net consumption (K, B) from the first row on; exports earn no credit."""
    carbon = np.stack([b.carbon[: len(net_kwh)] for b in site.buildings], axis=-1)
    return np.asarray((net_kwh * carbon).clip(min=0))


def planned_figures(site: Site, objective: Objective, optimum: Optimum) -> dict[str, float]:
    """Figures of the perfect-foresight plan, as `figures` has them of a simulated year; departures are not counted,
    since the plan is a bound that no simulator ran."""
    plan, bill, price = optimum.plan, optimum.bill, objective.settings.shortfall_price
    exported = float((-plan.net).clip(min=0).sum())
    result = {
        "bill": float(bill.total),
        **planned_costs(objective, bill),
        "co2_kg": float(import_co2(site, plan.net).sum()),
        "import_kwh": float(plan.net.clip(min=0).sum()),
        "export_kwh": exported,
        **energy_figures(site, planned_flows(site, plan), exported),
        "hours": len(plan.net) * site.hours_per_step,
    }
    if plan.heat is not None:
        result["thermal_kwh"] = float(planned_flows(site, plan).other.sum())
    booked = Booked(plan.net, plan.battery, plan.vehicles, planned_heat(site, plan))
    result |= judged_figures(site, site_series(site, booked))
    return result | ({"ev_missing_kwh": float(bill.shortfall) / price} if price > 0 else {})


def planned_costs(objective: Objective, bill: Bill) -> dict[str, float]:
    """The terms of a computed bill, as a simulated year has them."""
    tariff = objective.tariff
    absent = {"export": tariff.export_price is None, "fixed": not tariff.fixed}
    return {f"{term}_cost": float(value) for term, value in bill._asdict().items() if not absent.get(term)}


def has_costs(found: Mapping[str, float]) -> bool:
    """Whether stored figures have what a summary is made of."""
    return all(name in found for name in COMPARED)


def reductions(agent: dict[str, float], reference: dict[str, float]) -> dict[str, float]:
    """Percent by which an agent is below a reference; negative where it is above, absent where the reference is 0."""
    return {name: 100 * (1 - agent[name] / reference[name]) for name in COMPARED if reference.get(name, 0) > 0}


def audit_demand(year: Year, objective: Objective) -> float:
    """Currency by which the charges summed step by step differ from the year's demand charges by definition."""
    booked = float(year.info["demand_cost"].sum())
    return abs(booked - demand_cost(year.site, objective.tariff, year.flows.net.clip(min=0)))


class Judged(NamedTuple):
    """What a controller that agents are compared with costs in a year."""

    figures: dict[str, float]
    demand_audit: float
    """Currency by which booked demand charges differ from their definition."""
    seconds: float
    """That it took to find out."""
    grid_only: dict[str, float] = {}
    """Of the uncontrolled year: the same loads and vehicles without PV and battery."""


class Result(NamedTuple):
    """What became of one agent."""

    figures: dict[str, float]
    demand_audit: float = 0.0
    """Currency by which booked demand charges differ from their definition."""
    timing: dict[str, float] = {}
    parity: dict[str, float] = {}
    """See `iquitos_rl.judging.parity`."""
    failed: str | None = None

    @staticmethod
    def failure(message: str) -> Result:
        return Result({}, failed=message)


def gap_shares(controllers: Mapping[str, Mapping[str, float]], key: str = "bill") -> dict[str, float]:
    """Share of the gap between uncontrolled and optimum that each controller closes; empty without a gap to close."""
    idle, best = (controllers.get(name, {}).get(key) for name in ("uncontrolled", "optimum"))
    if idle is None or best is None or best >= idle:
        return {}
    return {name: gap_share(found[key], idle, best) for name, found in controllers.items() if key in found}


def make_summary(
    case: str,
    unseen: bool,
    objective: Objective,
    references: Mapping[str, Judged],
    results: dict[str, Result],
    warnings: list[str],
    device: torch.device,
) -> dict[str, Any]:
    """The part of `simulation_summary.json` that the simulations decide; an agent that failed has no figures.

    Args:
        references: `uncontrolled` first, then everything else that agents are compared with.
    """
    judged, baseline = {name: own for name, own in results.items() if own.failed is None}, references["uncontrolled"]
    simulated: list[Judged | Result] = [*references.values(), *judged.values()]
    span = "year" if is_year(baseline.figures.get("hours")) else "period"
    controllers = {"grid_only": baseline.grid_only}
    controllers |= {name: found.figures for name, found in zip((*references, *judged), simulated)}
    return {
        "schema_version": SCHEMA_VERSION,
        "case": case,
        "evaluated_on": f"an unseen {span}" if unseen else f"the {span} trained on",
        "simulator": "citylearn",
        "currency": objective.tariff.currency,
        "controllers": controllers,
        "gap_closed": gap_shares(controllers),
        "ranking": sorted(judged, key=lambda name: judged[name].figures["bill"]),
        "failed": {name: result.failed for name, result in results.items() if result.failed is not None},
        "reductions_percent": {
            name: {
                "vs_grid_only": reductions(result.figures, baseline.grid_only),
                "vs_uncontrolled": reductions(result.figures, baseline.figures),
            }
            for name, result in judged.items()
        },
        "audit": {
            "largest_balance_residual_kwh": max(own.get("balance_residual_kwh", 0.0) for own in controllers.values()),
            DEMAND_AUDIT: max(found.demand_audit for found in simulated),
            **largest(found.parity for found in judged.values()),
            "warnings": [*warnings, *missing_kpis(baseline.figures)],
        },
        "timing": {name: result.timing for name, result in judged.items()},
        "memory": peak_memory(device),
        "versions": versions(),
    }


def largest(found: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The largest value under each key."""
    result: dict[str, float] = {}
    for own in found:
        result |= {key: max(value, result.get(key, value)) for key, value in own.items()}
    return result
