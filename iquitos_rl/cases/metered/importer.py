"""Builds a case from an owner's files: load, PV, weather, charging sessions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.iquitos import solar
from iquitos_rl.cases.iquitos.build import (
    WEATHER_STREAM,
    drawn_visits,
    forecast_columns,
    modelled_pv,
    performance_ratio,
    series_figures,
    stream,
    visit_figures,
)
from iquitos_rl.cases.iquitos.presets import IQUITOS, TARIFFS, CaseSettings, Overrides, with_changes
from iquitos_rl.cases.iquitos.solar import WEATHER_NAMES, Calendar, Sun, Times, Weather
from iquitos_rl.cases.iquitos.visits import Visits
from iquitos_rl.cases.iquitos.write import Socket, preset_sockets, write_case
from iquitos_rl.cases.metered import climate
from iquitos_rl.cases.metered.grid import Series, in_other_year, runs, with_step
from iquitos_rl.cases.metered.meter import load_series, open_meter, pv_series
from iquitos_rl.cases.metered.own_site import own_settings, require_tariff
from iquitos_rl.cases.metered.period import Period, common, days, fitted, require_days, whole_days, years
from iquitos_rl.cases.metered.plausible import load_warnings, pv_warnings
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.sessions import ChargerOptions, Session, fleet, read_sessions
from iquitos_rl.cases.metered.tariff_file import OwnTariff, demand_settings, prices, read_tariff_file
from iquitos_rl.cases.metered.weather_file import read_weather, weather_columns
from iquitos_rl.cases.metered.zone import Zone, fixed_zone, named_zone
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError
from iquitos_rl.version import __version__

STEPS = (300, 600, 900, 1200, 1800, 3600)
"""Seconds of a case's row."""
SESSION_STEP = 900
SOLAR_CONSTANT = 1361.0
"""W/m2; direct irradiance is never more, which the division at sunrise does not know."""
COUNTS = {"moto_count", "mototaxi_count"}
PLACE = ("site.latitude", "site.longitude")


@dataclass(frozen=True)
class Files:
    """What an owner has."""

    load: Path | None = None
    pv: Path | None = None
    weather: Path | None = None
    sessions: Path | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict)
    """Role of a file to what its owner says about it."""
    tariff: str | None = None
    """A tariff.yaml, a rate of OpenEI as JSON, or the name of a kind of tariff."""
    zone: str | None = None
    minutes: int | None = None
    """Length of the case's rows; that of the load file by default."""
    chargers: ChargerOptions = field(default_factory=ChargerOptions)

    def reading(self, role: str) -> Reading:
        return self.readings.get(role, Reading())


@dataclass
class _Site:
    """What the files say, before it is put on one calendar."""

    zone: Zone | None
    load: Series | None = None
    net: bool = False
    pv: Series | None = None
    weather: dict[str, Series] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)


def import_case(
    load_file: Path | None,
    pv_file: Path | None,
    preset: str | None,
    year_seed: int,
    output: Path,
    settings: Overrides = None,
    load_column: str | None = None,
    pv_column: str | None = None,
    files: Files | None = None,
) -> tuple[Path, list[str]]:
    """Write a case folder from an owner's files; one folder a year below `output` where they cover several.

    Args:
        preset: brings sockets, battery and tariff; without one the site has what the owner gives, and no more.
        files: everything else that the owner has or says; its load and PV file are those above where given.

    Returns:
        The folder, and one sentence for each assumption made.

    Raises:
        UserError: a file that is broken, with file and line; a question that only the owner can answer, with the option
            that answers it; a bad setting; an output that is not empty.
    """
    files = files or Files()
    files = replace(files, load=load_file or files.load, pv=pv_file or files.pv)
    columns = {"load": load_column, "pv": pv_column}
    named = {role: replace(files.reading(role), column=name) for role, name in columns.items() if name is not None}
    files = replace(files, readings={**files.readings, **named})
    notes: list[str] = []
    resolved, given = own_settings(preset, settings, notes)
    if files.pv is None and resolved.pv.model == "metered":
        raise UserError("setting pv.model: 'metered' needs --pv FILE")
    if year_seed < 0:
        raise UserError(f"year seed {year_seed}: must not be negative")
    if files.load is None and files.sessions is None:
        raise UserError("there is nothing to import: give --load FILE, or --sessions FILE")
    zone = named_zone(files.zone) if files.zone else None
    if zone is None and "site.utc_offset" in given:
        zone = fixed_zone(resolved.site.utc_offset)
    chosen = isinstance(settings, CaseSettings) or "pv.model" in (settings or {})
    chosen = chosen and resolved.pv.model != "metered"
    site = _read(files, zone, notes)
    tariff = None
    if files.tariff is None:
        require_tariff(given)
    elif files.tariff in TARIFFS:
        resolved = with_changes(resolved, {"tariff.kind": files.tariff})
    else:
        tariff = read_tariff_file(Path(files.tariff), notes)
        charges = demand_settings(tariff, Path(files.tariff).name)
        resolved = resolved.model_copy(update={"tariff": charges})
    step = _step(site, files, notes)
    period = _period(site, files, step, notes)
    parts = years(period, _zone(site))
    folder = Path(output)
    if len(parts) > 1:
        notes.append(f"{days(period):,} days: one case for each of {len(parts)} years, in folders below {output}")
    for part in parts:
        name = str(_zone(site).local(np.array([part.first]))[0])[:4]
        own = folder / name if len(parts) > 1 else folder
        own_notes = list(notes) if len(parts) > 1 else notes
        _write(own, preset, year_seed, resolved, given, chosen, site, part, step, files, own_notes, tariff)
        notes.extend(note for note in own_notes if note not in notes)
    return folder, notes


def _zone(site: _Site) -> Zone:
    return site.zone or fixed_zone(0.0)


def _read(files: Files, zone: Zone | None, notes: list[str]) -> _Site:
    site = _Site(zone)
    if files.load is not None:
        file = open_meter(files.load, "load", site.zone, files.reading("load"), notes)
        site.zone = file.at.zone
        site.load, site.net = load_series(file)
        _note_zeros(files.load.name, site.load, site.zone, notes)
    if files.pv is not None:
        file = open_meter(files.pv, "pv", site.zone, files.reading("pv"), notes)
        site.zone = file.at.zone
        site.pv = pv_series(file)
        site.weather = weather_columns(file)
        if site.pv is None and not site.weather:
            raise UserError(
                f"{files.pv.name}: no column holds PV energy or weather; it has {', '.join(file.table.header)}; name "
                "one with --pv-column"
            )
    if files.weather is not None:
        site.weather |= read_weather(files.weather, site.zone, files.reading("weather"), notes)
    if files.sessions is not None:
        site.sessions = read_sessions(files.sessions, site.zone, files.reading("sessions"), notes)
    if site.zone is None:
        raise UserError("nothing tells the site's time zone; say it with --zone Europe/Berlin")
    return site


def _note_zeros(name: str, series: Series, zone: Zone, notes: list[str]) -> None:
    starts, lengths = runs(series.values == 0)
    if len(starts):
        longest, hour = int(np.argmax(lengths)), series.seconds / 3600
        at = str(zone.local(series.begin[starts[longest]][None])[0])[:16]
        where = f"longest {lengths[longest] * hour:g} h from {at}"
        notes.append(f"{name}: {lengths.sum() * hour:g} hours of exactly zero kept as metered ({where})")


def _step(site: _Site, files: Files, notes: list[str]) -> int:
    """Seconds of the case's rows; the load is put on it."""
    wanted = None if files.minutes is None else files.minutes * 60
    if wanted is not None and wanted not in STEPS:
        raise UserError(f"--minutes {files.minutes}: one of {', '.join(str(s // 60) for s in STEPS)} is wanted")
    if site.load is None:
        return wanted or SESSION_STEP
    own = site.load.seconds
    step = wanted or (own if own in STEPS else next((s for s in STEPS if s > own and s % own == 0), 3600))
    name = files.load.name if files.load else ""
    site.load = with_step(site.load, step, _phase(site, step), name, notes)
    return step


def _phase(site: _Site, step: int) -> int:
    """Seconds, UTC, at which a row begins; not 0 in zones with half hours."""
    return int(-round(_zone(site).standard_hours(np.array(["2024-01-01"], dtype="datetime64[s]")) * 3600)) % step


def _period(site: _Site, files: Files, step: int, notes: list[str]) -> Period:
    """The whole days that load and PV share; those of the sessions where there is no load."""
    zone = _zone(site)
    if site.load is None:
        notes.append("no load file: the site has no load but its vehicles")
        first, last = min(s.plug_in for s in site.sessions), max(s.plug_out for s in site.sessions)
        local = zone.local(np.array([first, last], dtype="datetime64[s]"))
        local = local.astype("datetime64[D]").astype("datetime64[s]")
        utc, _ = zone.to_utc(np.array([local[0], local[1] + np.timedelta64(86400, "s")]), np.zeros(2, bool))
        period = Period(utc[0], utc[1])
        if days(period) < 2:
            period = Period(period.first, period.first + np.timedelta64(2 * 86400, "s"))
        count = int((period.end - period.first).astype(np.int64)) // step
        begin: Times = period.first + np.arange(count) * np.timedelta64(step, "s")
        site.load = Series(begin, np.zeros(count), step, True)
        return period
    name = files.load.name if files.load else ""
    period = whole_days(site.load, zone)
    require_days(period, site.load, name)
    hours = (site.load.end - site.load.begin[0]).astype(np.int64) / 3600
    left_out = hours - float((period.end - period.first).astype(np.int64)) / 3600
    if left_out > 1:
        notes.append(f"{name}: {left_out:g} hours of incomplete days left out")
    if site.pv is not None and files.pv is not None:
        site.pv = with_step(site.pv, step, _phase(site, step), files.pv.name, notes)
        shared = common([period, whole_days(site.pv, zone)])
        if days(shared) >= 2:
            if days(shared) < days(period):
                notes.append(
                    f"{files.pv.name}: shares {days(shared)} of the {days(period)} days of {name}, the others are "
                    "left out"
                )
            period = shared
    count = days(period)
    if count < 365:
        notes.append(f"{name}: {count} days, the case is shorter than a year")
    return period


def _write(
    output: Path,
    preset: str | None,
    year_seed: int,
    settings: CaseSettings,
    given: set[str],
    chosen: bool,
    site: _Site,
    period: Period,
    step: int,
    files: Files,
    notes: list[str],
    tariff: OwnTariff | None,
) -> Path:
    """Write the case of one period."""
    zone, load = _zone(site), site.load
    assert load is not None
    utc = np.arange(period.first, period.end, np.timedelta64(step, "s")).astype("datetime64[s]")
    calendar = Calendar(zone.local(utc), step, utc)
    standard = zone.standard_hours(utc)
    placed = set(PLACE) <= given
    settings = settings.model_copy(update={"site": settings.site.model_copy(update={"utc_offset": standard})})
    sun = solar.sun_position(calendar, settings.site, settings.weather.linke_turbidity)
    warnings: list[str] = []
    found = _on_calendar(site.weather, utc, step, standard, _phase(site, step), files, notes)
    pv_kw = _metered_pv(site, period, utc, standard, files, notes) if not chosen else None
    load_kwh = _load(site, load, period, pv_kw, step, files, notes)
    weather, columns_known = _weather(
        found, calendar, sun, settings, year_seed, preset, placed, pv_kw is not None, notes
    )
    settings, pv_kw, more = _pv(pv_kw, weather, calendar, sun, settings, given, placed, columns_known, found, notes)
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
        columns = _constant_columns(weather)
    sockets, about = _sockets(site, calendar, settings, year_seed, files, notes)
    price = None
    if tariff is not None and files.tariff is not None:
        path = Path(files.tariff)
        price = prices(tariff, calendar, zone, path.parent, path.name, notes)
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
    return write_case(output, settings, calendar, load_kwh, pv_kw, columns, sockets, provenance, price, daylight)


def _on_calendar(
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


def _metered_pv(
    site: _Site, period: Period, utc: Times, standard: float, files: Files, notes: list[str]
) -> Floats | None:
    """(T,) metered mean kW, None without a PV series."""
    if site.pv is None or files.pv is None:
        return None
    zone, hours = _zone(site), site.pv.seconds / 3600
    own = whole_days(site.pv, zone)
    if own.first <= period.first and own.end >= period.end:
        return fitted(site.pv, period, files.pv.name, notes) / hours
    values = in_other_year(site.pv, utc, np.timedelta64(round(standard * 3600), "s"))
    if values is None:
        raise UserError(
            f"{files.pv.name}: covers {own.first} to {own.end} UTC, the load {period.first} to {period.end} UTC; they "
            "share fewer than two days, and it is no whole typical year"
        )
    load = files.load.name if files.load else "the sessions"
    notes.append(f"{files.pv.name}: other year than {load}, matched by month, day and hour (a typical year)")
    return values / hours


def _load(
    site: _Site, load: Series, period: Period, pv_kw: Floats | None, step: int, files: Files, notes: list[str]
) -> Floats:
    """(T,) kWh of the load; where the meter is net, PV is added to it."""
    name = files.load.name if files.load else "load"
    values = fitted(load, period, name, notes)
    lowest = float(values.min())
    if not site.net:
        if lowest < 0:
            at = str(_zone(site).local(period.first + np.array([int(values.argmin()) * step], "timedelta64[s]"))[0])
            raise UserError(
                f"{name}: the load is negative ({lowest:g} kWh at {at.replace('T', ' ')}); if it is net of PV, give "
                "--pv FILE and --quantity load=net"
            )
        return values
    if pv_kw is None:
        if lowest < 0:
            raise UserError(
                f"{name}: the meter is net of PV ({lowest:g} kWh at least); give the PV with --pv FILE, then the load "
                "is net plus PV"
            )
        notes.append(f"{name}: a net meter that never exports, without PV: taken as the load")
        return values
    total = values + pv_kw * step / 3600
    below = total < 0
    if below.any():
        worst = float(total.min())
        if below.mean() > 0.02 or worst < -0.05 * float(np.abs(values).max()):
            raise UserError(
                f"{name}: net plus PV is negative in {int(below.sum())} rows ({worst:g} kWh at least): is the net "
                "meter positive for import, is the PV complete, and are both in the same time zone?"
            )
        notes.append(f"{name}: {int(below.sum())} slightly negative values of net plus PV set to 0")
    notes.append(f"{name}: the load is net plus PV")
    return np.maximum(total, 0.0)


def _weather(
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
    rng = stream(year_seed, WEATHER_STREAM)
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
            humidity = solar.synthetic_humidity(found["temperature"], dew, rng)
            notes.append(f"weather: no humidity, made from a dew point about {dew:.3g} degC")
        return Weather(found["temperature"], humidity, ghi, dhi, dni), True
    if preset is not None and calendar.seconds == 3600 and _has_climate(preset, settings):
        notes.append("weather: no file with irradiance and temperature, the preset's synthetic year is used")
        return solar.synthetic_weather(calendar, sun, settings.weather, rng), True
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


def _constant_columns(weather: Weather) -> dict[str, Floats]:
    values = dict(zip(WEATHER_NAMES, (weather.temperature, weather.humidity, weather.dhi, weather.dni)))
    return values | {f"{name}_predicted_{n}": column for name, column in values.items() for n in (1, 2, 3)}


def _pv(
    metered: Floats | None,
    weather: Weather,
    calendar: Calendar,
    sun: Sun,
    settings: CaseSettings,
    given: set[str],
    placed: bool,
    known: bool,
    found: Mapping[str, Floats],
    notes: list[str],
) -> tuple[CaseSettings, Floats, list[str]]:
    """(T,) mean kW of the PV with the settings that fit it, and warnings."""

    def changed(**values: object) -> CaseSettings:
        return settings.model_copy(update={"pv": settings.pv.model_copy(update=values)})

    if metered is not None:
        settings = changed(model="metered")
        if "pv.dc_kw" not in given:
            peak = float(metered.max())
            settings = changed(dc_kw=round(peak, 3) or 1.0, ac_kw=round(peak, 3) or 1.0)
            notes.append(f"PV nameplate is not given: its highest mean, {settings.pv.dc_kw:g} kW (--set pv.dc_kw=)")
        warnings = pv_warnings(metered, calendar, sun, settings) if placed else []
        ratio = performance_ratio(metered, weather, settings)
        if "ghi" in found and ratio > 1:
            warnings.append(
                f"PV of {metered.sum() * calendar.seconds / 3600:,.0f} kWh from {settings.pv.dc_kw:g} kW and "
                f"{weather.ghi.sum() * calendar.seconds / 3.6e6:,.0f} kWh/m2 is a performance ratio of {ratio:.2f}, "
                "which no plant reaches; --set pv.model=pvwatts computes it instead"
            )
        return settings, metered, warnings
    if settings.pv.model == "metered":
        raise UserError("setting pv.model: no column holds PV energy; name it with --pv-column")
    if settings.pv.dc_kw == 0:
        return settings, np.zeros(calendar.rows), []
    if not placed:
        raise UserError(
            "PV is computed from the sun: say where the site lies with --set site.latitude= --set site.longitude="
        )
    wind = np.maximum(found["wind"], 0.0) if "wind" in found else None
    pv_kw, warnings = modelled_pv(weather, sun, settings, wind)
    notes.append(
        f"PV computed by pv.model={settings.pv.model} from the weather: pv.dc_kw={settings.pv.dc_kw:,.6g} kW, tilt "
        f"{settings.pv.tilt:g}, azimuth {settings.pv.azimuth:g}"
    )
    return settings, pv_kw, warnings


def _sockets(
    site: _Site, calendar: Calendar, settings: CaseSettings, year_seed: int, files: Files, notes: list[str]
) -> tuple[list[Socket], dict[str, float]]:
    """The sockets with their visits: those of the sessions, else those that the settings draw."""
    if site.sessions:
        efficiency = settings.sockets.efficiency * settings.vehicles.round_trip_efficiency**0.5
        return fleet(site.sessions, calendar, files.chargers, efficiency, notes)
    ratio = 3600 // calendar.seconds
    hourly = replace(calendar, begin=calendar.begin[::ratio], seconds=3600, utc=None)
    visits = drawn_visits(hourly, settings, year_seed)
    if not visits:
        return [], {}
    figures = visit_figures(visits, settings, hourly.rows / 24)
    fine = tuple(_finer(kind, ratio) for kind in visits)
    notes.append("sockets and visits are those of the settings")
    return preset_sockets(settings, fine, calendar.rows), figures


def _finer(visits: Visits, ratio: int) -> Visits:
    return replace(visits, row=visits.row * ratio, stay=visits.stay * ratio)
