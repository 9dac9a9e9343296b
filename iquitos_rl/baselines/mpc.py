"""Receding horizon: every hour plan the next day and a half over several scenarios, and do the plan's first hour.

It knows the tariff's calendar and, like an agent, the present hour, states of charge and running peaks. An outlook
(`outlook.py`) says what is expected of load and PV; how far from it they may be is learned on training years
(`scenarios.py`), and so is what the rest of a month may come to (`later_peaks.py`).

A fleet is planned as one: it may take anything between what it must and what it could now, and what it leaves it takes
in the hours after. Vehicles that have not come yet are expected to charge on arrival.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.baselines.horizon import controllable, year_horizon
from iquitos_rl.baselines.later_peaks import days_left
from iquitos_rl.baselines.outlook import OUTLOOKS, Expected
from iquitos_rl.baselines.planner import KINDS, Planner
from iquitos_rl.baselines.rolling import MONTHS, Ahead, RollingPlan, Step
from iquitos_rl.baselines.view import Decision, Now, SiteView
from iquitos_rl.cases.site import Floats
from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.errors import UserError

DEFER = 1
"""Hours in which vehicles take what they leave now. They may leave it again then; a plan that counts on more hours has
vehicles leave before it."""


class RecedingHorizon:
    """A controller for one year, to be called hour by hour.

    Args:
        task: of the environment to be controlled.
        planner: what was learned on training years.
        year: index of the year among the task's sites: its prices and forecasts are read from there.
        row: of the year, that the first call is in.

    Raises:
        UserError: see `SiteView` and `year_horizon`.
    """

    def __init__(self, task: SiteTask, planner: Planner, year: int = 0, row: int = 0) -> None:
        self._view, objective = SiteView(task), task.objective._replace(tariff=task.tariffs[year])
        site = task.sites[year]
        if site.thermal:
            raise UserError(f"{site.path}: this controller plans no sites with thermal devices")
        self._planner, self._year, self.row = planner, year_horizon(site, objective), row
        self._hour, self._calendar, self._days_left = site.hour, site.month, days_left(site)
        self._hours = site.hours_per_step
        self._late = 1 if task.settings.present == "last" else 0
        """Rows ago that the outlook is from: one where load and PV of the present row are not known."""
        self._outlook = OUTLOOKS[KINDS[planner.name].outlook](site, planner.profiles)
        batteries = controllable(site)
        self._capacity = np.array([0.0 if battery is None else battery.capacity for battery in batteries])
        self._charges, weights = objective.tariff.charges, objective.weights
        self._rate = np.array(objective.tariff.rates) * weights.demand
        self._ratchet = np.array([charge.ratchet for charge in self._charges])
        self._ratcheted = list(objective.tariff.ratcheted)
        carbon_price = weights.carbon * objective.settings.carbon_price
        # Where energy could be wasted, or bought and sold at once, for money, no plan would be the cheapest.
        self._cost = np.maximum(weights.energy * self._year.price + carbon_price * self._year.carbon, 0.0)
        paid = np.zeros(len(self._cost)) if self._year.export_price is None else self._year.export_price
        self._earned = np.clip(weights.export * paid[:, None], 0.0, self._cost)
        limit_kw = objective.tariff.export_limit_kw
        limit = np.inf if limit_kw is None else limit_kw * self._hours
        self._plan = RollingPlan(
            batteries,
            scenarios=planner.scenarios.probability.shape[1],
            hours=planner.steps,
            hours_per_step=self._hours,
            together=round(planner.parameters["together"]),
            defer=min(DEFER, planner.steps - 1),
            charges=len(self._charges),
            quantiles=planner.later.shape[-1],
            export_most=limit if self._earned.any() else None,
        )

    def predict(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Observation (D,) of the next hour to actions (A,). Raises SolverError: the solver failed."""
        return self.plan(obs)[0]

    def plan(
        self, obs: NDArray[np.float32], hours: int | None = None, keep: Floats | None = None
    ) -> tuple[NDArray[np.float32], Step]:
        """The same with the plan that the actions are from.

        Args:
            hours: that are planned, of those that can be.
            keep: (B,) least kWh in the batteries after them.
        """
        ahead = self._look_ahead(self._view(torch.from_numpy(obs).unsqueeze(0)), hours, keep)
        step = self._plan.solve(ahead)
        self.row += 1
        share = np.where(ahead.movable > 1e-6, step.vehicles / np.maximum(ahead.movable, 1e-9), 1.0).clip(0, 1)
        decision = Decision(
            torch.from_numpy(step.battery[None] / self._hours).float(), torch.from_numpy(share[None]).float()
        )
        return self._view.actions(decision)[0].numpy(), step

    def _look_ahead(self, now: Now, hours: int | None, keep: Floats | None) -> Ahead:
        planner, first = self._planner, self.row
        late = self._late if first else 0
        count = min(hours or planner.steps, planner.steps - late, len(self._cost) - first)
        rows, hour = slice(first, first + count), int(self._hour[first - late])
        expected = Expected(*(own[late:] for own in self._outlook(first - late, count + late)))
        net = expected.load - expected.pv + expected.vehicles
        known = net[0] - expected.vehicles[0] if late else _only(now.load_kw - now.pv_kw) * self._hours
        net[0] = known + _only(now.ev_least_kw) * self._hours
        errors = planner.parameters["spread"] * planner.scenarios.error[hour, :, late : late + count]
        within = self._year.month[rows] - self._year.month[first] == np.arange(MONTHS)[:, None]
        counts = self._year.counts[rows].T[:, None] & within
        due = self._year.due[rows][within.argmax(axis=-1)].T & within.any(axis=-1)
        so_far = self._so_far(_only(now.highest_kw))
        return Ahead(
            probability=planner.scenarios.probability[hour],
            net=_filled((net + errors).swapaxes(1, 2), planner.steps),
            cost=_filled(self._cost[rows].T, planner.steps),
            earned=_filled(self._earned[rows].T, planner.steps),
            counts=_filled(counts, planner.steps) > 0,
            rate=self._rate[:, None] * due,
            so_far=so_far,
            later=self._later(so_far, first, first + count),
            active=np.arange(planner.steps) < count,
            stored=_only(now.battery_soc) * self._capacity,
            keep=np.zeros(len(self._capacity)) if keep is None else keep,
            movable=_only((now.ev_most_kw - now.ev_least_kw).clamp(min=0)) * self._hours,
            stored_price=planner.parameters["stored"] * float(self._cost[rows].mean()),
            ready_price=planner.parameters["ready"] * float(self._cost[rows].mean()) * self._hours,
        )

    def _so_far(self, highest_kw: Floats) -> Floats:
        """(B, P, M) kW that are billed already, of highest imports (B, C); see `Tariff.meters`."""
        charges = len(self._charges)
        found = np.zeros((len(highest_kw), charges, MONTHS))
        found[..., 0] = highest_kw[:, :charges]
        of_months = highest_kw[:, charges:, None] * self._ratchet[self._ratcheted, None]
        found[:, self._ratcheted] = np.maximum(found[:, self._ratcheted], of_months)
        return found

    def _later(self, so_far: Floats, first: int, end: int) -> Floats:
        """(B, P, M, Q) kW that the month in sight last may come to after the plan, which ends before row `end`."""
        table, month = self._planner.later, self._year.month
        found = np.repeat(so_far[..., None], table.shape[-1], axis=-1)
        if end < len(month) and month[end] == month[end - 1]:
            own = table[self._calendar[end] - 1, self._days_left[end]]
            found[:, :, month[end] - month[first]] = self._planner.parameters["later"] * own
        return found


def _only(values: Tensor) -> Floats:
    """(B, ...) from the one environment."""
    return values[0].double().numpy()


def _filled(values: Floats, steps: int) -> Floats:
    """(..., H) of values of fewer steps, with zeros after them."""
    return np.concatenate([values, np.zeros((*values.shape[:-1], steps - values.shape[-1]))], axis=-1)
