"""Vehicle visits at the sockets, and the charger files that hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.iquitos.presets import CaseSettings, VisitSettings
from iquitos_rl.cases.iquitos.solar import Calendar
from iquitos_rl.cases.site import Floats, Ints

KINDS = ("moto", "mototaxi")

CHARGER_COLUMNS = (
    "electric_vehicle_charger_state",
    "electric_vehicle_id",
    "electric_vehicle_departure_time",
    "electric_vehicle_required_soc_departure",
    "electric_vehicle_estimated_arrival_time",
    "electric_vehicle_estimated_soc_arrival",
    "electric_vehicle_session_id",
)

SMALLEST_NEED = 0.05
"""Nobody comes for less than this share of a battery."""

STAY_SHARE = 0.6
"""Share of the spare opening hours that lengthens stays; the rest leaves sockets empty."""


@dataclass(frozen=True)
class Visits:
    """The visits of one kind of socket, sorted by socket and row. All arrays are (N,)."""

    kind: str
    socket: Ints
    """0 to count - 1."""
    row: Ints
    """First connected row."""
    stay: Ints
    """Connected rows."""
    arrival_soc: Floats
    required_soc: Floats
    follows: NDArray[np.bool_]
    """True where the visit begins on the row after the previous visit's last, with no free row between."""

    def reachable(self, capacity: float, power: float, efficiency: float) -> NDArray[np.bool_]:
        """Whether full power during the whole stay reaches the wanted SOC; `efficiency` from socket to battery."""
        return (self.required_soc - self.arrival_soc) * capacity <= self.stay * power * efficiency + 1e-9

    def needed_kwh(self, capacity: float) -> float:
        """Energy that the batteries lack on arrival, over the whole period."""
        return float(((self.required_soc - self.arrival_soc) * capacity).sum())


def draw_visits(
    calendar: Calendar, settings: VisitSettings, kind: str, count: int, per_socket: float, rng: np.random.Generator
) -> Visits:
    """Random visits of `count` sockets, each with its own; all inside the opening hours of whole days.

    A socket has a random number of visits a day about `per_socket`. Where they fit, one free row lies between two
    visits; where the wanted number leaves no room for that, some follow each other without one (`Visits.follows`).
    """
    first_rows = np.flatnonzero((calendar.hour == 0) & (np.arange(calendar.rows) + 24 <= calendar.rows))
    opening = settings.close_hour - settings.open_hour
    busy = per_socket * np.clip(1 + settings.day_std * rng.standard_normal(len(first_rows)), 0, None)
    number = np.floor(busy[None, :] + rng.random((count, len(first_rows)))).astype(np.int64)
    separated = (opening + 1) // (settings.stay_min + 1)
    most_visits = separated if per_socket <= separated else opening // settings.stay_min
    number = np.minimum(number, most_visits).ravel()
    most = int(number.max(initial=0))
    start, stay = _lay_out_days(number, most, opening, settings, rng)
    exists = np.arange(most) < number[:, None]
    arrival = np.clip(rng.normal(settings.arrival_soc_mean, settings.arrival_soc_std, exists.shape), 0.05, 0.90)
    required = rng.normal(settings.required_soc_mean, settings.required_soc_std, exists.shape)
    required = np.clip(required, arrival + SMALLEST_NEED, 1.0)
    day_first = np.tile(first_rows, count)[:, None] + settings.open_hour
    socket_number: Ints = np.repeat(np.arange(count), len(first_rows))
    socket = np.broadcast_to(socket_number[:, None], exists.shape)
    row = (day_first + start)[exists]
    stay, socket = stay[exists], socket[exists]
    follows = np.zeros(len(row), bool)
    follows[1:] = (row[1:] == (row + stay)[:-1]) & (socket[1:] == socket[:-1])
    # Four decimals are what the files hold.
    return Visits(kind, socket, row, stay, arrival[exists].round(4), required[exists].round(4), follows)


def _lay_out_days(
    number: Ints, most: int, opening: int, settings: VisitSettings, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """(days, most) start after opening and stay of each visit, for `number` visits on each of (days,) socket-days."""
    days = np.arange(len(number))
    exists = np.arange(most) < number[:, None]
    stay = np.where(exists, settings.stay_min, 0)
    free = opening - stay.sum(1)
    between = np.maximum(number - 1, 0)
    # Where the free rows do not suffice, half of them (at random) separate visits and the others lengthen stays.
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

    States are 1 connected, 2 incoming, 3 away, never blank: one blank would make CityLearn read the column as floats
    and drop every visit. The countdown ends at 0 on the last connected row. The arrival SOC stands on the row before
    (where that is free, as state 2) and on the first connected row, because CityLearn reads the one or the other
    (`internal/runtime.py`, associate_chargers_to_electric_vehicles). The session id tells two visits of one hour apart
    that follow each other without a free row, where the countdown alone (0, 0) does not.
    """
    lines = ["3,,,,,,\n"] * rows
    mine = visits.socket == socket
    columns = (visits.row, visits.stay, visits.arrival_soc, visits.required_soc, visits.follows)
    for number, (row, stay, arrival, required, follows) in enumerate(
        zip(*(c[mine].tolist() for c in columns)), start=1
    ):
        if row > 0 and not follows:
            lines[row - 1] = f"2,{vehicle},,,1,{arrival:.4f},\n"
        lines[row] = f"1,{vehicle},{stay - 1},{required:.4f},,{arrival:.4f},v{number}\n"
        for later in range(1, stay):
            lines[row + later] = f"1,{vehicle},{stay - 1 - later},{required:.4f},,,v{number}\n"
    return lines


def socket_counts(settings: CaseSettings) -> dict[str, tuple[int, float, float, float]]:
    """Kind to (sockets, kW each, battery kWh, mean visits per socket and day)."""
    sockets, vehicles, visits = settings.sockets, settings.vehicles, settings.visits
    return {
        "moto": (sockets.moto_count, sockets.moto_kw, vehicles.moto_kwh, visits.moto_per_socket),
        "mototaxi": (sockets.mototaxi_count, sockets.mototaxi_kw, vehicles.mototaxi_kwh, visits.mototaxi_per_socket),
    }
