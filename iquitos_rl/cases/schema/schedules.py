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

    charger: str
    table: Table
    state: Ints
    named: Ints
    """(T,) index of the vehicle that the row names, -1 where it names none or one the schema excludes."""
    countdown: Floats
    """(T,) steps until departure as the file has them, NaN where it has none."""
    required_soc: Floats
    soc_at_arrival: Floats
    current_soc: Floats
    starts: Bools
    """(T,) True where a visit begins."""

    @property
    def vehicle(self) -> Ints:
        """(T,) index of the connected vehicle, -1 where the socket is empty."""
        return np.where(self.state == CONNECTED, self.named, NONE)


def read_schedule(charger: str, table: Table, vehicles: dict[str, int]) -> Schedule:
    """Parse and check one charger's file; problems are recorded in the table's report.

    Args:
        vehicles: name to index of every vehicle in the schema, -1 for those it excludes.
    """
    table.check_columns((STATE, VEHICLE, DEPARTURE, REQUIRED, ARRIVAL_TIME, ARRIVAL_SOC), optional=None)
    state = _states(table)
    named, has_name = _vehicles(table, state, vehicles)
    countdown = table.numbers(DEPARTURE, blank_allowed=True)
    vehicle = np.where(state == CONNECTED, named, NONE)
    same = np.zeros(len(state), dtype=bool)
    same[1:] = (vehicle[1:] == vehicle[:-1]) & ~_new_session(table, countdown)
    starts = (vehicle != NONE) & ~same
    table.numbers(ARRIVAL_TIME, blank_allowed=True)
    current_soc = _soc(table, CURRENT_SOC) if CURRENT_SOC in table else np.full(len(state), np.nan)
    other = np.zeros(len(state), dtype=bool)
    other[1:] = np.isin(state[:-1], (INCOMING, AWAY)) & has_name[:-1] & starts[1:] & (named[:-1] != named[1:])
    other &= np.isnan(current_soc)
    if other.any():
        row = int(np.argmax(other))
        cells = table.cells(VEHICLE)
        table.note(
            "error", VEHICLE, other, f"{cells[row]} connects where {cells[row - 1]} was announced, CityLearn stops"
        )
    return Schedule(
        charger=charger,
        table=table,
        state=state,
        named=named,
        countdown=countdown.astype(np.float64),
        required_soc=_soc(table, REQUIRED),
        soc_at_arrival=_soc(table, ARRIVAL_SOC),
        current_soc=current_soc,
        starts=starts,
    )


def _states(table: Table) -> Ints:
    """(T,) states as CityLearn reads them: it takes texts of digits alone, and everything else for nobody."""
    cells = table.cells(STATE)
    if cells.dtype.kind in "iu":
        unknown = ~np.isin(cells, (CONNECTED, INCOMING, AWAY))
        seen = ", ".join(map(str, np.unique(cells[unknown])[:3]))
        table.note("warning", STATE, unknown, f"state {seen} means nobody to CityLearn; 1, 2 and 3 have a meaning")
        return np.where(unknown, AWAY, cells).astype(np.int64)
    if STATE in table:
        texts = table.as_written(STATE)
        blank = texts == ""
        table.note(
            "error", STATE, blank, "the cell is blank, CityLearn would then disconnect every vehicle of this charger"
        )
        wrong = ~blank & ~np.array([text.isdigit() for text in texts], dtype=bool)
        must = "it must be the whole number 1 (connected), 2 (incoming) or 3 (away)"
        table.note("error", STATE, wrong, f"{texts[int(np.argmax(wrong))]!r}: {must}", kind=must)
        if not (blank | wrong).any():
            table.note("error", STATE, ~blank, f"{cells[0]!r}: {must}", kind=must)
    return np.full(table.rows, AWAY)


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


def forced_socs(schedules: list[Schedule], lowest_soc: Floats, loss: Floats) -> tuple[list[Floats], Bools | None]:
    """The SOC that the data force at every socket and row, NaN where they force none.

    Args:
        schedules: every charger of the site, in CityLearn's order.
        lowest_soc: (V,) 1 - depth of discharge of each vehicle.
        loss: (V,) share of its SOC that a vehicle loses in one step.

    Returns:
        (T,) per charger, and (T, V) the rows in which CityLearn moves the SOC of a vehicle that is away, see
        `drift_factors`; None where every vehicle that moved has its SOC forced when it arrives.
    """
    if not schedules:
        return [], None
    rows, count = len(schedules[0].state), len(lowest_soc)
    connected_at = _connections(schedules, count)
    event = connected_at != NONE  # (T, V): CityLearn leaves the SOC alone; without an event it lets it drift
    early = np.full((rows, count), np.nan)  # (T, V) SOC forced on the row before a connection
    for n, schedule in enumerate(schedules):
        _announce(schedule, n, connected_at, event, early)
    early[0] = np.nan  # nothing is announced on an episode's first row
    arrivals = [_arrivals(schedule, connected_at, event, early, lowest_soc, loss) for schedule in schedules]
    moves = ~event
    moves[[0, -1]] = False  # CityLearn moves nobody on the first row and on the last, which it never simulates
    return [forced for forced, _ in arrivals], moves if any(unknown for _, unknown in arrivals) else None


def drift_factors(moves: Bools, seed: int, seconds: float) -> Floats:
    """(T, V) what CityLearn multiplies the SOC of a vehicle that is away with in each row, NaN where it leaves it.

    Source: `internal/runtime.py`, simulate_unconnected_ev_soc. It draws one number for each vehicle that is away, row
    by row and in the schema's order, from RandomState(random_seed + episode). A new environment's first episode has the
    number 0. These are its factors, and both engines of this package repeat them in every episode; CityLearn itself
    draws others in its second.

    Args:
        moves: (T, V) who is away, see `forced_socs`.
        seed: random_seed of the schema.
        seconds: length of a step.
    """
    spread = 0.2 * np.sqrt(max(seconds, 1.0) / 3600.0)
    factors = np.full(moves.shape, np.nan)
    factors[moves] = np.random.RandomState(seed).normal(1.0, spread, int(moves.sum())).clip(0.6, 1.4)
    return factors


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
        name = str(names[codes[int(np.argmax(matters))]])
        message = f"vehicle {name!r} is not in electric_vehicles_def, CityLearn leaves the charger empty"
        table.note("error", VEHICLE, matters, message)
    message = "a vehicle is connected but the cell does not name it in text, CityLearn leaves the charger empty"
    table.note("error", VEHICLE, (state == CONNECTED) & ~has_name, message)
    named = np.where(has_name & (lookup[codes] != unknown_code), lookup[codes], NONE)
    return named, has_name


def _new_session(table: Table, countdown: NDArray[np.float32]) -> Bools:
    """(T - 1,) whether row t + 1 begins another session of the vehicle that was connected at t.

    By session id where the file gives one, else by a countdown that starts again.
    """
    # CityLearn truncates countdowns to whole steps and reads a blank as -1.
    steps = np.nan_to_num(countdown, nan=-1.0).astype(np.int32)
    restarted: Bools = (steps[:-1] <= 1) & (steps[1:] > steps[:-1])
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
            row = int(rows[np.argmax(taken)])
            other = schedules[int(connected_at[row, vehicle[row]])].charger
            twice = np.zeros(len(vehicle), dtype=bool)
            twice[rows[taken]] = True
            name = str(schedule.table.cells(VEHICLE)[row])
            message = f"vehicle {name!r} is connected to chargers {other} and {schedule.charger} at the same time"
            schedule.table.note("error", VEHICLE, twice, message)
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
) -> tuple[Floats, bool]:
    """(T,) SOC forced at one charger, and whether a vehicle arrives with the SOC to which it drifted while away."""
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
    blank, unknown = np.zeros((2, len(vehicle)), dtype=bool)
    blank[starts[np.isnan(soc)]] = True
    for k in missing[np.isnan(soc[missing])]:
        row = int(starts[k])
        unknown[row] = _drifted(event[:row, arriving[k]], connected_at[:row, arriving[k]])
    at = np.append(unknown[1:], False)  # CityLearn looks for the SOC one row earlier, where the socket is still free
    drifts = "blank where a vehicle connects next: it comes with the SOC to which CityLearn lets it drift while away"
    schedule.table.note("warning", ARRIVAL_SOC, at, drifts)
    keeps = "blank where a vehicle connects: it keeps the SOC that it had"
    schedule.table.note("warning", ARRIVAL_SOC, blank & ~unknown & np.isnan(forced), keeps)
    known = ~np.isnan(soc)
    forced[starts[known]] = soc[known]
    return forced, bool(unknown.any())


def _drifted(event: Bools, connected_at: Ints) -> bool:
    """Whether CityLearn moved the vehicle's SOC at random since it was last connected; row 0 is never touched."""
    last = np.flatnonzero(connected_at != NONE)
    first = max(int(last[-1]) + 1 if len(last) else 0, 1)
    return bool((~event[first:]).any())
