"""Training metrics on disk: `metrics.csv` and TensorBoard."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_text
from iquitos_rl.machine.inputs import InputError, read_text

Row = dict[str, float]


class MetricsWriter:
    """Appends one row of metrics per report. A column that appears later is empty in earlier rows.

    If the disk is full, no row is lost while the process lives: it is written together with a later one.

    Args:
        keep_until: rows of an earlier process up to this step are kept. Later rows are dropped, since a resumed run
            repeats their steps. TensorBoard's files are rewritten from the kept rows.
    """

    def __init__(self, folder: Path, keep_until: int = 0) -> None:
        self._path = folder / "metrics.csv"
        self._rows = [row for row in read_metrics(self._path) if row["step"] <= keep_until]
        self._columns = list(dict.fromkeys(["step", *(name for row in self._rows for name in row)]))
        self._appendable = False
        self._told = False
        board = folder / "tensorboard"
        shutil.rmtree(board, ignore_errors=True)
        self._board: SummaryWriter | None = None
        try:
            self._board = SummaryWriter(str(board))  # type: ignore[no-untyped-call]
        except OSError as error:  # a file is in its place, or the folder cannot be written to
            self._tell(error)
        for row in self._rows:
            self._show(row)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics` at `step` transitions."""
        row = {"step": float(step), **{plain_name(name): float(value) for name, value in metrics.items()}}
        self._rows.append(row)
        self._show(row)
        new = [name for name in row if name not in self._columns]
        self._columns += new
        try:
            if new or not self._appendable:
                self._rewrite()
            else:
                with self._path.open("a", encoding="utf-8", newline="") as file:
                    file.write(self._lines([row]))
            self._appendable = True
        except (OSError, UserError) as error:
            self._appendable = False  # the file may end in half a line
            self._tell(error)

    def close(self) -> None:
        """Write rows that are not on disk yet, and flush TensorBoard."""
        try:
            if self._rows and not self._appendable:
                self._rewrite()
            if self._board is not None:
                self._board.close()  # type: ignore[no-untyped-call]
        except (OSError, UserError) as error:
            self._tell(error)

    def _lines(self, rows: list[Row], header: bool = False) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _rewrite(self) -> None:
        write_text(self._path, self._lines(self._rows, header=True))

    def _show(self, row: Row) -> None:
        if self._board is None:
            return
        try:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))  # type: ignore[no-untyped-call]
        except OSError as error:
            self._board = None
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self._told:
            print(f"warning: {self._path.parent}: metrics cannot be written ({error})", file=sys.stderr, flush=True)
        self._told = True


def plain_name(name: str) -> str:
    """A metric's name as TensorBoard and spreadsheets take it; a plugin's agent may give it any."""
    name = re.sub(r"[^\w./ %()-]", "_", name, flags=re.ASCII)
    return name if name[:1].isalpha() or name[:1] == "_" else f"_{name}"


def read_metrics(path: Path) -> list[Row]:
    """The rows of a `metrics.csv` up to a line that was cut off; none if there is no file."""
    rows: list[Row] = []
    try:
        text = read_text(path)
        whole = text[: text.rfind("\n") + 1]
        for line in csv.DictReader(io.StringIO(whole)):
            rows.append({name: float(value) for name, value in line.items() if value})
            if "step" not in rows[-1]:
                rows.pop()
                break
    except (InputError, ValueError, TypeError, AttributeError, csv.Error) as error:
        if not getattr(error, "missing", False):
            print(f"warning: {path}: read up to row {len(rows)} only ({error})", file=sys.stderr, flush=True)
    return rows
