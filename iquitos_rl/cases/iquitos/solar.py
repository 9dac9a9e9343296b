"""Calendar, sun, weather, weather forecasts and PV plant of a case.

Row t covers the hour [t, t + 1); the sun's position is that of the middle of the hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta, timezone
from typing import NamedTuple

import numpy as np
import pandas as pd
import pvlib
from numpy.typing import NDArray
from scipy.signal import lfilter

from iquitos_rl.cases.iquitos.presets import PvSettings, SiteSettings, WeatherSettings
from iquitos_rl.cases.site import Bools, Floats, Ints
from iquitos_rl.errors import UserError

Times = NDArray[np.datetime64]
WEATHER_NAMES = (
    "outdoor_dry_bulb_temperature",
    "outdoor_relative_humidity",
    "diffuse_solar_irradiance",
    "direct_solar_irradiance",
)
LEADS = (6, 12, 24)  # hours ahead of CityLearn's `_predicted_1`, `_predicted_2`, `_predicted_3`

CLOUD_EDGE = 1.05  # largest hourly clear-sky index; reflections from cloud edges can exceed the clear sky a little

MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@dataclass(frozen=True)
class Calendar:
    """The rows of a case on the site's clock; hours in local standard time unless `utc` says when they are."""

    begin: Times
    """(T,) start of each row: datetime64[h], or finer."""
    seconds: int = 3600
    """Length of a row."""
    utc: Times | None = None
    """(T,) datetime64[s], start of each row in UTC, for clocks with daylight saving."""
    holiday: Bools | None = None
    """(T,) rows on a holiday; none by default."""

    @property
    def rows(self) -> int:
        return len(self.begin)

    def steps(self, hours: float) -> int:
        """Rows in so many hours."""
        return round(hours * 3600 / self.seconds)

    def correlation(self, hourly: float) -> float:
        """Correlation of neighbouring rows, from that of neighbouring hours."""
        return float(hourly ** (self.seconds / 3600))

    @property
    def clock_hours(self) -> Floats:
        """(T,) hours since midnight on the clock, with fractions."""
        moment = self.begin.astype("datetime64[s]")
        return (moment - moment.astype("datetime64[D]")).astype(np.int64) / 3600

    @property
    def month(self) -> Ints:
        """(T,) 1 to 12."""
        return self.begin.astype("datetime64[M]").astype(np.int64) % 12 + 1

    @property
    def hour(self) -> Ints:
        """(T,) 0 to 23."""
        return self.begin.astype("datetime64[h]").astype(np.int64) % 24

    @property
    def day_type(self) -> Ints:
        """(T,) 1 (Monday) to 7 (Sunday), 8 on a holiday."""
        weekday: Ints = (self.begin.astype("datetime64[D]").astype(np.int64) + 3) % 7 + 1
        return weekday if self.holiday is None else np.where(self.holiday, 8, weekday)


def generic_year() -> Calendar:
    """8,760 hours without 29 February; 1 January is a Monday, as in the metered year 2024 (and in 2018)."""
    return Calendar(np.datetime64("2018-01-01", "h") + np.arange(8760))


class Sun(NamedTuple):
    """Solar position and clear-sky irradiance in the middle of every row."""

    zenith: Floats  # (T,) apparent zenith, degrees
    azimuth: Floats  # (T,) degrees clockwise from north
    day_of_year: Ints
    clear_ghi: Floats  # (T,) W/m2 under a clear sky (Ineichen and Perez 2002)


class Weather(NamedTuple):
    """(T,) each: degC, %, and W/m2."""

    temperature: Floats
    humidity: Floats
    ghi: Floats
    dhi: Floats
    dni: Floats


def sun_position(calendar: Calendar, site: SiteSettings, turbidity: float) -> Sun:
    half = np.timedelta64(calendar.seconds // 2, "s")
    local = pd.DatetimeIndex(calendar.begin.astype("datetime64[s]") + half)
    if calendar.utc is None:
        middle = local.tz_localize(timezone(timedelta(hours=site.utc_offset)))
    else:
        middle = pd.DatetimeIndex(calendar.utc.astype("datetime64[s]") + half, tz="UTC")
    position = pvlib.solarposition.get_solarposition(middle, site.latitude, site.longitude, site.altitude)
    zenith = position["apparent_zenith"].to_numpy(float)
    day_of_year = local.day_of_year.to_numpy().astype(np.int64)
    airmass, pressure = pvlib.atmosphere.get_relative_airmass(zenith), pvlib.atmosphere.alt2pres(site.altitude)
    airmass = pvlib.atmosphere.get_absolute_airmass(airmass, pressure)
    extra = pvlib.irradiance.get_extra_radiation(day_of_year)
    with np.errstate(divide="ignore"):  # sun below the horizon
        clear = pvlib.clearsky.ineichen(zenith, airmass, turbidity, site.altitude, dni_extra=extra)
    return Sun(zenith, position["azimuth"].to_numpy(float), day_of_year, np.nan_to_num(np.asarray(clear["ghi"])))


def ar1(rng: np.random.Generator, count: int, correlation: float) -> Floats:
    """(count,) standard normal series with this correlation of neighbours."""
    noise = rng.standard_normal(count)
    noise[1:] *= np.sqrt(1 - correlation**2)
    return np.asarray(lfilter([1.0], [1.0, -correlation], noise), dtype=np.float64)


def daily_ar1(calendar: Calendar, rng: np.random.Generator, correlation: float) -> Floats:
    """(T,) the same of days, each for all of its hours."""
    day = (calendar.begin.astype("datetime64[D]") - calendar.begin[0].astype("datetime64[D]")).astype(np.int64)
    return ar1(rng, int(day[-1]) + 1, correlation)[day]


def mean_by_hour(values: Floats, hour: Ints, weight: Floats | None = None) -> Floats:
    """(24,) weighted mean by hour of the day; 0 for an hour without weight."""
    weight = np.ones_like(values) if weight is None else weight
    total = np.bincount(hour, weight, minlength=24)
    return np.asarray(np.bincount(hour, values * weight, minlength=24) / np.maximum(total, 1e-12), dtype=np.float64)


def month_share(calendar: Calendar) -> Floats:
    """(12,) share of each calendar month (28 February days) that the rows cover."""
    return np.asarray(np.bincount(calendar.month - 1, minlength=12) / (24 * MONTH_DAYS), dtype=np.float64)


def cloudy_ghi(calendar: Calendar, sun: Sun, settings: WeatherSettings, rng: np.random.Generator) -> Floats:
    """Clear sky times a random clear-sky index, correlated over days and hours, scaled to the monthly sums. Raises
    UserError: a month's sum exceeds that of a clear sky."""
    daily = daily_ar1(calendar, rng, 0.35)
    hourly = ar1(rng, calendar.rows, 0.75)
    index = CLOUD_EDGE / (1 + np.exp(-(1.0 + settings.daily_std * daily + settings.hourly_std * hourly)))
    month = calendar.month - 1
    wanted = 1000 * np.array(settings.monthly_ghi) * month_share(calendar)
    for _ in range(60):
        reached = np.bincount(month, index * sun.clear_ghi, minlength=12)
        index = np.minimum(index * (wanted / np.maximum(reached, 1e-9))[month], CLOUD_EDGE)
    reached = np.bincount(month, index * sun.clear_ghi, minlength=12)
    for m in np.flatnonzero(np.abs(reached - wanted) > 1e-3 * wanted):
        raise UserError(
            f"setting weather.monthly_ghi: month {m + 1} asks for {wanted[m] / 1000:.1f} kWh/m2, "
            f"more than a clear sky gives here ({reached[m] / 1000:.1f})"
        )
    return np.asarray(index * sun.clear_ghi, dtype=np.float64)


def split_irradiance(ghi: Floats, sun: Sun) -> tuple[Floats, Floats]:
    """(diffuse, direct normal) in W/m2 by the model of Erbs, Klein and Duffie (1982)."""
    parts = pvlib.irradiance.erbs(ghi, sun.zenith, sun.day_of_year)
    return np.nan_to_num(np.asarray(parts["dhi"], float)), np.nan_to_num(np.asarray(parts["dni"], float))


def synthetic_temperature(calendar: Calendar, ghi: Floats, sun: Sun, mean: Floats, rng: np.random.Generator) -> Floats:
    """(T,) degC: the documented mean day, warmer on clear days, with correlated noise."""
    lit = (sun.clear_ghi > 50).astype(float)
    index = np.where(lit > 0, ghi / np.maximum(sun.clear_ghi, 50), 0.0)
    anomaly = np.where(lit > 0, index - mean_by_hour(index, calendar.hour, lit)[calendar.hour], 0.0)
    # The air temperature follows the sun of the last hours.
    warmth = np.asarray(lfilter([0.3], [1.0, -0.7], anomaly))
    values = mean[calendar.hour] + 4.0 * warmth + 1.0 * ar1(rng, calendar.rows, 0.95)
    return values - mean_by_hour(values, calendar.hour)[calendar.hour] + mean[calendar.hour]


def synthetic_humidity(temperature: Floats, dew_point: float, rng: np.random.Generator) -> Floats:
    """(T,) %: a slowly varying dew point against the air temperature (Magnus formula)."""
    dew = np.minimum(dew_point + 0.8 * ar1(rng, len(temperature), 0.97), temperature)
    return np.asarray(100 * np.exp(17.62 * dew / (243.12 + dew) - 17.62 * temperature / (243.12 + temperature)))


def synthetic_weather(calendar: Calendar, sun: Sun, settings: WeatherSettings, rng: np.random.Generator) -> Weather:
    """A random year with the documented monthly irradiation and mean day of temperature."""
    ghi = cloudy_ghi(calendar, sun, settings, rng)
    dhi, dni = split_irradiance(ghi, sun)
    temperature = synthetic_temperature(calendar, ghi, sun, np.array(settings.hourly_temperature), rng)
    return Weather(temperature, synthetic_humidity(temperature, settings.dew_point, rng), ghi, dhi, dni)


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


def pvwatts_kw(weather: Weather, sun: Sun, settings: PvSettings, wind_speed: Floats | float) -> Floats:
    """(T,) AC kW of the plant: PVWatts (NREL 2014) with isotropic sky and Faiman's (2008) module temperature."""
    plane = pvlib.irradiance.get_total_irradiance(
        settings.tilt, settings.azimuth, sun.zenith, sun.azimuth, weather.dni, weather.ghi, weather.dhi
    )
    irradiance = np.maximum(np.nan_to_num(np.asarray(plane["poa_global"], float)), 0.0)
    cell = pvlib.temperature.faiman(irradiance, weather.temperature, wind_speed)
    dc = pvlib.pvsystem.pvwatts_dc(irradiance, cell, settings.dc_kw, settings.temperature_coefficient)
    dc = np.maximum(dc, 0.0) * (1 - settings.losses)
    ac = pvlib.inverter.pvwatts(dc, settings.ac_kw / settings.inverter_efficiency, settings.inverter_efficiency)
    return np.asarray(np.clip(np.nan_to_num(ac), 0.0, settings.ac_kw), dtype=np.float64)


def scaled_to_energy(kw: Floats, annual_kwh: float, limit_kw: float) -> Floats:
    """The series scaled to sum to `annual_kwh`, clipped at the inverter's limit. Raises UserError: the energy cannot be
    reached below the limit."""
    scaled = kw
    for _ in range(100):
        scaled = np.minimum(scaled * (annual_kwh / max(scaled.sum(), 1e-9)), limit_kw)
    if abs(scaled.sum() - annual_kwh) > 1e-3 * annual_kwh:
        raise UserError(
            f"setting pv.annual_kwh: {annual_kwh:,.0f} kWh cannot be reached below pv.ac_kw={limit_kw:g} kW"
        )
    return scaled
