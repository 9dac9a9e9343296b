"""The mall's synthetic load."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.iquitos.presets import LoadSettings
from iquitos_rl.cases.iquitos.solar import Calendar, ar1, month_share
from iquitos_rl.cases.site import Floats

LARGEST_DEVIATION = 0.13
"""Largest relative deviation. Metered hours exceed their mean day by at most 21 %, seasons included."""


def synthetic_load(calendar: Calendar, settings: LoadSettings, rng: np.random.Generator) -> Floats:
    """(T,) kWh per hour with the documented monthly sums and mean day, and correlated random variation.

    The 8,760 metered hours of 2024 include 29 February and lack 31 December, so the documented February has 29 days and
    December 30. The generic year spreads the same energy over 28 and 31 days. The 28 metered hours of zero are outages
    and are not reproduced.
    """
    day = (calendar.begin.astype("datetime64[D]") - calendar.begin[0].astype("datetime64[D]")).astype(np.int64)
    daily = settings.daily_std * ar1(rng, int(day[-1]) + 1, 0.57)[day]
    hourly = settings.hourly_std * ar1(rng, calendar.rows, 0.8)
    deviation = LARGEST_DEVIATION * np.tanh((daily + hourly) / LARGEST_DEVIATION)
    shape = np.array(settings.hourly_kw)
    load = shape[calendar.hour] * (1 + deviation)
    share = month_share(calendar)
    by_month = np.array(settings.monthly_mwh) * (settings.annual_kwh / sum(settings.monthly_mwh)) * share
    by_hour = shape * (by_month.sum() / shape.sum())
    # Iterative proportional fitting (Deming and Stephan 1940); months are scaled last, so they are met exactly.
    for _ in range(20):
        load = load * (by_hour / np.maximum(np.bincount(calendar.hour, load, minlength=24), 1e-9))[calendar.hour]
        month = calendar.month - 1
        load = load * (by_month / np.maximum(np.bincount(month, load, minlength=12), 1e-9))[month]
    return np.asarray(load, dtype=np.float64)
