"""CSV files of a CityLearn dataset: the simulated window of rows, checked, with the values that CityLearn itself reads.

pandas does the parsing because CityLearn does (`internal/loading.py`, _read_timeseries_dataframe): its number parser is
not always the nearest double, and whether a column is text or numbers decides what CityLearn makes of it.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iquitos_rl.cases.schema.report import Report, Severity
from iquitos_rl.cases.schema.values import Block
from iquitos_rl.cases.site import Bools
from iquitos_rl.machine.inputs import InputError, read_bytes, shown

COMPRESSED = (".gz", ".bz2", ".zip", ".xz", ".zst", ".tar", ".tgz", ".tbz2", ".txz")
"""Endings by which pandas, and so CityLearn, unpacks a file."""
LEAP_YEAR = 8784
LEAP_HINT = " (a leap year: drop 29 February from every file)"


class DataFiles:
    """Reads files of one dataset, each once, and hashes what it reads.

    Args:
        root: folder that file names in the schema are relative to.
        start: first data row simulated, counted from 0.
        rows: number of rows simulated, T.
        padded: whether CityLearn adds the last row itself (`terminal_observation_padding`).
    """

    def __init__(self, root: Path, start: int, rows: int, report: Report, padded: bool = False) -> None:
        self.root, self.start, self.rows, self.report, self.padded = root, start, rows, report, padded
        self.digest = hashlib.sha256()
        self._tables: dict[str, Table] = {}

    def read(self, block: Block, key: str) -> Table:
        """The window of the file that a block names; a table without columns where it cannot be read (recorded)."""
        name = block.text(key, "the name of a data file")
        if not name:
            return self._nothing(name)
        if name not in self._tables:
            self._tables[name] = self._parse(name, block, key)
        return self._tables[name]

    def whole(self, block: Block, key: str, columns: tuple[str, ...]) -> tuple[str, pd.DataFrame]:
        """Name and all rows of a file that has no row for every step; no rows where it cannot be read (recorded)."""
        name = block.text(key, "the name of a data file")
        content = self._content(name, block, key) if name else None
        if content is None:
            return name, pd.DataFrame(columns=list(columns))
        try:
            frame = pd.read_csv(io.BytesIO(content))
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            self.report.add("error", name, f"not a readable CSV file in UTF-8: {' '.join(str(error).split())}")
            return name, pd.DataFrame(columns=list(columns))
        missing = [column for column in columns if column not in frame.columns]
        for column in missing:
            self.report.add("error", name, f"column {column} is missing")
        return name, pd.DataFrame(columns=list(columns)) if missing else frame

    def _content(self, name: str, block: Block, key: str) -> bytes | None:
        """The bytes of a file, part of the fingerprint from now on; None where it cannot be read (recorded)."""
        if name.lower().endswith((".parquet", ".pq", ".parq")):
            block.error(f"{key} names {shown(name)}, a Parquet file; only CSV files can be read")
            return None
        if Path(name).suffix.lower() in COMPRESSED:
            block.error(f"{key} names {shown(name)}, which CityLearn would take for a compressed file by its name")
            return None
        try:
            content = read_bytes(self.root / name)
        except InputError as error:
            block.error(f"{key} names {shown(name)}, which {'does not exist' if error.missing else error.reason}")
            return None
        self.digest.update((self.root / name).name.encode() + b"\0" + content)
        return content

    def _parse(self, name: str, block: Block, key: str) -> Table:
        content = self._content(name, block, key)
        if content is None:
            return self._nothing(name)
        skip = range(1, self.start + 1) if self.start else None
        try:
            frame = pd.read_csv(io.BytesIO(content), skiprows=skip, nrows=self.rows)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            self.report.add("error", name, f"not a readable CSV file in UTF-8: {' '.join(str(error).split())}")
            return self._nothing(name)
        if frame.shape[1] == 1 and ";" in str(frame.columns[0]):
            self.report.add("error", name, "columns are separated by semicolons, CityLearn reads commas", line=1)
            return self._nothing(name)
        if not isinstance(frame.index, pd.RangeIndex):
            self.report.add("error", name, "its rows have more cells than its header has names")
            return self._nothing(name)
        return self._window(Table(name, frame, self.start, self.report, content))

    def _window(self, table: Table) -> Table:
        """Compare the rows of a file with those that the schema simulates."""
        found, needed = self.start + len(table.frame), self.start + self.rows
        if self.padded and found == needed - 1 and len(table.frame):
            table.frame = pd.concat([table.frame, table.frame.tail(1)], ignore_index=True)
        elif found < needed:
            hint = LEAP_HINT if needed == LEAP_YEAR else ""
            table.report.add(
                "error", table.name, f"{found} data rows, the schema simulates {needed}{hint}", kind="short"
            )
            return self._nothing(table.name)
        elif (there := table.count_rows()) > needed:
            hint = LEAP_HINT if there == LEAP_YEAR else ""
            table.report.add(
                "warning", table.name, f"{there} data rows, the schema simulates only {needed}{hint}", kind="long"
            )
        elif needed == LEAP_YEAR:
            table.report.add("warning", table.name, f"{LEAP_YEAR} data rows{LEAP_HINT}", kind="leap")
        return table

    def _nothing(self, name: str) -> Table:
        return Table(name, pd.DataFrame(index=range(self.rows)), self.start, self.report, b"", readable=False)


class Table:
    """Columns of one file, every access checked. A column that is not there reads as zeros, recorded as missing."""

    def __init__(
        self, name: str, frame: pd.DataFrame, start: int, report: Report, content: bytes, readable: bool = True
    ) -> None:
        self.name, self.frame, self.start, self.report, self.readable = name, frame, start, report, readable
        self._content = content
        self._numbers: dict[tuple[str, bool], NDArray[np.float32]] = {}
        self._checked = False

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    @property
    def rows(self) -> int:
        return len(self.frame)

    def line(self, row: int) -> int:
        """Line of a data row counted from the window's first; the header is line 1."""
        return self.start + row + 2

    def note(self, severity: Severity, column: str, wrong: Bools, message: str, kind: str | None = None) -> None:
        """Record a remark on all rows where `wrong` (T,) holds, if there are any."""
        if wrong.any():
            line = self.line(int(np.argmax(wrong)))
            self.report.add(severity, self.name, message, column, line, int(wrong.sum()), kind)

    def check_columns(self, required: tuple[str, ...], optional: tuple[str, ...] | None = ()) -> None:
        """Record missing columns and, unless `optional` is None, those that CityLearn does not know."""
        if not self.readable or self._checked:
            return
        self._checked = True
        for column in required:
            if column not in self:
                self.report.add("error", self.name, f"column {column} is missing")
        known = None if optional is None else {*required, *optional}
        for column in self.frame.columns:
            if known is not None and column not in known:
                self.report.add("error", self.name, f"unknown column {column!r}, CityLearn stops at it")

    def count_rows(self) -> int:
        """Data rows of the whole file, blank lines inside of it included."""
        return self._content.rstrip().count(b"\n")

    def cells(self, column: str) -> NDArray[np.generic]:
        """(T,) as pandas inferred them, blanks where there is no such column."""
        cells: NDArray[np.generic] = self.frame[column].to_numpy() if column in self else np.full(self.rows, np.nan)
        return cells

    def as_written(self, column: str) -> NDArray[np.object_]:
        """(T,) texts of a column, before anything is made of them."""
        skip = range(1, self.start + 1) if self.start else None
        frame = pd.read_csv(
            io.BytesIO(self._content),
            usecols=[column],
            dtype=str,
            keep_default_na=False,
            skiprows=skip,
            nrows=self.rows,
        )
        return frame[column].fillna("").str.strip().to_numpy(dtype=object)

    def numbers(self, column: str, blank_allowed: bool = False) -> NDArray[np.float32]:
        """(T,) float32 as CityLearn stores series, NaN where a cell is blank; 0 where it is wrong (recorded)."""
        if (column, blank_allowed) not in self._numbers:
            self._numbers[column, blank_allowed] = self._read_numbers(column, blank_allowed)
        return self._numbers[column, blank_allowed]

    def _read_numbers(self, column: str, blank_allowed: bool) -> NDArray[np.float32]:
        if column not in self:
            return np.zeros(self.rows, dtype=np.float32)
        cells = self.cells(column)
        if cells.dtype.kind in "iufb":
            with np.errstate(over="ignore"):
                values = cells.astype(np.float32)
            if np.isfinite(values).all():
                return values
            blank = np.isnan(values)
        else:
            blank = np.asarray(self.frame[column].isna())
            values = pd.to_numeric(self.frame[column], errors="coerce").to_numpy(dtype=np.float32, na_value=np.nan)
            text = ~blank if np.isfinite(values[~blank]).all() else ~np.isfinite(values) & ~blank
            if text.any():  # one text makes a text of the whole column, which CityLearn does not take for numbers
                self.note("error", column, text, f"{str(cells[int(np.argmax(text))])!r} is not a number")
                return np.zeros(self.rows, dtype=np.float32)
        infinite = np.isinf(values)
        if infinite.any():
            self.note("error", column, infinite, f"{cells[int(np.argmax(infinite))]} is not a finite number")
        if not blank_allowed:
            self.note("error", column, blank, "the cell is blank")
        wrong = infinite if blank_allowed else infinite | blank
        return np.where(wrong, np.float32(0), values) if wrong.any() else values

    def integers(self, column: str, low: int, high: int) -> NDArray[np.int64]:
        """(T,) whole numbers from low to high; low where a cell is none (recorded)."""
        values = self.numbers(column).astype(np.float64)
        wrong = (values < low) | (values > high) | (values != np.round(values))
        cells = self.cells(column)
        if wrong.any() and cells.dtype.kind in "iuf" and np.isfinite(cells.astype(np.float64)).all():
            bad = values[int(np.argmax(wrong))]
            self.note("error", column, wrong, f"{bad:g} is not a whole number from {low} to {high}")
        return np.where(wrong, low, values).astype(np.int64)
