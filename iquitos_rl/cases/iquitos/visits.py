"""Random vehicle visits at the sockets, and the charger files that describe them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.presets import CaseSettings, VisitSettings
from iquitos_rl.cases.site import Floats, Ints

KINDS = ("moto", "mototaxi")

CHARGER_HEADER = (
    "electric_vehicle_charger_state,electric_vehicle_id,electric_vehicle_departure_time,"
    "electric_vehicle_required_soc_departure,electric_vehicle_estimated_arrival_time,"
    "electric_vehicle_estimated_soc_arrival,electric_vehicle_session_id\n"
)

SMALLEST_NEED = 0.05  # smallest share of a battery that a vehicle wants to charge

STAY_SHARE = 0.6  # share of the spare opening hours that lengthens stays; in the rest sockets are empty


@dataclass(frozen=True)
class Visits:
    """The N visits at the sockets of one kind, sorted by socket and row; arrays are (N,)."""

    kind: str
    socket: Ints  # 0 to count - 1
    row: Ints  # first connected row
    stay: Ints  # connected rows
    arrival_soc: Floats
    required_soc: Floats
    follows: NDArray[np.bool_]
    """True if the visit starts right after the socket's previous one, with no free row between."""


WEEK = (0.975, 0.975, 0.975, 0.975, 1.05, 1.10, 0.95)
"""Visits from Monday to Sunday as a multiple of the mean; assumed, as is what follows."""
WITH_THE_MALL, WITH_THE_SUN = 0.6, 0.15
"""By how much visits rise with the mall's activity, and with a clear-sky index higher by 1: rain keeps motos away."""


def usual_visits(calendar: Calendar, activity: Floats, clearness: Floats, events: Floats) -> Floats:
    """(days,) a day's visits as a multiple of the mean, by weekday, the mall's activity, the sun and events.

    Args:
        activity: (days,) how much busier than usual the mall is, share.
        clearness: (T,) clear-sky index less its mean.
        events: (days,) change by events, share.
    """
    first = np.flatnonzero(np.diff(calendar.day, prepend=-1))
    lit = np.maximum(np.bincount(calendar.day, clearness != 0), 1)
    sun = np.bincount(calendar.day, clearness) / lit
    return np.asarray(
        np.array(WEEK)[calendar.weekday[first] - 1] + WITH_THE_MALL * activity + WITH_THE_SUN * sun + events,
        dtype=np.float64,
    )


def draw_visits(
    calendar: Calendar,
    settings: VisitSettings,
    kind: str,
    count: int,
    per_socket: float,
    busy: Floats | None,
    rng: np.random.Generator,
) -> Visits:
    """Random visits at `count` sockets, within the opening hours of whole days.

    The daily number of visits at a socket is random with mean `per_socket`. Two visits are separated by a free row
    where there is room; else some follow each other directly (`Visits.follows`).

    Args:
        busy: (days,) each day's mean as a multiple of `per_socket`; every day the same by default.
    """
    first_rows = np.flatnonzero((calendar.hour == 0) & (np.arange(calendar.rows) + 24 <= calendar.rows))
    opening = settings.close_hour - settings.open_hour
    of_day = np.ones(len(first_rows)) if busy is None else busy[calendar.day[first_rows]]
    mean = per_socket * np.clip(of_day + settings.day_std * rng.standard_normal(len(first_rows)), 0, None)
    number = np.floor(mean[None, :] + rng.random((count, len(first_rows)))).astype(np.int64)
    number = np.minimum(number, opening // settings.stay_min).ravel()
    most = int(number.max(initial=0))
    start, stay = _lay_out_days(number, most, opening, settings, rng)
    exists = np.arange(most) < number[:, None]
    arrival = np.clip(rng.normal(settings.arrival_soc_mean, settings.arrival_soc_std, exists.shape), 0.05, 0.90)
    required = rng.normal(settings.required_soc_mean, settings.required_soc_std, exists.shape)
    required = np.clip(required, arrival + SMALLEST_NEED, 1.0)
    day_first = np.tile(first_rows, count)[:, None] + settings.open_hour
    socket = np.broadcast_to(np.repeat(np.arange(count), len(first_rows))[:, None], exists.shape)
    row = (day_first + start)[exists]
    stay, socket = stay[exists], socket[exists]
    follows = np.zeros(len(row), bool)
    follows[1:] = (row[1:] == (row + stay)[:-1]) & (socket[1:] == socket[:-1])
    # Rounded to four decimals, as in the files.
    return Visits(kind, socket, row, stay, arrival[exists].round(4), required[exists].round(4), follows)


def _lay_out_days(
    number: Ints, most: int, opening: int, settings: VisitSettings, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """(days, most) start (rows after opening) and stay of each visit, for `number` (days,) visits per socket-day."""
    days = np.arange(len(number))
    exists = np.arange(most) < number[:, None]
    stay = np.where(exists, settings.stay_min, 0)
    free = opening - stay.sum(1)
    between = np.maximum(number - 1, 0)
    # If there are too few free rows, half of them (at random) separate visits and the others lengthen stays.
    separating = np.where(free >= between, between, free - rng.binomial(np.maximum(free, 0), 0.5))
    key = rng.random((len(number), most))
    key[:, :1] = 2.0
    key = np.where(exists, key, 2.0)
    rank = np.argsort(np.argsort(key, axis=1), axis=1)
    before = np.zeros((len(number), most + 1), np.int64)
    before[:, :most] = (rank < separating[:, None]) & exists
    before[:, :1] = 0
    spare = np.where(number > 0, free - separating, 0)
    while (spare > 0).any():
        left = spare > 0
        visit = np.minimum((rng.random(len(number)) * number).astype(np.int64), np.maximum(number - 1, 0))
        longer = left & (rng.random(len(number)) < STAY_SHARE) & (stay[days, visit] < settings.stay_max)
        place = (rng.random(len(number)) * (number + 1)).astype(np.int64)
        stay[days[longer], visit[longer]] += 1
        empty = left & ~longer
        before[days[empty], place[empty]] += 1
        spare = spare - left
    start = np.cumsum(before[:, :most], 1) + np.cumsum(stay, 1) - stay
    return start, stay


def charger_lines(visits: Visits, socket: int, rows: int, vehicle: str) -> list[str]:
    """The data lines of one socket's charger file, one per row.

    The state is 1 connected, 2 incoming or 3 away, never blank: with one blank CityLearn reads the column as floats and
    drops every visit. The countdown is 0 in the last connected row. The arrival SOC is in the first connected row, and
    in the row before if that is free (state 2), because CityLearn reads one or the other (`internal/runtime.py`,
    associate_chargers_to_electric_vehicles). The session id separates two consecutive visits of one hour, whose
    countdowns (0, 0) look like one visit.
    """
    lines = ["3,,,,,,\n"] * rows
    mine = visits.socket == socket
    columns = (visits.row, visits.stay, visits.arrival_soc, visits.required_soc, visits.follows)
    of_socket = zip(*(column[mine].tolist() for column in columns))
    for number, (row, stay, arrival, required, follows) in enumerate(of_socket, start=1):
        if row > 0 and not follows:
            lines[row - 1] = f"2,{vehicle},,,1,{arrival:.4f},\n"
        lines[row] = f"1,{vehicle},{stay - 1},{required:.4f},,{arrival:.4f},v{number}\n"
        for later in range(1, stay):
            lines[row + later] = f"1,{vehicle},{stay - 1 - later},{required:.4f},,,v{number}\n"
    return lines


def socket_counts(settings: CaseSettings) -> dict[str, tuple[int, float, float, float]]:
    """Maps each kind to (number of sockets, kW of each, battery kWh, mean visits per socket and day)."""
    sockets, vehicles, visits = settings.sockets, settings.vehicles, settings.visits
    return {
        "moto": (sockets.moto_count, sockets.moto_kw, vehicles.moto_kwh, visits.moto_per_socket),
        "mototaxi": (sockets.mototaxi_count, sockets.mototaxi_kw, vehicles.mototaxi_kwh, visits.mototaxi_per_socket),
    }
