"""Challenge scores as a sum over steps: what an agent is rewarded for where the objective is a `challenge-...` preset.

Each term is divided by its mean over the same data without control, so that the mean of a year's steps is about the
score of `iquitos_rl.judging.challenges`. Cost, carbon, import, discomfort and resilience are sums over steps, and come
out exactly as there. What is not such a sum has a stand-in:

* Ramping is the district's change from the step before. The first step of an episode counts as a rise from nothing.
* Load factors and peaks of a day, a month and a year are the square of the district's import. Of all ways to draw the
  same energy, the even one has the smallest sum of squares, the highest load factor and the lowest peaks.
* Unserved energy is divided by what the data's demand asks for in outages, over all buildings together.

E environments, B buildings, K steps, S * T table rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Building, Floats, Site

TINY = 1e-9
MARGIN = 0.3
"""K inside of the comfort band from which on an agent that follows gradients is pulled back: at the edge itself every
other hour would be outside."""


class ScoreWeights(NamedTuple):
    """Weight of each term of a score."""

    cost: float = 0.0
    carbon: float = 0.0
    imported: float = 0.0
    ramping: float = 0.0
    square: float = 0.0
    """Of the stand-in for load factors and peaks."""
    discomfort: float = 0.0
    resilience: float = 0.0
    """Of discomfort in outages."""
    unserved: float = 0.0


SCORES = {
    # Mean of ramping, 1 - load factor, daily peak, highest peak, net consumption and carbon, each a sixth
    # (CityLearn v1.0.0, `citylearn.py`, cost). The organisers' rule divided there, the site without control here.
    "challenge-2021": ScoreWeights(carbon=1 / 6, imported=1 / 6, ramping=1 / 6, square=3 / 6),
    # Mean of cost, carbon, and the mean of ramping and 1 - load factor (CityLearn v1.3.6, `citylearn.py`, evaluate).
    "challenge-2022": ScoreWeights(cost=1 / 3, carbon=1 / 3, ramping=1 / 6, square=1 / 6),
    # CityLearn v2.1b12, `citylearn.py`, evaluate_citylearn_challenge: 0.075 each for ramping, 1 - load factor, daily
    # peak and highest peak.
    "challenge-2023": ScoreWeights(
        carbon=0.10, ramping=0.075, square=0.225, discomfort=0.30, resilience=0.15, unserved=0.15
    ),
}
"""Weights of each preset."""


class Score:
    """The steps of a score over several years of one site.

    Args:
        band: degrees beyond the set-points that are comfortable.
    """

    def __init__(
        self, sites: Sequence[Site], weights: ScoreWeights, band: float, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.buildings, self.band = len(sites[0].buildings), band

        def stacked(tables: list[Floats]) -> Tensor:
            return torch.from_numpy(np.concatenate(tables)).to(device, dtype)

        self._prices = stacked([price_rows(site, weights) for site in sites])
        """(S * T, B + 3)."""
        comfortable = weights.discomfort == weights.resilience == 0 or not sites[0].thermal
        self._comfort = None if comfortable else stacked([comfort_rows(site, weights, band) for site in sites])
        """(S * T, B, 3)."""

    def step(
        self,
        row: Tensor,
        net: Tensor,
        before: Tensor,
        temperature: Tensor | None,
        unserved_kwh: Tensor | None,
        set_points: Tensor | None = None,
    ) -> Tensor:
        """(E,) the step's part of the score; the mean over a year's steps is the score.

        Args:
            row: (E,) of the tables.
            net: (E, B) kWh net consumption.
            before: (E, B) of the step before.
            temperature: (E, B) C inside after the step.
            unserved_kwh: (E,).
            set_points: (E, B, 2) C for cooling and heating; those of the data by default.
        """
        prices = self._prices.index_select(0, row)
        imported, ramping, square, lacking = prices.split([self.buildings, 1, 1, 1], dim=1)
        district, change = net.sum(-1), (net - before).sum(-1)
        score = (net.clamp(min=0) * imported).sum(-1) + change.abs() * ramping[:, 0]
        score = score + district.clamp(min=0).square() * square[:, 0]
        if unserved_kwh is not None:
            score = score + unserved_kwh * lacking[:, 0]
        if self._comfort is not None and temperature is not None:
            lowest, highest, price = self._comfort.index_select(0, row).unbind(-1)
            if set_points is not None:
                lowest, highest = set_points[..., 1] - self.band, set_points[..., 0] + self.band
            score = score + ((above(lowest - temperature) + above(temperature - highest)) * price).sum(-1)
        return score

    def idle(self, sites: Sequence[Site]) -> list[Floats]:
        """(T,) of each year: the steps of the data itself, where nothing is controlled."""
        found = []
        for year, site in enumerate(sites):
            row = torch.arange(site.rows, device=self._prices.device) + year * site.rows
            net = torch.from_numpy(idle_net(site)).to(self._prices)
            before = torch.cat([torch.zeros_like(net[:1]), net[:-1]])
            inside = None
            if self._comfort is not None:
                inside = torch.from_numpy(_each(site, "indoor_temperature")).to(self._prices)
            found.append(self.step(row, net, before, inside, None).double().cpu().numpy())
        return found


def above(excess: Tensor) -> Tensor:
    """1 where a number of degrees is above 0, else 0.

    A count has no slope, so autograd gets that of the degrees themselves, from a little below 0 on: an agent that
    follows gradients is told which way is in, however far out it is (a straight-through estimator, Bengio et al. 2013,
    arXiv 1308.3432).
    """
    counted = (excess > 0).to(excess.dtype)
    if not excess.requires_grad:
        return counted
    degrees = (excess + MARGIN).clamp(min=0)
    return counted + degrees - degrees.detach()


def price_rows(site: Site, weights: ScoreWeights) -> Floats:
    """(T, B + 3) points of the score for a kWh imported by each building, for a kWh of change and for a kWh squared of
    the district, and for a kWh that is not served."""
    net, steps = idle_net(site), site.rows - 1
    imported, district = net.clip(min=0), net.sum(-1)
    price, carbon = _each(site, "price"), _each(site, "carbon")
    rows = np.zeros((site.rows, net.shape[1] + 3))
    for weight, series in ((weights.cost, price), (weights.carbon, carbon), (weights.imported, np.ones_like(net))):
        usual = (imported * series)[:steps].mean(0)
        known = usual > TINY  # a building that pays nothing has the same score whatever it does
        rows[:, :-3] += weight / len(usual) * np.where(known, series / np.where(known, usual, 1.0), 0.0)
    rows[:, -3] = _per_unit(weights.ramping, np.abs(np.diff(district[:steps])).mean())
    rows[:, -2] = _per_unit(weights.square, (district[:steps].clip(min=0) ** 2).mean())
    if site.thermal:
        asked = _each(site, "load") + np.stack([_demand(b) for b in site.buildings], axis=-1)
        rows[:, -1] = _per_unit(weights.unserved, (asked * _each(site, "outage"))[:steps].sum() / steps)
    return rows


def comfort_rows(site: Site, weights: ScoreWeights, band: float) -> Floats:
    """(T, B, 3) the lowest and highest comfortable temperature in C, and the points for a step outside of them.

    As in CityLearn too warm counts from the cooling set-point and too cold from the heating set-point, whichever of the
    two the building can do (`cost_function.py`, discomfort).
    """
    steps, columns = site.rows - 1, []
    for building in site.buildings:
        assert building.set_points is not None
        assert building.occupants is not None
        assert building.outage is not None
        occupied = building.occupants > 0
        cooling, heating = building.set_points.T
        points = np.zeros(site.rows)
        for weight, counted in ((weights.discomfort, occupied), (weights.resilience, occupied & building.outage)):
            points += counted * _per_unit(weight, counted[:steps].mean())
        lowest, highest = np.nan_to_num(heating - band, nan=-np.inf), np.nan_to_num(cooling + band, nan=np.inf)
        columns.append(np.stack([lowest, highest, points / len(site.buildings)], axis=-1))
    return np.stack(columns, axis=1)


def idle_net(site: Site) -> Floats:
    """(T, B) kWh net consumption without control."""
    return _each(site, "idle_net")


def _demand(building: Building) -> Floats:
    """(T,) kWh thermal that the data ask for."""
    return np.sum([use.demand for use in building.end_uses], axis=0)


def _each(site: Site, name: str) -> Floats:
    """(T, B)."""
    return np.stack([getattr(building, name) for building in site.buildings], axis=-1).astype(np.float64)


def _per_unit(weight: float, usual: float) -> float:
    """Points for one unit of what is usually so much; nothing where there is none."""
    return weight / float(usual) if usual > TINY else 0.0
