"""Writes the case of one period from what an owner's files say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.iquitos import solar
from iquitos_rl.cases.iquitos.build import forecast_columns, series_figures
from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.presets import CaseSettings
from iquitos_rl.cases.iquitos.write import Rates, write_case
from iquitos_rl.cases.metered.own_files import Files, Gathered, zone_of
from iquitos_rl.cases.metered.own_power import metered_pv, own_load, own_pv
from iquitos_rl.cases.metered.own_rows import phase_of
from iquitos_rl.cases.metered.own_vehicles import own_sockets
from iquitos_rl.cases.metered.own_weather import constant_columns, on_calendar, own_weather
from iquitos_rl.cases.metered.period import Period
from iquitos_rl.cases.metered.plausible import load_warnings
from iquitos_rl.cases.metered.rate_file import carbon_intensity
from iquitos_rl.cases.metered.tariff_file import OwnTariff, case_tariff, holidays_in
from iquitos_rl.version import __version__

COUNTS = {"moto_count", "mototaxi_count"}
PLACE = ("site.latitude", "site.longitude")


def write_own_case(
    output: Path,
    preset: str | None,
    year_seed: int,
    settings: CaseSettings,
    given: set[str],
    chosen: bool,
    site: Gathered,
    period: Period,
    step: int,
    files: Files,
    notes: list[str],
    tariff: OwnTariff | None,
) -> Path:
    """Write the case of one period."""
    zone, load = zone_of(site), site.load
    assert load is not None
    utc = np.arange(period.first, period.end, np.timedelta64(step, "s")).astype("datetime64[s]")
    calendar = Calendar(zone.local(utc), step, utc)
    standard = zone.standard_hours(utc)
    placed = set(PLACE) <= given
    settings = settings.model_copy(update={"site": settings.site.model_copy(update={"utc_offset": standard})})
    sun = solar.sun_position(calendar, settings.site, settings.weather.linke_turbidity)
    warnings: list[str] = []
    found = on_calendar(site.weather, utc, step, standard, phase_of(site, step), files, notes)
    pv_kw = metered_pv(site, period, utc, standard, files, notes) if not chosen else None
    load_kwh = own_load(site, load, period, pv_kw, step, files, notes)
    weather, columns_known = own_weather(
        found, calendar, sun, settings, year_seed, preset, placed, pv_kw is not None, notes
    )
    settings, pv_kw, more = own_pv(pv_kw, weather, calendar, sun, settings, given, placed, columns_known, found, notes)
    warnings += more
    warnings += load_warnings(load_kwh, calendar, settings)
    if (
        settings.bess.capacity_kwh == 0
        and not site.sessions
        and not any(settings.sockets.model_dump(include=COUNTS).values())
    ):
        warnings.append("there is nothing to control: no battery and no vehicles")
    if columns_known:
        columns = forecast_columns(calendar, sun, weather, settings, year_seed)
    else:
        columns = constant_columns(weather)
    sockets, about = own_sockets(site, calendar, settings, year_seed, files, notes)
    price = carbon = bill = None
    if tariff is not None and files.tariff is not None:
        path = Path(files.tariff)
        if tariff.holidays is not None:
            calendar = replace(calendar, holiday=holidays_in(tariff.holidays, calendar, path.name))
        price, bill = case_tariff(tariff, calendar, zone, path.parent, path.name, notes)
    if files.carbon is not None:
        carbon = carbon_intensity(files.carbon, files.reading("carbon"), calendar, zone, notes)
    daylight = zone.daylight(utc).astype(np.int64)
    figures = series_figures(calendar, settings, weather, load_kwh, pv_kw) | about
    measured = "ghi" in found and "temperature" in found
    if not measured and (preset is None or settings.pv.model == "metered"):
        figures.pop("pv_performance_ratio")
        figures.pop("ghi_kwh_m2")
    provenance: dict[str, Any] = {
        "preset": preset or "own",
        "year_seed": year_seed,
        "package_version": __version__,
        "zone": zone.name,
        "first": str(calendar.begin[0]),
        "weather": "files" if measured else "made up",
        "warnings": warnings,
        "assumptions": notes,
        "figures": figures,
    }
    rates = Rates(price, carbon, bill)
    return write_case(output, settings, calendar, load_kwh, pv_kw, columns, sockets, provenance, rates, daylight)
