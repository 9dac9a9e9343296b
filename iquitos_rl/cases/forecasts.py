"""What a site expects of its next 48 hours: load and PV with errors that grow with the lead, prices as published.

Forecasts of one target row change from hour to hour as a martingale (Heath and Jackson 1994, martingale model of
forecast evolution): what each hour brings is new, and the last forecast is the truth. So a forecast is not drawn anew
each hour: two that overlap agree as far as what was known at both times goes, and an error in one hour of the future is
an error in its neighbours too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from iquitos_rl.cases.site import Bools, Floats, Ints, Site
from iquitos_rl.errors import UserError

Table = NDArray[np.float32]
Kind = Literal["perfect", "site", "usual"]
"""Everything known; the stated skill; nothing but what is usual at this hour."""

HORIZON_HOURS = 48
SHORTEST_HOURS = 0.25
HISTORY = {"workday": 10, "other": 4}
"""Days that the usual value averages over, in effect: of workdays (and of all days of PV), of one other day type."""
SMOOTH = 0.9
"""Correlation of what one hour brings about two targets an hour apart."""


class Skill(NamedTuple):
    """Share of the variance about the usual value that a forecast explains, by lead; linear between."""

    hours: tuple[float, ...]
    share: tuple[float, ...]

    def at(self, hours: Floats) -> Floats:
        """(L,) shares at these leads."""
        return np.asarray(np.interp(hours, (0.0, *self.hours), (1.0, *self.share)), dtype=np.float64)


LOAD_SKILL = Skill((1, 3, 6, 12, 24, 48), (0.82, 0.57, 0.38, 0.32, 0.28, 0.15))
"""A regression of a synthetic year's load on its own past explains about 0.8, 0.5, 0.35, 0.3, 0.25 and 0.1, and one of
the metered load somewhat less (`benchmarks/years.py`). Weather and calendar are worth somewhat more."""
PV_SKILL = Skill((1, 3, 6, 12, 24, 48), (0.65, 0.45, 0.35, 0.30, 0.25, 0.18))
"""Assumed. Clouds of the tropics are hard to foresee: the best of the day-ahead forecasts that Verbois et al. (2018,
Solar Energy 162) made for Singapore has an error 23 % below smart persistence and somewhat below climatology."""


class SiteForecast(NamedTuple):
    """Forecasts of a site's rows. [t, k] was issued in row t, whose own values are known, for row t + 1 + k.

    Past the last row the year repeats. T rows, L leads, B buildings.
    """

    load: Table
    """(T, L, B) kWh per row."""
    pv: Table
    """(T, L, B) kWh per row."""
    price: Table
    """(T, L, B) currency per kWh: the tariff is published."""


def site_forecast(site: Site, kind: Kind = "site", horizon_hours: int = HORIZON_HOURS) -> SiteForecast:
    """All forecasts of a site. Equal data give equal forecasts, so whoever asks sees the same ones.

    Args:
        kind: how much is known.
        horizon_hours: the longest lead.

    Raises:
        UserError: the rows are shorter than a quarter of an hour, for which the tables would be too large.
    """
    if site.hours_per_step < SHORTEST_HOURS:
        raise UserError(f"{site.path}: forecasts are made for rows of at least {60 * SHORTEST_HOURS:.0f} minutes")
    leads = np.arange(1, round(horizon_hours / site.hours_per_step) + 1)
    every_day = np.ones(site.rows, dtype=np.int64)
    load: list[Floats] = []
    pv: list[Floats] = []
    price: list[Floats] = []
    for building in site.buildings:
        for values, skill, day_type, out in (
            (building.load, LOAD_SKILL, site.day_type, load),
            (building.pv, PV_SKILL, every_day, pv),
        ):
            out.append(forecast(values, site.hour, day_type, explained(skill, leads * site.hours_per_step, kind)))
        price.append(building.price[_targets(site.rows, leads)])
    load_ahead, pv_ahead, price_ahead = (np.stack(own, axis=-1).astype(np.float32) for own in (load, pv, price))
    return SiteForecast(load_ahead, pv_ahead, price_ahead)


def explained(skill: Skill, lead_hours: Floats, kind: Kind) -> Floats:
    """(L,) share of the variance that a forecast of some kind explains at these leads."""
    if kind == "site":
        return skill.at(lead_hours)
    return np.full(len(lead_hours), 1.0 if kind == "perfect" else 0.0)


def forecast(values: Floats, hour: Ints, day_type: Ints, share: Floats) -> Floats:
    """(T, L) forecasts of a series: [t, k] is issued in row t for row t + 1 + k, and never outside the series' range.

    Args:
        values: (T,) what comes to pass.
        hour: (T,) 0 to 23.
        day_type: (T,) as `Site.day_type`; all equal where it does not matter.
        share: (L,) share of the variance about the usual value that is explained, not growing with the lead.
    """
    rows, leads = len(values), np.arange(1, len(share) + 1)
    expected = usual(values, hour, day_type, len(share))
    departure = values - expected
    spread = np.sqrt(np.bincount(hour, departure**2, minlength=24) / np.maximum(np.bincount(hour, minlength=24), 1))
    seed = int.from_bytes(hashlib.sha256(values.astype(np.float64).tobytes()).digest()[:8], "little")
    error = error_paths(rows, share, np.random.default_rng(seed)) if np.any((share > 0) & (share < 1)) else 0.0
    by_target = expected[:, None] + share * departure[:, None] + spread[hour][:, None] * error
    by_target = np.clip(by_target, values.min(), values.max())
    return np.asarray(by_target[_targets(rows, leads), leads - 1], dtype=np.float64)


def error_paths(rows: int, share: Floats, rng: np.random.Generator) -> Floats:
    """(T, L) errors of unit series by target row: [s, k] is that of the forecast made k + 1 rows before s.

    Each target has a Brownian bridge over the explained share q, with variance q (1 - q), pinned to zero at q = 1. With
    departure a of unit variance, q a + error then has mean squared error 1 - q, and its changes are news: they are
    uncorrelated with it. What an hour brings about all its targets is one path, with correlation `SMOOTH`. What is
    known at the longest lead was learned, hour by hour, over as long a time before.
    """
    steps = 2 * len(share)
    news = rng.standard_normal((rows + steps, steps + 1))
    news[:, 1:] *= np.sqrt(1 - SMOOTH**2)
    news = np.asarray(lfilter([1.0], [1.0, -SMOOTH], news, axis=1))
    q = np.concatenate([[1.0], share, np.linspace(share[-1], 0, len(share), endpoint=False)])
    weight = np.sqrt(np.maximum(q - np.append(q[1:], 0.0), 0.0))
    lead = np.arange(steps + 1)
    issued = np.arange(rows)[:, None] - lead + steps
    brought = news[issued, lead] * weight
    walk = np.cumsum(brought[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((walk - q * walk[:, :1])[:, 1 : len(share) + 1], dtype=np.float64)


def usual(values: Floats, hour: Ints, day_type: Ints, gap: int) -> Floats:
    """(T,) average of the same hour on days of the same type that lie at least `gap` rows back, recent ones first.

    Days are workdays, Saturdays, and Sundays with holidays. A row without such a day before it has the mean of its hour
    and type over the whole series instead, which holds for the first days of a year.
    """
    found = np.empty(len(values))
    for chosen, days in _classes(day_type):
        for h in range(24):
            rows = np.flatnonzero(chosen & (hour == h))
            if not len(rows):
                continue
            seen, keep = values[rows], 1 - 1 / days
            weight = 1 - keep ** np.arange(1, len(rows) + 1)
            average = lfilter([1 - keep], [1.0, -keep], seen) / weight
            last = np.searchsorted(rows, rows - gap, side="right") - 1
            found[rows] = np.where(last < 0, seen.mean(), average[np.maximum(last, 0)])
    return found


def _classes(day_type: Ints) -> Sequence[tuple[Bools, int]]:
    workday, saturday = day_type <= 5, day_type == 6
    other = HISTORY["other"]
    return (workday, HISTORY["workday"]), (saturday, other), (~workday & ~saturday, other)


def _targets(rows: int, leads: Ints) -> Ints:
    """(T, L) the row that each issue row's forecast at each lead is for; the year repeats."""
    return np.asarray((np.arange(rows)[:, None] + leads) % rows, dtype=np.int64)
