"""The weather file of a case: present weather, and forecasts 6, 12 and 24 hours ahead."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.noise import ar1
from iquitos_rl.cases.iquitos.solar import CLOUD_EDGE, Sun, Weather, split_irradiance
from iquitos_rl.cases.site import Floats, Ints

WEATHER_NAMES = (
    "outdoor_dry_bulb_temperature",
    "outdoor_relative_humidity",
    "diffuse_solar_irradiance",
    "direct_solar_irradiance",
)
LEADS = (6, 12, 24)  # hours ahead of CityLearn's `_predicted_1`, `_predicted_2`, `_predicted_3`


def mean_by_hour(values: Floats, hour: Ints, weight: Floats | None = None) -> Floats:
    """(24,) weighted mean by hour of the day; 0 for an hour without weight."""
    weight = np.ones_like(values) if weight is None else weight
    total = np.bincount(hour, weight, minlength=24)
    return np.asarray(np.bincount(hour, values * weight, minlength=24) / np.maximum(total, 1e-12), dtype=np.float64)


def forecast(
    values: Floats,
    hour: Ints,
    lead: int,
    skill: float,
    rng: np.random.Generator,
    weight: Floats | None = None,
    correlation: float = 0.8,
) -> Floats:
    """(T,) forecast made in each row for `lead` rows later; `skill` is the explained share of the variance.

    The anomaly a from the mean day is forecast as skill * a + sqrt(skill * (1 - skill)) * sigma * noise, which is
    unbiased given the forecast and has mean squared error (1 - skill) * sigma^2. Past its end the year repeats.
    """
    mean = mean_by_hour(values, hour, weight)
    anomaly = values - mean[hour]
    spread = np.sqrt(mean_by_hour(np.square(anomaly, dtype=np.float64), hour, weight))
    target = np.roll(hour, -lead)
    noise = ar1(rng, len(values), correlation)
    error = np.sqrt(skill * (1 - skill)) * spread[target] * noise
    return np.asarray(mean[target] + skill * np.roll(anomaly, -lead) + error, dtype=np.float64)


def weather_columns(
    calendar: Calendar, weather: Weather, sun: Sun, skills: tuple[float, float, float], rng: np.random.Generator
) -> dict[str, Floats]:
    """The 16 columns of CityLearn's weather file.

    `_predicted_1`, `_predicted_2`, `_predicted_3` are forecasts for 6, 12 and 24 hours ahead, with a random error that
    grows with the lead, so a controller that reads them has no perfect foresight. Irradiance is forecast as a clear-sky
    index and then split, so that diffuse and direct agree.
    """
    lit = (sun.clear_ghi > 20).astype(float)
    index = np.where(lit > 0, weather.ghi / np.maximum(sun.clear_ghi, 20), 0.0)
    ahead = []
    present = dict(zip(WEATHER_NAMES, (weather.temperature, weather.humidity, weather.dhi, weather.dni)))
    hour, kept = calendar.hour, calendar.correlation(0.8)
    for lead, skill in zip(map(calendar.steps, LEADS), skills):
        later = Sun._make(np.roll(values, -lead) for values in sun)
        clear_index = np.clip(forecast(index, hour, lead, skill, rng, lit, kept), 0.05, CLOUD_EDGE)
        dhi, dni = split_irradiance(clear_index * later.clear_ghi, later)
        temperature = forecast(weather.temperature, hour, lead, skill, rng, correlation=kept)
        humidity = np.clip(forecast(weather.humidity, hour, lead, skill, rng, correlation=kept), 0, 100)
        ahead.append((temperature, humidity, dhi, dni))
    return present | {
        f"{name}_predicted_{number}": values
        for name, leads in zip(present, zip(*ahead))
        for number, values in enumerate(leads, start=1)
    }
