"""The site's bill, by which agents, rules and the optimum are evaluated in every engine.

The bill has four terms, in currency: energy at its hourly price, demand charges on the month's highest import, a carbon
price on grid CO2, and a price on every kWh that a vehicle lacks when it leaves. As in CityLearn (`building.py`,
update_variables) each building has its own meter: imports of one are not netted with exports of another, and exports
earn nothing.

Shapes: E environments, B buildings. Demand is charged in two periods: index 0 of a last axis is peak, 1 off peak.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from iquitos_rl.cases.site import Site
from iquitos_rl.envs.task.score import SCORES, ScoreWeights
from iquitos_rl.envs.task.settings import ObjectiveSettings as ObjectiveSettings
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import read_json

TARIFF_FILE = "tariff.json"


class Tariff(BaseModel):
    """Charges besides the energy price; `tariff.json` in a case folder."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    currency: str = "currency"
    peak_hours: tuple[Annotated[int, Field(ge=0, le=23)], ...] = ()
    """Clock hours (0 to 23) that belong to the peak period; 18 is the hour from 18:00 to 19:00."""
    demand_charge_peak: float = Field(0.0, ge=0, le=1e9)
    """Currency per kW and month, on the highest import in peak hours."""
    demand_charge_off_peak: float = Field(0.0, ge=0, le=1e9)
    """Currency per kW and month, on the highest import in the other hours."""


class Weights(NamedTuple):
    """Weight of each term in the reward. The reported bill is unweighted."""

    energy: float
    demand: float
    carbon: float
    shortfall: float
    comfort: float = 1.0
    unserved: float = 1.0


WEIGHTS = {
    "bill": Weights(energy=1.0, demand=1.0, carbon=1.0, shortfall=1.0),
    "co2": Weights(energy=0.0, demand=0.0, carbon=1.0, shortfall=1.0),
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


def read_tariff(folder: Path) -> Tariff:
    """Read `tariff.json` of a case folder; without the file there is no demand charge.

    Raises:
        UserError: the file is not JSON, or a value is not valid.
    """
    path = folder / TARIFF_FILE
    if not os.path.lexists(path):
        return Tariff()
    content = read_json(path)
    try:
        return Tariff.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(": ".join(map(str, (path, *first["loc"], first["msg"])))) from None


def is_peak(site: Site, tariff: Tariff) -> NDArray[np.bool_]:
    """(T,) whether a row lies in the peak period of the demand charge."""
    return np.isin(site.hour, tariff.peak_hours)


def is_month_start(site: Site) -> NDArray[np.bool_]:
    """(T,) True on the first row of each month, where the running peaks go back to zero."""
    return np.concatenate([[True], site.month[1:] != site.month[:-1]])


def demand_increase(
    import_kwh: Tensor, running_peak: Tensor, peak_period: Tensor, tariff: Tariff, hours_per_step: float
) -> tuple[Tensor, Tensor]:
    """Demand charge for the amount by which a step raises the month's highest import.

    Over a month the steps sum to the month's demand charge.

    Args:
        import_kwh: (E, B) energy imported in the step, >= 0.
        running_peak: (E, B, 2) highest import so far this month in kW, peak and off-peak period.
        peak_period: (E,) bool, whether the step lies in the peak period.

    Returns:
        The charge (E, B) in currency, and the new running peaks (E, B, 2).
    """
    in_peak = (peak_period.to(import_kwh.dtype) / hours_per_step).unsqueeze(-1)
    demand = torch.stack([import_kwh * in_peak, import_kwh * (1 / hours_per_step - in_peak)], dim=-1)
    new_peak = torch.maximum(running_peak, demand)
    if not (tariff.demand_charge_peak or tariff.demand_charge_off_peak):
        return torch.zeros_like(import_kwh), new_peak
    peak, off_peak = (new_peak - running_peak).unbind(-1)
    return peak * tariff.demand_charge_peak + off_peak * tariff.demand_charge_off_peak, new_peak


def step_bill(
    objective: Objective,
    net_kwh: Tensor,
    price: Tensor,
    carbon: Tensor,
    running_peak: Tensor,
    peak_period: Tensor,
    missing_kwh: Tensor,
    hours_per_step: float,
    discomfort: Tensor | None = None,
    unserved_kwh: Tensor | None = None,
) -> tuple[Terms, Tensor]:
    """The bill of one step.

    Args:
        net_kwh: (E, B) net consumption of each building, negative where it exports.
        price: (E, B) currency per kWh.
        carbon: (E, B) kg CO2 per kWh.
        running_peak: (E, B, 2) kW, see `demand_increase`.
        peak_period: (E,) bool.
        missing_kwh: (E,) kWh that vehicles leaving in this step lack.
        discomfort: (E,) degree-hours outside of the comfort band; none by default.
        unserved_kwh: (E,) kWh that devices lacked in an outage, and of appliances that did not run; none by default.

    Returns:
        The terms, each (E,), and the new running peaks (E, B, 2).
    """
    import_kwh = net_kwh.clamp(min=0)
    demand, new_peak = demand_increase(import_kwh, running_peak, peak_period, objective.tariff, hours_per_step)
    # CityLearn clips the product net * intensity at zero.
    carbon_kg = (net_kwh * carbon).clamp(min=0)
    nothing = torch.zeros_like(missing_kwh)
    terms = Terms(
        energy=(import_kwh * price).sum(-1),
        demand=demand.sum(-1),
        carbon=objective.settings.carbon_price * carbon_kg.sum(-1),
        shortfall=objective.settings.shortfall_price * missing_kwh,
        comfort=nothing if discomfort is None else objective.settings.comfort_price * discomfort,
        unserved=nothing if unserved_kwh is None else objective.settings.unserved_price * unserved_kwh,
    )
    return terms, new_peak


def idle_bill(site: Site, objective: Objective) -> NDArray[np.float64]:
    """(T,) weighted bill of each row if no battery moves and no vehicle charges.

    It does not depend on actions. Subtracting it from the bill keeps the optimal policy and removes most of the
    reward's variance. Running peaks start with the month, not with the episode.
    """
    net = np.stack([building.idle_net for building in site.buildings], axis=-1)  # (T, B)
    imported = np.maximum(net, 0)
    price = np.stack([building.price for building in site.buildings], axis=-1)
    carbon = np.stack([building.carbon for building in site.buildings], axis=-1)
    weights = objective.weights
    bill = weights.energy * (imported * price).sum(-1)
    bill += weights.carbon * objective.settings.carbon_price * np.maximum(net * carbon, 0).sum(-1)
    month = np.cumsum(is_month_start(site))
    peak = is_peak(site, objective.tariff)
    for period, rate in ((peak, objective.tariff.demand_charge_peak), (~peak, objective.tariff.demand_charge_off_peak)):
        demand = np.where(period[:, None], imported / site.hours_per_step, 0.0)
        for m in np.unique(month):
            rows = month == m
            highest = np.maximum.accumulate(demand[rows], axis=0)
            bill[rows] += weights.demand * rate * np.diff(highest, axis=0, prepend=0).sum(-1)
    return bill


def reward_scale(idle: NDArray[np.float64]) -> float:
    """Currency amount by which rewards are divided: the idle site's mean bill per step, so that rewards are about 1."""
    scale = float(idle.mean())
    return scale if scale > 0 else 1.0
