"""The synthetic year of the mall's demand."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.iquitos.presets import LoadSettings
from iquitos_rl.cases.iquitos.solar import Calendar, ar1, month_share
from iquitos_rl.cases.site import Floats

LARGEST_DEVIATION = 0.13
"""Metered hours exceed their mean day by 21 % at most, seasons included."""


def synthetic_load(calendar: Calendar, settings: LoadSettings, rng: np.random.Generator) -> Floats:
    """(T,) kWh per hour whose month sums and mean day are the documented ones, with correlated variation.

    The meter's 8,760 hours of 2024 hold 29 February and lack 31 December, so the documented February has 29 days and
    December 30; the generic year spreads the same energy over 28 and 31. The meter's 28 zero hours are outages and
    are not reproduced.
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
    # Alternate scaling meets both margins (Deming and Stephan 1940); the months come last and are met exactly.
    for _ in range(20):
        load = load * (by_hour / np.maximum(np.bincount(calendar.hour, load, minlength=24), 1e-9))[calendar.hour]
        month = calendar.month - 1
        load = load * (by_month / np.maximum(np.bincount(month, load, minlength=12), 1e-9))[month]
    return np.asarray(load, dtype=np.float64)
