"""Training figures on disk: `metrics.csv` and TensorBoard."""

from __future__ import annotations

import csv
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter


class MetricsWriter:
    """Append one row of figures per report. A column that appears later is empty in the rows before it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.csv"
        self._columns: list[str] = ["step"]
        self._rows: list[dict[str, float]] = []
        self._board = SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Record `metrics` at `step` transitions."""
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        row = {"step": float(step), **metrics}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new or len(self._rows) == 1:
            self._columns += new
            with self._path.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(self._rows)
        else:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)

    def close(self) -> None:
        """Flush what TensorBoard still holds."""
        self._board.close()  # type: ignore[no-untyped-call]
