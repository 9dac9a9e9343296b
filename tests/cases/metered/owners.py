"""Three days of a home, and files that hold them in the forms that owners have."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

START = datetime(2024, 3, 4)
KWH = np.tile([1.2] * 17 + [2.0] * 4 + [1.2] * 3, 3)
"""72 hours from START on, 96 kWh; 2.0 from 17 to 21 h."""
PV = np.tile([0.0] * 8 + [1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 2.0, 1.0] + [0.0] * 8, 3)
"""The same hours of a plant of 5 kW, 54 kWh."""
HOME = {
    "site.latitude": 50.0,
    "site.longitude": 10.0,
    "site.utc_offset": 1.0,
    "pv.dc_kw": 5.0,
    "bess.capacity_kwh": 10.0,
    "bess.power_kw": 5.0,
    "tariff.kind": "flat",
}


def hours(step: int = 60, end: bool = False) -> list[datetime]:
    late = timedelta(minutes=step if end else 0)
    return [START + timedelta(minutes=step * k) + late for k in range(72 * 60 // step)]


def table(
    head: str,
    values: np.ndarray,
    stamp: str | Callable[[datetime], str] = "%Y-%m-%d %H:%M",
    number: str = "{:.2f}",
    separator: str = ",",
    step: int = 60,
    end: bool = False,
    shift: float = 0.0,
) -> str:
    """A header and a row for each value; `shift` hours are added to the times."""
    rows = [head]
    for moment, value in zip(hours(step, end), values, strict=True):
        moment += timedelta(hours=shift)
        text = moment.strftime(stamp) if isinstance(stamp, str) else stamp(moment)
        rows.append(f"{text}{separator}{number.format(value)}")
    return "\n".join(rows) + "\n"


def comma(text: str) -> str:
    """Decimal commas for points."""
    return text.replace(".", ",")


def save(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path
