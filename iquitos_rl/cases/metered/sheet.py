"""The cells of a table file as text: encoding, column separator, workbooks.

Nothing is interpreted here. Each assumption is added to `notes` as a sentence.
"""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import read_bytes

SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "bars", ",": "commas"}
"""From the least to the most likely to stand in text or numbers."""
BLANKS = "blanks"
SAMPLE = 2000
LARGEST_SHEET = 5_000_000  # cells; more is no meter file


class Sheet(NamedTuple):
    """The rows of a file that hold anything."""

    path: Path
    rows: list[list[str]]
    lines: list[int]
    separator: str
    """Empty for a workbook, whose numbers need no reading."""


def read_sheet(path: Path, notes: list[str]) -> Sheet:
    """Read a CSV-like file or an .xlsx workbook.

    Raises:
        UserError: it cannot be read, or holds no rows.
    """
    content = read_bytes(path)
    if content.startswith(b"PK\x03\x04"):
        sheet = _workbook(path, content, notes)
    elif content.startswith(b"\xd0\xcf\x11\xe0"):
        raise UserError(f"{path.name} is a workbook of the old form .xls; save it as .xlsx or CSV")
    else:
        sheet = _text_sheet(path, decode(content, path.name, notes), notes)
    if not sheet.rows:
        raise UserError(f"{path.name}: holds 0 data rows")
    return sheet


def decode(content: bytes, name: str, notes: list[str]) -> str:
    """The text of a file in UTF-8, UTF-16 or the Windows code page 1252."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        notes.append(f"{name}: read as UTF-16")
        return content.decode("utf-16", errors="replace")
    zeros = content[:2000].count(0)
    if zeros > len(content[:2000]) // 3:
        notes.append(f"{name}: read as UTF-16")
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be", errors="replace")
    if content.startswith(b"\xef\xbb\xbf"):
        notes.append(f"{name}: byte-order mark skipped")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        notes.append(f"{name}: not UTF-8, read in the Windows code page 1252")
        return content.decode("cp1252", errors="replace")


def _text_sheet(path: Path, text: str, notes: list[str]) -> Sheet:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    skipped = 0
    named = re.fullmatch(r'"?sep=(.)"?', lines[0].strip())
    if named:  # what Excel writes
        separator, skipped = named[1], 1
    else:
        separator = _separator(lines)
    if separator not in (",", ""):
        notes.append(f"{path.name}: columns are separated by {SEPARATORS.get(separator, separator)}")
    rows, numbers = _split(path, lines[skipped:], separator)
    return Sheet(path, rows, [number + skipped for number in numbers], separator or ",")


def _split(path: Path, lines: list[str], separator: str) -> tuple[list[list[str]], list[int]]:
    """The cells of every line that is not blank, and the lines' numbers."""
    if separator == BLANKS:
        cells = [(number, line.split()) for number, line in enumerate(lines, start=1)]
    else:
        reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator or ",")
        try:
            cells = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise UserError(f"{path.name}, line {reader.line_num}: {error}") from None
    kept = [(number, [cell.strip() for cell in row]) for number, row in cells if any(cell.strip() for cell in row)]
    return [row for _, row in kept], [number for number, _ in kept]


def _separator(lines: list[str]) -> str:
    """The mark that divides most lines into the same number of cells; empty for a single column."""
    sample = [line for line in lines if line.strip()]
    middle = max(0, len(sample) // 2 - SAMPLE // 2)
    sample = sample[middle : middle + SAMPLE]
    for mark in SEPARATORS:
        try:
            widths = Counter(len(row) for row in csv.reader(sample, delimiter=mark))
        except csv.Error:
            continue
        if _agrees(widths, len(sample)):
            return mark
    return BLANKS if _agrees(Counter(len(line.split()) for line in sample), len(sample)) else ""


def _agrees(widths: Counter[int], count: int) -> bool:
    width, often = max(widths.items(), key=lambda item: item[1], default=(1, 0))
    return width > 1 and often >= 0.6 * count


def _workbook(path: Path, content: bytes, notes: list[str]) -> Sheet:
    """The sheet with most rows."""
    import openpyxl

    try:
        book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheets = [(sheet.title, [list(row) for row in sheet.iter_rows(values_only=True)]) for sheet in book.worksheets]
    except (BadZipFile, KeyError, ValueError, OSError, TypeError) as error:
        raise UserError(f"{path.name} cannot be read as a workbook: {error}") from None
    if not sheets:
        raise UserError(f"{path.name}: holds no sheet")
    title, values = max(sheets, key=lambda item: len(item[1]))
    if len(sheets) > 1:
        notes.append(f"{path.name}: sheet {title!r}, the longest of {len(sheets)}")
    if sum(len(row) for row in values) > LARGEST_SHEET:
        raise UserError(f"{path.name}: sheet {title!r} has over {LARGEST_SHEET:,} cells")
    rows = [[_cell_text(value) for value in row] for row in values]
    kept = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    return Sheet(path, [row for _, row in kept], [number for number, _ in kept], "")


def _cell_text(value: Any) -> str:
    """A workbook's cell as a CSV file would have it."""
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        nearest = value + datetime.timedelta(microseconds=500_000)  # workbooks keep days as fractions
        return nearest.replace(microsecond=0).isoformat(" ")
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        minutes = round(value.total_seconds() / 60)
        return f"{minutes // 60}:{minutes % 60:02d}"
    return str(value).strip()
