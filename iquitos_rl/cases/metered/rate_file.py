"""A file of hourly rates, such as prices of a power exchange or a grid's carbon intensity, on the rows of a case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.metered.columns import number_columns
from iquitos_rl.cases.metered.grid import with_step
from iquitos_rl.cases.metered.meter import mean_of, open_meter
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.zone import Zone
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError

PRICES = {"/kwh": 1.0, "ct/kwh": 0.01, "cent/kwh": 0.01, "/mwh": 0.001}
"""Of a price's unit, to currency per kWh; the smallest that fits holds."""
POUND = 0.45359237
CARBON = {
    **{"kg/kwh": 1.0, "g/kwh": 1e-3, "kg/mwh": 1e-3, "t/mwh": 1.0, "g/mwh": 1e-6},
    **{"lbs/mwh": POUND * 1e-3, "lb/mwh": POUND * 1e-3},
}
"""Of a carbon intensity's unit, to kg per kWh."""


def rates(
    path: Path,
    column: str | None,
    unit: str | None,
    units: Mapping[str, float],
    ask: Mapping[str, str],
    reading: Reading,
    calendar: Calendar,
    zone: Zone,
    notes: list[str],
) -> Floats:
    """(T,) of every row of a case.

    Args:
        column: which one; the only one by default.
        unit: what the owner says; that in the column's name by default.
        units: ending of a unit's name to its factor.
        ask: how the owner says "column" and "unit", and what a "rate" is called.

    Raises:
        UserError: the column or unit is not known, or the file does not cover the case.
    """
    file = open_meter(path, "weather", zone, reading, notes)
    titles = [column] if column is not None else number_columns(file.table, file.times.titles)
    if len(titles) != 1:
        raise UserError(f"{path.name}: which column holds the {ask['rate']}? say {ask['column']}: {', '.join(titles)}")
    factor = _factor(unit or titles[0], units)
    if factor is None:
        raise UserError(f"{path.name}: {titles[0]} names no unit of a {ask['rate']}; say {ask['unit']}")
    series = with_step(mean_of(file, titles[0]), calendar.seconds, 0, path.name, notes)
    utc = calendar.utc if calendar.utc is not None else calendar.begin.astype("datetime64[s]")
    slot = (utc - series.begin[0]).astype(np.int64) // calendar.seconds
    outside = (slot < 0) | (slot >= len(series.values))
    if outside.any():
        at = str(calendar.begin[int(np.argmax(outside))])
        raise UserError(f"{path.name}: has no {ask['rate']} for {int(outside.sum())} rows of the case, first {at}")
    return np.asarray(series.values[slot] * factor, dtype=np.float64)


def _factor(text: str, units: Mapping[str, float]) -> float | None:
    """The factor of the longest name of a unit in a text."""
    plain = text.lower().replace(" ", "").replace("_per_", "/").replace("€", "eur")
    for word in ("co2eq", "co\N{SUBSCRIPT TWO}eq", "co2e", "_co2", "co2"):
        plain = plain.replace(word, "")
    found = [name for name in units if name in plain]
    return units[max(found, key=len)] if found else None


ASK_PRICE = {"rate": "price", "column": "column: one of", "unit": "unit: EUR/MWh (or ct/kWh, EUR/kWh)"}
ASK_CARBON = {
    "rate": "carbon intensity",
    "column": "--carbon-column with one of",
    "unit": "--unit carbon=g/kWh (or kg/kWh, kg/MWh, lbs/MWh)",
}


def carbon_intensity(path: Path, reading: Reading, calendar: Calendar, zone: Zone, notes: list[str]) -> Floats:
    """(T,) kg of CO2 per kWh of every row, of a file as Electricity Maps, WattTime or an ENTSO-E tool writes it.

    Raises:
        UserError: see `rates`, or an intensity is negative.
    """
    column = reading.column
    if column is None:
        column = _direct(path, reading, zone, notes)
    own = Reading(**{**reading.__dict__, "column": None, "unit": None, "stamps": reading.stamps or "start"})
    found = rates(path, column, reading.unit, CARBON, ASK_CARBON, own, calendar, zone, notes)
    if (found < 0).any():
        raise UserError(f"{path.name}: a carbon intensity is negative ({found.min():g} kg/kWh)")
    mean, low, high = found.mean(), found.min(), found.max()
    notes.append(f"{path.name}: {mean:.3g} kg of CO2 per kWh on average, from {low:.3g} to {high:.3g}")
    return found


def _direct(path: Path, reading: Reading, zone: Zone, notes: list[str]) -> str | None:
    """The one column that names a unit of carbon; the direct one where the whole life cycle is a column too."""
    own = Reading(**{**reading.__dict__, "unit": None, "stamps": reading.stamps or "start"})
    file = open_meter(path, "weather", zone, own, [])
    named = [t for t in number_columns(file.table, file.times.titles) if _factor(t, CARBON) is not None]
    direct = [title for title in named if "life" not in title.lower() and "lca" not in title.lower()]
    if len(named) > len(direct) == 1:
        notes.append(f"{path.name}: {direct[0]} taken, not that of the whole life cycle (--carbon-column)")
    return direct[0] if len(direct) == 1 else None
