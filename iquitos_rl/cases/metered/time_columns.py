"""Which columns of a table say when, and what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.metered.numerals import MISSING
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.stamps import (
    ORDER_NAMES,
    Stamps,
    looks_like_stamp,
    looks_like_time,
    read_stamps,
    read_times,
)
from iquitos_rl.cases.metered.table import Table
from iquitos_rl.cases.metered.units import units_in
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError

TIME_NAME = re.compile(
    r"time|date|datum|zeit|fecha|hora|temps|tempo|stamp|epoch|unix|^ts$|^column 1$|^t$|tijd|^data\b", re.I
)
UTC_NAME = re.compile(r"(?<![a-z])(utc|gmt)(?![a-z])", re.I)
START_NAME = re.compile(r"start|begin|^from\b|\bvon\b|^ab\b|desde|inicio|début|debut", re.I)
END_NAME = re.compile(r"(?<![a-z])(end|ende|ending|stop|bis|hasta|until|^to)(?![a-z])|endzeit|hour ending", re.I)
HOUR_NAME = re.compile(r"hour|stunde|hora|heure|\bhr\b|\bhe\b|period|uur|\bora\b|interval|viertel|quarter", re.I)
PARTS = {
    "year": re.compile(r"^(year|yr|yyyy|jahr|año|ano|année|jaar|anno)$", re.I),
    "month": re.compile(r"^(month|mo|mm|monat|mes|mois|mês|maand|mese)$", re.I),
    "day": re.compile(r"^(day|dd|tag|dia|día|jour|dag|giorno)$", re.I),
    "hour": re.compile(r"^(hour|hr|hh|stunde|hora|heure|uur|ora)$", re.I),
    "minute": re.compile(r"^(minute|min|mn|minuto|minuut)$", re.I),
}
WHOLE = re.compile(r"\d+(\.0+)?")
UNIX_SECONDS = (9.0e8, 2.2e9)
EXCEL_DAYS = (32874, 60000)  # 1990 to 2064
DAY = 86400
MOST_A_DAY = 100
"""Quarter hours of the longest day."""


@dataclass(frozen=True)
class TimeColumns:
    """When each row is; (N,) each."""

    wall: Times
    """datetime64[s] on the clock that wrote it."""
    offset: Floats
    """Hours ahead of UTC where the file says so, NaN elsewhere."""
    label: str | None
    """Whether the file says that `wall` is the "start" or "end" of an interval."""
    counted: bool
    """Whether the times count from an instant (Unix seconds), so that `wall` is nobody's clock."""
    titles: tuple[str, ...]
    """The columns."""
    midnight: Times | None = None
    """(N,) begin of each row's day, where the time is what has passed since then: 25 hours on the longest day."""


def find_time(table: Table, reading: Reading, notes: list[str]) -> TimeColumns:
    """Find and read the columns that say when.

    Raises:
        UserError: there are none (the question for --start and --step), or a cell is broken, with its line.
    """
    if reading.start is not None or reading.step is not None:
        return _given(table, reading, notes)
    dated = [title for title in table.header if _mostly(table, title, looks_like_stamp)]
    found = _dated(table, dated, reading, notes) if dated else _parts(table) or _counted(table, notes)
    if found is None:
        first = ", ".join(cells[0] for cells in table.columns.values())
        raise UserError(
            f"{table.name}, line {table.lines[0]}: no column holds a date and time ({first}); if the rows follow each "
            "other evenly, say --start 2024-01-01T00:00 --step 60"
        )
    return found


def _mostly(table: Table, title: str, looks: object) -> bool:
    cells = table.sample(title)
    return bool(cells) and sum(map(looks, cells)) >= 0.8 * len(cells)  # type: ignore[call-overload]


def _given(table: Table, reading: Reading, notes: list[str]) -> TimeColumns:
    """Times from --start and --step."""
    name = table.name
    if reading.start is None or reading.step is None:
        raise UserError(f"{name}: --start and --step belong together, such as --start 2024-01-01T00:00 --step 60")
    try:
        first, seconds = np.datetime64(reading.start.replace(" ", "T"), "s"), round(float(reading.step) * 60)
    except (ValueError, OverflowError):
        raise UserError(
            f"--start {reading.start} --step {reading.step}: a date and time, and minutes, are wanted"
        ) from None
    if np.isnat(first) or not 1 <= seconds <= 3600:
        raise UserError(f"--start {reading.start} --step {reading.step}: the step must lie between 0 and 60 minutes")
    rows = len(table.lines)
    notes.append(f"{name}: {rows:,} rows every {seconds / 60:g} minutes from {first} on, as --start and --step say")
    wall = first + np.arange(rows) * np.timedelta64(seconds, "s")
    return TimeColumns(wall, np.full(rows, np.nan), "start", False, ())


def _dated(table: Table, titles: list[str], reading: Reading, notes: list[str]) -> TimeColumns:
    read: dict[str, Stamps] = {}
    for title in titles:
        stamps = read_stamps(table.columns[title], table.name, table.lines, reading.dates)
        if stamps is not None:
            read[title] = stamps
    timed = [title for title, stamps in read.items() if stamps.timed]
    if timed:
        title, label = _main(timed, read)
        stamps = read[title]
        used = tuple(timed)
    else:
        title = titles[0]
        stamps, label, elapsed, more = _with_time(table, title, read[title])
        used = (title, *more)
        if elapsed:
            wall = _checked(table, title, stamps)
            return TimeColumns(wall, stamps.offset, label, False, used, read[title].wall)
    if stamps.order:
        notes.append(f"{table.name}: dates read as {ORDER_NAMES[stamps.order]}")
    offset = stamps.offset
    if np.isnan(offset).all() and UTC_NAME.search(title):
        notes.append(f"{table.name}: {title} is in UTC")
        offset = np.zeros(len(offset))
    return TimeColumns(_checked(table, title, stamps), offset, "start" if stamps.is_range else label, False, used)


def one_typical_year(wall: Times) -> Times:
    """Stamps of a typical year, whose months come from different years, in one year; others unchanged."""
    month = wall.astype("datetime64[M]")
    steps = np.diff(month.astype(np.int64))
    of_year = month.astype(np.int64) % 12
    in_order = (np.diff(of_year) >= 0).all() and len(np.unique(of_year)) == 12
    if not in_order or np.isin(steps, (0, 1)).all():
        return wall
    first = np.datetime64("2019-01", "M") + of_year
    return np.asarray(first.astype("datetime64[s]") + (wall - month.astype("datetime64[s]")))


def _checked(table: Table, title: str, stamps: Stamps) -> Times:
    for row in np.flatnonzero(np.isnat(stamps.wall))[:1]:
        raise UserError(f"{table.name}, line {table.lines[row]}: {table.columns[title][row]!r} is not a date and time")
    return stamps.wall


def _main(timed: list[str], read: dict[str, Stamps]) -> tuple[str, str | None]:
    """The column to go by among several, and whether it holds begins or ends."""
    if len(timed) > 1:
        with_zone = [title for title in timed if UTC_NAME.search(title) or not np.isnan(read[title].offset).any()]
        first = [title for title in with_zone or timed if START_NAME.search(title)] or with_zone or timed
        title = first[0]
        later = [read[other].wall - read[title].wall for other in timed if other != title and END_NAME.search(other)]
        if later and (later[0].astype(np.int64) > 0).mean() > 0.9:
            return title, "start"
    else:
        title = timed[0]
    return title, _label(title)


def _label(title: str) -> str | None:
    if END_NAME.search(title):
        return "end"
    return "start" if START_NAME.search(title) else None


def _with_time(table: Table, title: str, days: Stamps) -> tuple[Stamps, str | None, bool, list[str]]:
    """A column of dates together with one of times of day or of hours."""
    clocks = [other for other in table.header if _mostly(table, other, looks_like_time)]
    first = [other for other in clocks if START_NAME.search(other)] or clocks
    if first:
        times = read_times(table.columns[first[0]])
        if times is None:
            return days, None, False, []
        wall = days.wall + np.nan_to_num(times.seconds).astype("timedelta64[s]")
        wall[np.isnan(times.seconds)] = np.datetime64("NaT")
        pair = len(clocks) > 1 and not END_NAME.search(first[0])
        known = "start" if times.is_range or pair or first[0] == "time of day" else _label(first[0])
        return Stamps(wall, days.offset, True, days.order, False), known, False, clocks
    for other in table.header:
        cells = table.sample(other)
        named = other != title and HOUR_NAME.search(other) and not units_in(other)
        if named and cells and all(WHOLE.fullmatch(cell) for cell in cells):
            number = np.array([float(cell) if WHOLE.fullmatch(cell) else np.nan for cell in table.columns[other]])
            number[number > MOST_A_DAY] = np.nan
            minutes, elapsed = _numbered(number)
            wall = days.wall + np.nan_to_num(minutes * 60).astype("timedelta64[s]")
            wall[np.isnan(minutes)] = np.datetime64("NaT")
            return Stamps(wall, days.offset, True, days.order, False), "start", elapsed, [other]
    return days, None, False, []


def _numbered(number: Floats) -> tuple[Floats, bool]:
    """(N,) minutes after midnight at which hour, half hour or quarter hour number n begins, and whether numbers go on
    past 24 hours."""
    first, last = np.nanmin(number), np.nanmax(number)
    count = last - first + 1
    per_hour = 1 if count <= 25 else 2 if count <= 50 else 4
    return (number - first) * (60 // per_hour), bool(count > 24 * per_hour)


def _parts(table: Table) -> TimeColumns | None:
    """Columns for year, month, day and hour."""
    columns = {part: next((t for t in table.header if name.match(t)), None) for part, name in PARTS.items()}
    if any(columns[part] is None for part in ("year", "month", "day", "hour")):
        return None
    texts = []
    for row in range(len(table.lines)):
        year, month, day, hour, minute = (
            table.columns[title][row].partition(".")[0] if title is not None else "0" for title in columns.values()
        )
        texts.append(f"{year}-{month}-{day} {hour}:{minute.zfill(2)}")
    stamps = read_stamps(texts, table.name, table.lines, None)
    if stamps is None:
        return None
    for row in np.flatnonzero(np.isnat(stamps.wall))[:1]:
        raise UserError(f"{table.name}, line {table.lines[row]}: {texts[row]!r} is not a date and time")
    return TimeColumns(stamps.wall, stamps.offset, None, False, tuple(t for t in columns.values() if t))


def _counted(table: Table, notes: list[str]) -> TimeColumns | None:
    """Unix seconds or milliseconds, the days of a spreadsheet, or dates as one number (20240304)."""
    for title in table.header:
        if not TIME_NAME.search(title):
            continue
        cells = table.columns[title]
        compact = read_stamps(cells, table.name, table.lines, None)
        if compact is not None and compact.timed:
            return TimeColumns(_checked(table, title, compact), compact.offset, _label(title), False, (title,))
        if compact is not None and not np.isnat(compact.wall).any():
            stamps, label, elapsed, more = _with_time(table, title, compact)
            if more:
                wall = _checked(table, title, stamps)
                midnight = compact.wall if elapsed else None
                return TimeColumns(wall, stamps.offset, label, False, (title, *more), midnight)
        try:
            values = np.array([np.nan if c.lower() in MISSING else float(c.replace(",", ".")) for c in cells])
        except ValueError:
            continue
        for row in np.flatnonzero(np.isnan(values))[:1]:
            raise UserError(f"{table.name}, line {table.lines[row]}: {cells[row]!r} is not a date and time")
        steps = np.abs(np.diff(values))
        for unit, factor in (("seconds", 1.0), ("milliseconds", 1e-3)):
            if (values * factor > UNIX_SECONDS[0]).all() and (values * factor < UNIX_SECONDS[1]).all():
                notes.append(f"{table.name}: {title} read as Unix {unit}")
                wall = np.round(values * factor).astype(np.int64).astype("datetime64[s]")
                return TimeColumns(wall, np.zeros(len(wall)), _label(title), True, (title,))
        inside = (values > EXCEL_DAYS[0]).all() and (values < EXCEL_DAYS[1]).all()
        if inside and 0 < np.median(steps) <= 1 / 24 + 1e-4:
            notes.append(f"{table.name}: {title} read as a spreadsheet's days since 1899-12-30")
            seconds = np.round(values * DAY).astype(np.int64)
            wall = np.datetime64("1899-12-30", "s") + seconds.astype("timedelta64[s]")
            return TimeColumns(wall, np.full(len(wall), np.nan), _label(title), False, (title,))
    return None
