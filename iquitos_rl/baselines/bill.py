"""Bills to compare: a controller's year on the district engine, a plan's year, and the share of the gap it closes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.baselines.profiles import series
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.cases.tariff import Tariff, counted, export_prices, is_month_start, paid_export
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.district.states import named_tensors
from iquitos_rl.envs.task.objective import Objective, Weights, idle_peaks, standing

BatchController = Callable[[Tensor], Tensor]
"""Observations (E, D) to actions (E, A) in [-1, 1]."""


class Bill(NamedTuple):
    """A year's terms in the tariff's currency; each (E,) or a number."""

    energy: Floats
    demand: Floats
    carbon: Floats
    shortfall: Floats
    export: Floats
    """What exports earned, below 0."""
    fixed: Floats
    """What nothing changes."""

    @property
    def total(self) -> Floats:
        """Unweighted, as it is reported."""
        return sum(self, np.zeros(()))

    def weighted(self, weights: Weights) -> Floats:
        """As the reward weighs it."""
        # Rules leave comfort to the building, so the weights of its terms are left over.
        return sum((w * term for w, term in zip(weights, self)), np.zeros(()))


def booked_terms(info: Mapping[str, Tensor]) -> Tensor:
    """(terms, E) of `Bill`, of a step's figures; those that a tariff does not have are nothing."""
    nothing = torch.zeros_like(info["energy_cost"])
    return torch.stack([info.get(f"{term}_cost", nothing) for term in Bill._fields])


def gap_share(bill: float, uncontrolled_bill: float, optimum_bill: float) -> float:
    """Share of the gap between the uncontrolled site and the optimum that a controller closes.

    1 is the optimum, 0 the uncontrolled site, negative is worse than that; NaN where there is no gap.
    """
    gap = uncontrolled_bill - optimum_bill
    return (uncontrolled_bill - bill) / gap if gap > 0 else float("nan")


def start_at(env: DistrictSite, row: Tensor, year: Tensor, net: Tensor | None = None) -> Tensor:
    """Put each environment at a row where a month begins and return the observations (E, D).

    Args:
        row: (E,) of the year's data.
        year: (E,) index of each environment's year among the sites of `env`.
        net: (E, B) net consumption of the row before, kWh; nothing at a year's start.
    """
    env.reset(seed=0)
    fresh = env.physics.fresh(row, year)
    state = env.state_dict()
    peak = torch.zeros_like(state["running_peak"])
    if env.task.objective.tariff.ratcheted:  # as if the site had been idle in the months before
        every = np.concatenate([idle_peaks(*own) for own in zip(env.task.sites, env.task.tariffs)])
        own, kept = torch.from_numpy(every).to(peak), len(env.task.objective.tariff.charges)
        peak[..., kept:] = own[..., kept:].index_select(0, year * env.task.rows + row)
    net = torch.zeros_like(state["net"]) if net is None else net
    left = torch.full_like(state["left"], env.task.rows - 1) - row.cpu()
    env.load_state_dict({**state, "physics": named_tensors(fresh), "running_peak": peak, "net": net, "left": left})
    return env.observation


def start_years(env: DistrictSite, years: Sequence[int]) -> Tensor:
    """Put each environment at the first row of a year of its own and return the observations (E, D).

    Args:
        years: (E,) index of each environment's year among the sites of `env`.
    """
    year = torch.tensor(years, dtype=torch.int64, device=env.device)
    return start_at(env, torch.zeros_like(year), year)


def run_year(env: DistrictSite, controller: BatchController, years: Sequence[int] | None = None) -> Bill:
    """Bills (E,) of a controller's year from its first row to its last, for all environments of `env` side by side.

    Args:
        env: its episodes are years.
        years: (E,) see `start_years`; by default all take the first.
    """
    obs = start_years(env, [0] * env.num_envs if years is None else years)
    total = torch.zeros((len(Bill._fields), env.num_envs), dtype=torch.float64, device=env.device)
    for _ in range(env.task.rows - 1):
        step = env.step(controller(obs))
        obs = step.obs
        total += booked_terms(step.info)
    return Bill(*(term.cpu().numpy() for term in total))


def bill_of(site: Site, objective: Objective, net_kwh: Floats) -> Bill:
    """The bill of given net consumption (K, B) from the site's first row on, kWh per step; nothing is missing.

    By definition, from the whole period at once; the steps of `envs/task/objective.py` add up to the same.
    """
    count, buildings = net_kwh.shape
    hours, tariff = site.hours_per_step, objective.tariff
    imported, earned = np.maximum(net_kwh, 0), export_prices(site, tariff)
    exported = paid_export(np.maximum(-net_kwh, 0), tariff, hours).sum(-1)
    carbon_kg = np.maximum(net_kwh * series(site, "carbon")[:count], 0).sum()
    terms = Bill(
        energy=(imported * series(site, "price")[:count]).sum(),
        demand=np.asarray(demand_cost(site, tariff, imported)),
        carbon=objective.settings.carbon_price * carbon_kg,
        shortfall=np.zeros(()),
        export=np.zeros(()) if earned is None else 0.0 - (exported * earned[:count]).sum(),
        fixed=np.asarray(standing(tariff, buildings, hours * count)),
    )
    return Bill(*map(np.asarray, terms))


def demand_cost(site: Site, tariff: Tariff, import_kwh: Floats) -> float:
    """The demand charges of imports (K, B) from the site's first row on, kWh per step: each month's highest import in
    the rows of each charge, or the ratchet's share of the highest so far."""
    count, cost = len(import_kwh), 0.0
    month, counts = np.cumsum(is_month_start(site))[:count], counted(site, tariff)[:count]
    highest = np.zeros((len(tariff.charges), import_kwh.shape[1]))
    for m in np.unique(month):
        rows = month == m
        for p, charge in enumerate(tariff.charges):
            peak = import_kwh[rows & counts[:, p]].max(axis=0, initial=0.0) / site.hours_per_step
            highest[p] = np.maximum(highest[p], peak)
            if charge.due(site.month[:count][rows][:1])[0]:
                cost += charge.price * float(np.maximum(peak, charge.ratchet * highest[p]).sum())
    return cost
