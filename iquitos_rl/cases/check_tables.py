"""Reading the CSV files of a schema folder for inspection: every fault is recorded, none stops the reading.

Lines count from 1, the header's, as an editor shows them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iquitos_rl.cases.site import Bools, Floats

NOT_A_NUMBER = frozenset(("nan", "NaN", "NA"))


@dataclass(frozen=True)
class Report:
    """What a check found. Errors: CityLearn fails or simulates something else than the files say."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A CSV file as text."""

    name: str
    frame: pd.DataFrame

    @property
    def rows(self) -> int:
        return len(self.frame)

    def text(self, column: str) -> NDArray[np.object_]:
        """(T,) stripped cells, "" where blank."""
        stripped = map(str.strip, self.frame[column].tolist())
        return np.array(["" if cell in NOT_A_NUMBER else cell for cell in stripped], dtype=object)

    def at(self, row: int) -> str:
        """Where data row `row` (from 0) stands."""
        return f"{self.name}, line {row + 2}"

    def numbers(self, column: str, report: Report, blank_allowed: bool = False) -> Floats:
        """(T,) NaN where a cell is blank or bad; records the first bad cell and how many there are."""
        text = self.text(column)
        values = pd.to_numeric(pd.Series(text, dtype=object), errors="coerce").to_numpy(float)
        wrong = ~np.isfinite(values)
        if blank_allowed:
            wrong &= text != ""
        if wrong.any():
            row = int(np.argmax(wrong))
            what = f"{text[row]!r} is not a number" if text[row] else "the cell is blank"
            report.errors.append(f"{self.at(row)}: {column}: {what}{and_more(wrong)}")
        return np.where(np.isfinite(values), values, np.nan)


def and_more(wrong: Bools) -> str:
    more = int(wrong.sum()) - 1
    return f" (and {more} more)" if more > 0 else ""


class Files:
    """The CSV files of one folder, each read once, their row counts compared with what the schema simulates."""

    def __init__(self, root: Path, first: int, last: int, report: Report) -> None:
        self.root, self.first, self.last, self.report = root, first, last, report
        self._tables: dict[str, Table | None] = {}
        self._reference: Table | None = None

    def read(self, name: object, key: str) -> Table | None:
        """The rows first to last of a file, or None where it cannot be used (recorded)."""
        if not isinstance(name, str) or not name:
            self.report.errors.append(f"schema.json: {key} must name a file, not {name!r}")
            return None
        if name not in self._tables:
            self._tables[name] = self._read(name, key)
        return self._tables[name]

    def _read(self, name: str, key: str) -> Table | None:
        path = self.root / name
        try:
            frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except FileNotFoundError:
            self.report.errors.append(f"schema.json: {key} names {name}, which does not exist")
            return None
        except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            self.report.errors.append(f"{name} is not a readable CSV file in UTF-8: {str(error).strip()}")
            return None
        if frame.shape[1] == 1 and ";" in str(frame.columns[0]):
            self.report.errors.append(f"{name}, line 1: columns are separated by semicolons, CityLearn reads commas")
            return None
        if not isinstance(frame.index, pd.RangeIndex):
            self.report.errors.append(f"{name}: its rows have more cells than its header has names")
            return None
        self._check_rows(Table(name, frame))
        frame = frame.iloc[self.first : self.last + 1].fillna("").reset_index(drop=True)
        return Table(name, frame) if len(frame) == self.last - self.first + 1 else None

    def _check_rows(self, table: Table) -> None:
        needed = self.last + 1
        leap = " (a leap year: drop 29 February from every file)"
        if table.rows < needed:
            self.report.errors.append(
                f"{table.name} has {table.rows} data rows, the schema simulates {needed}"
                + (leap if needed == 8784 else "")
            )
            return
        if self._reference is None:
            self._reference = table
            if table.rows > needed:
                unused = f"{table.name} has {table.rows} data rows, the schema simulates only {needed}"
                self.report.warnings.append(unused + (leap if table.rows == 8784 else ""))
            elif table.rows == 8784:
                self.report.warnings.append(f"{table.name} has 8784 data rows{leap}")
        elif table.rows != self._reference.rows:
            counts = f"{table.name} has {table.rows} data rows, {self._reference.name} has {self._reference.rows}"
            self.report.errors.append(counts + (leap if 8784 in (table.rows, self._reference.rows) else ""))
