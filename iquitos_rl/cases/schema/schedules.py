"""Charger schedule files: who is connected when, and which SOC the data force, exactly as CityLearn reads them.

CityLearn reads a file row by row while it runs (`data.py`, ChargerSimulation; `internal/runtime.py`,
associate_chargers_to_electric_vehicles and simulate_unconnected_ev_soc). None of it depends on the actions, so it is
worked out here once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iquitos_rl.cases.schema.tables import Table
from iquitos_rl.cases.site import AWAY, CONNECTED, INCOMING, Bools, Floats, Ints
from iquitos_rl.errors import UserError

STATE = "electric_vehicle_charger_state"
VEHICLE = "electric_vehicle_id"
DEPARTURE = "electric_vehicle_departure_time"
REQUIRED = "electric_vehicle_required_soc_departure"
ARRIVAL_TIME = "electric_vehicle_estimated_arrival_time"
ARRIVAL_SOC = "electric_vehicle_estimated_soc_arrival"
SESSION = "electric_vehicle_session_id"
CURRENT_SOC = "electric_vehicle_current_soc"
NONE = -1
HIGHEST_STATE = 9
"""States beyond the three that CityLearn knows mean "nobody" to it."""


@dataclass(frozen=True)
class Schedule:
    """One charger's file, parsed; SOCs are fractions, NaN where the file gives none."""

    table: Table
    state: Ints
    named: Ints
    """(T,) index of the vehicle that the row names, -1 where it names none or one the schema excludes."""
    required_soc: Floats
    soc_at_arrival: Floats
    current_soc: Floats
    starts: Bools
    """(T,) True where a visit begins."""

    @property
    def vehicle(self) -> Ints:
        """(T,) index of the connected vehicle, -1 where the socket is empty."""
        return np.where(self.state == CONNECTED, self.named, NONE)


def read_schedule(table: Table, vehicles: dict[str, int]) -> Schedule:
    """Parse and check one charger's file.

    Args:
        vehicles: name to index of every vehicle in the schema, -1 for those it excludes.

    Raises:
        UserError: a column is missing, a state is not a whole number, a vehicle is unknown, or the vehicle that is
            announced differs from the one that connects (CityLearn stops there too).
    """
    table.check_columns((STATE, VEHICLE, DEPARTURE, REQUIRED, ARRIVAL_TIME, ARRIVAL_SOC), optional=None)
    state = table.integers(STATE, 0, HIGHEST_STATE)
    named, has_name = _vehicles(table, state, vehicles)
    # CityLearn truncates countdowns to whole steps and reads a blank as -1.
    countdown = np.nan_to_num(table.numbers(DEPARTURE, blank_allowed=True), nan=-1.0).astype(np.int32)
    vehicle = np.where(state == CONNECTED, named, NONE)
    same = np.zeros(len(state), dtype=bool)
    same[1:] = (vehicle[1:] == vehicle[:-1]) & ~_new_session(table, countdown)
    starts = (vehicle != NONE) & ~same
    table.numbers(ARRIVAL_TIME, blank_allowed=True)
    current_soc = _soc(table, CURRENT_SOC) if CURRENT_SOC in table else np.full(len(state), np.nan)
    other = np.isin(state[:-1], (INCOMING, AWAY)) & has_name[:-1] & starts[1:] & (named[:-1] != named[1:])
    other &= np.isnan(current_soc[1:])
    if other.any():
        row = int(np.flatnonzero(other)[0])
        cells = table.cells(VEHICLE)
        raise UserError(f"{table.place(row, VEHICLE)}: {cells[row]} is named, but {cells[row + 1]} connects next")
    return Schedule(
        table=table,
        state=state,
        named=named,
        required_soc=_soc(table, REQUIRED),
        soc_at_arrival=_soc(table, ARRIVAL_SOC),
        current_soc=current_soc,
        starts=starts,
    )


def departures(vehicle: Ints, starts: Bools) -> tuple[Floats, Bools]:
    """(T,) steps left after each connected row, -1 where empty, and (T,) True on the last row of each visit.

    The file's countdown is not used: some end at 0, some at 1. A visit that the data cut off ends with the data.
    """
    connected = vehicle != NONE
    ends = connected.copy()
    ends[:-1] &= ~connected[1:] | starts[1:]
    rows = np.arange(len(vehicle))
    end_row = np.minimum.accumulate(np.where(ends, rows, len(vehicle))[::-1])[::-1]
    return np.where(connected, end_row - rows, NONE).astype(np.float64), ends


def forced_socs(
    schedules: list[Schedule], lowest_soc: Floats, loss: Floats
) -> tuple[list[Floats], list[tuple[int, int]]]:
    """The SOC that the data force at every socket and row, NaN where they force none.

    Args:
        schedules: every charger of the site, in CityLearn's order.
        lowest_soc: (V,) 1 - depth of discharge of each vehicle.
        loss: (V,) share of its SOC that a vehicle loses in one step.

    Returns:
        (T,) per charger, and the arrivals (charger, row) whose SOC CityLearn draws at random, because the file gives
        none and the vehicle was away long enough for CityLearn to drive it around.

    Raises:
        UserError: a vehicle is connected to two chargers in one row.
    """
    if not schedules:
        return [], []
    rows, count = len(schedules[0].state), len(lowest_soc)
    connected_at = _connections(schedules, count)
    event = connected_at != NONE  # (T, V): CityLearn leaves the SOC alone; without an event it lets it drift
    early = np.full((rows, count), np.nan)  # (T, V) SOC forced on the row before a connection
    for n, schedule in enumerate(schedules):
        _announce(schedule, n, connected_at, event, early)
    early[0] = np.nan  # nothing is announced on an episode's first row
    forced, random = [], []
    for n, schedule in enumerate(schedules):
        values, at_random = _arrivals(schedule, connected_at, event, early, lowest_soc, loss)
        forced.append(values)
        random += [(n, row) for row in at_random]
    return forced, random


def _vehicles(table: Table, state: Ints, vehicles: dict[str, int]) -> tuple[Ints, Bools]:
    """(T,) index of the vehicle each row names or -1, and whether it names any."""
    codes, names = pd.factorize(table.cells(VEHICLE))
    unknown_code = len(vehicles)
    texts = [name if isinstance(name, str) else "" for name in names]
    lookup = np.array([vehicles.get(text, unknown_code) for text in texts] + [NONE])
    blank = np.array([text.strip() in ("", "nan") for text in texts] + [True])
    has_name = ~blank[codes]
    matters = np.isin(state, (CONNECTED, INCOMING)) & has_name & (lookup[codes] == unknown_code)
    if matters.any():
        row = int(np.flatnonzero(matters)[0])
        raise UserError(f"{table.place(row, VEHICLE)}: the schema defines no vehicle {names[codes[row]]}")
    nameless = (state == CONNECTED) & ~has_name
    if nameless.any():
        row = int(np.flatnonzero(nameless)[0])
        raise UserError(f"{table.place(row, VEHICLE)}: a vehicle is connected but the cell does not name it in text")
    named = np.where(has_name & (lookup[codes] != unknown_code), lookup[codes], NONE)
    return named, has_name


def _new_session(table: Table, countdown: NDArray[np.int32]) -> Bools:
    """(T - 1,) whether row t + 1 begins another session of the vehicle that was connected at t.

    By session id where the file gives one, else by a countdown that starts again.
    """
    restarted: Bools = (countdown[:-1] <= 1) & (countdown[1:] > countdown[:-1])
    if SESSION not in table:
        return restarted
    codes, names = pd.factorize(table.cells(SESSION))
    is_id = np.array([isinstance(name, str) and name.strip() not in ("", "nan") for name in names] + [False])
    has_id = is_id[codes]
    changed: Bools = has_id[1:] & has_id[:-1] & (codes[1:] != codes[:-1])
    return changed | (~has_id[1:] & restarted)


def _soc(table: Table, column: str) -> Floats:
    """(T,) SOC as a fraction, NaN where the file gives none; numbers above 1 are percentages (`data.py`)."""
    raw = table.numbers(column, blank_allowed=True)
    soc = np.where(raw > 1, raw / np.float32(100), raw).clip(max=1)
    return np.where(raw >= 0, soc, np.nan).astype(np.float64)


def _connections(schedules: list[Schedule], count: int) -> Ints:
    """(T, V) the charger that each vehicle is connected to, -1 where it is away."""
    connected_at = np.full((len(schedules[0].state), count), NONE)
    for n, schedule in enumerate(schedules):
        vehicle = schedule.vehicle
        rows = np.flatnonzero(vehicle != NONE)
        taken = connected_at[rows, vehicle[rows]] != NONE
        if taken.any():
            row = int(rows[np.flatnonzero(taken)[0]])
            other = schedules[int(connected_at[row, vehicle[row]])].table.path.name
            name = schedule.table.cells(VEHICLE)[row]
            raise UserError(
                f"{schedule.table.place(row, VEHICLE)}: {name} is connected to the charger of {other} in the same row"
            )
        connected_at[rows, vehicle[rows]] = n
    return connected_at


def _announce(schedule: Schedule, n: int, connected_at: Ints, event: Bools, early: Floats) -> None:
    """Enter the connections that charger n makes at t + 1 into row t, where no earlier charger claims the vehicle.

    A charger that comes before the one where the vehicle still stands wins, and so overwrites the SOC of a vehicle
    that is connected elsewhere.
    """
    state, named = schedule.state, schedule.named
    rows = np.flatnonzero((state[1:] == CONNECTED) & (state[:-1] != CONNECTED) & (named[1:] != NONE))
    vehicle = named[rows + 1]
    free = ~event[rows, vehicle] | (connected_at[rows, vehicle] > n)
    rows, vehicle = rows[free], vehicle[free]
    announced_here = (state[rows] == INCOMING) & (named[rows] == vehicle)
    early[rows, vehicle] = schedule.soc_at_arrival[np.where(announced_here, rows, rows + 1)]
    event[rows, vehicle] = True


def _arrivals(
    schedule: Schedule, connected_at: Ints, event: Bools, early: Floats, lowest_soc: Floats, loss: Floats
) -> tuple[Floats, list[int]]:
    """(T,) SOC forced at one charger, and the rows whose arriving SOC is random."""
    vehicle = schedule.vehicle
    rows = np.flatnonzero(vehicle != NONE)
    forced = np.full(len(vehicle), np.nan)
    forced[rows] = early[rows, vehicle[rows]]

    starts = np.flatnonzero(schedule.starts)
    before = np.maximum(starts - 1, 0)
    announced = (starts > 0) & np.isin(schedule.state[before], (INCOMING, AWAY))
    soc = schedule.soc_at_arrival[np.where(announced, before, starts)]
    soc = np.where(np.isnan(schedule.current_soc[starts]), soc, schedule.current_soc[starts])

    arriving = vehicle[starts]
    from_away = (starts > 0) & (connected_at[before, arriving] == NONE)
    # A visit of one row may be announced over by the next charger; then that SOC already stands.
    missing = np.flatnonzero(np.isnan(soc) & from_away & np.isnan(early[starts, arriving]))
    v = arriving[missing]
    # No SOC of its own: the one announced a row earlier has idled for a step (`energy_model.py`, next_time_step).
    soc[missing] = np.clip(early[before[missing], v] * (1.0 - loss[v]), lowest_soc[v], 1.0).astype(np.float32)
    random = []
    for k in missing[np.isnan(soc[missing])]:
        row = int(starts[k])
        if _drifted(event[:row, arriving[k]], connected_at[:row, arriving[k]]):
            random.append(row)
    known = ~np.isnan(soc)
    forced[starts[known]] = soc[known]
    return forced, random


def _drifted(event: Bools, connected_at: Ints) -> bool:
    """Whether CityLearn moved the vehicle's SOC at random since it was last connected; row 0 is never touched."""
    last = np.flatnonzero(connected_at != NONE)
    first = max(int(last[-1]) + 1 if len(last) else 0, 1)
    return bool((~event[first:]).any())
