"""Weather from files: those that pvlib reads, and any table whose columns say what they hold."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pvlib

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.metered.columns import number_columns, words
from iquitos_rl.cases.metered.grid import Series, gridded
from iquitos_rl.cases.metered.meter import MeterFile, mean_of, open_meter
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.sheet import decode
from iquitos_rl.cases.metered.zone import Zone
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import read_bytes

QUANTITIES = {
    "ghi": words("ghi global* ssrd swgdn shortwave* g\\(h\\) glohorizontal allsky_sfc_sw_dwn globalstrahlung"),
    "dni": words("dni direct_normal* direct\\snormal* beam* gb\\(n\\)"),
    "dhi": words("dhi diffus* gd\\(h\\)"),
    "temperature": words("temp* t2m tamb ta lufttemp* aussentemp* außentemp* outdoor_temp* dry dry_bulb* tt"),
    "humidity": words("humid* humed* rh relhum* feuchte luftfeucht* hr"),
    "wind": words("wind* ws ws10m ws2m viento wspd ff"),
}
NOT = {
    "ghi": words("clear* clearsky* tilt* plane* poa inclined etr* uncert* source diffus* direct* extra*"),
    "dni": words("clear* clearsky* uncert* source"),
    "dhi": words("clear* clearsky* uncert* source"),
    "temperature": words(
        "cell* module* modul* panel* inverter wechselrichter dew* dew_point* feels* apparent soil* ground water wet* "
        "battery device indoor room color max min uncert* source"
    ),
    "humidity": words("uncert* source specific indoor absolute"),
    "wind": words("dir* direction richtung wd wd10m gust* böe* boe* uncert* source rose generation power wdir"),
}
KELVIN = 273.15


def read_weather(path: Path, zone: Zone | None, reading: Reading, notes: list[str]) -> dict[str, Series]:
    """Series of "ghi", "dni", "dhi" (W/m2), "temperature" (degC), "humidity" (%) and "wind" (m/s), those there are.

    Raises:
        UserError: the file is broken, holds no weather, or a unit cannot be told.
    """
    found = _by_pvlib(path, notes)
    if found is None:
        file = open_meter(path, "weather", zone, reading, notes)
        found = weather_columns(file)
        if not found:
            raise UserError(f"{path.name}: no column holds weather; it has {', '.join(file.table.header)}")
    return found


def _by_pvlib(path: Path, notes: list[str]) -> dict[str, Series] | None:
    """What pvlib reads of an EPW, TMY3 or NSRDB file; None for other files."""
    text = decode(read_bytes(path), path.name, [])
    first, _, rest = text.partition("\n")
    reader: Callable[[], tuple[pd.DataFrame, dict[str, object]]]
    late = 0
    if first.startswith("LOCATION,"):
        kind, reader = "EPW", lambda: pvlib.iotools.read_epw(io.StringIO(text), coerce_year=2019)
    elif re.match(r'^"?\d{5,6}"?,.*', first) and "Time (HH:MM)" in rest[:200]:
        kind, reader = "TMY3", lambda: pvlib.iotools.read_tmy3(path, coerce_year=2019, map_variables=True)
        late = 3600
    elif first.startswith("Source,Location ID"):
        kind, reader = "NSRDB", lambda: pvlib.iotools.read_nsrdb_psm4(io.StringIO(text), map_variables=True)
    else:
        return None
    try:
        table, _ = reader()
    except Exception as error:
        raise UserError(f"{path.name} is not whole as a file of {kind}: {error}") from None
    notes.append(f"{path.name}: weather of a file of {kind}, read by pvlib")
    stamps = pd.DatetimeIndex(table.index).tz_convert("UTC").tz_localize(None)
    begin = np.asarray(stamps.to_numpy(), dtype="datetime64[s]") - np.timedelta64(late, "s")
    seconds = int(np.median(np.diff(begin).astype(np.int64)))
    grid: Times = (begin.astype(np.int64) // seconds * seconds).astype("datetime64[s]")
    names = {
        "ghi": "ghi",
        "dni": "dni",
        "dhi": "dhi",
        "temperature": "temp_air",
        "humidity": "relative_humidity",
        "wind": "wind_speed",
    }
    return {
        name: gridded(grid, table[column].to_numpy(float), seconds, False, f"{path.name}: {column}", None, notes)
        for name, column in names.items()
        if column in table
    }


def weather_columns(file: MeterFile) -> dict[str, Series]:
    """The weather among a table's columns."""
    found: dict[str, Series] = {}
    titles = number_columns(file.table, file.times.titles)
    for name, pattern in QUANTITIES.items():
        matches = [title for title in titles if pattern.search(title) and not NOT[name].search(title)]
        if not matches:
            continue
        series = mean_of(file, matches[0])
        if np.abs(series.values).max() > 1e9:
            raise UserError(f"{file.name}: {matches[0]} holds numbers that are too large")
        convert = _irradiance if name in ("ghi", "dni", "dhi") else CONVERSIONS[name]
        values, unit = convert(series.values, matches[0], series.seconds, file.name)
        file.notes.append(f"{file.name}: {name} from column {matches[0]}{f', read in {unit}' if unit else ''}")
        found[name] = series._replace(values=values)
    return found


def _irradiance(values: Floats, title: str, seconds: int, name: str) -> tuple[Floats, str]:
    """W/m2, by the unit in the title, else by what the sun can give."""
    lower, peak = title.lower(), float(values.max())
    for unit, pattern, factor in (
        ("kWh/m2", r"kwh\s*/?\s*m", 3.6e6 / seconds),
        ("kW/m2", r"kw\s*/?\s*m", 1e3),
        ("Wh/m2", r"wh\s*/?\s*m", 3600 / seconds),
        ("kJ/m2", r"kj\s*/?\s*m", 1e3 / seconds),
        ("MJ/m2", r"mj\s*/?\s*m", 1e6 / seconds),
        ("J/m2", r"(?<![a-z])j\s*/?\s*m", 1 / seconds),
    ):
        if re.search(pattern, lower):
            return values * factor, unit
    if 1.6 < peak <= 1600 or peak <= 0 or re.search(r"w\s*/?\s*m", lower):
        if peak > 1600:
            raise UserError(f"{name}: irradiance {title} peaks at {peak:g}, W/m2 expected")
        return values, ""
    for unit, factor in (("kW/m2", 1e3), ("kJ/m2 per row", 1e3 / seconds), ("J/m2 per row", 1 / seconds)):
        if 100 < peak * factor <= 1600:
            return values * factor, f"{unit}, because it peaks at {peak:g}"
    raise UserError(f"{name}: irradiance {title} peaks at {peak:g}, W/m2 expected")


def _temperature(values: Floats, title: str, seconds: int, name: str) -> tuple[Floats, str]:
    lower = title.lower()
    if values.min() > 150 or "kelvin" in lower:
        return values - KELVIN, "kelvin"
    if re.search(r"°\s*f|fahrenheit|\bdeg_?f\b|[\[(_ ]f[\])]?$", lower):
        return (values - 32) / 1.8, "degrees Fahrenheit"
    if values.max() > 60:
        return (values - 32) / 1.8, f"degrees Fahrenheit, because it reaches {values.max():g}"
    if values.min() < -90:
        raise UserError(f"{name}: temperature {title} falls to {values.min():g} degC")
    return values, ""


def _humidity(values: Floats, title: str, seconds: int, name: str) -> tuple[Floats, str]:
    if values.max() <= 1.0 and values.max() > 0:
        return values * 100, f"shares, because it reaches {values.max():g}"
    if values.max() > 110:
        raise UserError(f"{name}: humidity {title} reaches {values.max():g} %")
    return values.clip(0, 100), ""


def _wind(values: Floats, title: str, seconds: int, name: str) -> tuple[Floats, str]:
    for unit, pattern, factor in (
        ("km/h", r"km\s*/?_?h|kmh|kph", 1 / 3.6),
        ("mph", r"mph|mi/h|mp/h", 0.44704),
        ("knots", r"knots?|\bkt\b|\bkn\b", 0.514444),
    ):
        if re.search(pattern, title.lower()):
            return np.maximum(values * factor, 0), unit
    return np.maximum(values, 0), ""


CONVERSIONS = {"temperature": _temperature, "humidity": _humidity, "wind": _wind}
