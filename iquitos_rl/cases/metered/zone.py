"""The clock of a site: UTC to local time and back, with daylight saving."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta, timezone, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.site import Bools, Floats, Ints
from iquitos_rl.errors import UserError

USUAL_ZONES = (
    *("Europe/Berlin", "Europe/London", "Europe/Athens", "Australia/Sydney", "Australia/Adelaide", "Pacific/Auckland"),
    *("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles", "America/Halifax"),
    *("America/St_Johns", "America/Santiago"),
)
"""One for each rule of daylight saving and offset, for files that only show that their clock was changed."""


class Change(NamedTuple):
    """One change of the clocks."""

    spring: bool
    first: np.datetime64
    """Wall time from which an hour is missing (spring) or comes twice (autumn)."""
    last: np.datetime64
    """Wall time at which it ends."""


@dataclass(frozen=True)
class Zone:
    name: str
    info: tzinfo

    def local(self, utc: Times) -> Times:
        """(N,) wall time, datetime64[s]."""
        index = pd.DatetimeIndex(utc.astype("datetime64[s]"), tz="UTC").tz_convert(self.info)
        return np.asarray(index.tz_localize(None).to_numpy(), dtype="datetime64[s]")

    def offset_hours(self, utc: Times) -> Floats:
        """(N,) hours ahead of UTC."""
        return np.asarray((self.local(utc) - utc.astype("datetime64[s]")).astype(np.int64) / 3600)

    def standard_hours(self, utc: Times) -> float:
        """Hours ahead of UTC without daylight saving, in the year of the first time."""
        return _standard(self, int(str(utc[0])[:4]))

    def daylight(self, utc: Times) -> Bools:
        """(N,) whether daylight saving holds."""
        return self.offset_hours(utc) > self.standard_hours(utc) + 1e-9

    def changes(self, first: np.datetime64, last: np.datetime64) -> list[Change]:
        """Every change of the clocks between two wall times."""
        day = np.timedelta64(86400, "s")
        start = (first - 2 * day).astype("datetime64[D]").astype("datetime64[s]")
        hours = np.arange(start, last + 2 * day, np.timedelta64(900, "s")).astype("datetime64[s]")
        offset = ((self.local(hours) - hours).astype(np.int64)).astype("timedelta64[s]")
        found = []
        for row in np.flatnonzero(np.diff(offset.astype(np.int64))) + 1:
            before, after = hours[row] + offset[row - 1], hours[row] + offset[row]
            change = Change(bool(after > before), min(before, after), max(before, after))
            if first < change.last and change.first <= last:
                found.append(change)
        return found

    def to_utc(self, wall: Times, second: Bools) -> tuple[Times, Bools]:
        """(N,) UTC of wall times, and whether the wall time does not exist.

        Args:
            second: whether an hour that comes twice is the later one.
        """
        index = pd.DatetimeIndex(wall.astype("datetime64[s]"))
        shifted = index.tz_localize(self.info, ambiguous=~second, nonexistent=pd.Timedelta(hours=1))
        utc = np.asarray(shifted.tz_convert("UTC").tz_localize(None).to_numpy(), dtype="datetime64[s]")
        return utc, np.asarray(self.local(utc) != wall)


@lru_cache(maxsize=64)
def _standard(zone: Zone, year: int) -> float:
    days = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[D]").astype("datetime64[s]")
    return float(zone.offset_hours(days).min())


def fixed_zone(hours: float) -> Zone:
    return Zone(f"UTC{hours:+g}", timezone(timedelta(hours=hours)))


def named_zone(name: str) -> Zone:
    """An IANA time zone such as Europe/Berlin. Raises UserError: there is none of this name."""
    if name.upper() in ("UTC", "GMT", "Z"):
        return fixed_zone(0.0)
    try:
        return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UserError(
            f"--zone: there is no time zone {name!r}; names are those of IANA, such as Europe/Berlin"
        ) from None


def zone_that_changes(wall: Times, offset_hours: float) -> Zone | None:
    """A usual zone whose standard time has this offset, and whose clocks are changed where the wall times, in the order
    of time, go back or leave out just an hour."""
    steps = np.diff(wall).astype(np.int64)
    usual = int(np.median(steps))
    hour = np.timedelta64(3600, "s")
    for row in np.flatnonzero((steps <= 0) | (steps == usual + 3600))[:50]:
        at = wall[row + 1]
        for name in USUAL_ZONES:
            zone = named_zone(name)
            if zone.standard_hours(at[None]) != offset_hours:
                continue
            for change in zone.changes(at - hour, at + hour):
                late = (at - change.last).astype(np.int64)
                if change.spring and steps[row] > 0 and late in (0, usual):
                    return zone
                if not change.spring and steps[row] <= 0 and change.first - hour <= at <= change.last + hour:
                    return zone
    return None


def repeated(wall: Times, changes: list[Change]) -> tuple[Bools, Ints]:
    """(N,) whether a row lies in the later of two hours that the clock shows twice, and for each change in autumn how
    many rows repeat: 0 where the hour is there once.

    Rows are in the order of time: either the hour is passed twice, or each of its times stands there twice.
    """
    second, counts = np.zeros(len(wall), bool), []
    for change in changes:
        if change.spring:
            continue
        rows = np.flatnonzero((wall >= change.first) & (wall < change.last))
        steps = np.diff(wall[rows]).astype(np.int64)
        goes_back = steps < 0
        later = rows[int(np.argmax(goes_back)) + 1 :] if goes_back.any() else rows[1:][steps == 0]
        second[later] = True
        counts.append(len(later))
    return second, np.array(counts, np.int64)
