"""A metered file as energy per step: reads the table, its times, and the columns asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.metered import columns as names
from iquitos_rl.cases.metered.clock import Intervals, intervals
from iquitos_rl.cases.metered.counters import daily_energy, evenly, kind_of, register_energy
from iquitos_rl.cases.metered.grid import Series, gridded
from iquitos_rl.cases.metered.numerals import Marks, decimal_marks, figure, numbers
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.table import Table, read_table
from iquitos_rl.cases.metered.time_columns import TimeColumns, find_time, one_typical_year
from iquitos_rl.cases.metered.units import KNOWN, Unit, units_in
from iquitos_rl.cases.metered.zone import Zone
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

PVGIS = {"P", "G(i)", "H_sun"}
SHOWN = 3
LARGEST = 1e15
"""Of any number in a meter file."""


@dataclass(frozen=True)
class MeterFile:
    """A table whose rows lie in time."""

    table: Table
    times: TimeColumns
    at: Intervals
    role: str
    reading: Reading
    marks: Marks
    notes: list[str] = field(repr=False)

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def lines(self) -> Ints:
        """(N,) line of each row, in the order of time."""
        return self.table.lines[self.at.order]

    def local(self, utc: Times) -> Times:
        return self.at.zone.local(utc)

    def values(self, title: str) -> Floats:
        """(N,) numbers of a column in the order of time, NaN where missing.

        Raises:
            UserError: there is no such column, or a cell is not a number.
        """
        if title not in self.table.columns:
            raise UserError(f"{self.name} has no column {title!r}; it has {', '.join(self.table.header)}")
        mark = self.marks.of(title)
        return numbers(self.table.columns[title], mark, self.table.lines, self.name, title)[self.at.order]


def open_meter(path: Path, role: str, zone: Zone | None, reading: Reading, notes: list[str]) -> MeterFile:
    """Read a file's table and its times.

    Args:
        role: "load", "pv" or "weather", as options name the file.
        zone: the site's, None where nobody has said it.

    Raises:
        UserError: the file is broken, or only the owner can tell how it is meant.
    """
    table = read_table(path, notes)
    if set(table.header) >= PVGIS and reading.clock is None:
        notes.append(f"{table.name}: a table of PVGIS: UTC, P in W")
        reading = replace(reading, clock="utc")
    times = find_time(table, reading, notes)
    if role != "load" and (wall := one_typical_year(times.wall)) is not times.wall:
        notes.append(f"{table.name}: months of different years, taken as one typical year")
        times = replace(times, wall=wall)
    cells = {
        title: [figure(cell) for cell in table.columns[title]] for title in names.number_columns(table, times.titles)
    }
    given = "point" if not table.separator else reading.decimal
    marks = decimal_marks(cells, table.name, given, notes)
    return MeterFile(
        table, times, intervals(times, table.name, table.lines, zone, reading, notes), role, reading, marks, notes
    )


def energy_of(file: MeterFile, title: str) -> Series:
    """A column as kWh per interval of the file, without gaps.

    Raises:
        UserError: its unit is not known, a gap is too long, or a question.
    """
    unit = _unit(file, title)
    values, what, notes = file.values(title), f"{file.name}: {title}", file.notes
    for row in np.flatnonzero(~np.isnan(values))[:SHOWN]:
        begin = file.local(file.at.begin[row : row + 1])[0]
        notes.append(
            f"{file.name}, line {file.lines[row]}: from {str(begin).replace('T', ' ')}: {values[row]:g} {unit.text}"
        )
    kind = "interval"
    if unit.energy:
        kind = file.reading.quantity or kind_of(values, file.local(file.at.begin), title, file.name)
    if file.at.doubt and kind != "register" and (file.at.uneven or kind != "daily"):
        raise UserError(file.at.doubt)
    seconds, longest = file.at.seconds, _hours(file.reading)
    begin = file.at.begin
    if kind == "register":
        notes.append(f"{what} read as a rising register in {unit.text}: its differences are the energy")
        instants = file.at.instants
        if file.at.uneven:
            instants, values = evenly(instants, values, seconds, what, notes)
        begin, values = register_energy(instants, values, seconds, what, notes)
    elif kind == "daily":
        notes.append(f"{what} read as {unit.text} counted from midnight on")
        local = file.local(file.at.instants)
        begin, values = daily_energy(file.at.instants, local, values, seconds, what, notes)
    else:
        notes.append(f"{what} read as {unit.meaning}")
    factor = unit.factor * (1.0 if unit.energy else seconds / 3600)
    if np.nanmax(np.abs(values), initial=0.0) > LARGEST:
        raise UserError(f"{what} holds numbers that are too large")
    return gridded(begin, values * factor, seconds, True, what, longest, notes)


def mean_of(file: MeterFile, title: str) -> Series:
    """A column that is averaged, such as a temperature, without gaps."""
    what = f"{file.name}: {title}"
    if file.at.doubt:
        raise UserError(file.at.doubt)
    return gridded(file.at.begin, file.values(title), file.at.seconds, False, what, _hours(file.reading), file.notes)


def _hours(reading: Reading) -> float | None:
    if reading.fill is None:
        return None
    try:
        hours = float(reading.fill)
    except ValueError:
        hours = -1.0
    if not 0 <= hours <= 24 * 62:
        raise UserError(f"--fill {reading.fill}: hours from 0 to {24 * 62} are wanted")
    return hours


def _unit(file: MeterFile, title: str) -> Unit:
    """What the owner says, else the one unit that the file names for a column."""
    table, given = file.table, file.reading.unit
    if title not in table.columns:
        raise UserError(f"{file.name} has no column {title!r}; it has {', '.join(table.header)}")
    if given is not None:
        found = units_in(given)
        if len(found) != 1:
            raise UserError(f"--unit {given}: one of {KNOWN} is wanted")
        return found[0]
    if title == "P" and set(table.header) >= PVGIS:
        return units_in("W")[0]
    found = names.unit_of(table, title)
    if len(found) == 1:
        return found[0]
    what = (
        f"names {' and '.join(unit.text for unit in found)}" if found else "names no unit of energy or power known here"
    )
    raise UserError(
        f"{table.name}: {title} {what}; say it with --unit {file.role}=kWh (or {KNOWN.removeprefix('kWh, ')})"
    )


def load_series(file: MeterFile) -> tuple[Series, bool]:
    """Energy per interval of a load file, and whether it is net of PV.

    Two columns for import and export give their difference. Raises UserError: no column fits, or several do.
    """
    table, times, notes = file.table, file.times.titles, file.notes
    if file.reading.column is not None:
        title = file.reading.column
        return energy_of(file, title), _is_net(file, title)
    found = names.energy_columns(table, times)
    found = names.narrowed(found, lambda t: not names.SUB_METER.search(t))
    if len(found) > 1:
        exported = names.narrowed([t for t in found if names.EXPORT.search(t)], names.is_energy)
        imported = names.narrowed([t for t in found if names.IMPORT.search(t) and t not in exported], names.is_energy)
        if len(exported) == 1 and not imported:
            rest = [t for t in found if t not in exported and not names.PV.search(t)]
            imported = names.narrowed(rest, names.is_energy)
        if len(exported) == 1 and len(imported) == 1:
            return _two_registers(file, imported[0], exported[0])
    found = names.narrowed(
        found,
        lambda t: not names.PV.search(t) and not names.EXPORT.search(t),
        lambda t: bool(names.LOAD.search(t)),
        lambda t: not names.EXTREME.search(t),
        names.is_energy,
    )
    title = names.one_of(table, found, "--load-column", notes)
    return energy_of(file, title), _is_net(file, title)


def _is_net(file: MeterFile, title: str) -> bool:
    return file.reading.quantity == "net" or (file.reading.quantity is None and bool(names.NET.search(title)))


def _two_registers(file: MeterFile, imported: str, exported: str) -> tuple[Series, bool]:
    drawn, fed = energy_of(file, imported), energy_of(file, exported)
    first, end = max(drawn.begin[0], fed.begin[0]), min(drawn.end, fed.end)
    inside = [(s.begin >= first) & (s.begin < end) for s in (drawn, fed)]
    series = drawn._replace(begin=drawn.begin[inside[0]], values=drawn.values[inside[0]] - fed.values[inside[1]])
    if fed.values.max() <= 1e-9:
        file.notes.append(f"{file.name}: {exported} is zero throughout, {imported} is the load")
        return series, False
    file.notes.append(f"{file.name}: net is {imported} less {exported}")
    return series, True


def pv_series(file: MeterFile) -> Series | None:
    """Energy per interval of a PV file, None where no column holds any. Raises UserError: several columns may."""
    table, times = file.table, file.times.titles
    if file.reading.column is not None:
        title = file.reading.column
    elif set(table.header) >= PVGIS:
        title = "P"
    else:
        found = names.energy_columns(table, times)
        if not any(names.unit_of(table, t) or file.reading.unit for t in found) and len(found) != 1:
            return None
        found = names.narrowed(
            found,
            lambda t: not names.DC.search(t),
            lambda t: not names.IMPORT.search(t) and not names.EXPORT.search(t) and not names.SUB_METER.search(t),
            lambda t: bool(names.words("pv* solar* fv photovolt*").search(t)),
            lambda t: bool(names.PV.search(t)),
            lambda t: not names.EXTREME.search(t),
            names.is_energy,
        )
        if not found:
            return None
        title = names.one_of(table, found, "--pv-column", file.notes)
    series = energy_of(file, title)
    if (series.values < 0).any():
        low = series.values.min()
        file.notes.append(
            f"{file.name}: {int((series.values < 0).sum())} negative values of {title} set to 0 (lowest {low:g} kWh)"
        )
    return series._replace(values=np.maximum(series.values, 0.0))
