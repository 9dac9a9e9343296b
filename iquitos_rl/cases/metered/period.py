"""The days that a case covers: whole ones on the site's clock, which all files have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.metered.grid import Series
from iquitos_rl.cases.metered.zone import Zone
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError

SHORT = np.timedelta64(3600, "s")
"""What may be missing at an end of a file's days, and is filled: the last interval of a register, the hour between UTC
and local time."""
DAY = np.timedelta64(86400, "s")
FEWEST_DAYS = 2
LONGEST_DAYS = 366


class Period(NamedTuple):
    first: np.datetime64
    """UTC; local midnight."""
    end: np.datetime64


def whole_days(series: Series, zone: Zone) -> Period:
    """The whole local days of a series, which may lack an hour at either end."""
    local = zone.local(np.array([series.begin[0] - SHORT, series.end + SHORT]))
    day = local.astype("datetime64[D]").astype("datetime64[s]")
    first = day[0] if day[0] == local[0] else day[0] + DAY
    utc, _ = zone.to_utc(np.array([first, day[1]]), np.zeros(2, bool))
    return Period(utc[0], utc[1])


def common(periods: Sequence[Period]) -> Period:
    return Period(max(p.first for p in periods), min(p.end for p in periods))


def days(period: Period) -> int:
    """Whole days in a period; not above zero where it ends before it begins."""
    return round(float((period.end - period.first) / np.timedelta64(3600, "s")) / 24)


def require_days(period: Period, series: Series, name: str) -> None:
    if days(period) < FEWEST_DAYS:
        hours = (series.end - series.begin[0]).astype(np.int64) / 3600
        raise UserError(f"{name}: covers {hours:g} hours, at least two days are needed")


def fitted(series: Series, period: Period, what: str, notes: list[str]) -> Floats:
    """(T,) the series' values in the period; up to an hour that it lacks at an end is that of the next day inside."""
    step = np.timedelta64(series.seconds, "s")
    begin: Times = np.arange(period.first, period.end, step).astype("datetime64[s]")
    slot = (begin - series.begin[0]).astype(np.int64) // series.seconds
    per_day = 86400 // series.seconds
    missing = (slot < 0) | (slot >= len(series.values))
    slot = np.where(slot < 0, slot + per_day, np.where(slot >= len(series.values), slot - per_day, slot))
    if missing.any():
        hours = missing.sum() * series.seconds / 3600
        notes.append(f"{what}: {hours:g} h missing at the ends of its days, taken from the next day at the same time")
    return series.values[slot]


def years(period: Period, zone: Zone) -> list[Period]:
    """The period, or its calendar years where it is longer than one; less than four weeks of a year are left out."""
    if days(period) <= LONGEST_DAYS:
        return [period]
    local = zone.local(np.array([period.first, period.end]))
    numbers = range(int(str(local[0])[:4]), int(str(local[1])[:4]) + 1)
    starts: Times = np.array([f"{number}-01-01" for number in (*numbers, numbers[-1] + 1)], dtype="datetime64[s]")
    utc, _ = zone.to_utc(starts, np.zeros(len(starts), bool))
    parts = [common([period, Period(first, end)]) for first, end in pairwise(utc)]
    return [part for part in parts if days(part) >= 28]
