"""Which rows a case has: their length, and the whole days that the files share."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.metered.grid import Series, with_step
from iquitos_rl.cases.metered.own_files import Files, Gathered, zone_of
from iquitos_rl.cases.metered.period import Period, common, days, require_days, whole_days
from iquitos_rl.errors import UserError

STEPS = (300, 600, 900, 1200, 1800, 3600)
"""Seconds of a case's row."""
SESSION_STEP = 900


def put_on_step(site: Gathered, files: Files, notes: list[str]) -> int:
    """Seconds of the case's rows; the load is put on it."""
    wanted = None if files.minutes is None else files.minutes * 60
    if wanted is not None and wanted not in STEPS:
        raise UserError(f"--minutes {files.minutes}: one of {', '.join(str(s // 60) for s in STEPS)} is wanted")
    if site.load is None:
        return wanted or SESSION_STEP
    own = site.load.seconds
    step = wanted or (own if own in STEPS else next((s for s in STEPS if s > own and s % own == 0), 3600))
    name = files.load.name if files.load else ""
    site.load = with_step(site.load, step, phase_of(site, step), name, notes)
    return step


def phase_of(site: Gathered, step: int) -> int:
    """Seconds, UTC, at which a row begins; not 0 in zones with half hours."""
    return int(-round(zone_of(site).standard_hours(np.array(["2024-01-01"], dtype="datetime64[s]")) * 3600)) % step


def shared_period(site: Gathered, files: Files, step: int, notes: list[str]) -> Period:
    """The whole days that load and PV share; those of the sessions where there is no load."""
    zone = zone_of(site)
    if site.load is None:
        notes.append("no load file: the site has no load but its vehicles")
        first, last = min(s.plug_in for s in site.sessions), max(s.plug_out for s in site.sessions)
        local = zone.local(np.array([first, last], dtype="datetime64[s]"))
        local = local.astype("datetime64[D]").astype("datetime64[s]")
        utc, _ = zone.to_utc(np.array([local[0], local[1] + np.timedelta64(86400, "s")]), np.zeros(2, bool))
        period = Period(utc[0], utc[1])
        if days(period) < 2:
            period = Period(period.first, period.first + np.timedelta64(2 * 86400, "s"))
        count = int((period.end - period.first).astype(np.int64)) // step
        begin: Times = period.first + np.arange(count) * np.timedelta64(step, "s")
        site.load = Series(begin, np.zeros(count), step, True)
        return period
    name = files.load.name if files.load else ""
    period = whole_days(site.load, zone)
    require_days(period, site.load, name)
    hours = (site.load.end - site.load.begin[0]).astype(np.int64) / 3600
    left_out = hours - float((period.end - period.first).astype(np.int64)) / 3600
    if left_out > 1:
        notes.append(f"{name}: {left_out:g} hours of incomplete days left out")
    if site.pv is not None and files.pv is not None:
        site.pv = with_step(site.pv, step, phase_of(site, step), files.pv.name, notes)
        shared = common([period, whole_days(site.pv, zone)])
        if days(shared) >= 2:
            if days(shared) < days(period):
                notes.append(
                    f"{files.pv.name}: shares {days(shared)} of the {days(period)} days of {name}, the others are "
                    "left out"
                )
            period = shared
    count = days(period)
    if count < 365:
        notes.append(f"{name}: {count} days, the case is shorter than a year")
    return period
