"""Sun and PV plant of a case.

Row t covers the hour [t, t + 1); the sun's position is that of the middle of the hour.
"""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import NamedTuple

import numpy as np
import pandas as pd
import pvlib

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.presets import PvSettings, SiteSettings
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

CLOUD_EDGE = 1.05  # largest hourly clear-sky index; reflections from cloud edges can exceed the clear sky a little


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


def split_irradiance(ghi: Floats, sun: Sun) -> tuple[Floats, Floats]:
    """(diffuse, direct normal) in W/m2 by the model of Erbs, Klein and Duffie (1982)."""
    parts = pvlib.irradiance.erbs(ghi, sun.zenith, sun.day_of_year)
    return np.nan_to_num(np.asarray(parts["dhi"], float)), np.nan_to_num(np.asarray(parts["dni"], float))


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
