"""Series on an even grid of time: gaps, other steps, common periods."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

LONGEST_FILLED_GAP = 24.0
"""Hours; longer gaps are the owner's to decide about."""
DAY = 86400


class Series(NamedTuple):
    """Values at equal steps without gaps."""

    begin: Times
    """(T,) datetime64[s], UTC, consecutive."""
    values: Floats
    """(T,) kWh per step, or means of the step."""
    seconds: int
    energy: bool
    """Whether values are energy, which is summed and divided, and not averaged and repeated."""

    @property
    def end(self) -> np.datetime64:
        return self.begin[-1] + np.timedelta64(self.seconds, "s")


def runs(mask: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """First row and length of each run of True."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    return edges[::2], edges[1::2] - edges[::2]


def gridded(
    begin: Times, values: Floats, seconds: int, energy: bool, what: str, longest: float | None, notes: list[str]
) -> Series:
    """Values without gaps, from the first that is there to the last.

    A gap of up to `longest` hours (a day by default) takes the values of the same times of the day before, or of the
    next day that has them; where no day has, it is bridged by a straight line.

    Args:
        begin: (N,) ascending, UTC, all on one grid.
        values: (N,) NaN where missing.
        what: file and column, for sentences.

    Raises:
        UserError: a longer gap, or no values at all.
    """
    there = ~np.isnan(values)
    if not there.any():
        raise UserError(f"{what} holds no values")
    begin, values = begin[there], values[there]
    slot = (begin - begin[0]).astype(np.int64) // seconds
    grid = begin[0] + np.arange(slot[-1] + 1) * np.timedelta64(seconds, "s")
    series = np.full(len(grid), np.nan)
    series[slot] = values
    if np.isnan(series).any():
        series = _filled(grid, series, seconds, what, LONGEST_FILLED_GAP if longest is None else longest, notes)
    return Series(grid, series, seconds, energy)


def _filled(grid: Times, series: Floats, seconds: int, what: str, longest: float, notes: list[str]) -> Floats:
    missing = np.isnan(series)
    starts, lengths = runs(missing)
    worst, at = int(lengths.max()), grid[starts[lengths.argmax()]]
    hours = worst * seconds / 3600
    if hours > longest:
        raise UserError(
            f"{what} misses {hours:g} hours from {at} UTC; gaps up to {longest:g} hours are filled with the same "
            f"hours of the day before, --fill {np.ceil(hours):g} fills this one too"
        )
    per_day, filled = DAY // seconds, series.copy()
    for row in np.flatnonzero(missing):
        source = row - per_day if row >= per_day else row + per_day
        while source < len(filled) and np.isnan(filled[source]):
            source += per_day
        if source < len(filled):
            filled[row] = filled[source]
    notes.append(
        f"{what}: {int(missing.sum())} missing values in {len(starts)} gaps (first {grid[starts[0]]} UTC, longest "
        f"{hours:g} h) filled with those of the same times of the day before"
    )
    alone = np.isnan(filled)
    if alone.any():
        filled[alone] = np.interp(np.flatnonzero(alone), np.flatnonzero(~missing), series[~missing])
        notes.append(f"{what}: {int(alone.sum())} of them, whose time no other day has, lie between their neighbours")
    return filled


def with_step(series: Series, seconds: int, phase: int, what: str, notes: list[str]) -> Series:
    """The series at another step: energy summed or divided evenly, other values averaged or repeated.

    Args:
        phase: seconds, UTC, at which a step of the new length begins (zones with half hours).
    """
    if series.seconds == seconds:
        return series
    minutes = f"{series.seconds / 60:g} minutes"
    if series.seconds > seconds:
        if series.seconds % seconds:
            raise UserError(f"{what}: {minutes} cannot be divided into steps of {seconds / 60:g} minutes")
        parts = series.seconds // seconds
        begin = series.begin[0] + np.arange(len(series.begin) * parts) * np.timedelta64(seconds, "s")
        how = "divided evenly" if series.energy else "repeated"
        notes.append(f"{what}: rows of {minutes} {how} over steps of {seconds / 60:g} minutes")
        return Series(begin, np.repeat(series.values / (parts if series.energy else 1), parts), seconds, series.energy)
    if seconds % series.seconds:
        raise UserError(f"{what}: rows of {minutes} do not make up steps of {seconds / 60:g} minutes")
    parts = seconds // series.seconds
    first = int(-((series.begin[0].astype(np.int64) - phase) % seconds)) % seconds // series.seconds
    count = (len(series.begin) - first) // parts
    if count < 1:
        raise UserError(f"{what}: holds no whole step of {seconds / 60:g} minutes")
    table = series.values[first : first + count * parts].reshape(count, parts)
    how = "summed" if series.energy else "averaged"
    notes.append(f"{what}: {parts} rows of {minutes} {how} into each step of {seconds / 60:g} minutes")
    values = table.sum(1) if series.energy else table.mean(1)
    return Series(series.begin[first : first + count * parts : parts], values, seconds, series.energy)


def cut(series: Series, first: np.datetime64, end: np.datetime64) -> Series:
    """The rows that begin in [first, end)."""
    inside = (series.begin >= first) & (series.begin < end)
    return series._replace(begin=series.begin[inside], values=series.values[inside])


def in_other_year(series: Series, wanted: Times, shift: np.timedelta64) -> Floats | None:
    """(T,) values for other times by month, day and time of day; None where a time has no counterpart.

    29 February takes the values of the 28th where the series has none.

    Args:
        shift: standard time less UTC, by which the days are told.
    """
    own, other = _in_one_year(series.begin + shift), _in_one_year(wanted + shift)
    order = np.argsort(own, kind="stable")
    result = np.full(len(wanted), np.nan)
    for days_before in (0, 1):
        times = other - np.timedelta64(days_before * DAY, "s")
        place = np.minimum(np.searchsorted(own[order], times), len(own) - 1)
        found = (own[order][place] == times) & np.isnan(result)
        if days_before:
            found &= other.astype("datetime64[D]") == np.datetime64("2000-02-29")
        result[found] = series.values[order[place[found]]]
    return None if np.isnan(result).any() else result


def _in_one_year(times: Times) -> Times:
    """The same month, day and time in the leap year 2000."""
    month = times.astype("datetime64[M]")
    first = np.datetime64("2000-01", "M") + month.astype(np.int64) % 12
    return np.asarray(first.astype("datetime64[s]") + (times - month.astype("datetime64[s]")))
