"""The site's bill, by which agents, rules and the optimum are evaluated in every engine.

The bill has these terms, in currency: energy at its hourly price, demand charges on the month's highest import, a
carbon price on grid CO2, a price on every kWh that a vehicle lacks when it leaves, what exports earn (below 0), and
what is paid whatever happens. As in CityLearn (`building.py`, update_variables) each building has its own meter:
imports of one are not netted with exports of another. The tariff's definition is `cases/tariff.py`; here are the steps
of a bill, differentiable in the consumption. `baselines/bill.py` has the bill of a whole period; a test has both equal.

Shapes: E environments, B buildings, C = P + R highest imports, see `Tariff.meters`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.cases.tariff import Tariff as Tariff
from iquitos_rl.cases.tariff import counted, export_prices, paid_export
from iquitos_rl.cases.tariff import is_month_start as is_month_start
from iquitos_rl.cases.tariff import read_tariff as read_tariff
from iquitos_rl.envs.task.score import SCORES, ScoreWeights
from iquitos_rl.envs.task.settings import ObjectiveSettings as ObjectiveSettings


class Weights(NamedTuple):
    """Weight of each term in the reward. The reported bill is unweighted."""

    energy: float
    demand: float
    carbon: float
    shortfall: float
    export: float = 1.0
    fixed: float = 0.0
    """What no action changes."""
    comfort: float = 1.0
    unserved: float = 1.0


WEIGHTS = {
    "bill": Weights(energy=1.0, demand=1.0, carbon=1.0, shortfall=1.0),
    "co2": Weights(energy=0.0, demand=0.0, carbon=1.0, shortfall=1.0, export=0.0),
    "balanced": Weights(energy=1.0, demand=1.0, carbon=5.0, shortfall=1.0),
    # With the default price an occupied hour one degree outside of the band costs as much as 5 kWh at 0.20.
    "comfort": Weights(energy=1.0, demand=1.0, carbon=1.0, shortfall=1.0, comfort=5.0, unserved=1.0),
}
"""Of a preset; rules follow the plain bill where the preset is a challenge's score."""


class Terms(NamedTuple):
    """The terms of one step's bill, in currency, (E,) each."""

    energy: Tensor
    demand: Tensor
    carbon: Tensor
    shortfall: Tensor
    export: Tensor
    fixed: Tensor
    comfort: Tensor
    unserved: Tensor

    def weighted(self, weights: Weights) -> Tensor:
        """(E,) weighted sum, from which the reward is computed."""
        weighted = [term * weight for term, weight in zip(self, weights) if weight]
        return torch.stack(weighted or [torch.zeros_like(self.energy)]).sum(0)


class Objective(NamedTuple):
    """A tariff with prices and weights."""

    tariff: Tariff
    settings: ObjectiveSettings

    @property
    def weights(self) -> Weights:
        return WEIGHTS.get(self.settings.preset, WEIGHTS["bill"])

    @property
    def score(self) -> ScoreWeights | None:
        """Of a challenge's score, where that is the objective; the bill is then reported, but not rewarded."""
        return SCORES.get(self.settings.preset)


def meter_rows(site: Site, tariff: Tariff) -> Floats:
    """(T, K) what each row does to the highest imports of `Tariff.meters`: 1 over the hours of a step where it counts.

    Where charges have ratchets, these are followed by whether each of those is due in the month, and by 0 in the first
    row of a month, else 1.
    """
    found = counted(site, tariff) / site.hours_per_step
    ratcheted = list(tariff.ratcheted)
    if not ratcheted:
        return found
    due = np.stack([tariff.charges[p].due(site.month) for p in ratcheted], axis=-1)
    return np.column_stack([found, found[:, ratcheted], due, ~is_month_start(site)])


def billed_peaks(running_peak: Tensor, tariff: Tariff) -> Tensor:
    """(..., P) kW that each charge is due on, from the highest imports (..., P + R), see `Tariff.meters`."""
    ratchets, ratcheted = tariff.ratchets, tariff.ratcheted
    if not ratcheted:
        return running_peak
    peaks = list(running_peak.unbind(-1))
    for p, highest in zip(ratcheted, peaks[len(ratchets) :]):
        peaks[p] = torch.maximum(peaks[p], ratchets[p] * highest)
    return torch.stack(peaks[: len(ratchets)], dim=-1)


def demand_increase(import_kwh: Tensor, running_peak: Tensor, meter: Tensor, tariff: Tariff) -> tuple[Tensor, Tensor]:
    """Demand charge for the amount by which a step raises the month's highest import.

    Over a month the steps sum to the month's demand charge. What a ratchet makes of the months before is due in the
    month's first step.

    Args:
        import_kwh: (E, B) energy imported in the step, >= 0.
        running_peak: (E, B, C) highest imports so far in kW, see `Tariff.meters`.
        meter: (E, K) the step's row of `meter_rows`.

    Returns:
        The charge (E, B) in currency, and the new running peaks (E, B, C).
    """
    columns = running_peak.shape[-1]
    demand = import_kwh.unsqueeze(-1) * meter[..., :columns].unsqueeze(-2)
    new_peak = torch.maximum(running_peak, demand)
    rates, ratchets, ratcheted = tariff.rates, tariff.ratchets, tariff.ratcheted
    if not any(rates):
        return torch.zeros_like(import_kwh), new_peak
    raised = (new_peak - running_peak).unbind(-1)
    cost = [r * rate for r, rate, ratchet in zip(raised, rates, ratchets) if rate and not ratchet]
    if ratcheted:
        now, before = billed_peaks(new_peak, tariff), billed_peaks(running_peak, tariff)
        goes_on = meter[..., -1:]
        for p, due in zip(ratcheted, meter[..., columns:-1].unbind(-1)):
            cost.append((now[..., p] - before[..., p] * goes_on) * due.unsqueeze(-1) * rates[p])
    return sum(cost[1:], cost[0]), new_peak


def step_bill(
    objective: Objective,
    net_kwh: Tensor,
    price: Tensor,
    carbon: Tensor,
    running_peak: Tensor,
    meter: Tensor,
    missing_kwh: Tensor,
    hours_per_step: float,
    discomfort: Tensor | None = None,
    unserved_kwh: Tensor | None = None,
    export_price: Tensor | None = None,
) -> tuple[Terms, Tensor]:
    """The bill of one step.

    Args:
        net_kwh: (E, B) net consumption of each building, negative where it exports.
        price: (E, B) currency per kWh.
        carbon: (E, B) kg CO2 per kWh.
        running_peak: (E, B, C) kW, see `demand_increase`.
        meter: (E, K) see `demand_increase`.
        missing_kwh: (E,) kWh that vehicles leaving in this step lack.
        discomfort: (E,) degree-hours outside of the comfort band; none by default.
        unserved_kwh: (E,) kWh that devices lacked in an outage, and of appliances that did not run; none by default.
        export_price: (E, 1) currency per kWh exported; exports earn nothing by default.

    Returns:
        The terms, each (E,), and the new running peaks (E, B, C).
    """
    import_kwh, tariff = net_kwh.clamp(min=0), objective.tariff
    demand, new_peak = demand_increase(import_kwh, running_peak, meter, tariff)
    # CityLearn clips the product net * intensity at zero.
    carbon_kg = (net_kwh * carbon).clamp(min=0)
    nothing = torch.zeros_like(missing_kwh)
    export = fixed = nothing
    if export_price is not None:
        limit = tariff.export_limit_kw
        exported = (-net_kwh).clamp(min=0, max=None if limit is None else limit * hours_per_step)
        export = -(exported * export_price).sum(-1)
    if tariff.fixed:
        fixed = nothing + standing(tariff, net_kwh.shape[-1], hours_per_step)
    terms = Terms(
        energy=(import_kwh * price).sum(-1),
        demand=demand.sum(-1),
        carbon=objective.settings.carbon_price * carbon_kg.sum(-1),
        shortfall=objective.settings.shortfall_price * missing_kwh,
        export=export,
        fixed=fixed,
        comfort=nothing if discomfort is None else objective.settings.comfort_price * discomfort,
        unserved=nothing if unserved_kwh is None else objective.settings.unserved_price * unserved_kwh,
    )
    return terms, new_peak


def standing(tariff: Tariff, buildings: int, hours: float) -> float:
    """Currency that is due for so many hours."""
    return tariff.standing_per_day * buildings * hours / 24


def idle_bill(site: Site, objective: Objective) -> NDArray[np.float64]:
    """(T,) weighted bill of each row if no battery moves and no vehicle charges.

    It does not depend on actions. Subtracting it from the bill keeps the optimal policy and removes most of the
    reward's variance. Running peaks start with the month, not with the episode.
    """
    net = np.stack([building.idle_net for building in site.buildings], axis=-1)  # (T, B)
    imported, tariff, weights = np.maximum(net, 0), objective.tariff, objective.weights
    price = np.stack([building.price for building in site.buildings], axis=-1)
    carbon = np.stack([building.carbon for building in site.buildings], axis=-1)
    bill = weights.energy * (imported * price).sum(-1)
    bill += weights.carbon * objective.settings.carbon_price * np.maximum(net * carbon, 0).sum(-1)
    earned = export_prices(site, tariff)
    if earned is not None:
        exported = paid_export(np.maximum(-net, 0), tariff, site.hours_per_step)
        bill -= weights.export * exported.sum(-1) * earned
    if any(tariff.rates):
        tables = imported, idle_peaks(site, tariff), meter_rows(site, tariff)
        kwh, before, meter = (torch.from_numpy(table) for table in tables)
        bill += weights.demand * demand_increase(kwh, before, meter, tariff)[0].sum(-1).numpy()
    return bill


def idle_peaks(site: Site, tariff: Tariff) -> Floats:
    """(T, B, C) highest imports in kW of the idle site before each row, see `Tariff.meters`.

    Where an episode begins in the middle of a month, this is what its meter would have seen.
    """
    columns = len(tariff.meters)
    net = np.stack([building.idle_net for building in site.buildings], axis=-1)
    demand = np.maximum(net, 0)[..., None] * meter_rows(site, tariff)[:, None, :columns]
    starts = np.flatnonzero(is_month_start(site))
    before = np.zeros_like(demand)
    for first, last in zip(starts, [*starts[1:], site.rows]):
        before[first + 1 : last] = np.maximum.accumulate(demand[first : last - 1], axis=0)
    kept = len(tariff.charges)
    before[1:, :, kept:] = np.maximum.accumulate(demand[:-1, :, kept:], axis=0)
    return before


def reward_scale(idle: NDArray[np.float64]) -> float:
    """Currency amount by which rewards are divided: the size of the idle site's bill per step, so that rewards are
    about 1; an hour may also earn."""
    scale = float(np.abs(idle).mean())
    return scale if scale > 0 else 1.0
