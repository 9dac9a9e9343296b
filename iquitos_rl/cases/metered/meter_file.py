"""Reads a metered or typical-year CSV file: delimiter, encoding, dates, interval stamps.

Each assumption is added to `notes` as a sentence. Ambiguous input raises UserError with the line; the header is line 1.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.iquitos.solar import Times
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

T = TypeVar("T")
SLASHED = re.compile(r"(\d{1,2})[/.-](\d{1,2})[/.-](\d{4})(?:[ T]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?$")
LONGEST_FILLED_GAP = 24  # hours; longer gaps must be filled by the user


class MeterFile(NamedTuple):
    """A table of rows at equal intervals, in local time."""

    path: Path
    header: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]  # column by column, as text
    lines: Ints  # (N,) line of each row
    begin: Times  # (N,) datetime64[s], start of each interval
    seconds: int  # length of an interval
    decimal_comma: bool
    notes: list[str]


class HourlySeries(NamedTuple):
    """Hourly values without gaps."""

    begin: Times  # (T,) datetime64[h], consecutive
    values: Floats


def read_meter_file(path: Path, utc_offset: float) -> MeterFile:
    """Read a CSV file whose rows carry a date and time.

    Args:
        utc_offset: hours; stamps with a UTC offset are converted to this local time.

    Raises:
        UserError: the file is missing, has no dates, or has a row that is broken, out of order or off the interval.
    """
    notes: list[str] = []
    header, rows, lines, delimiter = _read_cells(path, notes)
    time_column = next((c for c, cell in enumerate(rows[0]) if _looks_like_date(cell)), None)
    if time_column is None:
        raise UserError(f"{path.name}, line {lines[0]}: no column holds a date and time ({', '.join(rows[0])})")
    stamps = _parse_stamps([row[time_column] for row in rows], lines, path.name, utc_offset, notes)
    seconds = _interval(stamps, lines, path.name)
    begin = stamps - np.timedelta64(seconds if _stamped_at_end(stamps, seconds, notes, path.name) else 0, "s")
    cells = tuple(zip(*rows))
    comma = delimiter != "," and any(re.fullmatch(r"-?\d+,\d+", cell) for column in cells for cell in column[:2000])
    if comma:
        notes.append(f"{path.name}: numbers have a decimal comma")
    return MeterFile(path, header, cells, np.array(lines), begin, seconds, comma, notes)


def _read_cells(path: Path, notes: list[str]) -> tuple[tuple[str, ...], list[tuple[str, ...]], list[int], str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if content.startswith(b"\xef\xbb\xbf"):
        notes.append(f"{path.name}: byte-order mark skipped")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
        notes.append(f"{path.name}: not UTF-8, read in the Windows code page 1252")
    first = text.split("\n", 1)[0]
    delimiter = max(";\t,", key=first.count)
    if delimiter != ",":
        notes.append(f"{path.name}: columns are separated by {'semicolons' if delimiter == ';' else 'tabs'}")
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    header = tuple(name.strip() for name in next(reader, []))
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise UserError(f"{path.name}, line {reader.line_num}: {len(row)} cells under {len(header)} column names")
        rows.append(tuple(cell.strip() for cell in row))
        lines.append(reader.line_num)
    if len(rows) < 2:
        raise UserError(f"{path.name}: holds {len(rows)} data rows")
    return header, rows, lines, delimiter


def _iso(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _slashed(text: str) -> list[int]:
    """The six numbers of a date such as 31/12/2024 0:15, day or month first."""
    match = SLASHED.match(text)
    if match is None:
        raise ValueError
    return [int(part or 0) for part in match.groups()]


def _looks_like_date(cell: str) -> bool:
    try:
        _iso(cell)
    except ValueError:
        return SLASHED.match(cell) is not None
    return not cell.isdigit()


def _each(read: Callable[[str], T], texts: list[str], lines: list[int], name: str) -> Iterator[T]:
    for text, line in zip(texts, lines):
        try:
            yield read(text)
        except ValueError:
            raise UserError(f"{name}, line {line}: {text!r} is not a date and time") from None


def _parse_stamps(texts: list[str], lines: list[int], name: str, utc_offset: float, notes: list[str]) -> Times:
    if SLASHED.match(texts[0]):
        return _parse_slashed(texts, lines, name, notes)
    zone = timezone(timedelta(hours=utc_offset))
    stamps: list[datetime] = []
    offsets: set[timedelta | None] = set()
    for stamp, text, line in zip(_each(_iso, texts, lines, name), texts, lines):
        offsets.add(stamp.utcoffset())
        if len(offsets) > 1:
            raise UserError(f"{name}, line {line}: {text!r} has another UTC offset than the rows before it")
        stamps.append(stamp.astimezone(zone).replace(tzinfo=None) if stamp.tzinfo else stamp)
    offset = offsets.pop()
    if offset is not None:
        hours = offset.total_seconds() / 3600
        verb = "taken as local time" if hours == utc_offset else f"turned into local time (UTC{utc_offset:+g})"
        notes.append(f"{name}: stamps state UTC{hours:+g}, {verb}")
    return np.array(stamps, dtype="datetime64[s]")


def _parse_slashed(texts: list[str], lines: list[int], name: str, notes: list[str]) -> Times:
    """Dates such as 31/12/2024 0:15. If both orders of day and month are possible, the shorter span is chosen."""

    def dates(first_is_day: bool) -> Times:
        def read(text: str) -> datetime:
            first, second, year, hour, minute, seconds = _slashed(text)
            month, day = (second, first) if first_is_day else (first, second)
            return datetime(year, month, day, hour, minute, seconds)

        return np.array(list(_each(read, texts, lines, name)), dtype="datetime64[s]")

    first, second = np.array(list(_each(_slashed, texts, lines, name)))[:, :2].max(axis=0)
    if first <= 12 and second <= 12:
        day_first, month_first = dates(True), dates(False)
        spans = [np.ptp(stamps.astype(np.int64)) for stamps in (day_first, month_first)]
        if spans[0] == spans[1] and (day_first != month_first).any():
            raise UserError(f"{name}: the dates do not tell day from month; write them as 2024-12-31 00:15")
        first_is_day = bool(spans[0] <= spans[1])
    else:
        first_is_day = bool(first > 12)
    notes.append(f"{name}: dates read as {'day/month/year' if first_is_day else 'month/day/year'}")
    return dates(first_is_day)


def _interval(stamps: Times, lines: list[int], name: str) -> int:
    steps = np.diff(stamps).astype(np.int64)
    for row in np.flatnonzero(steps <= 0)[:1]:
        what = "repeats the row before" if steps[row] == 0 else "is earlier than the row before"
        raise UserError(f"{name}, line {lines[row + 1]}: its time {what}")
    lengths, counts = np.unique(steps, return_counts=True)
    seconds = int(lengths[np.argmax(counts)])
    if seconds > 3600 or 3600 % seconds:
        raise UserError(f"{name}: rows are {seconds / 60:g} minutes apart; an hour must hold a whole number of them")
    for row in np.flatnonzero(steps % seconds)[:1]:
        raise UserError(f"{name}, line {lines[row + 1]}: its time is off the {seconds // 60} minute interval")
    return seconds


def _stamped_at_end(stamps: Times, seconds: int, notes: list[str], name: str) -> bool:
    """Whether stamps are ends of intervals: the first is one interval after midnight and the last is midnight."""
    of_day = (stamps[[0, -1]] - stamps[[0, -1]].astype("datetime64[D]")).astype(np.int64)
    at_end = bool(of_day[0] == seconds and of_day[1] == 0)
    notes.append(
        f"{name}: {len(stamps):,} rows of {seconds // 60} minutes from {stamps[0]} to {stamps[-1]}, "
        + ("stamped at the end of the interval" if at_end else "taken as stamped at its start")
    )
    return at_end


def column_values(file: MeterFile, column: str) -> Floats:
    """(N,) numbers of a column, NaN where a cell is blank. Raises UserError: the column is missing, or a cell is not a
    number (with its line)."""
    if column not in file.header:
        raise UserError(f"{file.path.name} has no column {column!r}; it has {', '.join(file.header)}")
    values = np.empty(len(file.lines))
    for row, cell in enumerate(file.cells[file.header.index(column)]):
        try:
            values[row] = float(cell.replace(",", ".") if file.decimal_comma else cell) if cell else np.nan
            if np.isinf(values[row]):
                raise ValueError
        except ValueError:
            raise UserError(f"{file.path.name}, line {file.lines[row]}: {column} {cell!r} is not a number") from None
    return values


def hourly(file: MeterFile, column: str, energy: bool, notes: list[str]) -> HourlySeries:
    """Hourly sums (`energy`) or means of a column. Gaps up to a day are filled from the same hours of the day before.
    Raises UserError: a longer gap, or fewer than two days of data."""
    values, name = column_values(file, column), file.path.name
    per_hour = 3600 // file.seconds
    hours = file.begin.astype("datetime64[h]")
    grid = hours[0] + np.arange((hours[-1] - hours[0]).astype(np.int64) + 1)
    if len(grid) < 48:
        raise UserError(f"{name}: covers {len(grid)} hours, at least two days are needed")
    slot = (hours - hours[0]).astype(np.int64)
    count = np.bincount(slot, ~np.isnan(values), minlength=len(grid))
    total = np.bincount(slot, np.nan_to_num(values), minlength=len(grid))
    if per_hour > 1:
        how = "summed" if energy else "averaged"
        notes.append(f"{name}: {per_hour} rows of {file.seconds // 60} minutes {how} into each hour")
    series = np.where(count == per_hour, total / (1 if energy else per_hour), np.nan)
    whole = np.flatnonzero(~np.isnan(series))
    if len(whole) == 0:
        raise UserError(f"{name}: column {column} has no complete hour")
    if whole[0] > 0 or whole[-1] < len(grid) - 1:
        notes.append(f"{name}: incomplete hours at its ends left out ({len(grid) - (whole[-1] - whole[0] + 1)})")
    grid, series = grid[whole[0] : whole[-1] + 1], series[whole[0] : whole[-1] + 1]
    return HourlySeries(grid, _fill_gaps(grid, series, name, column, notes))


def runs(mask: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """First row and length of each run of True."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges[::2], edges[1::2] - edges[::2]


def _fill_gaps(grid: Times, series: Floats, name: str, column: str, notes: list[str]) -> Floats:
    missing = np.isnan(series)
    if not missing.any():
        return series
    starts, lengths = runs(missing)
    longest = int(lengths.max())
    if longest > LONGEST_FILLED_GAP:
        raise UserError(
            f"{name}: {column} misses {longest} hours from {grid[starts[lengths.argmax()]]}:00; "
            f"gaps up to {LONGEST_FILLED_GAP} hours are filled, longer ones are not"
        )
    filled = series.copy()
    for row in np.flatnonzero(missing):
        source = row - 24 if row >= 24 else row + 24
        while source < len(filled) and np.isnan(filled[source]):
            source += 24
        if source >= len(filled):
            raise UserError(f"{name}: {column} misses {grid[row]}:00 and no other day has that hour")
        filled[row] = filled[source]
    notes.append(
        f"{name}: {int(missing.sum())} missing hours of {column} in {len(starts)} gaps (first {grid[starts[0]]}:00, "
        f"longest {longest} h) filled with the same hours of the day before"
    )
    return filled
