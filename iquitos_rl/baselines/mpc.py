"""Receding horizon: plan the next two days as a linear programme every hour, and do the plan's first hour.

It knows the tariff's calendar and, like an agent, the present hour, states of charge and running peaks. The hours ahead
are expected by `Persistence`, or known (`forecast="perfect"`): the difference is what better forecasts could earn.

A fleet is planned as one: it may take anything between what it must and what it could now, and what it leaves it takes
in the next hour. Vehicles that have not come yet are expected to charge on arrival.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.baselines.horizon import Horizon, controllable, solve, year_horizon
from iquitos_rl.baselines.profiles import Profiles, arrival_charging
from iquitos_rl.baselines.stays import Stays
from iquitos_rl.baselines.view import Decision, Now, SiteView
from iquitos_rl.cases.site import Bools, Floats, Ints
from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.errors import UserError

Forecast = Literal["persistence", "perfect"]
DAYS = 7  # previous days that count; before there are so many, the mean day of the training years fills their places
STEPS_AHEAD = 48
LEVELLING, READINESS = 0.003, 0.0005
"""See `Horizon`. So small that they only choose between plans that expect the same bill."""


class Persistence:
    """Remembers K quantities hour by hour and expects the same hour of previous days, scaled as the present hour is.

    Args:
        mean_day: (24, K) what is expected before anything has been seen.
        scaled: (K,) or one for all: whether an hour above its expectation raises the hours that follow it.
    """

    def __init__(self, mean_day: Floats, scaled: bool | Bools) -> None:
        self._days = np.repeat(mean_day[None], DAYS, axis=0)
        self._scaled = scaled
        self._highest = mean_day.max(axis=0)

    def observe(self, hour: int, value: Floats) -> None:
        """Take in the (K,) values of an hour of the day; call once an hour."""
        column = self._days[:, hour]
        column[:-1] = column[1:]
        column[-1] = value

    def ahead(self, hours: Ints) -> Floats:
        """(H, K) expectation for H hours of the day; the first is the present one, observed last."""
        expected = self._days.mean(axis=0)
        now, usual = self._days[-1, hours[0]], expected[hours[0]]
        # Faint hours, such as the sun's at dawn, say nothing of the hours to come.
        known = self._scaled & (usual > 0.1 * self._highest)
        scale = np.where(known, np.clip(now / np.maximum(usual, 1e-9), 0, 2), 1.0)
        today = np.cumsum(hours == 0) <= (hours[0] == 0)
        result = expected[hours] * np.where(today[:, None], scale, 1.0)
        result[0] = now
        return result


class RecedingHorizon:
    """A controller for one year, to be called from its first hour on, hour by hour.

    Args:
        task: of the environment to be controlled.
        profiles: mean day of training years.
        year: index of the year among the task's sites: its prices are read from there, and with a perfect forecast
            everything else.

    Raises:
        UserError: see `SiteView` and `year_horizon`.
    """

    def __init__(self, task: SiteTask, profiles: Profiles, forecast: Forecast = "persistence", year: int = 0) -> None:
        self._view, self._objective = SiteView(task), task.objective._replace(tariff=task.tariffs[year])
        site = task.sites[year]
        if site.thermal:
            raise UserError(f"{site.path}: this controller plans no sites with thermal devices")
        self._year = year_horizon(site, self._objective)
        self._vehicles = arrival_charging(site)[: site.rows - 1]
        self._hour, self._hours = site.hour, site.hours_per_step
        self._batteries = controllable(site)
        self._row, self._outlook = 0, None
        if forecast == "persistence":
            mean_day = np.concatenate([profiles.load, profiles.pv, profiles.vehicles], axis=1)
            # Vehicles that have come early say nothing of those to come.
            self._outlook = Persistence(mean_day, np.repeat([True, True, False], len(site.buildings)))

    def predict(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Observation (D,) of the next hour to actions (A,). Raises SolverError: the solver failed."""
        now = self._view(torch.from_numpy(obs).unsqueeze(0))
        horizon = self._look_ahead(now)
        movable = _only((now.ev_most_kw - now.ev_least_kw).clamp(min=0)) * self._hours
        plan = solve(horizon, self._batteries, _fleets(movable, len(horizon.price)), self._objective)
        self._row += 1
        taken = plan.vehicles[0] / np.maximum(movable, 1e-9)
        decision = Decision(
            torch.from_numpy(plan.battery[:1] / self._hours).float(),
            torch.from_numpy(np.where(movable > 1e-6, taken.clip(0, 1), 1.0)[None]).float(),
        )
        return self._view.actions(decision)[0].numpy()

    def _look_ahead(self, now: Now) -> Horizon:
        rows = slice(self._row, min(self._row + STEPS_AHEAD, len(self._year.price)))
        if self._outlook is None:
            surplus_load, vehicles = self._year.surplus_load[rows], self._vehicles[rows].copy()
        else:
            present = now.load_kw, now.pv_kw, now.ev_most_kw
            self._outlook.observe(int(now.hour), np.concatenate([_only(kw) for kw in present]))
            load, pv, vehicles = np.split(self._outlook.ahead(self._hour[rows]), 3, axis=1)
            surplus_load, vehicles = (load - pv) * self._hours, vehicles * self._hours
        vehicles[0] = _only(now.ev_least_kw) * self._hours
        return self._year._replace(
            surplus_load=surplus_load + vehicles,
            price=self._year.price[rows],
            carbon=self._year.carbon[rows],
            month=self._year.month[rows] - self._year.month[self._row],
            counts=self._year.counts[rows],
            due=self._year.due[rows],
            running_peak=_only(now.highest_kw),
            export_price=None if self._year.export_price is None else self._year.export_price[rows],
            battery_soc=_only(now.battery_soc),
            levelling=LEVELLING,
            readiness=READINESS,
        )


def _only(values: Tensor) -> Floats:
    """(B,) from the one environment."""
    return values[0].double().numpy()


def _fleets(movable: Floats, steps: int) -> Stays:
    """The (B,) kWh that each building's vehicles may take now or leave for the next hour, as stays."""
    count = len(movable)
    fields: dict[str, Any] = dict.fromkeys(("building", "socket", "vehicle"), np.arange(count))
    fields |= {"first": np.zeros(count, dtype=np.int64), "last": np.full(count, min(1, steps - 1))}
    fields |= dict.fromkeys(("arrival", "lowest", "discharge_limit", "most_missing"), np.zeros(count))
    fields |= dict.fromkeys(("kept", "gain", "drop"), np.ones(count))
    fields |= dict.fromkeys(("capacity", "charge_limit"), movable)
    return Stays(**fields, required=(movable > 0).astype(np.float64))
