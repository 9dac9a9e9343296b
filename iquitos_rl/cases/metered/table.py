"""Finds the table in a file: what stands before it, its header, its rows, what stands after it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iquitos_rl.cases.metered.numerals import is_missing, looks_like_number
from iquitos_rl.cases.metered.sheet import Sheet, read_sheet
from iquitos_rl.cases.metered.stamps import looks_like_stamp, looks_like_time
from iquitos_rl.cases.site import Ints
from iquitos_rl.errors import UserError

TOTAL = re.compile(
    r"^\W*(total|sum|summe|gesamt|suma|somme|totaal|mean|average|mittel\w*|max\w*|min\w*|media|promedio)\b", re.I
)
UNIT_CELL = re.compile(
    r"^[\[(]?\s*([kKMGmµ]?[WwJ][hH]?(/m[²2])?|°?[CFK]|%|m/s|-|h{1,2}:?m{2}|[A-Z]{3}|local|utc|"
    r"(?:[dDtTmMyYjJhHs]{1,4}[.\-/: ]*){2,8})\s*[\])]?$"
)
"""A cell of a row of units, such as [kWh] or TT.MM.JJJJ hh:mm."""
LABEL = re.compile(
    r"^\W*(?:h|he|hr|hour|hora|stunde|std|p|period)?[\s_.-]*0*(\d{1,2})(?:[:.h](\d{2}))?(?::00)?\W*$", re.I
)
SAMPLE = 200


@dataclass(frozen=True)
class Table:
    """The rows of a table, column by column, as text."""

    path: Path
    header: tuple[str, ...]
    columns: dict[str, list[str]]
    lines: Ints
    """(N,) line of each row in the file."""
    separator: str
    around: tuple[str, ...]
    """The lines before and after the table."""
    headed: bool
    """Whether the file names its columns."""

    @property
    def name(self) -> str:
        return self.path.name

    def sample(self, column: str) -> list[str]:
        """Some of a column's cells that are not blank, from its whole length."""
        cells = self.columns[column]
        some = [cell for cell in cells[:: max(1, len(cells) // SAMPLE)] if not is_missing(cell)]
        return some or [cell for cell in cells if not is_missing(cell)][:SAMPLE]


def read_table(path: Path, notes: list[str]) -> Table:
    """Read a file's table.

    Raises:
        UserError: the file cannot be read, holds fewer than two rows of data, or a row has another number of cells.
    """
    sheet = read_sheet(path, notes)
    width = _width(sheet)
    kinds = _column_kinds(sheet, width)
    stamps, numbers = ([k for k, kind in enumerate(kinds) if kind == wanted] for wanted in ("stamp", "number"))

    def is_data(row: list[str]) -> bool:
        if len(row) < width:
            return False
        if stamps:
            return looks_like_stamp(row[stamps[0]])
        values = [row[k] for k in numbers]
        return any(looks_like_number(cell) for cell in values) and all(
            is_missing(cell) or looks_like_number(cell) for cell in values
        )

    data = [n for n, row in enumerate(sheet.rows) if is_data(row)]
    if len(data) < 2:
        raise UserError(f"{path.name}: holds {len(data)} data rows")
    first, last = data[0], data[-1]
    header, headed, first_header = _header(sheet, first, width)
    kept, lines = _body(sheet, first, last, width, header, set(data), notes)
    tail = [(sheet.lines[n], sheet.rows[n]) for n in range(last + 1, len(sheet.rows))]
    broken = [(line, row) for line, row in tail if stamps and _is_broken(row, stamps[0])]
    for line, row in broken:
        kept.append((row + [""] * width)[:width])
        lines.append(line)
    after = [row for line, row in tail if not any(line == other for other, _ in broken)]
    before = sheet.rows[:first_header]
    if before:
        notes.append(f"{path.name}: {len(before)} lines before the table passed over")
    if after:
        text = " ".join(cell for cell in after[0] if cell)[:60]
        notes.append(f"{path.name}: {len(after)} lines after the table passed over, the first {text!r}")
    cells = {title: [row[k] for row in kept] for k, title in enumerate(header)}
    used = {title: column for title, column in cells.items() if any(column) or not title.startswith("column ")}
    around = tuple(" ".join(cell for cell in row if cell) for row in (*before, *after))
    table = Table(path, tuple(used), used, np.array(lines, np.int64), sheet.separator, around, headed)
    return _one_day_a_row(table, notes)


def _width(sheet: Sheet) -> int:
    """The usual number of cells in a row."""
    return Counter(len(row) for row in sheet.rows).most_common(1)[0][0]


def _column_kinds(sheet: Sheet, width: int) -> list[str]:
    """What most cells of each column hold: a stamp, a time, a number, text or nothing."""
    rows = [row for row in sheet.rows if len(row) == width]
    trimmed = rows[len(rows) // 10 :]
    rows = trimmed[:: max(1, len(trimmed) // SAMPLE)]
    return [
        Counter(_kind(row[k]) for row in rows if row[k]).most_common(1)[0][0] if any(row[k] for row in rows) else ""
        for k in range(width)
    ]


def _kind(cell: str) -> str:
    if looks_like_stamp(cell):
        return "stamp"
    if looks_like_time(cell):
        return "time"
    return "number" if is_missing(cell) or looks_like_number(cell) else "text"


def _is_broken(row: list[str], stamp: int) -> bool:
    """Whether a row after the table looks like one of its rows with a broken date."""
    return len(row) > stamp and row[stamp][:1].isdigit() and len(row[stamp]) >= 6


def _header(sheet: Sheet, first: int, width: int) -> tuple[list[str], bool, int]:
    """Column names, whether the file gave them, and the first row that they were taken from."""
    above = sheet.rows[first - 1] if first else []
    if not above or not any(re.search(r"[^\W\d_]", cell) for cell in above) or (len(above) < 2 <= width):
        return _distinct([""] * width), False, first
    names, top = (above + [""] * width)[:width], first - 1
    upper = sheet.rows[top - 1] if top else []
    units = all(UNIT_CELL.match(cell) for cell in names if cell)
    if len(upper) >= width - 1 and width > 1 and (units or not all(names[: len(upper)])) and sum(map(bool, upper)) > 1:
        names = [" ".join(part for part in pair if part) for pair in zip((upper + [""] * width)[:width], names)]
        top -= 1
    names[0] = names[0].lstrip("#").strip()
    return _distinct(names), True, top


def _distinct(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    result = []
    for number, name in enumerate(names, start=1):
        name = name or f"column {number}"
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result


def _body(
    sheet: Sheet, first: int, last: int, width: int, header: list[str], data: set[int], notes: list[str]
) -> tuple[list[list[str]], list[int]]:
    """The rows between first and last, and their lines; repeated headers and total lines are passed over."""
    kept, lines, passed = [], [], 0
    own = sheet.rows[first - 1] if first else []
    for n in range(first, last + 1):
        row = sheet.rows[n]
        if n not in data and (row == own or any(TOTAL.match(cell) for cell in row)):
            passed += 1
            continue
        if len(row) > width and any(row[width:]):
            raise UserError(_uneven(sheet, n, width, header))
        if len(row) < width:
            raise UserError(_uneven(sheet, n, width, header))
        kept.append(row[:width])
        lines.append(sheet.lines[n])
    if passed:
        notes.append(f"{sheet.path.name}: {passed} lines with totals or repeated headers passed over")
    return kept, lines


def _uneven(sheet: Sheet, n: int, width: int, header: list[str]) -> str:
    return f"{sheet.path.name}, line {sheet.lines[n]}: {len(sheet.rows[n])} cells under {width} column names"


def _one_day_a_row(table: Table, notes: list[str]) -> Table:
    """A table with a column for each time of the day as one with a row for each time; others unchanged."""
    labels = {title: LABEL.match(title) for title in table.header}
    titles = [title for title, match in labels.items() if match]
    if len(titles) < 23 or len(titles) < 0.7 * (len(table.header) - 1):
        return table
    minutes = [_minutes(labels[title]) for title in titles]
    per_hour = all(m % 60 == 0 for m in minutes) and all(labels[title][2] is None for title in titles)  # type: ignore[index]
    if per_hour:
        step = {24: 60, 48: 30, 96: 15}.get(len(titles), 0)
        numbers = [m // 60 for m in minutes]
        begins = [step * (k - numbers[0]) for k in numbers]
        fits = bool(step) and numbers == list(range(numbers[0], numbers[0] + len(titles))) and numbers[0] in (0, 1)
    else:
        step = minutes[1] - minutes[0]
        ends = minutes[0] == step
        begins = [(m - step if ends else m) % 1440 for m in minutes]
        fits = begins == list(range(0, 1440, step or 1440)) if step else False
    if not fits:
        few = f"{titles[0]}, {titles[1]} ... {titles[-1]}"
        raise UserError(
            f"{table.name}: {len(titles)} columns look like times of a day ({few}) but do not make up a day"
        )
    stamp = next(
        (t for t in table.header if all(looks_like_stamp(cell) for cell in table.sample(t)) and table.sample(t)), None
    )
    if stamp is None:
        raise UserError(f"{table.name}: one day a row, but no column holds dates")
    notes.append(f"{table.name}: one day a row, {len(titles)} values each; {titles[0]} begins at 00:00")
    days, count = table.columns[stamp], len(titles)
    about = next(iter(table.around), "") or stamp
    title = f"value ({about})"
    columns = {
        stamp: [day for day in days for _ in titles],
        "time of day": [f"{b // 60:02d}:{b % 60:02d}" for _ in days for b in begins],
        title: [table.columns[t][row] for row in range(len(days)) for t in titles],
    }
    lines = np.repeat(table.lines, count)
    # Summer time leaves out an hour of one day, whose cell is blank.
    keep = [k for k, cell in enumerate(columns[title]) if cell]
    columns = {name: [cells[k] for k in keep] for name, cells in columns.items()}
    return replace(table, header=tuple(columns), columns=columns, lines=lines[keep])


def _minutes(match: re.Match[str] | None) -> int:
    return int(match[1]) * 60 + int(match[2] or 0) if match else -1
