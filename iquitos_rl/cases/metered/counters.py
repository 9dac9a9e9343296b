"""Counters: registers that rise for years, and counters that start again every day, as energy per interval."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

REGISTER_NAME = re.compile(
    r"total|register|stand(?![a-z])|cumul|kumul|acum|lifetime|reading|index|lectura|odometer|zähler|zaehler|1\.8\.|2\.8\.|meterstand",
    re.I,
)
DAILY_NAME = re.compile(r"today|daily|tages|(?<![a-z])day(?![a-z])|heute|diari|journali|(?<![a-z])dag", re.I)
FEWEST = 24
DAY = 86400


def kind_of(values: Floats, local: Times, title: str, what: str) -> str:
    """Whether energy values are of an "interval", of a rising "register" or of a counter that starts again "daily".

    Args:
        values: (N,) NaN where missing.
        local: (N,) wall time of each.

    Raises:
        UserError: they rise as a counter does, but are not named one and may be none: the question.
    """
    there = ~np.isnan(values)
    if there.sum() < FEWEST:
        return "interval"
    clean, times = without_dropouts(values)[there], local[there]
    clean, times = clean[~np.isnan(clean)], times[~np.isnan(clean)]
    steps = np.diff(clean)
    falls = np.flatnonzero(steps < 0)
    usual = float(np.quantile(steps[steps > 0], 0.95)) if (steps > 0).any() else 0.0
    named = bool(REGISTER_NAME.search(title))
    if _is_daily(clean, usual, falls, times):
        if not DAILY_NAME.search(title):
            raise UserError(
                f"{what}: {title} rises all day and begins again each day; say --quantity daily (a counter of the day) "
                "or --quantity interval (energy of each interval)"
            )
        return "daily"
    allowed = max(2 if named else 0, 0.001 * len(steps))
    if float((steps > 0).mean()) < 0.05 or len(falls) > allowed:
        return "interval"
    if not named and clean[0] < 24 * usual:
        raise UserError(
            f"{what}: {title} rises from row to row; say --quantity register (a meter's register) or --quantity "
            "interval (energy of each interval)"
        )
    return "register"


def without_dropouts(values: Floats) -> Floats:
    """A register with NaN for the zeros after which it goes on where it was, which are no readings."""
    positive = pd.Series(np.where(values > 0, values, np.nan))
    before, after = positive.ffill().to_numpy(), positive.bfill().to_numpy()
    return np.where((values == 0) & (after >= before), np.nan, values)


def _is_daily(values: Floats, usual: float, falls: Ints, times: Times) -> bool:
    days = len(np.unique(times.astype("datetime64[D]")))
    if days < 2 or not days - 2 <= len(falls) <= days + 1 or len(falls) == 0:
        return False
    of_day = (times[falls + 1] - times[falls + 1].astype("datetime64[D]")).astype(np.int64)
    near_midnight = (of_day <= 2 * 3600) | (of_day >= 22 * 3600)
    small = values[falls + 1] <= np.maximum(2 * usual, 0.05 * values[falls])
    return bool(near_midnight.mean() > 0.8 and small.mean() > 0.8)


def evenly(instants: Times, values: Floats, seconds: int, what: str, notes: list[str]) -> tuple[Times, Floats]:
    """A register that was read at any time, at even times: between two readings it rises evenly."""
    clean = without_dropouts(values)
    there = ~np.isnan(clean)
    at = instants[there].astype(np.int64)
    grid = np.arange(-(-at[0] // seconds) * seconds, at[-1] + 1, seconds)
    notes.append(f"{what}: read at any time, taken every {seconds / 60:g} minutes between readings")
    return grid.astype("datetime64[s]"), np.interp(grid, at, clean[there])


def register_energy(instants: Times, values: Floats, seconds: int, what: str, notes: list[str]) -> tuple[Times, Floats]:
    """(begin, energy) of every interval between the first and the last reading of a register.

    What was consumed while readings are missing is spread evenly over them. A register that falls began again at zero,
    or at the end of its digits; where neither can be, and where it jumps, the meter was changed and the energy is
    unknown (NaN).

    Args:
        instants: (N,) when it was read, UTC, ascending.
        values: (N,) NaN where missing.
    """
    clean = without_dropouts(values)
    dropped = int((np.isnan(clean) & ~np.isnan(values)).sum())
    if dropped:
        notes.append(f"{what}: {dropped} readings of zero between others left out")
    there = ~np.isnan(clean)
    read, at = clean[there], instants[there]
    count = np.diff(at).astype(np.int64) // seconds
    used = np.diff(read)
    usual = np.quantile((used / count)[used > 0], 0.95) if (used > 0).any() else 0.0
    for row in np.flatnonzero(used < 0):
        digits = 10.0 ** np.ceil(np.log10(max(read[row], 1.0)))
        wrapped = used[row] + digits
        if wrapped <= 5 * usual * count[row]:
            notes.append(f"{what}: passed {digits:,.0f} at {at[row + 1]} UTC")
            used[row] = wrapped
        elif read[row + 1] <= 5 * usual * count[row]:
            notes.append(f"{what}: began again at zero at {at[row + 1]} UTC")
            used[row] = read[row + 1]
        else:
            notes.append(f"{what}: falls from {read[row]:g} to {read[row + 1]:g} at {at[row + 1]} UTC, a new meter")
            used[row] = np.nan
    for row in np.flatnonzero(used > 20 * usual * count):
        notes.append(
            f"{what}: jumps from {read[row]:g} to {read[row + 1]:g} at {at[row + 1]} UTC, taken for a new meter"
        )
        used[row] = np.nan
    if (count > 1).any():
        notes.append(f"{what}: {int((count - 1).sum())} missing readings, the energy spread evenly over them")
    begin = at[0] + np.arange(int(count.sum())) * np.timedelta64(seconds, "s")
    return begin, np.repeat(used / count, count)


def daily_energy(
    instants: Times, local: Times, values: Floats, seconds: int, what: str, notes: list[str]
) -> tuple[Times, Floats]:
    """(begin, energy) of every interval of a counter that starts again every day.

    A counter of zero at midnight was read then: the last interval of the day before is unknown, and taken as the mean
    of its neighbours. One that holds energy at midnight counts to the end of the row's interval.
    """
    there = ~np.isnan(values)
    read, at, clock = values[there], instants[there], local[there]
    used = np.diff(read)
    falls = np.flatnonzero(used < 0)
    of_day = (clock[falls + 1] - clock[falls + 1].astype("datetime64[D]")).astype(np.int64)
    at_midnight = bool(len(falls)) and float((of_day < seconds).mean()) > 0.5
    counts_to_end = at_midnight and float(np.median(read[falls + 1])) > 0
    used[falls] = read[falls + 1]
    step = np.timedelta64(seconds, "s")
    if counts_to_end:
        notes.append(f"{what}: a row's count includes its own interval, from its time on")
        return at, np.append(read[0], used)
    if at_midnight:
        energy = used.copy()
        neighbours = np.pad(used, 1, mode="edge")
        energy[falls] = (neighbours[falls] + neighbours[falls + 2]) / 2
        if np.abs(energy[falls]).max() > 1e-9:
            notes.append(f"{what}: reads zero at midnight; the last interval of a day is the mean of its neighbours")
        used = energy
    begin = at[:-1]
    used = np.where(np.diff(at) == step, used, np.nan)
    return begin, used
