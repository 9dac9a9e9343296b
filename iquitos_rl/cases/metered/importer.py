"""Builds a case from metered files: the load, and optionally PV with its weather."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from iquitos_rl.cases.iquitos import solar
from iquitos_rl.cases.iquitos.build import WEATHER_STREAM, finish_case, modelled_pv, performance_ratio, stream
from iquitos_rl.cases.iquitos.presets import CaseSettings, Overrides, case_settings
from iquitos_rl.cases.iquitos.solar import Calendar, Sun, Times, Weather
from iquitos_rl.cases.metered.meter_file import HourlySeries, MeterFile, column_values, hourly, read_meter_file, runs
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

YEAR = 8760
NOT_ENERGY = re.compile(r"tarif|price|precio|cost|soles|usd|ahorro|co2|carbon|punta|factor|rate", re.IGNORECASE)
ENERGY = re.compile(r"kwh|mwh|wh|kw|mw|demand|load|carga|consum|energ|power|potencia|generat|generac", re.IGNORECASE)
WEATHER_COLUMNS = {
    "ghi": re.compile(r"ghi|global", re.IGNORECASE),
    "dni": re.compile(r"dni|direct|beam", re.IGNORECASE),
    "dhi": re.compile(r"dhi|diffuse", re.IGNORECASE),
    "temperature": re.compile(r"temp|t2m", re.IGNORECASE),
    "humidity": re.compile(r"humid|humed|^rh", re.IGNORECASE),
    "wind": re.compile(r"wind|viento", re.IGNORECASE),
}


def import_case(
    load_file: Path,
    pv_file: Path | None,
    preset: str,
    year_seed: int,
    output: Path,
    settings: Overrides = None,
    load_column: str | None = None,
    pv_column: str | None = None,
) -> tuple[Path, list[str]]:
    """Write a case folder from metered files; sockets, battery and tariff come from the preset.

    Without a PV file, weather and PV are the preset's. With one, its PV column is used unchanged (unless `pv.model` is
    set to another model), and its weather if it has irradiance and temperature.

    Returns:
        The folder, and one sentence for each assumption made.

    Raises:
        UserError: a file that is ambiguous or broken, with file and line; a bad setting; an output that is not empty.
    """
    resolved = case_settings(preset, settings)
    chosen = isinstance(settings, CaseSettings) or "pv.model" in (settings or {})
    if pv_file is None and resolved.pv.model == "metered":
        raise UserError("setting pv.model: 'metered' needs --pv FILE")
    if year_seed < 0:
        raise UserError(f"year seed {year_seed}: must not be negative")
    notes: list[str] = []
    load = read_load(load_file, load_column, resolved.site.utc_offset, notes)
    pv = {} if pv_file is None else read_pv(pv_file, pv_column, resolved.site.utc_offset, notes)
    pv_name = "" if pv_file is None else pv_file.name
    hours, pv_rows = _common_hours(load, pv, load_file.name, pv_name, notes)

    calendar = Calendar(hours)
    sun = solar.sun_position(calendar, resolved.site, resolved.weather.linke_turbidity)
    found = {name: series.values[pv_rows] for name, series in pv.items()}
    weather = _weather(found, calendar, sun, resolved, year_seed, notes)
    if "pv" in found and (not chosen or resolved.pv.model == "metered"):
        resolved = resolved.model_copy(update={"pv": resolved.pv.model_copy(update={"model": "metered"})})
        pv_kw, warnings = found["pv"], metered_pv_warnings(found["pv"], weather, resolved)
    elif resolved.pv.model == "metered":
        raise UserError(f"{pv_name or 'PV file'}: no column holds PV energy; name it with --pv-column")
    else:
        wind = np.maximum(found["wind"], 0.0) if "wind" in found else None
        pv_kw, warnings = modelled_pv(weather, sun, resolved, wind)
        notes.append(f"PV computed by pv.model={resolved.pv.model} from the weather")
    nameplate = f"PV nameplate pv.dc_kw={resolved.pv.dc_kw:,.0f} kW"
    notes.append(f"{nameplate}, battery, sockets and tariff are those of {preset}")
    series = calendar, sun, weather, load.values[np.searchsorted(load.begin, hours)], pv_kw
    return finish_case(output, preset, year_seed, resolved, *series, warnings, notes), notes


def read_load(path: Path, column: str | None, utc_offset: float, notes: list[str]) -> HourlySeries:
    """Hourly load, kWh."""
    file = read_meter_file(path, utc_offset)
    notes.extend(file.notes)
    column = column or pick_energy_column(file, (), "--load-column", notes)
    factor, energy = _unit(path.name, column, notes)
    values = column_values(file, column)
    for row in np.flatnonzero(values < 0)[:1]:
        raise UserError(f"{path.name}, line {file.lines[row]}: {column} is negative ({values[row]:g})")
    series = hourly(file, column, energy, notes)
    starts, lengths = runs(series.values == 0)
    if len(starts):
        longest = int(np.argmax(lengths))
        where = f"longest {lengths[longest]} h from {series.begin[starts[longest]]}:00"
        notes.append(f"{path.name}: {lengths.sum()} hours of exactly zero kept as metered ({where})")
    return HourlySeries(series.begin, series.values * factor)


def read_pv(path: Path, column: str | None, utc_offset: float, notes: list[str]) -> dict[str, HourlySeries]:
    """Hourly PV kWh ("pv") and weather ("ghi", "temperature", ...) of the PV file, all on the same hours."""
    file = read_meter_file(path, utc_offset)
    notes.extend(file.notes)
    series: dict[str, HourlySeries] = {}
    if column is not None or _energy_columns(file):
        column = column or pick_energy_column(file, ("pv", "solar", "fv"), "--pv-column", notes)
        factor, energy = _unit(path.name, column, notes)
        raw = hourly(file, column, energy, notes)
        if (raw.values < 0).any():
            notes.append(f"{path.name}: {int((raw.values < 0).sum())} negative hours of {column} set to 0")
        series["pv"] = HourlySeries(raw.begin, np.maximum(raw.values * factor, 0.0))
    for name, pattern in WEATHER_COLUMNS.items():
        matches = [title for title in file.header if pattern.search(title)]
        if matches:
            series[name] = hourly(file, matches[0], False, [])
            notes.append(f"{path.name}: {name} from column {matches[0]}")
    if not series:
        raise UserError(f"{path.name}: no column holds PV energy or weather; it has {', '.join(file.header)}")
    _check_sun(path.name, series, notes)
    first, last = max(s.begin[0] for s in series.values()), min(s.begin[-1] for s in series.values())
    inside = {name: (s.begin >= first) & (s.begin <= last) for name, s in series.items()}
    return {name: HourlySeries(s.begin[inside[name]], s.values[inside[name]]) for name, s in series.items()}


def pick_energy_column(file: MeterFile, preferred: tuple[str, ...], option: str, notes: list[str]) -> str:
    """The column whose name says that it holds energy or power.

    DC columns, prices, costs and emissions are skipped; names with a `preferred` word come first, then kWh before kW.

    Raises:
        UserError: no column is left, or several.
    """
    candidates = _energy_columns(file)
    narrower: tuple[Callable[[str], bool], ...] = (
        lambda name: not name.startswith("dc"),
        lambda name: any(word in name for word in preferred),
        lambda name: "wh" in name,
    )
    for fits in narrower:
        candidates = [name for name in candidates if fits(name.lower())] or candidates
    titles = ", ".join(file.header)
    if len(candidates) != 1:
        several = f"several columns may hold the energy ({', '.join(candidates)})"
        what = several if candidates else "no column holds energy"
        raise UserError(f"{file.path.name}: {what}; name one of {titles} with {option}")
    notes.append(f"{file.path.name}: energy from column {candidates[0]} (of {titles})")
    return candidates[0]


def _energy_columns(file: MeterFile) -> list[str]:
    return [name for name in file.header if ENERGY.search(name) and not NOT_ENERGY.search(name)]


UNITS = (("mwh", "MWh", 1000.0), ("kwh", "kWh", 1.0), ("wh", "Wh", 0.001), ("mw", "MW", 1000.0), ("kw", "kW", 1.0))


def _unit(name: str, column: str, notes: list[str]) -> tuple[float, bool]:
    """(factor to kWh or kW, True if the column holds energy per interval instead of mean power)."""
    for text, unit, factor in UNITS:
        if re.search(rf"{text}(?![a-z])", column.lower()):
            energy = text.endswith("wh")
            meaning = f"{unit} per interval" if energy else f"mean {unit} of the interval"
            notes.append(f"{name}: {column} read as {meaning}")
            return factor, energy
    notes.append(f"{name}: {column} names no unit, read as kWh per interval")
    return 1.0, True


def _check_sun(name: str, series: Mapping[str, HourlySeries], notes: list[str]) -> None:
    """Check that irradiance is in W/m2, and warn if irradiance or PV is not centred on noon."""
    key = next((key for key in ("ghi", "pv") if key in series), None)
    if key is None:
        return
    values, hour = series[key].values, series[key].begin.astype(np.int64) % 24
    if key == "ghi" and not 200 < values.max() < 1600:
        raise UserError(f"{name}: irradiance peaks at {values.max():g}, W/m2 expected")
    centre = float((values * (hour + 0.5)).sum() / max(values.sum(), 1e-9))
    if not 10.5 < centre < 13.5:
        notes.append(f"warning: {name}: {key} is centred on {centre:.1f} h, not on noon; is it in another time zone?")


def _common_hours(
    load: HourlySeries, pv: Mapping[str, HourlySeries], load_name: str, pv_name: str, notes: list[str]
) -> tuple[Times, Ints]:
    """The hours of the case (whole days, at most 8,760 hours), and the PV file's row for each hour. Raises UserError:
    the files share fewer than two days, or a day between them is missing."""
    hours, pv_rows = load.begin, np.zeros(len(load.begin), np.int64)
    if pv:
        hours, pv_rows = _align(hours, next(iter(pv.values())).begin, load_name, pv_name, notes)
    _, day, count = np.unique(hours.astype("datetime64[D]"), return_inverse=True, return_counts=True)
    whole = count[day] == 24
    if not whole.all():
        notes.append(f"{load_name}: {int((~whole).sum())} hours of incomplete days left out")
    hours, pv_rows = hours[whole], pv_rows[whole]
    of_month = (hours.astype("datetime64[D]") - hours.astype("datetime64[M]")).astype(np.int64)
    leap_day = (hours.astype("datetime64[M]").astype(np.int64) % 12 == 1) & (of_month == 28)
    if leap_day.any() and len(hours) > YEAR:
        hours, pv_rows = hours[~leap_day], pv_rows[~leap_day]
        notes.append(f"{load_name}: 29 February dropped ({int(leap_day.sum())} hours)")
    elif leap_day.any():
        notes.append(f"{load_name}: 29 February kept, the data end on {hours[-1].astype('datetime64[D]')}")
    rows = min(len(hours), YEAR)
    if rows < 48:
        raise UserError(f"{load_name}: {rows} hours are left in whole days, at least two days are needed")
    if rows < len(hours):
        notes.append(f"{load_name}: {len(hours) - rows} hours beyond one year left out")
    if rows < YEAR:
        notes.append(f"{load_name}: {rows // 24} days, the case is shorter than a year")
    days = np.unique(hours[:rows].astype("datetime64[D]"))
    for last in days[:-1][np.diff(days).astype(np.int64) > 1]:
        if str(last)[5:] != "02-28" or last + 2 not in days:  # only 29 February may be missing
            raise UserError(f"{pv_name or load_name}: {last + 1} is missing or incomplete")
    return hours[:rows], pv_rows[:rows]


def _align(load: Times, pv: Times, load_name: str, pv_name: str, notes: list[str]) -> tuple[Times, Ints]:
    """Load hours that the PV file covers, and its rows; by date if the files overlap, else by month, day and hour."""
    wanted, offered = load, pv
    if np.isin(load, pv).mean() < 0.5:
        wanted, offered = _in_one_year(load), _in_one_year(pv)
        notes.append(f"{pv_name}: other year than {load_name}, matched by month, day and hour (a typical year)")
    order = np.argsort(offered, kind="stable")
    place = np.minimum(np.searchsorted(offered[order], wanted), len(offered) - 1)
    covered = offered[order][place] == wanted
    missing = int((~covered).sum())
    if missing > 48:
        first = load[int(np.argmax(~covered))]
        raise UserError(f"{pv_name}: misses {missing} hours of {load_name}, first {first}:00")
    if missing:
        notes.append(f"{load_name}: {missing} hours without a row in {pv_name} left out, first {load[~covered][0]}:00")
    return load[covered], order[place][covered]


def _in_one_year(hours: Times) -> Times:
    """The same month, day and hour in the leap year 2000."""
    month = hours.astype("datetime64[M]")
    first = np.datetime64("2000-01", "M") + month.astype(np.int64) % 12
    return np.asarray(first.astype("datetime64[h]") + (hours - month.astype("datetime64[h]")))


def _weather(
    found: Mapping[str, Floats], calendar: Calendar, sun: Sun, settings: CaseSettings, year_seed: int, notes: list[str]
) -> Weather:
    """The file's weather if it has irradiance and temperature, else the preset's synthetic year."""
    rng = stream(year_seed, WEATHER_STREAM)
    if "ghi" not in found or "temperature" not in found:
        notes.append("weather: no file with irradiance and temperature, the preset's synthetic year is used")
        return solar.synthetic_weather(calendar, sun, settings.weather, rng)
    ghi = np.maximum(found["ghi"], 0.0)
    if "dhi" in found and "dni" in found:
        dhi, dni = (np.maximum(found[part], 0.0) for part in ("dhi", "dni"))
    else:
        dhi, dni = solar.split_irradiance(ghi, sun)
        notes.append("weather: diffuse and direct irradiance derived from the global one (Erbs)")
    if "humidity" in found:
        humidity = np.clip(found["humidity"], 0, 100)
    else:
        humidity = solar.synthetic_humidity(found["temperature"], settings.weather.dew_point, rng)
        notes.append(f"weather: no humidity, made from a dew point about {settings.weather.dew_point:g} degC")
    return Weather(found["temperature"], humidity, ghi, dhi, dni)


def metered_pv_warnings(pv_kw: Floats, weather: Weather, settings: CaseSettings) -> list[str]:
    """Warnings about an implausible PV series."""
    warnings = []
    ratio = performance_ratio(pv_kw, weather, settings)
    if ratio > 1:
        warnings.append(
            f"PV of {pv_kw.sum() / 1e6:.2f} GWh from {settings.pv.dc_kw:g} kW and {weather.ghi.sum() / 1000:,.0f} "
            f"kWh/m2 is a performance ratio of {ratio:.2f}, which no plant reaches; "
            "--set pv.model=pvwatts computes it instead"
        )
    if pv_kw.max() > settings.pv.dc_kw:
        warnings.append(f"PV peaks at {pv_kw.max():,.0f} kW, above the nameplate pv.dc_kw={settings.pv.dc_kw:g}")
    return warnings
