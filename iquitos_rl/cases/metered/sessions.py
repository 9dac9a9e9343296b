"""Charging sessions as visits: exports of charging networks, and plain tables of plug-in, plug-out and energy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Calendar, Times
from iquitos_rl.cases.iquitos.visits import Visits, charger_lines
from iquitos_rl.cases.iquitos.write import Socket
from iquitos_rl.cases.metered.numerals import decimal_marks, figure, is_missing, looks_like_number, numbers
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.sheet import Sheet, decode, read_sheet
from iquitos_rl.cases.metered.stamps import looks_like_stamp, looks_like_time, read_stamps, read_times
from iquitos_rl.cases.metered.units import units_in
from iquitos_rl.cases.metered.zone import Zone
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import json_value, read_bytes

NAMES = {
    "plug_in": re.compile(
        r"plug.?in|connect(?:ion)?.?time|^connected$|arriv|llegada|ankunft|start|begin|entry|check.?in|transactionstart",
        re.I,
    ),
    "plug_out": re.compile(
        r"plug.?out|unplug|disconnect|depart|salida|abfahrt|(?<![a-z])end|(?<=_)end|stop|exit|check.?out|transactionstop",
        re.I,
    ),
    "energy": re.compile(r"kwh|wh\b|energy|energ[ií]a|energie|delivered|consum|meterstop", re.I),
    "socket": re.compile(
        r"station|socket|charge.?p(?:oin|os)|evse|cp.?id|connector|space|charger|plug_?id|port|location|point", re.I
    ),
    "vehicle": re.compile(r"vehicle.?type|car.?type|model|fahrzeug|vehicle.?class|tipo", re.I),
    "capacity": re.compile(r"capacity|battery.?(?:size|kwh)|kapazit", re.I),
    "power": re.compile(r"power|kw$|\bkw\b|rated|leistung", re.I),
    "soc_in": re.compile(
        r"(?:arriv\w*|start\w*|initial|begin|in).{0,3}soc|soc.{0,4}(?:arriv|start|initial|begin|in\b)", re.I
    ),
    "soc_out": re.compile(
        r"(?:depart\w*|end|target|required|final|stop|out).{0,3}soc|soc.{0,4}(?:depart|end|target|req|out|final)", re.I
    ),
    "zone": re.compile(r"time.?zone", re.I),
}
NOT_TIME = re.compile(r"zone|done|card|charge.?time|charging|duration|soc|done", re.I)
NOT_ENERGY = re.compile(
    r"cost|price|fee|savings?|saved|requested|require|wanted|capacity|battery|ghg|gasoline|per.?hour", re.I
)
NOT_SOCKET = re.compile(r"type|count|address|\blat|long|time|date|name of|energy|kwh|power|soc", re.I)
RATINGS = (2.3, 3.7, 7.4, 11.0, 22.0, 50.0, 100.0, 150.0, 300.0)
"""Usual charging powers, kW."""
USUAL_CAPACITY = 60.0
FULL = 0.95
"""SOC at which a vehicle leaves whose SOC nobody knows."""


class Session(NamedTuple):
    plug_in: np.datetime64
    """UTC, as plug_out."""
    plug_out: np.datetime64
    kwh: float
    socket: str
    vehicle: str
    capacity: float
    """kWh, NaN where unknown, as all that follows."""
    soc_in: float
    soc_out: float
    power: float


@dataclass(frozen=True)
class ChargerOptions:
    """What an owner says about chargers and vehicles; None leaves it to the data."""

    charger_kw: float | None = None
    discharge_kw: float = 0.0
    """Above 0 where chargers can feed back (V2G)."""
    vehicle_kwh: float | None = None


def read_sessions(path: Path, zone: Zone | None, reading: Reading, notes: list[str]) -> list[Session]:
    """The sessions of a JSON or CSV file, by plug-in.

    Raises:
        UserError: a column that is needed cannot be found, or a cell is broken.
    """
    sheet = _json_sheet(path) if path.suffix.lower() in (".json", ".jsonl") else read_sheet(path, notes)
    width = max(len(row) for row in sheet.rows)
    start = next((n for n, row in enumerate(sheet.rows) if any(map(looks_like_stamp, row))), 0)
    if start == 0:
        raise UserError(f"{path.name}: no line of column names before the first session")
    header = (sheet.rows[start - 1] + [""] * width)[:width]
    rows = [(row + [""] * width)[:width] for row in sheet.rows[start:]]
    lines = np.array(sheet.lines[start:], np.int64)
    kept = [n for n, row in enumerate(rows) if any(map(looks_like_stamp, row))]
    if len(kept) < len(rows):
        notes.append(f"{path.name}: {len(rows) - len(kept)} lines without a date passed over")
    rows, lines = [rows[n] for n in kept], lines[kept]
    columns = {title: [row[k] for row in rows] for k, title in enumerate(header) if title}
    table = _Table(path.name, columns, lines, zone, reading, notes)
    sessions = sorted(table.sessions(), key=lambda session: (session.plug_in, session.socket))
    if not sessions:
        raise UserError(f"{path.name}: holds no session with energy")
    return sessions


def _json_sheet(path: Path) -> Sheet:
    """Records of ACN-Data, OCPI, OCPP or alike as a table."""
    try:
        text = decode(read_bytes(path), path.name, [])
        whole = path.suffix.lower() == ".json"
        content = json_value(text) if whole else [json_value(line) for line in text.splitlines() if line]
    except ValueError as error:
        raise UserError(f"{path.name} is not JSON: {error}") from None
    records = _records(content)
    if not records:
        raise UserError(f"{path.name}: holds no list of sessions")
    flat = [dict(_flat(record)) for record in records]
    header = list(dict.fromkeys(key for record in flat for key in record))
    return Sheet(
        path, [header, *([record.get(key, "") for key in header] for record in flat)], list(range(len(flat) + 1)), ""
    )


def _records(content: Any) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return [item for item in content if isinstance(item, dict)]
    if isinstance(content, dict):
        lists = [_records(value) for value in content.values() if isinstance(value, (list, dict))]
        return max(lists, key=len, default=[])
    return []


def _flat(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            yield prefix + key, str(value).strip()


class _Table:
    """A table of sessions while it is read."""

    def __init__(
        self,
        name: str,
        columns: dict[str, list[str]],
        lines: Ints,
        zone: Zone | None,
        reading: Reading,
        notes: list[str],
    ) -> None:
        self.name, self.columns, self.lines, self.zone = name, columns, lines, zone
        self.reading, self.notes = reading, notes

    def sessions(self) -> Iterator[Session]:
        plug_in, plug_out = self._time("plug_in"), self._time("plug_out")
        kwh = self._energy()
        socket = self._texts("socket")
        vehicle = self._texts("vehicle")
        optional = {key: self._optional(key) for key in ("capacity", "soc_in", "soc_out", "power")}
        for key in ("soc_in", "soc_out"):
            if np.nanmax(optional[key], initial=0.0) > 1:
                optional[key] = optional[key] / 100
        left_out = 0
        for n in range(len(self.lines)):
            if not (plug_out[n] > plug_in[n] and kwh[n] > 0):
                left_out += 1
                continue
            more = (float(optional[key][n]) for key in ("capacity", "soc_in", "soc_out", "power"))
            yield Session(plug_in[n], plug_out[n], float(kwh[n]), socket[n], vehicle[n], *more)
        if left_out:
            self.notes.append(f"{self.name}: {left_out} sessions without energy or without length left out")

    def _candidates(self, key: str) -> list[str]:
        return [title for title in self.columns if NAMES[key].search(title)]

    def _sample(self, title: str) -> list[str]:
        return [cell for cell in self.columns[title] if cell][:200]

    def _time(self, key: str) -> Times:
        """(N,) UTC of plug-in or plug-out, from a column of stamps or two of date and time."""
        titles = [title for title in self._candidates(key) if not NOT_TIME.search(title)]
        dated = [t for t in titles if self._sample(t) and all(map(looks_like_stamp, self._sample(t)))]
        if not dated:
            what = "plug-in" if key == "plug_in" else "plug-out"
            raise UserError(f"{self.name}: no column holds the {what} time; it has {', '.join(self.columns)}")
        preferred = [t for t in dated if re.search(r"utc|plug|connect|arriv|depart", t, re.I)] or dated
        title = preferred[0]
        stamps = read_stamps(self.columns[title], self.name, self.lines, self.reading.dates)
        if stamps is None:
            raise UserError(f"{self.name}: {title} is not a date and time")
        wall = stamps.wall
        clocks = [t for t in titles if self._sample(t) and all(map(looks_like_time, self._sample(t)))]
        if not stamps.timed and clocks:
            times = read_times(self.columns[clocks[0]])
            if times is not None:
                wall = wall + np.nan_to_num(times.seconds).astype("timedelta64[s]")
                title = f"{title} and {clocks[0]}"
        for row in np.flatnonzero(np.isnat(wall))[:1]:
            raise UserError(
                f"{self.name}, line {self.lines[row]}: {self.columns[preferred[0]][row]!r} is not a date and time"
            )
        offset = stamps.offset
        zoned = [t for t in self._candidates("zone") if NAMES[key].search(t)]
        if np.isnan(offset).all() and zoned:
            cells = [f"2020-01-01 00:00 {cell}" for cell in self.columns[zoned[0]]]
            named = read_stamps(cells, self.name, self.lines, None)
            offset = offset if named is None else named.offset
        if np.isnan(offset).all() and re.search(r"utc|gmt", title, re.I):
            offset = np.zeros(len(wall))
        self.notes.append(f"{self.name}: {key.replace('_', '-')} from column {title}")
        return self._utc(wall, offset)

    def _utc(self, wall: Times, offset: Floats) -> Times:
        if not np.isnan(offset).any():
            return wall - np.round(offset * 3600).astype("timedelta64[s]")
        if self.reading.clock == "utc":
            return wall
        if self.zone is None:
            raise UserError(f"{self.name}: nothing tells the sessions' time zone; say it with --zone Europe/Berlin")
        return self.zone.to_utc(wall, np.zeros(len(wall), bool))[0]

    def _numbers(self, title: str) -> Floats:
        given = self.reading.decimal
        marks = decimal_marks({title: [figure(cell) for cell in self.columns[title]]}, self.name, given, self.notes)
        return numbers(self.columns[title], marks.of(title), self.lines, self.name, title)

    def _numeric(self, key: str, without: re.Pattern[str] | None = None) -> list[str]:
        titles = [t for t in self._candidates(key) if without is None or not without.search(t)]
        return [
            t for t in titles if self._sample(t) and all(looks_like_number(c) or is_missing(c) for c in self._sample(t))
        ]

    def _energy(self) -> Floats:
        titles = self._numeric("energy", NOT_ENERGY)
        both = [next((t for t in self.columns if re.search(rf"meter.?{w}", t, re.I)), None) for w in ("start", "stop")]
        if both[0] and both[1]:
            self.notes.append(f"{self.name}: energy is {both[1]} less {both[0]}, in Wh as OCPP has it")
            return (self._numbers(both[1]) - self._numbers(both[0])) / 1000
        if self.reading.column is not None:
            titles = [self.reading.column]
            if titles[0] not in self.columns:
                raise UserError(f"{self.name} has no column {titles[0]!r}; it has {', '.join(self.columns)}")
        named = [t for t in titles if units_in(t) and units_in(t)[0].energy] or titles
        named = [t for t in named if re.search(r"deliver|kwhdelivered|total", t, re.I)] or named
        if not named:
            raise UserError(f"{self.name}: no column holds the energy; it has {', '.join(self.columns)}")
        title, kwh = named[0], self._numbers(named[0])
        unit = units_in(self.reading.unit or title)
        if not unit and re.search(r"kwh", title, re.I):
            unit = units_in("kWh")
        if not unit:
            # OCPI and ElaadNL count kWh; a session above 1,000 of them is none of a car.
            if re.fullmatch(r"total_?energy", title, re.I) and np.nanmedian(kwh) < 200:
                unit = units_in("kWh")
            else:
                raise UserError(
                    f"{self.name}: {title} names no unit; say it with --unit sessions=kWh or --unit sessions=Wh"
                )
        if not unit[0].energy:
            raise UserError(f"{self.name}: {title} is in {unit[0].text}, which is no energy")
        self.notes.append(f"{self.name}: energy from column {title} in {unit[0].text}")
        return np.nan_to_num(kwh * unit[0].factor)

    def _optional(self, key: str) -> Floats:
        titles = self._numeric(key, NOT_ENERGY if key == "power" else None)
        if key == "power":
            titles = [t for t in titles if not re.search(r"kwh|soc|energy", t, re.I)]
        if not titles:
            return np.full(len(self.lines), np.nan)
        self.notes.append(f"{self.name}: {key.replace('_', ' ')} from column {titles[0]}")
        values = self._numbers(titles[0])
        unit = units_in(titles[0])
        return values * unit[0].factor if unit and key in ("power", "capacity") else values

    def _texts(self, key: str) -> list[str]:
        titles = [t for t in self._candidates(key) if not (key == "socket" and NOT_SOCKET.search(t))]
        if key == "vehicle":
            titles = [t for t in titles if not re.search(r"station|charger|evse", t, re.I)]
        many = [t for t in titles if len(set(self.columns[t])) > 1 or len(titles) == 1]
        if not many:
            return [""] * len(self.lines)
        title = many[0]
        self.notes.append(f"{self.name}: {key} from column {title}, {len(set(self.columns[title]))} of them")
        return list(self.columns[title])


def fleet(
    sessions: Sequence[Session], calendar: Calendar, options: ChargerOptions, efficiency: float, notes: list[str]
) -> tuple[list[Socket], dict[str, float]]:
    """The sockets of a case with the visits of the sessions, and key figures.

    Plug-in and plug-out are rounded to rows, a session has one at least. Sessions that overlap at a station are at
    different sockets of it. A vehicle leaves with the energy that was metered, as far as the
    charger can give it.

    Args:
        efficiency: of charger and battery together, from the grid into the battery.

    Raises:
        UserError: no session lies in the case's time.
    """
    utc = calendar.utc if calendar.utc is not None else calendar.begin.astype("datetime64[s]")
    end = utc[-1] + np.timedelta64(calendar.seconds, "s")
    inside = [session for session in sessions if session.plug_out > utc[0] and session.plug_in < end]
    if not inside:
        first, last = sessions[0].plug_in, sessions[-1].plug_out
        raise UserError(f"no charging session lies between {utc[0]} and {end} UTC; they are from {first} to {last}")
    if len(inside) < len(sessions):
        notes.append(f"{len(sessions) - len(inside)} charging sessions outside of the case's time left out")
    power = _power(inside, options, notes)
    capacity = _capacities(inside, options, notes)
    lanes = _lanes(inside, utc[0], calendar.seconds, calendar.rows)
    sockets, wanted, missed, stays = [], 0.0, 0, []
    for number, (name, visits) in enumerate(sorted(lanes.items()), start=1):
        own = power[visits[0].session.socket]
        lines, vehicles = ["3,,,,,,\n"] * calendar.rows, {}
        for vehicle in dict.fromkeys(visit.session.vehicle for visit in visits):
            ev = f"ev_{number:03d}" + (f"_{re.sub(r'[^A-Za-z0-9]+', '_', vehicle)}" if vehicle else "")
            vehicles[ev] = capacity[vehicle]
        ids = dict(zip(dict.fromkeys(visit.session.vehicle for visit in visits), vehicles))
        arrivals, required = [], []
        for visit in visits:
            kwh = capacity[visit.session.vehicle]
            most = own * efficiency * visit.stay * calendar.seconds / 3600
            need = min(visit.session.kwh * efficiency, most, 0.95 * kwh)
            missed += need < visit.session.kwh * efficiency * 0.99
            wanted += need
            leave = visit.session.soc_out if np.isfinite(visit.session.soc_out) else FULL
            if np.isfinite(visit.session.soc_in):
                arrive = float(np.clip(visit.session.soc_in, 0.0, 1.0 - need / kwh))
                leave = arrive + need / kwh
            else:
                leave = max(min(leave, 1.0), need / kwh)
                arrive = leave - need / kwh
            arrivals.append(round(arrive, 4))
            required.append(round(leave, 4))
            stays.append(visit.stay)
        for vehicle, ev in ids.items():
            of_vehicle = [k for k, visit in enumerate(visits) if visit.session.vehicle == vehicle]
            rows = np.array([visits[k].row for k in of_vehicle])
            stay = np.array([visits[k].stay for k in of_vehicle])
            taken = {v.row + v.stay for v in visits}
            follows = np.array([row in taken for row in rows])
            mine = Visits(
                name,
                np.zeros(len(rows), np.int64),
                rows,
                stay,
                np.array(arrivals)[of_vehicle],
                np.array(required)[of_vehicle],
                follows,
            )
            for row, line in enumerate(charger_lines(mine, 0, calendar.rows, ev)):
                if not line.startswith("3,"):
                    lines[row] = line
        sockets.append(Socket(f"socket_{number:03d}", own, min(options.discharge_kw, own), vehicles, lines))
    if missed:
        notes.append(
            f"{missed} of {len(inside)} sessions hold more energy than charger or battery take in the stay; cut to that"
        )
    days = calendar.rows * calendar.seconds / 86400
    return sockets, {
        "sockets": len(sockets),
        "visits_per_day": round(len(stays) / days, 2),
        "mean_stay_hours": round(float(np.mean(stays)) * calendar.seconds / 3600, 3),
        "ev_needed_kwh_per_day": round(wanted / days, 1),
        "ev_at_sockets_kwh_per_day": round(wanted / efficiency / days, 1),
    }


class _Visit(NamedTuple):
    row: int
    stay: int
    session: Session


def _lanes(sessions: Sequence[Session], start: np.datetime64, seconds: int, rows: int) -> dict[str, list[_Visit]]:
    """Visits of each socket: those of a station, on as many sockets as sessions overlap there."""
    lanes: dict[str, list[_Visit]] = {}
    for session in sessions:
        begin, away = (
            round(int((moment - start).astype("timedelta64[s]").astype(np.int64)) / seconds)
            for moment in (session.plug_in, session.plug_out)
        )
        first = min(max(begin, 0), rows - 1)
        last = min(rows - 1, max(first, away - 1))
        number = 1
        while True:
            name = f"{session.socket}/{number:03d}"
            own = lanes.setdefault(name, [])
            if not own or own[-1].row + own[-1].stay <= first:
                own.append(_Visit(first, last - first + 1, session))
                break
            number += 1
    return lanes


def _power(sessions: Sequence[Session], options: ChargerOptions, notes: list[str]) -> dict[str, float]:
    """kW of each station: as said, as the file says, else the smallest usual rating that its sessions show."""
    result: dict[str, float] = {}
    for station in dict.fromkeys(session.socket for session in sessions):
        own = [session for session in sessions if session.socket == station]
        if options.charger_kw is not None:
            result[station] = options.charger_kw
            continue
        known = [session.power for session in own if np.isfinite(session.power) and session.power > 0]
        hours = [(s.plug_out - s.plug_in).astype("timedelta64[s]").astype(np.int64) / 3600 for s in own]
        mean = max(s.kwh / max(h, 1 / 12) for s, h in zip(own, hours))
        result[station] = max(known) if known else next((kw for kw in RATINGS if kw >= mean), RATINGS[-1])
    if options.charger_kw is None and not any(np.isfinite(session.power) for session in sessions):
        found = ", ".join(f"{kw:g}" for kw in sorted(set(result.values())))
        notes.append(
            f"charging power is not in the file: the smallest usual rating that the sessions fit ({found} kW); "
            "--charger-kw says another"
        )
    return result


def _capacities(sessions: Sequence[Session], options: ChargerOptions, notes: list[str]) -> dict[str, float]:
    """kWh of the battery of each type of vehicle."""
    result: dict[str, float] = {}
    assumed = []
    for vehicle in dict.fromkeys(session.vehicle for session in sessions):
        own = [session for session in sessions if session.vehicle == vehicle]
        known = [session.capacity for session in own if np.isfinite(session.capacity) and session.capacity > 0]
        if known:
            result[vehicle] = float(np.median(known))
        elif options.vehicle_kwh is not None:
            result[vehicle] = options.vehicle_kwh
        else:
            result[vehicle] = max(USUAL_CAPACITY, float(np.ceil(1.05 * max(session.kwh for session in own))))
            assumed.append(f"{result[vehicle]:g}")
    if assumed:
        notes.append(
            f"vehicle batteries are not in the file: taken as {', '.join(sorted(set(assumed)))} kWh; --vehicle-kwh "
            "says another"
        )
    return result
