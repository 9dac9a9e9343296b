"""What happens at the mall on some days of a year: concerts, late openings, closures, outages of single loads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.site import Floats, Ints


class Kind(NamedTuple):
    """One kind of event. How often, how deep and how long are guesses after the unusual days of 2024, changed by hand
    with the noise of the load; what happened on those days is not known."""

    per_year: float
    first_hour: int
    """Of the day."""
    hours: int
    """A day, from the first one on."""
    days: tuple[int, int]
    """Shortest and longest, all equally likely."""
    load: tuple[float, float]
    """Change of the load, share of its usual value; all between equally likely."""
    visits: float
    """Change of a day's visits, share."""

    def mean_by_hour(self) -> Floats:
        """(24,) mean change of the load over many years."""
        covered = np.isin(np.arange(24), np.arange(self.first_hour, self.first_hour + self.hours) % 24)
        return covered * (self.per_year / 365 * (sum(self.days) / 2) * (sum(self.load) / 2))


KINDS = {
    "concert": Kind(6, 17, 6, (1, 1), (0.04, 0.14), 0.15),
    "late opening": Kind(12, 22, 2, (1, 1), (0.25, 0.65), 0.0),
    "closure": Kind(0.5, 8, 15, (1, 1), (-0.60, -0.40), -0.6),
    "outage of a load": Kind(3, 0, 24, (1, 4), (-0.18, -0.08), 0.0),
}


class Events(NamedTuple):
    """A year's events, less what they come to in the mean year."""

    load: Floats
    """(T,) change, share of the usual load."""
    visits: Floats
    """(days,) change, share of the usual visits."""


def draw_events(calendar: Calendar, often: float, rng: np.random.Generator) -> Events:
    """Events of a year, `often` times as many as usual; every day is as likely as the others."""
    day, hour = calendar.day, calendar.hour
    days = int(day[-1]) + 1
    load, visits = np.zeros(calendar.rows), np.zeros(days)
    for kind in KINDS.values():
        load -= often * kind.mean_by_hour()[hour]
        visits -= often * kind.per_year / 365 * (sum(kind.days) / 2) * kind.visits
        for _ in range(rng.poisson(often * kind.per_year * days / 365)):
            on = _days_of(kind, days, rng)
            depth = rng.uniform(*kind.load)
            during = (hour - kind.first_hour) % 24 < kind.hours
            load += depth * (np.isin(day, on) & during)
            visits[on] += kind.visits
    return Events(load, visits)


def _days_of(kind: Kind, days: int, rng: np.random.Generator) -> Ints:
    """The days of one event; one that passes the end of the year goes on at its beginning."""
    length = int(rng.integers(kind.days[0], kind.days[1] + 1))
    return np.asarray((rng.integers(days) + np.arange(length)) % days, dtype=np.int64)
