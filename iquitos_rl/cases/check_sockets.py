"""Checking chargers: attributes, schedules, and the vehicles that they name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.check_tables import Files, Report, Table, and_more
from iquitos_rl.cases.iquitos.visits import CHARGER_COLUMNS
from iquitos_rl.cases.site import AWAY, CONNECTED, INCOMING, Bools, Floats

ATTRIBUTES = {
    "efficiency",
    "max_charging_power",
    "min_charging_power",
    "max_discharging_power",
    "min_discharging_power",
    "charge_efficiency_curve",
    "discharge_efficiency_curve",
    "phase_connection",
}
BLOCK_KEYS = {"type", "charger_simulation", "attributes", "noise_std", "autosize"}
REQUIRED_COLUMNS = CHARGER_COLUMNS[:6]
STATE, VEHICLE, DEPARTURE, REQUIRED_SOC, ARRIVAL_TIME, ARRIVAL_SOC, SESSION = CHARGER_COLUMNS


@dataclass(frozen=True)
class Schedule:
    """What one charger file says, row by row."""

    charger: str
    table: Table
    connected: Bools
    begins: Bools
    """True on the first connected row of a visit."""
    vehicle: NDArray[np.object_]
    arrival_soc: Floats
    """(T,) fraction, NaN where blank."""
    required_soc: Floats
    stay: dict[int, int]
    """First row of each visit to its connected rows."""


def check_chargers(
    building: str, chargers: Mapping[str, Any], vehicles: Collection[str], files: Files, report: Report
) -> list[Schedule]:
    """Check the chargers of one building; returns the schedules that could be read."""
    schedules = []
    for name, charger in chargers.items():
        where = f"schema.json: charger {name} of {building}"
        if not isinstance(charger, Mapping):
            report.errors.append(f"{where} must be a block of keys")
            continue
        _check_attributes(where, charger, report)
        table = files.read(charger.get("charger_simulation"), f"charger_simulation of charger {name}")
        if table is not None:
            schedule = _read_schedule(name, table, set(vehicles), report)
            if schedule is not None:
                schedules.append(schedule)
    return schedules


def _check_attributes(where: str, charger: Mapping[str, Any], report: Report) -> None:
    attributes = charger.get("attributes") or {}
    for key in charger:
        if key not in BLOCK_KEYS:
            report.errors.append(f"{where}: unknown key {key!r}, CityLearn ignores it")
    for key, value in attributes.items():
        if key not in ATTRIBUTES:
            report.errors.append(
                f"{where}: unknown attribute {key!r}, CityLearn ignores it and takes its default (50 kW, efficiency 1)"
            )
        elif key.endswith("power") and not (isinstance(value, (int, float)) and value >= 0):
            report.errors.append(f"{where}: {key} must be a number of kW, not {value!r}")
    for key, default in (("max_charging_power", "50 kW"), ("max_discharging_power", "50 kW"), ("efficiency", "1")):
        if key not in attributes:
            report.warnings.append(f"{where}: no {key}, CityLearn takes {default}")


def _read_schedule(name: str, table: Table, vehicles: set[str], report: Report) -> Schedule | None:
    missing = [column for column in REQUIRED_COLUMNS if column not in table.frame.columns]
    if missing:
        report.errors.append(f"{table.name}: column {missing[0]} is missing")
        return None
    state_text, vehicle = table.text(STATE), table.text(VEHICLE)
    if not _check_states(table, state_text, report):
        return None
    state = state_text.astype(np.int64)
    connected = state == CONNECTED
    unknown = ((state == CONNECTED) | (state == INCOMING)) & np.array([name not in vehicles for name in vehicle], bool)
    if unknown.any():
        row = int(np.argmax(unknown))
        shown = f"vehicle {vehicle[row]!r} is not in electric_vehicles_def" if vehicle[row] else "no vehicle is named"
        report.errors.append(f"{table.at(row)}: {shown}, CityLearn leaves the charger empty{and_more(unknown)}")
    departure = table.numbers(DEPARTURE, report, blank_allowed=True)
    table.numbers(ARRIVAL_TIME, report, blank_allowed=True)
    required = _soc(table, REQUIRED_SOC, report)
    arrival = _soc(table, ARRIVAL_SOC, report)
    begins = _begins(table, connected, vehicle, departure)
    _check_arrivals(table, state, vehicle, begins, arrival, report)
    _check_departures(table, connected, begins, departure, required, report)
    edges = np.flatnonzero(begins)
    ends = np.flatnonzero(connected & np.concatenate((begins[1:] | ~connected[1:], [True])))
    stay = {int(row): int(last - row + 1) for row, last in zip(edges, ends)}
    return Schedule(name, table, connected, begins, vehicle, arrival, required, stay)


def _check_states(table: Table, text: NDArray[np.object_], report: Report) -> bool:
    """False where the states cannot be used."""
    blank = text == ""
    if blank.any():
        report.errors.append(
            f"{table.at(int(np.argmax(blank)))}: {STATE} is blank, CityLearn would then disconnect every vehicle of "
            f"this charger{and_more(blank)}"
        )
        return False
    wrong = (text != str(CONNECTED)) & (text != str(INCOMING)) & (text != str(AWAY))
    if wrong.any():
        row = int(np.argmax(wrong))
        report.errors.append(
            f"{table.at(row)}: {STATE} is {text[row]!r}, it must be the whole number 1 (connected), 2 (incoming) or 3 "
            f"(away){and_more(wrong)}"
        )
        return False
    return True


def _soc(table: Table, column: str, report: Report) -> Floats:
    """(T,) fractions as CityLearn reads them: above 1 a percentage, up to 1 a fraction."""
    values = table.numbers(column, report, blank_allowed=True)
    with np.errstate(invalid="ignore"):
        out = (values > 100) | ((values < 0) & (values != -0.1))
        percent, tiny = values > 1, (values > 0) & (values <= 1)
    if out.any():
        row = int(np.argmax(out))
        report.errors.append(f"{table.at(row)}: {column} is {values[row]:g}, beyond 0 to 100 %{and_more(out)}")
    if percent.any() and tiny.any():
        row = int(np.argmax(tiny))
        report.errors.append(
            f"{table.at(row)}: {column} is {values[row]:g} in a file of percentages, CityLearn reads it as "
            f"{100 * values[row]:g} %{and_more(tiny)}"
        )
    values = np.where(values < 0, np.nan, values)
    return np.where(percent, values / 100, values)


def _begins(table: Table, connected: Bools, vehicle: NDArray[np.object_], departure: Floats) -> Bools:
    """The rows where CityLearn sees a new connection (`internal/runtime.py`): another vehicle, session or countdown."""
    session = table.text(SESSION) if SESSION in table.frame.columns else np.full(len(connected), "", dtype=object)
    # A column of numbers reaches CityLearn as floats, which it does not take for session ids.
    if all(cell.replace(".", "", 1).isdigit() for cell in session[session != ""]):
        session = np.full(len(connected), "", dtype=object)
    begins = connected.copy()
    before, now = slice(None, -1), slice(1, None)
    other_session = (session[now] != "") & (session[before] != "") & (session[now] != session[before])
    with np.errstate(invalid="ignore"):
        countdown = (session[now] == "") & (departure[before] <= 1) & (departure[now] > departure[before])
    changed = (vehicle[now] != vehicle[before]) | other_session | countdown
    begins[now] &= ~connected[before] | changed
    return begins


def _check_arrivals(
    table: Table, state: NDArray[np.int64], vehicle: NDArray[np.object_], begins: Bools, soc: Floats, report: Report
) -> None:
    """The arrival SOC must stand on the row before (unless that is connected) and on the first connected row."""
    rows = np.flatnonzero(begins)
    rows = rows[rows > 0]
    before = rows - 1
    free = state[before] != CONNECTED
    announced = (state[before] == INCOMING) & (vehicle[before] == vehicle[rows])
    other = (state[before] == INCOMING) & (vehicle[before] != "") & (vehicle[before] != vehicle[rows])
    for row in rows[other][:1]:
        report.errors.append(
            f"{table.at(row)}: {vehicle[row]} connects where {vehicle[row - 1]} was announced, CityLearn stops there"
            f"{and_more(other)}"
        )
    differ = free & np.isfinite(soc[before]) & np.isfinite(soc[rows]) & (np.abs(soc[before] - soc[rows]) > 1e-6)
    for row in rows[differ][:1]:
        report.errors.append(
            f"{table.at(row)}: {ARRIVAL_SOC} is {soc[row]:g}, but {soc[row - 1]:g} on the line before; both must agree"
            f"{and_more(differ)}"
        )
    unread = free & np.isnan(soc[before])
    for row in rows[unread][:1]:
        report.errors.append(
            f"{table.at(row - 1)}: {ARRIVAL_SOC} is blank on the row before a vehicle connects, where CityLearn reads "
            f"it; the vehicle would come with a random SOC{and_more(unread)}"
        )
    without = ~free & np.isnan(soc[rows])
    for row in rows[without][:1]:
        report.errors.append(f"{table.at(row)}: {ARRIVAL_SOC} is blank where a vehicle connects{and_more(without)}")
    unseen = free & ~announced & np.isfinite(soc[before]) & np.isnan(soc[rows])
    for row in rows[unseen][:1]:
        report.errors.append(
            f"{table.at(row)}: {ARRIVAL_SOC} is blank on the first connected row and the row before does not announce "
            f"the vehicle (state 2); its first observed SOC would be random{and_more(unseen)}"
        )


def _check_departures(
    table: Table, connected: Bools, begins: Bools, departure: Floats, required: Floats, report: Report
) -> None:
    blank = connected & np.isnan(departure)
    if blank.any():
        report.errors.append(
            f"{table.at(int(np.argmax(blank)))}: {DEPARTURE} is blank while a vehicle is connected{and_more(blank)}"
        )
    blank = connected & np.isnan(required)
    if blank.any():
        report.warnings.append(
            f"{table.at(int(np.argmax(blank)))}: {REQUIRED_SOC} is blank while a vehicle is connected{and_more(blank)}"
        )
    with np.errstate(invalid="ignore"):
        jumps = connected[1:] & ~begins[1:] & (np.diff(departure) != -1)
        last = connected[:-1] & (begins[1:] | ~connected[1:]) & (departure[:-1] != 0)
    if jumps.any():
        row = int(np.argmax(jumps)) + 1
        report.warnings.append(
            f"{table.at(row)}: {DEPARTURE} goes from {departure[row - 1]:g} to {departure[row]:g}, it should count "
            f"down by 1{and_more(jumps)}"
        )
    if last.any():
        row = int(np.argmax(last))
        report.warnings.append(
            f"{table.at(row)}: {DEPARTURE} is {departure[row]:g} on the last connected row, it should end at 0"
            f"{and_more(last)}"
        )


def check_shared_vehicles(schedules: list[Schedule], report: Report) -> None:
    """No vehicle may be connected to two chargers in one row, and no schedule be a copy of another."""
    if len(schedules) < 2:
        return
    names = np.unique(np.concatenate([schedule.vehicle.astype(str) for schedule in schedules]))
    codes = np.stack([np.where(s.connected, np.searchsorted(names, s.vehicle.astype(str)), -1) for s in schedules])
    order = np.argsort(codes, axis=0, kind="stable")
    ranked = np.take_along_axis(codes, order, axis=0)
    twice = (ranked[1:] == ranked[:-1]) & (ranked[1:] >= 0)
    pairs: dict[int, tuple[int, int, int, int]] = {}
    for row in np.flatnonzero(twice.any(axis=0)):
        for place in np.flatnonzero(twice[:, row]):
            code = int(ranked[place, row])
            _, _, _, rows = pairs.get(code, (0, 0, 0, 0))
            if rows:
                pairs[code] = (*pairs[code][:3], rows + 1)
            else:
                pairs[code] = (int(order[place, row]), int(order[place + 1, row]), int(row), 1)
    for code, (one, other, row, rows) in pairs.items():
        report.errors.append(
            f"{schedules[one].table.at(row)}: vehicle {str(names[code])!r} is connected to chargers "
            f"{schedules[one].charger} and {schedules[other].charger} at the same time"
            f"{f' (and {rows - 1} more)' if rows > 1 else ''}"
        )
    seen: dict[bytes, str] = {}
    for schedule in schedules:
        if not schedule.connected.any():
            continue
        content = np.concatenate((schedule.connected, np.nan_to_num(schedule.arrival_soc))).tobytes()
        if content in seen:
            report.warnings.append(
                f"{schedule.table.name} repeats the visits of {seen[content]}: its vehicles come and go as copies"
            )
        seen.setdefault(content, schedule.table.name)
