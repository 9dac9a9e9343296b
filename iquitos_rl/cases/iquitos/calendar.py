"""The rows of a case on the site's clock, and the years that the synthetic site lives in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.site import Bools, Floats, Ints

Times = NDArray[np.datetime64]
MONTH_DAYS = np.array([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
YEARS = (2015, 2017, 2018, 2019, 2021, 2022, 2023, 2025, 2026, 2027)
"""Years of 8,760 hours that a synthetic year is one of: they begin on every day of the week."""


@dataclass(frozen=True)
class Calendar:
    """The rows of a case on the site's clock; hours in local standard time unless `utc` says when they are."""

    begin: Times
    """(T,) start of each row: datetime64[h], or finer."""
    seconds: int = 3600
    """Length of a row."""
    utc: Times | None = None
    """(T,) datetime64[s], start of each row in UTC, for clocks with daylight saving."""
    holiday: Bools | None = None
    """(T,) rows on a holiday; none by default."""

    @property
    def rows(self) -> int:
        return len(self.begin)

    def steps(self, hours: float) -> int:
        """Rows in so many hours."""
        return round(hours * 3600 / self.seconds)

    def correlation(self, hourly: float) -> float:
        """Correlation of neighbouring rows, from that of neighbouring hours."""
        return float(hourly ** (self.seconds / 3600))

    @property
    def day(self) -> Ints:
        """(T,) days since the first row's."""
        date = self.begin.astype("datetime64[D]")
        return (date - date[0]).astype(np.int64)

    @property
    def weekday(self) -> Ints:
        """(T,) 1 (Monday) to 7 (Sunday), on holidays too."""
        return (self.begin.astype("datetime64[D]").astype(np.int64) + 3) % 7 + 1

    @property
    def clock_hours(self) -> Floats:
        """(T,) hours since midnight on the clock, with fractions."""
        moment = self.begin.astype("datetime64[s]")
        return (moment - moment.astype("datetime64[D]")).astype(np.int64) / 3600

    @property
    def month(self) -> Ints:
        """(T,) 1 to 12."""
        return self.begin.astype("datetime64[M]").astype(np.int64) % 12 + 1

    @property
    def hour(self) -> Ints:
        """(T,) 0 to 23."""
        return self.begin.astype("datetime64[h]").astype(np.int64) % 24

    @property
    def day_type(self) -> Ints:
        """(T,) 1 (Monday) to 7 (Sunday), 8 on a holiday."""
        return self.weekday if self.holiday is None else np.where(self.holiday, 8, self.weekday)


@lru_cache(maxsize=len(YEARS))
def calendar_year(year: int) -> Calendar:
    """A year without 29 February, with the national holidays of Peru."""
    import holidays  # takes a while

    begin = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[h]")
    date = begin.astype("datetime64[D]")
    begin = begin[(date != np.datetime64(f"{year}-02-29")) if year % 4 == 0 else slice(None)]
    free = np.array(sorted(holidays.country_holidays("PE", years=year)), dtype="datetime64[D]")
    return Calendar(begin, holiday=np.isin(begin.astype("datetime64[D]"), free))


def drawn_year(rng: np.random.Generator) -> Calendar:
    """One of `YEARS`."""
    return calendar_year(int(rng.choice(YEARS)))


def month_share(calendar: Calendar) -> Floats:
    """(12,) share of each calendar month (28 February days) that the rows cover."""
    rows = np.bincount(calendar.month - 1, minlength=12)
    return np.asarray(rows * calendar.seconds / (86400 * MONTH_DAYS), dtype=np.float64)
