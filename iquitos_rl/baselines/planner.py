"""What a planning controller knows beforehand, learned on training years; storable as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from iquitos_rl.baselines.later_peaks import DAYS, fit_later_peaks
from iquitos_rl.baselines.outlook import OUTLOOKS
from iquitos_rl.baselines.profiles import PROFILE_ROWS, Profiles, fit_profiles
from iquitos_rl.baselines.rules import Range
from iquitos_rl.baselines.scenarios import Scenarios, fit_scenarios
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.task.objective import Objective
from iquitos_rl.errors import UserError

HOURS = 36
SCENARIOS = 6
QUANTILES = 5
RANGES = {
    "spread": Range(0, 2.5, 1.5),  # of the scenarios, as a multiple of the errors on training years
    "later": Range(0, 1.2, 0.9),  # what the rest of a month may come to, the same
    "stored": Range(0, 2, 1.0),  # worth of a kWh stored at the end, as a multiple of the mean cost of one imported
    "ready": Range(0, 0.02, 0.005),  # worth of having a kWh an hour earlier, the same
    "together": Range(1, 12, 6),  # first hours in which all scenarios do the same
}
"""Parameters of a plan. Scenarios that know everything from the next hour on wait too long and give away too much in
the first one; a wider spread and more hours together make up for it."""


class Kind(NamedTuple):
    """A planning controller."""

    outlook: str
    """Key of `OUTLOOKS`."""
    tuned: tuple[str, ...]
    """Keys of `RANGES`; the others do nothing in it."""
    scenarios: int = SCENARIOS


ALONE = ("later", "stored", "ready")
KINDS = {
    "mpc": Kind("persistence", tuple(RANGES)),
    "mpc-forecast": Kind("forecasts", tuple(RANGES)),
    "mpc-perfect": Kind("perfect", ALONE, scenarios=1),
    "day-ahead": Kind("forecasts", ALONE, scenarios=1),
}


@dataclass(frozen=True)
class Planner:
    """Everything that a planning controller needs besides the site."""

    name: str
    """Key of `KINDS`."""
    steps: int
    """H, how far it plans."""
    parameters: dict[str, float]
    """By the names of `RANGES`."""
    profiles: Profiles
    scenarios: Scenarios
    later: Floats
    """See `fit_later_peaks`."""

    def with_parameters(self, values: Mapping[str, float]) -> Planner:
        return replace(self, parameters={**self.parameters, **values})

    def to_json(self) -> dict[str, Any]:
        tables = {"profiles": self.profiles._asdict(), "scenarios": self.scenarios._asdict()}
        shown = {key: {name: own.tolist() for name, own in table.items()} for key, table in tables.items()}
        own = {"name": self.name, "steps": self.steps, "parameters": dict(self.parameters)}
        return {**own, **shown, "later": self.later.tolist()}

    @staticmethod
    def from_json(data: dict[str, Any], buildings: int) -> Planner:
        """Inverse of `to_json`. Raises UserError: the data is not what `to_json` writes for so many buildings."""
        try:
            name, steps = str(data["name"]), int(data["steps"])
            parameters = {str(key): float(value) for key, value in data["parameters"].items()}
            profiles = Profiles(*(np.array(data["profiles"][key], dtype=np.float64) for key in Profiles._fields))
            scenarios = Scenarios(*(np.array(data["scenarios"][key], dtype=np.float64) for key in Scenarios._fields))
            later = np.array(data["later"], dtype=np.float64)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"the stored plan cannot be read: {error}") from None
        if name not in KINDS or set(parameters) != set(RANGES) or later.ndim != 5:
            raise UserError(f"the stored plan {name} is not one of this version, or its parameters are not")
        count = KINDS[name].scenarios
        wanted = [
            *((values, (rows, buildings)) for values, rows in zip(profiles, PROFILE_ROWS)),
            (scenarios.error, (24, count, steps, buildings)),
            (scenarios.probability, (24, count)),
            (later, (12, DAYS, buildings, later.shape[3], QUANTILES)),
        ]
        for values, shape in wanted:
            if values.shape != shape or not np.isfinite(values).all():
                raise UserError(f"the stored plan {name} has a table that is not {shape} finite numbers")
        if not all(math.isfinite(value) for value in parameters.values()):
            raise UserError(f"the stored plan {name} has a parameter that is not finite")
        return Planner(name, steps, parameters, profiles, scenarios, later)


def fit_planner(name: str, sites: Sequence[Site], objective: Objective) -> Planner:
    """What training years say, with the parameters as they are without tuning.

    Args:
        name: key of `KINDS`.

    Raises:
        UserError: the optimum of these years cannot be computed, see `year_horizon`.
        SolverError: it was not found.
    """
    kind, profiles = KINDS[name], fit_profiles(sites)
    steps = min(round(HOURS / sites[0].hours_per_step), sites[0].rows - 1)
    errors = fit_scenarios(sites, OUTLOOKS[kind.outlook], profiles, kind.scenarios, steps)
    later = fit_later_peaks(sites, objective, QUANTILES)
    parameters = {key: float(own.default) for key, own in RANGES.items()}
    return Planner(name, steps, parameters, profiles, errors, later)
