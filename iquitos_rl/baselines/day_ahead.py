"""Plan a day ahead and correct the plan as the day goes: how EMHASS runs a home (its day-ahead optimisation with its
`naive-mpc` on top), on the tariff and the forecasts of the other controllers.

When a day begins, one plan on one forecast says how much is to be stored when it ends. Every later hour plans what is
left of the day anew, from what is stored by then and the forecast by then, so that the day ends as planned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.baselines.mpc import RecedingHorizon
from iquitos_rl.baselines.planner import Planner
from iquitos_rl.cases.site import Floats
from iquitos_rl.envs.task.site_task import SiteTask


class DayAhead:
    """A controller for one year, to be called hour by hour; arguments and errors are those of `RecedingHorizon`."""

    def __init__(self, task: SiteTask, planner: Planner, year: int = 0, row: int = 0) -> None:
        self._horizon = RecedingHorizon(task, planner, year, row)
        hour = task.sites[year].hour
        date = np.cumsum((hour == 0) & (np.diff(hour, prepend=-1) != 0))
        self._left = np.searchsorted(date, date, side="right") - np.arange(len(hour))
        """(T,) steps that are left of each row's day, with its own."""
        self._keep: Floats | None = None

    def predict(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Observation (D,) of the next hour to actions (A,). Raises SolverError: the solver failed."""
        row = self._horizon.row
        left = int(self._left[row])
        if self._keep is None or left >= self._left[row - 1]:
            action, step = self._horizon.plan(obs)
            self._keep = step.stored[:, min(left, step.stored.shape[-1]) - 1]
            return action
        return self._horizon.plan(obs, left, self._keep)[0]
