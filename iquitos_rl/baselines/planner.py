"""What a planning controller knows beforehand, learned on training years; storable as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from iquitos_rl.baselines.later_peaks import fit_later_peaks
from iquitos_rl.baselines.outlook import OUTLOOKS
from iquitos_rl.baselines.profiles import Profiles, fit_profiles
from iquitos_rl.baselines.rules import Range
from iquitos_rl.baselines.scenarios import Scenarios, fit_scenarios
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.task.objective import Objective
from iquitos_rl.errors import UserError

HOURS = 36
SCENARIOS = 6
QUANTILES = 5
RANGES = {
    "spread": Range(0, 1.5, 1.0),  # of the scenarios, as a multiple of the errors on training years
    "later": Range(0.8, 1.2, 1.0),  # what the rest of a month may come to, the same
    "stored": Range(0, 1.5, 1.0),  # worth of a kWh stored at the end, as a multiple of the mean cost of one imported
    "together": Range(1, 8, 1),  # first hours in which all scenarios do the same
}
"""Parameters of a plan."""


@dataclass(frozen=True)
class Planner:
    """Everything that a planning controller needs besides the site."""

    outlook: str
    """Key of `OUTLOOKS`."""
    steps: int
    """H, how far it plans."""
    parameters: Mapping[str, float]
    """By the names of `RANGES`."""
    profiles: Profiles
    scenarios: Scenarios
    later: Floats
    """See `fit_later_peaks`."""

    def with_parameters(self, values: Mapping[str, float]) -> Planner:
        return replace(self, parameters={**self.parameters, **values})


def fit_planner(outlook: str, sites: Sequence[Site], objective: Objective, scenarios: int = SCENARIOS) -> Planner:
    """What training years say, with default parameters.

    Raises:
        UserError: the optimum of these years cannot be computed, see `year_horizon`.
        SolverError: it was not found.
    """
    profiles = fit_profiles(sites)
    steps = min(round(HOURS / sites[0].hours_per_step), sites[0].rows - 1)
    count = 1 if outlook == "perfect" else scenarios
    errors = fit_scenarios(sites, OUTLOOKS[outlook], profiles, count, steps)
    later = fit_later_peaks(sites, objective, QUANTILES)
    return Planner(outlook, steps, {name: own.default for name, own in RANGES.items()}, profiles, errors, later)
