"""What a plan expects of the hours ahead, from what is known at each row of a year.

H steps, B buildings; kWh per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.profiles import Profiles, arrival_charging, series
from iquitos_rl.cases.forecasts import HORIZON_HOURS, Kind, site_forecast, usual
from iquitos_rl.cases.site import Bools, Floats, Ints, Site


class Expected(NamedTuple):
    """Each (H, B); the first step is the present one, which is known."""

    load: Floats
    pv: Floats
    vehicles: Floats  # charging on arrival; of the present step it says nothing


Outlook = Callable[[int, int], Expected]
"""From a row of the year and a number H of steps, which end in the year, to what is expected of them in that row."""


def persistence(site: Site, profiles: Profiles) -> Outlook:
    """Expects what is usual at the hour, of load on days of the same type, scaled today as the present hour is."""
    gap = round(HORIZON_HOURS / site.hours_per_step)
    every_day = np.ones(site.rows, dtype=np.int64)
    load, pv = series(site, "load"), series(site, "pv")

    def by_row(values: Floats, day_type: Ints) -> Floats:
        return np.stack([usual(own, site.hour, day_type, gap) for own in values.T], axis=-1)

    vehicles = mean_vehicles(site, profiles)
    usual_load, usual_pv = by_row(load, site.day_type), by_row(pv, every_day)

    def outlook(row: int, count: int) -> Expected:
        rows = slice(row, row + count)
        today = np.cumsum(site.hour[rows] == 0) <= (site.hour[row] == 0)
        load_ahead, pv_ahead = (
            _scaled(expected[rows], values[row], today, expected[max(row - gap, 0) : row + 1].max(axis=0))
            for values, expected in ((load, usual_load), (pv, usual_pv))
        )
        return Expected(load_ahead, pv_ahead, vehicles[rows])

    return outlook


def _scaled(expected: Floats, now: Floats, today: Bools, most: Floats) -> Floats:
    """Expectations (H, B) with those of today raised or lowered as the present hour is, `most` being usual lately."""
    # Faint hours, such as the sun's at dawn, say nothing of the hours to come.
    known = expected[0] > 0.1 * most
    scale = np.where(known, np.clip(now / np.maximum(expected[0], 1e-9), 0, 2), 1.0)
    found = np.where(today[:, None], expected * scale, expected)
    found[0] = now
    return found


def forecasts(site: Site, profiles: Profiles) -> Outlook:
    """The site's forecasts of load and PV, see `site_forecast`."""
    return _issued(site, "site", mean_vehicles(site, profiles))


def perfect(site: Site, profiles: Profiles) -> Outlook:
    """Knows load, PV and every visit."""
    return _issued(site, "perfect", arrival_charging(site))


def mean_vehicles(site: Site, profiles: Profiles) -> Floats:
    """(T, B) what vehicles take at each hour of the mean day of training years."""
    return np.asarray(profiles.vehicles[site.hour] * site.hours_per_step)


def _issued(site: Site, kind: Kind, vehicles: Floats) -> Outlook:
    known = series(site, "load"), series(site, "pv")
    ahead = site_forecast(site, kind)[:2]

    def outlook(row: int, count: int) -> Expected:
        load, pv = (
            np.concatenate([now[row : row + 1], own[row, : count - 1]]) for now, own in zip(known, ahead, strict=True)
        )
        return Expected(load, pv, vehicles[row : row + count])

    return outlook


OUTLOOKS: dict[str, Callable[[Site, Profiles], Outlook]] = {
    "persistence": persistence,
    "forecasts": forecasts,
    "perfect": perfect,
}
"""What was seen so far; a forecast service with errors; everything."""
