"""A coarse climate by latitude, for sites without a weather file. It replaces no measurement."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.iquitos import solar
from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.noise import daily_ar1
from iquitos_rl.cases.iquitos.presets import SiteSettings, WeatherSettings
from iquitos_rl.cases.iquitos.solar import Sun, Weather
from iquitos_rl.cases.iquitos.weather import synthetic_humidity
from iquitos_rl.cases.site import Floats

LATITUDES = (0, 10, 20, 30, 40, 50, 60, 70)
CLEARNESS_SUMMER = (0.72, 0.74, 0.80, 0.84, 0.82, 0.72, 0.68, 0.62)
CLEARNESS_WINTER = (0.72, 0.78, 0.82, 0.78, 0.65, 0.48, 0.45, 0.45)
"""Share of the clear sky's irradiation, rounded from what weather stations report."""
MEAN = (26.0, 26.5, 25.0, 20.5, 14.0, 9.5, 4.5, -3.0)
"""Yearly mean air temperature near the ground, degC."""
SEASON = (1.0, 2.0, 5.0, 8.5, 10.5, 9.5, 12.0, 14.0)
"""Half the difference between the warmest and the coldest month, K."""
DAILY = 4.0
"""Half the daily swing, K."""
NOTE = (
    "weather: no file with irradiance and temperature; made up from the clear sky and a coarse climate by latitude "
    "(give --weather FILE for your own)"
)


def climate_year(
    calendar: Calendar, sun: Sun, site: SiteSettings, rng: np.random.Generator, cloudy: bool = True
) -> Weather:
    """Weather of no particular year for any place.

    Args:
        cloudy: days differ in their clouds; else each has the mean, which does not contradict metered PV.
    """
    away, south = abs(site.latitude), site.latitude < 0
    # 1 in the middle of July, -1 in the middle of January, the other way round in the south.
    season = -np.cos(2 * np.pi * (sun.day_of_year - 15) / 365) * (-1 if south else 1)
    summer, winter = (np.interp(away, LATITUDES, table) for table in (CLEARNESS_SUMMER, CLEARNESS_WINTER))
    clearness = winter + (summer - winter) * (season + 1) / 2
    ghi = _cloudy(calendar, sun, clearness, rng) if cloudy else np.asarray(clearness * sun.clear_ghi)
    dhi, dni = solar.split_irradiance(ghi, sun)
    hour = calendar.clock_hours
    temperature = (
        np.interp(away, LATITUDES, MEAN)
        + np.interp(away, LATITUDES, SEASON) * season
        - DAILY * np.cos(2 * np.pi * (hour - 3) / 24)
        + 2.0 * daily_ar1(calendar, rng, 0.7)
    )
    humidity = synthetic_humidity(temperature, float(np.mean(temperature)) - 5.0, rng)
    return Weather(temperature, humidity, ghi, dhi, dni)


def _cloudy(calendar: Calendar, sun: Sun, clearness: Floats, rng: np.random.Generator) -> Floats:
    """(T,) W/m2: the clear sky times an index that varies by day and has the climate's mean."""
    spread = WeatherSettings().daily_std
    index = 1 / (1 + np.exp(-spread * daily_ar1(calendar, rng, 0.35)))
    index = np.clip(index * clearness / index.mean(), 0.05, solar.CLOUD_EDGE)
    return np.asarray(index * sun.clear_ghi, dtype=np.float64)
