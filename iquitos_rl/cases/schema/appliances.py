"""Appliances of a building in a schema: two tables each, of programmes and of the windows in which they may run.

CityLearn stops at every mistake in them; here all are collected. Source: CityLearn 3.0.2, `data.py`,
DeferrableApplianceSimulation, and `internal/loading.py`, load_deferrable_appliance.
"""

from __future__ import annotations

import ast
import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from iquitos_rl.cases.appliance import NOTHING, Appliance
from iquitos_rl.cases.schema.defaults import IGNORED
from iquitos_rl.cases.schema.report import Report
from iquitos_rl.cases.schema.tables import DataFiles
from iquitos_rl.cases.schema.values import Block
from iquitos_rl.cases.site import Floats

APPLIANCE = "citylearn.energy_model.DeferrableAppliance"
ACTION = "deferrable_appliance"
PROFILES, SCHEDULE = "cycle_profiles_file", "flexibility_schedule_file"
PROFILE_COLUMNS = ("profile_id", "duration_steps", "total_energy_kwh", "load_profile")
WINDOW_COLUMNS = ("earliest_start_time_step", "latest_start_time_step", "deadline_time_step")
SCHEDULE_COLUMNS = ("cycle_id", "profile_id", *WINDOW_COLUMNS, "priority", "must_run")
THRESHOLD = 0.5
"""CityLearn's default."""


class Window(NamedTuple):
    """When a cycle may run, in rows of the data files."""

    earliest: int
    latest: int
    deadline: int
    cycle: str
    profile: str


def read_appliances(block: Block, files: DataFiles, actions: list[str], hours: float) -> tuple[Appliance, ...]:
    """The appliances of a building that an action can start; the others never run.

    Args:
        actions: the building's active actions.
        hours: length of a step.
    """
    children = block.child("deferrable_appliances").children()
    found = tuple(_appliance(name, own, files, hours) for name, own in children)
    return found if ACTION in actions else ()


def _appliance(name: str, block: Block, files: DataFiles, hours: float) -> Appliance:
    block.check_class("type", required=False)
    attributes = block.child("attributes")
    for key in attributes.content:
        if key not in ("trigger_threshold", "nominal_power", "efficiency", *IGNORED):
            attributes.error(f"an appliance has no attribute {key!r}")
    threshold = attributes.number("trigger_threshold", -math.inf, math.inf, default=THRESHOLD)
    most = attributes.number("nominal_power", 0, math.inf, default=0.0)
    programmes = _programmes(block, files)
    windows = _windows(block, files, programmes)
    for window in windows:
        peak = float(programmes[window.profile].max()) / hours
        if most > 0 and peak > most + 1e-9:
            attributes.error(f"nominal_power is {most:g} kW, cycle {window.cycle} needs {peak:g} kW")
    cycle = np.full(files.rows, NOTHING)
    for c, window in enumerate(windows):
        # It must end before the last row, which is never simulated.
        last = min(window.latest - files.start, files.rows - len(programmes[window.profile]) - 1)
        cycle[max(window.earliest - files.start, 0) : max(last + 1, 0)] = c
    longest = max((len(programmes[window.profile]) for window in windows), default=1)
    profiles = np.zeros((len(windows), longest))
    for c, window in enumerate(windows):
        profiles[c, : len(programmes[window.profile])] = programmes[window.profile]
    return Appliance(
        name=name,
        threshold=min(max(threshold, 0.0), 1.0),
        cycle=cycle,
        profiles=profiles,
        duration=np.array([len(programmes[window.profile]) for window in windows], dtype=np.int64),
    )


def _programmes(block: Block, files: DataFiles) -> dict[str, Floats]:
    """Name to kWh of each step, (steps,) rounded to single precision."""
    found: dict[str, Floats] = {}
    name, table = files.whole(block, PROFILES, PROFILE_COLUMNS)
    for line, row in enumerate(table.to_dict("records"), start=2):
        problem = _Problem(files.report, name, line)
        profile, key = parse_profile(row["load_profile"]), str(row["profile_id"]).strip()
        if key in ("", "nan") or key in found:
            problem.add("profile_id", "it must be there, and once")
        elif not profile.size:
            problem.add("load_profile", f"{row['load_profile']!r} is no list of energies of at least 0")
        else:
            if _whole(row["duration_steps"]) != len(profile):
                problem.add("duration_steps", f"{row['duration_steps']} where load_profile has {len(profile)} steps")
            total, written = float(profile.astype(np.float32).sum()), _number(row["total_energy_kwh"])
            if not abs(total - written) <= max(1e-6, 1e-5 * max(abs(written), 1.0)):
                problem.add("total_energy_kwh", f"{row['total_energy_kwh']} where load_profile adds up to {total:g}")
            found[key] = profile
    return found


def _windows(block: Block, files: DataFiles, programmes: dict[str, Floats]) -> list[Window]:
    """The cycles in the order of their windows."""
    found: list[Window] = []
    name, table = files.whole(block, SCHEDULE, SCHEDULE_COLUMNS)
    for line, row in enumerate(table.to_dict("records"), start=2):
        problem = _Problem(files.report, name, line)
        key, profile = (str(row[column]).strip() for column in ("cycle_id", "profile_id"))
        times = [_whole(row[column]) for column in WINDOW_COLUMNS]
        if key in ("", "nan") or any(window.cycle == key for window in found):
            problem.add("cycle_id", "it must be there, and once")
        elif profile not in programmes:
            problem.add("profile_id", f"{block.get(PROFILES)} has no profile {profile!r}")
        elif None in times or min(time for time in times if time is not None) < 0:
            problem.add(WINDOW_COLUMNS[0], "the three times must be whole numbers of at least 0")
        else:
            earliest, latest, deadline = (time for time in times if time is not None)
            if earliest > latest or latest + len(programmes[profile]) - 1 > deadline:
                problem.add(WINDOW_COLUMNS[1], "the cycle must start after its earliest time and end by its deadline")
            found.append(Window(earliest, latest, deadline, key, profile))
    found.sort(key=lambda window: (window.earliest, window.latest, window.cycle))
    for before, after in pairwise(found):
        if after.earliest <= before.deadline:
            message = f"{after.cycle} may start before the deadline of {before.cycle}, CityLearn stops at it"
            files.report.add("error", name, message, WINDOW_COLUMNS[0], kind="overlap")
    return found


def parse_profile(text: object) -> Floats:
    """kWh of each step, rounded as CityLearn stores them; nothing where the cell holds no such list."""
    try:
        values = np.atleast_1d(np.array(ast.literal_eval(str(text).strip()), dtype=np.float32)).flatten()
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return np.zeros(0)
    values = values[np.isfinite(values)]
    return np.zeros(0) if (values < 0).any() else values.astype(np.float64)


class _Problem(NamedTuple):
    report: Report
    file: str
    line: int

    def add(self, column: str, message: str) -> None:
        self.report.add("error", self.file, message, column, self.line, kind=column)


def _whole(value: object) -> int | None:
    number = _number(value)
    return int(number) if math.isfinite(number) else None


def _number(value: object) -> float:
    return float(pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0])
