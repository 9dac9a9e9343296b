"""Weather of a synthetic year: clouds, temperature and humidity.

A year is one draw. The documented month sums and mean days hold for the mean over many years.

Clouds are a clear-sky index on a logit scale with four parts: El Nino or La Nina, spells of some ten days, days, hours.
Clear spells are warm, and so are El Nino years, as in the western Amazon's droughts (Jimenez et al. 2018,
Frontiers in Earth Science 6:227).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.signal import lfilter

from iquitos_rl.cases.iquitos.calendar import Calendar, month_share
from iquitos_rl.cases.iquitos.noise import ar1, daily_ar1, stream
from iquitos_rl.cases.iquitos.presets import WeatherSettings
from iquitos_rl.cases.iquitos.solar import CLOUD_EDGE, Sun, Weather, split_irradiance
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError

SPELL, DAY, HOUR = 0.9, 0.4, 0.75
"""Correlation of neighbouring days in a spell, of what single days add, and of neighbouring hours."""
EL_NINO_KELVIN = 0.35
"""K by which a year is warmer, one standard deviation of El Nino up; assumed."""
SUN_KELVIN, SPELL_KELVIN, NOISE_KELVIN = 8.5, 0.45, 0.35
"""K for a clear-sky index higher by 1 over some hours, and spreads of warm spells and of hours. The typical year's
daily means have a spread of 0.78 K and a correlation of 0.82 with the day's irradiation (`benchmarks/years.py`)."""


class Climate(NamedTuple):
    """A year's weather, and how far it is from that of the mean year."""

    weather: Weather
    clearness: Floats
    """(T,) clear-sky index less its mean in that month, 0 at night."""
    warmth: Floats
    """(T,) K above the mean of that hour and month."""


def synthetic_weather(calendar: Calendar, sun: Sun, settings: WeatherSettings, year_seed: int) -> Climate:
    """A random year.

    Raises:
        UserError: a month's mean irradiation exceeds that of a clear sky.
    """
    el_nino = float(stream(year_seed, "el nino").standard_normal())
    lit = sun.clear_ghi > 0
    mean = mean_index(calendar, sun, settings)
    index = cloud_index(calendar, settings, mean, el_nino, stream(year_seed, "clouds"))
    ghi = np.asarray(index * sun.clear_ghi, dtype=np.float64)
    clearness = np.where(sun.clear_ghi > 50, index - mean[calendar.month - 1], 0.0)
    warmth = warm_spells(calendar, clearness, el_nino, stream(year_seed, "temperature"))
    usual = np.array(settings.hourly_temperature)[calendar.hour] + np.array(settings.monthly_warmth)[calendar.month - 1]
    temperature = usual + warmth
    humidity = synthetic_humidity(temperature, settings.dew_point, stream(year_seed, "humidity"))
    dhi, dni = split_irradiance(ghi, sun)
    return Climate(Weather(temperature, humidity, ghi, dhi, dni), np.where(lit, clearness, 0.0), warmth)


def mean_index(calendar: Calendar, sun: Sun, settings: WeatherSettings) -> Floats:
    """(12,) mean clear-sky index of each month that gives its documented irradiation."""
    clear = np.bincount(calendar.month - 1, sun.clear_ghi, minlength=12) * calendar.seconds / 3600
    wanted = 1000 * np.array(settings.monthly_ghi) * month_share(calendar)
    for m in np.flatnonzero(wanted > 0.98 * CLOUD_EDGE * clear):
        raise UserError(
            f"setting weather.monthly_ghi: month {m + 1} asks for {wanted[m] / 1000:.1f} kWh/m2, "
            f"more than a clear sky gives here ({CLOUD_EDGE * clear[m] / 1000:.1f})"
        )
    return np.asarray(wanted / np.maximum(clear, 1e-9), dtype=np.float64)


def cloud_index(
    calendar: Calendar, settings: WeatherSettings, mean: Floats, el_nino: float, rng: np.random.Generator
) -> Floats:
    """(T,) clear-sky index, whose mean over many years is `mean` (12,) in each month."""
    parts = (
        (settings.yearly_std, np.full(calendar.rows, el_nino)),
        (settings.spell_std, daily_ar1(calendar, rng, SPELL)),
        (settings.daily_std, daily_ar1(calendar, rng, DAY)),
        (settings.hourly_std, ar1(rng, calendar.rows, calendar.correlation(HOUR))),
    )
    spread = np.sqrt(sum(std**2 for std, _ in parts))
    logit = centre(mean / CLOUD_EDGE, float(spread))[calendar.month - 1] + sum(std * part for std, part in parts)
    return np.asarray(CLOUD_EDGE / (1 + np.exp(-logit)), dtype=np.float64)


def centre(mean: Floats, spread: float) -> Floats:
    """Centre c of a normal distribution with this spread, such that 1 / (1 + exp(-c - spread z)) has these means."""
    points, weights = hermegauss(40)  # type: ignore[no-untyped-call]
    weights = weights / weights.sum()
    low, high = np.full(len(mean), -20.0), np.full(len(mean), 20.0)
    for _ in range(60):
        middle = (low + high) / 2
        reached = (weights / (1 + np.exp(-middle[:, None] - spread * points))).sum(axis=1)
        low, high = np.where(reached < mean, middle, low), np.where(reached < mean, high, middle)
    return np.asarray((low + high) / 2, dtype=np.float64)


def warm_spells(calendar: Calendar, clearness: Floats, el_nino: float, rng: np.random.Generator) -> Floats:
    """(T,) K above the usual temperature: it follows the sun of the last hours, spells, and El Nino."""
    keep = calendar.correlation(0.7)
    sunny = np.asarray(lfilter([1 - keep], [1.0, -keep], clearness))
    spells, hours = daily_ar1(calendar, rng, 0.8, 8), ar1(rng, calendar.rows, calendar.correlation(0.95))
    return SUN_KELVIN * sunny + SPELL_KELVIN * spells + NOISE_KELVIN * hours + EL_NINO_KELVIN * el_nino


def synthetic_humidity(temperature: Floats, dew_point: float, rng: np.random.Generator) -> Floats:
    """(T,) %: a slowly varying dew point against the air temperature (Magnus formula)."""
    dew = np.minimum(dew_point + 0.8 * ar1(rng, len(temperature), 0.97), temperature)
    return np.asarray(100 * np.exp(17.62 * dew / (243.12 + dew) - 17.62 * temperature / (243.12 + temperature)))
