"""CSV files of a CityLearn dataset: the simulated window of rows, checked, with the values that CityLearn itself reads.

pandas does the parsing because CityLearn does (`internal/loading.py`, _read_timeseries_dataframe): its number parser is
not always the nearest double, and whether a column is text or numbers decides what CityLearn makes of it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iquitos_rl.errors import UserError


class DataFiles:
    """Reads files of one dataset, each once, and hashes what it reads.

    Args:
        root: folder that file names in the schema are relative to.
        start: first data row simulated, counted from 0.
        rows: number of rows simulated, T.
    """

    def __init__(self, root: Path, start: int, rows: int) -> None:
        self.root, self.start, self.rows = root, start, rows
        self.digest = hashlib.sha256()
        self._frames: dict[Path, pd.DataFrame] = {}

    def read(self, name: object, key: str) -> Table:
        """The window of a file that the schema names under `key`.

        Raises:
            UserError: no such file, not a CSV file, or fewer rows than the simulation needs.
        """
        if not isinstance(name, str) or not name:
            raise UserError(f"{self.root / 'schema.json'}: {key} must name a data file, not {name!r}")
        path = self.root / name
        if path not in self._frames:
            self._frames[path] = self._parse(path, key)
        return Table(path, self._frames[path], self.start)

    def _parse(self, path: Path, key: str) -> pd.DataFrame:
        if path.suffix.lower() in {".parquet", ".pq", ".parq"}:
            raise UserError(f"{path}: {key} is a Parquet file; only CSV files can be read")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: {key} cannot be read: {error.strerror}") from None
        self.digest.update(path.name.encode() + b"\0" + content)
        skip = range(1, self.start + 1) if self.start else None
        try:
            frame = pd.read_csv(path, skiprows=skip, nrows=self.rows)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not a readable CSV file: {str(error).strip()}") from None
        if not isinstance(frame.index, pd.RangeIndex):
            raise UserError(f"{path}: its rows have more cells than its header has names")
        if len(frame) < self.rows:
            raise UserError(
                f"{path}: the schema simulates rows {self.start} to {self.start + self.rows - 1}, "
                f"but the file ends after row {self.start + len(frame) - 1}"
            )
        return frame


class Table:
    """Columns of one file, every access checked."""

    def __init__(self, path: Path, frame: pd.DataFrame, start: int) -> None:
        self.path, self.frame, self.start = path, frame, start

    def __contains__(self, column: str) -> bool:
        return column in self.frame.columns

    def place(self, row: int, column: str) -> str:
        """File, line (the header is line 1) and column of a data row counted from the window's first."""
        return f"{self.path}, line {self.start + row + 2}, column {column}"

    def check_columns(self, required: tuple[str, ...], optional: tuple[str, ...] | None = ()) -> None:
        """Raise UserError where a required column is missing or, unless `optional` is None, one is unknown."""
        if missing := [column for column in required if column not in self]:
            raise UserError(f"{self.path}: column {missing[0]} is missing")
        if optional is not None:
            known = {*required, *optional}
            if unknown := [column for column in self.frame.columns if column not in known]:
                raise UserError(f"{self.path}: CityLearn does not know column {unknown[0]}")

    def cells(self, column: str) -> NDArray[np.generic]:
        """(T,) as pandas inferred them."""
        cells: NDArray[np.generic] = self.frame[column].to_numpy()
        return cells

    def numbers(self, column: str, blank_allowed: bool = False) -> NDArray[np.float32]:
        """(T,) float32 as CityLearn stores series, NaN where a cell is blank.

        Raises:
            UserError: a cell is not a finite number, or blank where that is not allowed.
        """
        cells = self.cells(column)
        if cells.dtype.kind not in "iuf":
            parsed = pd.to_numeric(self.frame[column], errors="coerce")
            bad = np.flatnonzero(parsed.isna().to_numpy() & self.frame[column].notna().to_numpy())
            row = int(bad[0]) if len(bad) else 0
            raise UserError(f"{self.place(row, column)}: {cells[row]!r} is not a number")
        values = cells.astype(np.float32)
        wrong = np.isinf(values) if blank_allowed else ~np.isfinite(values)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            what = "blank" if np.isnan(values[row]) else f"{cells[row]}, beyond what a number here can be"
            raise UserError(f"{self.place(row, column)}: the cell is {what}")
        return values

    def integers(self, column: str, low: int, high: int, point_allowed: bool = False) -> NDArray[np.int64]:
        """(T,) whole numbers from low to high, written without a decimal point unless that is allowed.

        Raises:
            UserError: a cell is blank, not a whole number, or out of range.
        """
        cells = self.cells(column)
        if cells.dtype.kind not in "iu":
            if point_allowed:
                floats = self.numbers(column)
                bad = np.flatnonzero(floats != np.round(floats))
            else:
                # One blank turns a column of whole numbers into floats: name the blank.
                blank = pd.isna(self.frame[column]).to_numpy()
                bad = np.flatnonzero(blank if blank.any() else [not str(cell).isdigit() for cell in cells])
            if len(bad):
                row = int(bad[0])
                cell = "a blank" if pd.isna(cells[row]) else str(cells[row])
                raise UserError(f"{self.place(row, column)}: {cell} is not a whole number")
        values = cells.astype(np.int64)
        wrong = (values < low) | (values > high)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise UserError(f"{self.place(row, column)}: {values[row]} is not between {low} and {high}")
        return values
