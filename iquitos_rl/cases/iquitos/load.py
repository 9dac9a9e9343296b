"""Demand of the mall in a synthetic year.

A year is one draw: its level and trend, warm and slack weeks, days, hours and events are random. Each is independent of
the calendar and has mean zero, so the documented month sums and mean day hold for the mean over many years.

Weekdays and holidays are medians and means of the metered hours of 2024; spreads, correlations and tails were set by
hand to match that year (`benchmarks/years.py`). It says nothing about the spread of years: level and trend are assumed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.signal import lfilter

from iquitos_rl.cases.iquitos.calendar import YEARS, Calendar, calendar_year
from iquitos_rl.cases.iquitos.events import Events
from iquitos_rl.cases.iquitos.noise import ar1, daily_ar1, stream
from iquitos_rl.cases.iquitos.presets import LoadSettings
from iquitos_rl.cases.site import Bools, Floats, Ints

WEEK = {
    "Monday to Thursday": (
        *(1.00, 1.00, 1.00, 1.00, 1.00, 1.00, 1.03, 1.04, 1.04, 1.01, 0.99, 0.99),
        *(1.00, 1.00, 0.99, 1.00, 1.00, 0.99, 0.99, 0.99, 0.99, 0.98, 0.97, 0.99),
    ),
    "Friday": (
        *(0.99, 1.00, 1.00, 0.99, 1.00, 1.00, 1.01, 1.04, 1.03, 1.01, 1.01, 1.01),
        *(1.00, 1.00, 1.01, 1.01, 1.01, 1.01, 1.01, 1.01, 1.02, 1.05, 1.07, 1.00),
    ),
    "Saturday": (
        *(1.01, 1.01, 1.00, 0.99, 0.99, 0.99, 0.97, 1.00, 1.03, 1.00, 1.01, 1.01),
        *(1.01, 1.01, 1.01, 1.01, 1.02, 1.02, 1.01, 1.01, 1.01, 1.03, 1.06, 1.04),
    ),
    "Sunday": (
        *(1.00, 1.00, 0.99, 1.00, 1.00, 0.99, 0.89, 0.83, 0.80, 0.95, 1.00, 1.00),
        *(1.01, 1.00, 1.00, 0.98, 0.98, 0.99, 1.00, 1.00, 1.00, 1.00, 1.00, 1.00),
    ),
}
"""Load by hour as a multiple of the week's mean."""
CLOSED = ((1, 1), (12, 25))
"""Month and day on which the mall is shut."""
SHUT, SHUT_MORNING, HOLIDAY, HOLIDAY_MORNING, SHOPPING, VACATION = 0.46, 0.71, 1.06, 0.96, 1.11, 1.02
"""Load as a multiple of a usual day's: on closed days from 10 h and from 6 h, on other holidays the same, on the days
before Christmas and before the national holidays of July, and in the hours of school vacations; the last is assumed."""

DAY_CORRELATION, DAY_FREEDOM = 0.75, 8.0
HOUR_CORRELATION, HOUR_FREEDOM = 0.8, 4.0
RESTLESS = 0.4
"""Spread of the logarithm of how much a day's hours vary."""
SLOW_CORRELATION, SLOW_STD = 0.97, 0.01
"""Of days: comings and goings of tenants over a month or so."""
SHAPE_CORRELATION, SHAPE_SHARE = 0.9, 0.7
"""How long a part of the day keeps a departure of its own, from day to day, and its share of the hours' variance."""
WARM_UP = 0.8
"""Share of the building's warmth that is left after an hour."""
LIMIT = 0.16
"""Departures level off here between 10 and 22 h, later at hours that spread more: machines at full load take
no more."""
FLOOR = 0.25
"""Least share of the usual load: what never stops."""
PARTS = ((22, 6), (6, 10), (10, 17), (17, 22))
"""First hour and end of the parts of a day that have one."""
HOUR_SPREAD = np.array([*(2.2,) * 6, 1.9, 1.3, 1.55, 1.55, *(1.0,) * 12, 2.0, 2.6])
"""Spread of the hours about their day, as a multiple of that between 10 and 22 h."""


class Load(NamedTuple):
    kwh: Floats
    """(T,) per hour."""
    activity: Floats
    """(days,) how much busier than usual the mall is, share; 0 in the mean."""


def synthetic_load(calendar: Calendar, settings: LoadSettings, warmth: Floats, events: Events, year_seed: int) -> Load:
    """A random year on one of the calendars of `calendar_year`.

    The 28 metered hours of zero are outages of the grid and are not reproduced. The metered year has 29 days in
    February and 30 in December; its energy in these months is spread over 28 and 31.

    Args:
        warmth: (T,) K above the usual temperature.
    """
    level, trend = stream(year_seed, "level").standard_normal(2)
    growth = np.linspace(-0.5, 0.5, calendar.rows)
    year = 1 + settings.level_std * level + settings.trend_std * trend * growth
    warm = settings.per_kelvin * np.asarray(lfilter([1 - WARM_UP], [1.0, -WARM_UP], warmth))
    limit = LIMIT * HOUR_SPREAD[calendar.hour] ** 1.5
    departure = limit * np.tanh((random_departure(calendar, settings, year_seed) + warm) / limit) + events.load
    busy = calendar_factor(calendar) / _expected_factor()[_cell(calendar)] * np.maximum(1 + departure, FLOOR)
    kwh = expected_load(calendar, settings) * year * busy + new_tenant(calendar, settings)
    return Load(np.asarray(kwh, dtype=np.float64), np.bincount(calendar.day, busy) / np.bincount(calendar.day) - 1)


def expected_load(calendar: Calendar, settings: LoadSettings) -> Floats:
    """(T,) kWh of the mean year by month and hour: months and hours are independent."""
    months, shape = np.array(settings.monthly_mwh), np.array(settings.hourly_kw)
    days = np.bincount(calendar.month - 1, minlength=12) / 24
    by_month = months / months.sum() * settings.annual_kwh / np.maximum(days, 1)
    return np.asarray(by_month[calendar.month - 1] * (shape / shape.sum())[calendar.hour], dtype=np.float64)


def calendar_factor(calendar: Calendar) -> Floats:
    """(T,) load as a multiple of that of a mean day, for weekdays, holidays, shopping days and school vacations."""
    weekday, hour = calendar.weekday, calendar.hour
    factor = np.array([*WEEK.values()])[np.maximum(weekday - 4, 0), hour]
    date = calendar.begin.astype("datetime64[D]")
    open_hours, morning = (hour >= 10) & (hour < 22), (hour >= 6) & (hour < 10)
    holiday = np.zeros(calendar.rows, bool) if calendar.holiday is None else calendar.holiday
    shut = np.zeros(calendar.rows, bool)
    for month, day in CLOSED:
        shut |= date == _date(calendar, month, day)
    factor = factor * np.where(shut & open_hours, SHUT, 1) * np.where(shut & morning, SHUT_MORNING, 1)
    free = holiday & ~shut
    factor = factor * np.where(free & open_hours, HOLIDAY, 1) * np.where(free & morning, HOLIDAY_MORNING, 1)
    shopping = _between(calendar, (12, 19), (12, 24)) | _between(calendar, (7, 24), (7, 27))
    factor = factor * np.where(shopping & open_hours & ~holiday, SHOPPING, 1)
    vacation = school_vacation(calendar) & (weekday <= 5) & ~holiday & open_hours
    return np.asarray(factor * np.where(vacation, VACATION, 1), dtype=np.float64)


def school_vacation(calendar: Calendar) -> Bools:
    """(T,) days off school in Peru: from Christmas to the second Monday of March, and two weeks about 28 July."""
    start, middle = (_monday_from(_date(calendar, *first)) for first in ((3, 8), (7, 22)))
    date = calendar.begin.astype("datetime64[D]")
    summer = (date < start) | (date >= _date(calendar, 12, 21))
    return np.asarray(summer | ((date >= middle) & (date < middle + 14)), dtype=np.bool_)


def random_departure(calendar: Calendar, settings: LoadSettings, year_seed: int) -> Floats:
    """(T,) departure from the usual load, share: slow ones, days, parts of days, hours."""
    days = daily_ar1(calendar, stream(year_seed, "load of days"), DAY_CORRELATION, DAY_FREEDOM)
    slow = daily_ar1(calendar, stream(year_seed, "load of months"), SLOW_CORRELATION)
    rng, hour = stream(year_seed, "load of hours"), calendar.hour
    spread = settings.hourly_std * HOUR_SPREAD[hour]
    restless = np.exp(RESTLESS * daily_ar1(calendar, rng, 0.0) - RESTLESS**2)
    hours = restless * ar1(rng, calendar.rows, HOUR_CORRELATION, HOUR_FREEDOM)
    shape = np.zeros(calendar.rows)
    for first, end in PARTS:
        inside = (hour - first) % 24 < (end - first) % 24
        shape += inside * daily_ar1(calendar, rng, SHAPE_CORRELATION)
    of_hours = spread * (np.sqrt(1 - SHAPE_SHARE) * hours + np.sqrt(SHAPE_SHARE) * shape)
    return np.asarray(settings.daily_std * days + SLOW_STD * slow + of_hours, dtype=np.float64)


def new_tenant(calendar: Calendar, settings: LoadSettings) -> Floats:
    """(T,) kWh of a tenant that moves in on the first of April: all of it from 10 to 22 h, 40 % at other hours."""
    open_hours = (calendar.hour >= 10) & (calendar.hour < 22)
    return np.asarray(settings.tenant_kw * (calendar.month >= 4) * np.where(open_hours, 1.0, 0.4), dtype=np.float64)


@lru_cache(maxsize=1)
def _expected_factor() -> Floats:
    """(288,) mean of `calendar_factor` over all calendars, by month and hour."""
    total, count = np.zeros(288), np.zeros(288)
    for calendar in map(calendar_year, YEARS):
        total += np.bincount(_cell(calendar), calendar_factor(calendar), minlength=288)
        count += np.bincount(_cell(calendar), minlength=288)
    return np.asarray(total / count, dtype=np.float64)


def _cell(calendar: Calendar) -> Ints:
    """(T,) month and hour as one number below 288."""
    return (calendar.month - 1) * 24 + calendar.hour


def _date(calendar: Calendar, month: int, day: int) -> np.datetime64:
    return np.datetime64(f"{calendar.begin[0].astype('datetime64[Y]')}-{month:02}-{day:02}", "D")


def _between(calendar: Calendar, first: tuple[int, int], last: tuple[int, int]) -> Bools:
    """(T,) rows from one day of the year to another, both included."""
    date = calendar.begin.astype("datetime64[D]")
    return np.asarray((date >= _date(calendar, *first)) & (date <= _date(calendar, *last)), dtype=np.bool_)


def _monday_from(date: np.datetime64) -> np.datetime64:
    """The first Monday not before a date."""
    return np.busday_offset(date, 0, roll="forward", weekmask="Mon")
