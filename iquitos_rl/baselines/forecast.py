"""What a receding horizon expects of the hours ahead: the same hour of previous days, scaled as the present hour is.

H hours ahead, B buildings; kW.
"""

from __future__ import annotations

import numpy as np

from iquitos_rl.baselines.profiles import Profiles
from iquitos_rl.cases.site import Floats, Ints

DAYS = 7
"""Previous days that count; before there are so many, the mean day of the training years fills their places."""


class Persistence:
    """Remembers one quantity hour by hour and extrapolates it.

    Args:
        mean_day: (24, B) what is expected before anything has been seen.
        scaled: whether an hour above its expectation raises the hours that follow it.
    """

    def __init__(self, mean_day: Floats, scaled: bool) -> None:
        self._days = np.repeat(mean_day[None], DAYS, axis=0)
        self._scaled = scaled
        self._highest = mean_day.max(axis=0)

    def observe(self, hour: int, value: Floats) -> None:
        """Take in the (B,) value of an hour of the day; call once an hour."""
        column = self._days[:, hour]
        column[:-1] = column[1:]
        column[-1] = value

    def ahead(self, hours: Ints) -> Floats:
        """(H, B) expectation for these hours of the day; the first is the present one, observed last."""
        expected = self._days.mean(axis=0)
        now = self._days[-1, hours[0]]
        usual = expected[hours[0]]
        scale = np.ones_like(now)
        if self._scaled:
            # Faint hours, such as the sun's at dawn, say nothing of the hours to come.
            known = usual > 0.1 * self._highest
            scale = np.where(known, np.clip(now / np.maximum(usual, 1e-9), 0, 2), 1.0)
        today = np.cumsum(hours == 0) == 0 if hours[0] > 0 else np.cumsum(hours == 0) <= 1
        result = expected[hours] * np.where(today[:, None], scale, 1.0)
        result[0] = now
        return result


class Outlook:
    """Load, PV and vehicles of the hours ahead, from what has been seen."""

    def __init__(self, profiles: Profiles) -> None:
        self._load = Persistence(profiles.load, scaled=True)
        self._pv = Persistence(profiles.pv, scaled=True)
        self._vehicles = Persistence(profiles.vehicles, scaled=False)

    def observe(self, hour: int, load: Floats, pv: Floats, vehicles: Floats) -> None:
        for series, value in ((self._load, load), (self._pv, pv), (self._vehicles, vehicles)):
            series.observe(hour, value)

    def ahead(self, hours: Ints) -> tuple[Floats, Floats]:
        """(H, B) load less PV, and (H, B) what vehicles take where they charge on arrival."""
        return self._load.ahead(hours) - self._pv.ahead(hours), self._vehicles.ahead(hours)
