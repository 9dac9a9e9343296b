"""What a receding horizon expects of the hours ahead: the same hour of previous days, scaled as the present hour is."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.site import Bools, Floats, Ints

DAYS = 7
"""Previous days that count; before there are so many, the mean day of the training years fills their places."""


class Persistence:
    """Remembers K quantities hour by hour and extrapolates them.

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
