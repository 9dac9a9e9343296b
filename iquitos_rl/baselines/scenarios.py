"""How the hours ahead may turn out: a few typical errors of a forecast, found on training years.

K scenarios, H steps, B buildings; kWh per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.outlook import Outlook
from iquitos_rl.baselines.profiles import Profiles, arrival_charging, series
from iquitos_rl.cases.site import Floats, Ints, Site

PATHS = 400
"""Most errors of an hour of the day that the typical ones are chosen from."""


class Scenarios(NamedTuple):
    """For each hour of the day in which a forecast is issued."""

    error: Floats  # (24, K, H, B) what load and vehicles less PV come to beyond the forecast; 0 in the first step
    probability: Floats  # (24, K)


def fit_scenarios(
    sites: Sequence[Site], outlook_of: Callable[[Site, Profiles], Outlook], profiles: Profiles, count: int, steps: int
) -> Scenarios:
    """Typical errors of a forecast on training years."""
    paths: dict[int, list[Floats]] = {hour: [] for hour in range(24)}
    for site in sites:
        outlook = outlook_of(site, profiles)
        actual = series(site, "load") - series(site, "pv") + arrival_charging(site)
        rows = np.arange(0, site.rows - steps)
        for row in _some(rows, site.hour, PATHS // len(sites) + 1).tolist():
            expected, hours = outlook(row, steps), site.hour[row : row + steps]
            error = actual[row : row + steps] - (expected.load - expected.pv + expected.vehicles)
            error[0] = 0.0
            paths[int(hours[0])].append(error)
    chosen = [_typical(np.array(own or [np.zeros((steps, len(sites[0].buildings)))]), count) for own in paths.values()]
    error, probability = (np.stack(part) for part in zip(*chosen))
    return Scenarios(error, probability)


def _some(rows: Ints, hour: Ints, most: int) -> Ints:
    """At most so many of the rows of each hour of the day, evenly spread."""
    found = []
    for h in range(24):
        own = rows[hour[rows] == h]
        found.append(own[np.unique(np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int))])
    return np.sort(np.concatenate(found))


def _typical(paths: Floats, count: int) -> tuple[Floats, Floats]:
    """(K, H, B) of equally likely paths (N, H, B) and their probabilities (K,).

    Fast forward selection (Heitsch and Römisch 2003): each path chosen is the one that brings the others closest to
    those chosen; then every path gives its probability to the nearest. Where there are fewer paths, the last repeats
    with probability 0.
    """
    flat = paths.reshape(len(paths), -1)
    squares = (flat**2).sum(-1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))
    nearest = np.full(len(flat), np.inf)
    chosen: list[int] = []
    for _ in range(min(count, len(flat))):
        left = np.minimum(distance, nearest[:, None]).sum(0)
        left[chosen] = np.inf
        chosen.append(int(left.argmin()))
        nearest = np.minimum(nearest, distance[:, chosen[-1]])
    owner = distance[:, chosen].argmin(-1)
    probability = np.bincount(owner, minlength=count) / len(flat)
    chosen += [chosen[-1]] * (count - len(chosen))
    return paths[chosen], probability
