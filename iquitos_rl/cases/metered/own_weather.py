"""The weather of an owner's site: of files, of a preset, or made up."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iquitos_rl.cases.iquitos import solar
from iquitos_rl.cases.iquitos.calendar import Calendar, Times
from iquitos_rl.cases.iquitos.noise import stream
from iquitos_rl.cases.iquitos.outlook import WEATHER_NAMES
from iquitos_rl.cases.iquitos.presets import IQUITOS, CaseSettings
from iquitos_rl.cases.iquitos.solar import Sun, Weather
from iquitos_rl.cases.iquitos.weather import synthetic_humidity, synthetic_weather
from iquitos_rl.cases.metered import climate
from iquitos_rl.cases.metered.grid import Series, in_other_year, with_step
from iquitos_rl.cases.metered.own_files import Files
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError

SOLAR_CONSTANT = 1361.0
"""W/m2; direct irradiance is never more, which the division at sunrise does not know."""


def on_calendar(
    weather: Mapping[str, Series],
    utc: Times,
    step: int,
    standard: float,
    phase: int,
    files: Files,
    notes: list[str],
) -> dict[str, Floats]:
    """(T,) weather of each row: by time where a file covers it, else by month, day and hour."""
    shift = np.timedelta64(round(standard * 3600), "s")
    name = next((path.name for path in (files.weather, files.pv) if path is not None), "")
    found: dict[str, Floats] = {}
    for quantity, series in weather.items():
        series = with_step(series, step, phase, f"{name}: {quantity}", [])
        slot = (utc - series.begin[0]).astype(np.int64) // step
        inside = (slot >= 0) & (slot < len(series.values))
        if inside.mean() > 0.95:
            per_day = 86400 // step
            slot = np.where(slot < 0, slot % per_day, slot)
            slot = np.where(slot >= len(series.values), len(series.values) - per_day + slot % per_day, slot)
            found[quantity] = series.values[slot]
            continue
        values = in_other_year(series, utc, shift)
        if values is None:
            notes.append(f"{name}: {quantity} does not cover the load's days, left out")
        else:
            found[quantity] = values
            note = f"{name}: weather of another year, matched by month, day and hour (a typical year)"
            if note not in notes:
                notes.append(note)
    return found


def own_weather(
    found: Mapping[str, Floats],
    calendar: Calendar,
    sun: Sun,
    settings: CaseSettings,
    year_seed: int,
    preset: str | None,
    placed: bool,
    metered: bool,
    notes: list[str],
) -> tuple[Weather, bool]:
    """The files' weather, else that of the preset or of the climate; and whether it is more than nothing."""
    rng = stream(year_seed, "weather")
    if "ghi" in found and "temperature" in found:
        ghi = np.maximum(found["ghi"], 0.0)
        if not placed:
            notes.append("weather: where the site lies is not said, so direct irradiance is taken at latitude 0")
            if "dni" not in found or "dhi" not in found:
                raise UserError(
                    "the weather has no direct irradiance; say where the site lies: --set site.latitude= --set "
                    "site.longitude="
                )
        if "dhi" in found and "dni" in found:
            dhi, dni = (np.maximum(found[part], 0.0) for part in ("dhi", "dni"))
        elif "dhi" in found:
            dhi = np.minimum(np.maximum(found["dhi"], 0.0), ghi)
            height = np.cos(np.radians(np.minimum(sun.zenith, 87.0)))
            dni = np.where(sun.zenith < 90, np.minimum((ghi - dhi) / height, SOLAR_CONSTANT), 0.0)
            notes.append("weather: direct irradiance derived from the global and the diffuse one")
        else:
            dhi, dni = solar.split_irradiance(ghi, sun)
            notes.append("weather: diffuse and direct irradiance derived from the global one (Erbs)")
        if "humidity" in found:
            humidity = np.clip(found["humidity"], 0, 100)
        else:
            dew = settings.weather.dew_point if preset else float(found["temperature"].mean()) - 5.0
            humidity = synthetic_humidity(found["temperature"], dew, rng)
            notes.append(f"weather: no humidity, made from a dew point about {dew:.3g} degC")
        return Weather(found["temperature"], humidity, ghi, dhi, dni), True
    if preset is not None and calendar.seconds == 3600 and _has_climate(preset, settings):
        notes.append("weather: no file with irradiance and temperature, the preset's synthetic year is used")
        return synthetic_weather(calendar, sun, settings.weather, year_seed).weather, True
    if placed:
        notes.append(climate.NOTE)
        made = climate.climate_year(calendar, sun, settings.site, rng, cloudy=not metered)
        own = found.get("temperature")
        return (made if own is None else made._replace(temperature=own)), True
    notes.append("weather: none, since neither a file nor the site's place is given (15 degC, no sun)")
    zeros = np.zeros(calendar.rows)
    return Weather(found.get("temperature", zeros + 15.0), zeros + 50.0, zeros, zeros, zeros), False


def _has_climate(preset: str, settings: CaseSettings) -> bool:
    """Whether the weather of the settings is that of the site: the preset's place, or figures of its own."""
    base = IQUITOS[preset]
    same = settings.site.latitude == base.site.latitude and settings.site.longitude == base.site.longitude
    return same or settings.weather.monthly_ghi != base.weather.monthly_ghi


def constant_columns(weather: Weather) -> dict[str, Floats]:
    values = dict(zip(WEATHER_NAMES, (weather.temperature, weather.humidity, weather.dhi, weather.dni)))
    return values | {f"{name}_predicted_{n}": column for name, column in values.items() for n in (1, 2, 3)}
