"""When the intervals of a file's rows begin, in UTC.

The interval and whether stamps are begins or ends are decided on the clock that wrote the file; then that clock becomes
UTC, with its hours that are missing in spring and come twice in autumn.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.time_columns import TimeColumns
from iquitos_rl.cases.metered.zone import Change, Zone, fixed_zone, repeated, zone_that_changes
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

INTERVALS = (1, 2, 5, 10, 15, 20, 30, *(60 * m for m in (1, 2, 3, 5, 6, 10, 12, 15, 20, 30, 60)))
"""Seconds."""
UNEVEN = 900
"""Seconds of the intervals that a register read at any time is put on."""
JITTER = 120  # seconds; at most a fifth of the interval
ZONE_QUESTION = "say where its clock is with --zone Europe/Berlin (or UTC, America/New_York, ...)"


class Intervals(NamedTuple):
    begin: Times
    """(N,) datetime64[s], UTC, ascending."""
    seconds: int
    """Length of an interval."""
    order: Ints
    """(N,) row of the table that each belongs to."""
    zone: Zone
    """The site's zone; where only the file shows that its clock is changed, the one that fits it."""
    instants: Times
    """(N,) datetime64[s], UTC, the stamps themselves: when a register was read."""
    doubt: str = ""
    """The question whether stamps are begins or ends, where nothing tells, or what is wrong with the rows' distance;
    registers need no answer."""
    uneven: bool = False
    """Whether rows lie at any distance, as a register's readings may."""


def intervals(
    time: TimeColumns, name: str, lines: Ints, zone: Zone | None, reading: Reading, notes: list[str]
) -> Intervals:
    """Begin of every row's interval.

    Args:
        zone: the site's time zone; None where nobody has said it.

    Raises:
        UserError: times repeat, go back or lie off the interval, with the line; or the question that only the owner
            can answer: the zone, begin or end, with or without daylight saving.
    """
    order = np.arange(len(time.wall))
    if _newest_first(time.wall):
        order = order[::-1]
        notes.append(f"{name}: newest row first, turned round")
    wall, offset = time.wall[order], time.offset[order]
    aware = ~np.isnan(offset)
    if aware.any() and not aware.all():
        row = int(np.argmax(~aware))
        raise UserError(f"{name}, line {lines[order[row]]}: no UTC offset, other rows have one")
    if zone is None:
        zone = _zone_of_offsets(name, offset, time.counted, notes)
    elif not aware.any() and reading.clock is None and not zone.changes(wall.min(), wall.max()):
        zone = _zone_of_repeats(name, wall, zone, notes)
    clocks = [wall, zone.local(_utc(wall, offset))] if aware.any() else [wall]
    uneven = ""
    try:
        seconds, moved, phase = _interval(clocks, name, lines[order], offset, notes)
    except UserError as error:
        uneven, seconds = str(error), UNEVEN
    else:
        wall = wall + moved
    instants = _utc(wall, offset)
    local = zone.local(instants) if aware.any() else wall
    label, doubt = ("start", uneven) if uneven else _label(time, wall, local, seconds, phase, name, reading, notes)
    ahead = np.timedelta64(seconds if label == "end" else 0, "s")
    if aware.any():
        begin = instants - ahead
        _note_offsets(name, offset, time.counted, zone, notes)
    elif time.midnight is not None:
        midnight = time.midnight[order]
        begin = instants = zone.to_utc(midnight, np.zeros(len(wall), bool))[0] + (wall - midnight)
    else:
        instants, begin = _from_wall(wall, ahead, seconds, zone, name, reading, notes)
    steps = np.diff(begin).astype(np.int64)
    for row in np.flatnonzero(steps < 0 if uneven else steps <= 0)[:1]:
        what = "repeats the row before" if steps[row] == 0 else "is earlier than the row before"
        raise UserError(f"{name}, line {lines[order][row + 1]}: its time {what}")
    return Intervals(begin, seconds, order, zone, instants, doubt, bool(uneven))


def _utc(wall: Times, offset: Floats) -> Times:
    return np.asarray(wall - np.round(np.nan_to_num(offset) * 3600).astype("timedelta64[s]"))


def _newest_first(wall: Times) -> bool:
    steps = np.sign(np.diff(wall).astype(np.int64))
    return bool((steps < 0).sum() > 0.9 * max(1, np.count_nonzero(steps)))


def _zone_of_offsets(name: str, offset: Floats, counted: bool, notes: list[str]) -> Zone:
    """The zone of a site of which only this file tells: one offset that is not UTC."""
    found = np.unique(offset[~np.isnan(offset)])
    if len(found) == 1 and found[0] != 0 and not counted:
        notes.append(f"{name}: the site's clock is taken to be UTC{found[0]:+g} all year; --zone changes that")
        return fixed_zone(float(found[0]))
    raise UserError(f"{name}: nothing tells the site's time zone; {ZONE_QUESTION}")


def _zone_of_repeats(name: str, wall: Times, zone: Zone, notes: list[str]) -> Zone:
    """The zone, or a usual one with daylight saving if the file's clock goes back where that one's does."""
    found = zone_that_changes(wall, zone.standard_hours(wall[:1]))
    if found is None:
        return zone
    notes.append(f"{name}: its clock is changed in spring or autumn; read as {found.name}, --zone names another zone")
    return found


def _interval(
    clocks: list[Times], name: str, lines: Ints, offset: Floats, notes: list[str]
) -> tuple[int, NDArray[np.timedelta64], int]:
    """Seconds of an interval, what moves the stamps to full intervals, and how far they lie inside of them.

    Args:
        clocks: the times on the clock that wrote the file, and on that of the site, which may differ by half an hour.
    """
    steps = np.abs(np.diff(_utc(clocks[0], offset)).astype(np.int64))
    steps = steps[steps > 0]
    if len(steps) == 0:
        raise UserError(f"{name}: all rows have the same time")
    usual = float(np.median(steps))
    seconds = min(INTERVALS, key=lambda each: abs(each - usual))
    if abs(seconds - usual) > max(1.0, 0.05 * seconds):
        raise UserError(f"{name}: rows are {usual / 60:g} minutes apart; an hour must hold a whole number of them")
    tolerance = min(JITTER, seconds // 5)
    choices = [clock.astype(np.int64) % seconds for clock in clocks]
    on_grid = [each for each in choices if np.minimum(each, seconds - each).max() <= tolerance]
    behind = on_grid[0] if on_grid else choices[0]
    phase = 0 if on_grid else int(np.median(behind))
    away = (behind - phase + seconds // 2) % seconds - seconds // 2
    for row in np.flatnonzero(np.abs(away) > tolerance)[:1]:
        raise UserError(f"{name}, line {lines[row]}: its time is off the {seconds / 60:g} minute interval")
    if away.any():
        notes.append(f"{name}: times moved to the full interval, by {np.abs(away).max()} seconds at most")
    if phase:
        notes.append(f"{name}: times lie {phase / 60:g} minutes inside their interval of {seconds / 60:g} minutes")
    return seconds, -(away + phase).astype("timedelta64[s]"), phase


def _label(
    time: TimeColumns,
    wall: Times,
    local: Times,
    seconds: int,
    phase: int,
    name: str,
    reading: Reading,
    notes: list[str],
) -> tuple[str, str]:
    """Whether stamps are the "start" or "end" of an interval, as the owner or the file says or by whole days; and the
    question, where nothing tells."""
    span = f"{name}: {len(wall):,} rows of {seconds / 60:g} minutes from {wall[0]} to {wall[-1]}, "
    if phase:
        notes.append(span + "each inside its interval")
        return "start", ""
    if reading.stamps or time.label:
        label = reading.stamps or time.label or ""
        notes.append(span + f"stamped at the {label} of the interval{'' if reading.stamps else ', as the columns say'}")
        return label, ""
    own, of_site = _side(wall, seconds), _side(local, seconds)
    label = own or of_site
    if not label and np.isnan(time.offset).all() and wall[0] == wall[0].astype("datetime64[D]"):
        label = "start"  # it begins at midnight, and ends in the middle of a day
    if not label or (time.counted and own and of_site and own != of_site):
        question = (
            "do not tell whether a time is the start or the end of its interval; say --stamps start or --stamps end"
        )
        return "start", f"{name}: rows of {seconds / 60:g} minutes from {wall[0]} to {wall[-1]} {question}"
    notes.append(span + f"stamped at the {label} of the interval, for whole days")
    if of_site not in ("", label):
        notes.append(f"{name}: these are whole days of the stamps' own clock; --stamps {of_site} says otherwise")
    return label, ""


def _side(clock: Times, seconds: int) -> str:
    """What the first and the last row say together: a day's first stamp is midnight, or an interval after it."""
    first, last = (clock[[0, -1]] - clock[[0, -1]].astype("datetime64[D]")).astype(np.int64)
    if first == 0 and last == 86400 - seconds:
        return "start"
    return "end" if first == seconds and last == 0 else ""


def _note_offsets(name: str, offset: Floats, counted: bool, zone: Zone, notes: list[str]) -> None:
    found = ", ".join(f"UTC{hours:+g}" for hours in np.unique(offset))
    if not counted:
        notes.append(f"{name}: stamps state {found}, turned into local time ({zone.name})")


def _from_wall(
    wall: Times, ahead: np.timedelta64, seconds: int, zone: Zone, name: str, reading: Reading, notes: list[str]
) -> tuple[Times, Times]:
    """(instants, begins) in UTC of stamps without an offset."""
    if reading.clock == "utc":
        return wall, wall - ahead
    changes = zone.changes(wall.min(), wall.max())
    daylight = reading.clock != "standard"
    if changes and reading.clock is None:
        daylight = _follows_daylight(wall, changes, seconds, ahead, zone, name, notes)
    if not daylight:
        shift = np.timedelta64(round(3600 * zone.standard_hours(wall[:1])), "s")
        return wall - shift, wall - shift - ahead
    # An end is written as the clock shows it then, or as the begin plus the interval.
    tries: list[tuple[int, int, Times, Times]] = []
    for moved in [ahead, np.timedelta64(0, "s")] if ahead else [ahead]:
        shown = wall - ahead + moved
        second, _ = repeated(shown, zone.changes(shown.min(), shown.max()))
        utc, absent = zone.to_utc(shown, second)
        begin = utc - moved
        uneven = int((np.diff(begin).astype(np.int64) != seconds).sum())
        tries.append((uneven + int(absent.sum()), len(tries), utc + (ahead - moved), begin))
    _, _, instants, begin = min(tries, key=lambda each: each[:2])
    if changes:
        notes.append(f"{name}: the clock follows the daylight saving of {zone.name}")
    return instants, begin


def _follows_daylight(
    wall: Times, changes: list[Change], seconds: int, ahead: np.timedelta64, zone: Zone, name: str, notes: list[str]
) -> bool:
    """Whether the file's clock is changed in spring and autumn as its zone's is: told by hours missing or twice."""
    begin = wall - ahead
    day, hour = np.timedelta64(86400, "s"), np.timedelta64(3600, "s")
    yes: list[Change] = []
    no: list[Change] = []
    unknown: list[Change] = []
    for change in changes:
        around = (wall > change.first - day) & (wall < change.last + day)
        if not around.any() or wall[0] > change.first - hour or wall[-1] < change.last:
            continue  # the file does not reach over it
        if change.spring:
            inside = [((shown >= change.first) & (shown < change.last)).any() for shown in (wall, begin)]
            (no if all(inside) else yes).append(change)
        else:
            counts = [repeated(shown, [change])[1][0] for shown in (wall, begin)]
            (yes if max(counts) else unknown).append(change)
    if yes and no:
        raise UserError(
            f"{name}: the clock is changed on {str(yes[0].first)[:10]} but not on {str(no[0].first)[:10]}; say --clock "
            "daylight or --clock standard"
        )
    if unknown and not yes and not no:
        at = unknown[0]
        raise UserError(
            f"{name}: {str(at.first).replace('T', ' ')} comes once on the day when {zone.name} puts the clock back; "
            "say --clock standard (no daylight saving) or --clock daylight (an hour is missing)"
        )
    if no:
        notes.append(f"{name}: the clock shows standard time all year, without daylight saving")
    return not no
