"""Folders of CityLearn 1 and 2 as folders that CityLearn 3.0.2 runs.

Older data sets name their columns in words with units (`Solar Generation (W/kW)`), their outlooks by hours
(`electricity_pricing_predicted_6h`), and have washing machines with a row for every step. CityLearn 3 has another name
for each, and `deferrable_appliances` with tables of programmes and windows. All numbers stay as they are written.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from iquitos_rl.cases.schema.appliances import ACTION, APPLIANCE, PROFILE_COLUMNS, PROFILES, SCHEDULE, SCHEDULE_COLUMNS
from iquitos_rl.cases.schema.names import knows_action, knows_observation
from iquitos_rl.cases.schema.report import SCHEMA
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import copy_folder, new_folder, write_json
from iquitos_rl.machine.inputs import InputError, json_value, read_bytes, read_json, read_text, shown

LONGEST_HEADER = 1 << 16
"""Bytes of a file in which its header is looked for."""
DATA_FILES = ("energy_simulation", "weather", "pricing", "carbon_intensity")
SET_POINTS = tuple(f"indoor_dry_bulb_temperature_{use}_set_point" for use in ("cooling", "heating"))
DELTAS = tuple(f"indoor_dry_bulb_temperature_{use}_delta" for use in ("cooling", "heating"))
WORDS = {
    "month": ("month",),
    "hour": ("hour",),
    "day type": ("day_type",),
    "daylight savings status": ("daylight_savings_status",),
    "indoor temperature": ("indoor_dry_bulb_temperature",),
    "average unmet cooling setpoint difference": ("average_unmet_cooling_setpoint_difference",),
    "indoor relative humidity": ("indoor_relative_humidity",),
    "equipment electric power": ("non_shiftable_load",),
    "dhw heating": ("dhw_demand",),
    "cooling load": ("cooling_demand",),
    "heating load": ("heating_demand",),
    "solar generation": ("solar_generation",),
    "occupant count": ("occupant_count",),
    "temperature set point": SET_POINTS,
    "hvac mode": ("hvac_mode",),
    "outdoor drybulb temperature": ("outdoor_dry_bulb_temperature",),
    "relative humidity": ("outdoor_relative_humidity",),
    "outdoor relative humidity": ("outdoor_relative_humidity",),
    "diffuse solar radiation": ("diffuse_solar_irradiance",),
    "direct solar radiation": ("direct_solar_irradiance",),
    "electricity pricing": ("electricity_pricing",),
    "carbon intensity": ("carbon_intensity",),
    "kg_co2/kwh": ("carbon_intensity",),
}
"""Older columns, in small letters and without their unit, to those of CityLearn 3. A single set-point counts twice."""
RENAMED = {
    "temperature_set_point": SET_POINTS,
    "indoor_dry_bulb_temperature_set_point": SET_POINTS,
    "indoor_dry_bulb_temperature_delta": DELTAS,
    "washing_machine": (ACTION,),
    "washing_machine_start_time_step": (f"{ACTION}_earliest_start_time_step",),
    "washing_machine_end_time_step": (f"{ACTION}_latest_start_time_step",),
    "washing_machine_load_profile": (f"{ACTION}_cycle_energy_kwh",),
    "washing_machine_initiated": (f"{ACTION}_running",),
}
"""Older observations, actions and columns to those of CityLearn 3."""
KEYS = {f"simulation_{end}_timestep": f"simulation_{end}_time_step" for end in ("start", "end")}
"""Older keys of a schema to those of CityLearn 3."""
MISSING = {"seconds_per_time_step": 3600, "central_agent": False, "random_seed": 1}
"""What a schema of CityLearn 1 may lack. It drew another seed in every run."""
LEADS = {"6": "1", "12": "2", "24": "3"}
MACHINES, MACHINE_FILE = "washing_machines", "washing_machine_energy_simulation"


class Cycle(NamedTuple):
    """One cycle of a washing machine, in rows of its file."""

    earliest: int
    latest: int
    profile: str
    """As written, a list of kWh."""
    steps: int


def new_names(name: str) -> tuple[str, ...]:
    """The names in CityLearn 3 of a column, observation or action; itself where it is none of an older CityLearn."""
    if name in RENAMED:
        return RENAMED[name]
    if lead := re.fullmatch(r"(.+)_predicted_(6|12|24)h", name):
        return (f"{lead[1]}_predicted_{LEADS[lead[2]]}",)
    if name == name.lower() and " " not in name and "/" not in name:
        return (name,)
    words = re.sub(r"\s*[\[(][^\])]*[\])]\s*$", "", name).strip().lower()
    if lead := re.fullmatch(r"(6|12|24)h prediction (.+)", words):
        return tuple(f"{own}_predicted_{LEADS[lead[1]]}" for own in WORDS.get(lead[2], ())) or (name,)
    return WORDS.get(words, (name,))


def old_signs(schema: Mapping[str, Any], root: Path) -> list[str]:
    """What of a folder is written for an older CityLearn, in a few words each."""
    found = [f"column {name} in {file}" for file in _data_files(schema) for name in _old(_header(root / file))]
    found += [f"key {key}" for key in KEYS if key in schema]
    found += [f"observation {name}" for name in _old(_entries(schema, "observations"))]
    actions = _entries(schema, "actions")
    # An inactive one does no harm.
    found += [f"action {name}" for name in _old(name for name, own in actions.items() if own.get("active"))]
    return found


def upgrade(folder: Path, output: Path) -> list[str]:
    """Write a folder that CityLearn 3.0.2 runs; returns what was changed, a sentence each.

    Raises:
        UserError: nothing in the folder is of an older CityLearn, a file cannot be read, or `output` is not empty.
    """
    schema = _read_schema(folder)
    root = folder / str(schema.get("root_directory") or "")
    if not old_signs(schema, root) and not any(own.get(MACHINES) for own in _entries(schema, "buildings").values()):
        raise UserError(f"{folder}: nothing in it is of an older CityLearn")
    machines = [own for block in _entries(schema, "buildings").values() for own in _entries(block, MACHINES).values()]
    for file in (*_data_files(schema), *(str(own.get(MACHINE_FILE)) for own in machines)):
        if Path(file).is_absolute() or ".." in Path(file).parts:  # it would be written to where it is
            raise UserError(f"{folder}: {shown(file)} lies outside of the folder: copy it there")
    notes: list[str] = []
    with new_folder(output) as target:
        copy_folder(root, target)
        for file in _data_files(schema):
            notes += _rename_columns(target / file)
        for kind, known in (("observations", knows_observation), ("actions", knows_action)):
            if isinstance(schema.get(kind) or {}, dict):  # else it is for the reader to refuse
                schema[kind], more = _rename(schema.get(kind) or {}, known, kind)
                notes += more
        for name, building in _entries(schema, "buildings").items():
            for kind in ("inactive_observations", "inactive_actions"):
                if isinstance(building.get(kind), list):
                    building[kind] = [new for old in building[kind] for new in new_names(str(old))]
            if building.get(MACHINES):
                own = _entries(building, MACHINES)
                del building[MACHINES]
                building["deferrable_appliances"], more = _appliances(own, name, target)
                notes += more
        notes += _rename_keys(schema)
        schema["root_directory"] = None
        write_json(target / SCHEMA, schema)
    return notes


def _rename_keys(schema: dict[str, Any]) -> list[str]:
    """Give a schema its new keys, in place."""
    notes = []
    for old, new in KEYS.items():
        if old in schema:
            schema[new] = schema.pop(old)
            notes.append(f"{old} is now {new}")
    for key, value in MISSING.items():
        if key not in schema:
            schema[key] = value
            notes.append(f"{key} was missing: {value}")
    if isinstance(schema.get("reward_function"), str):
        schema["reward_function"] = {"type": schema["reward_function"], "attributes": None}
    for name, building in _entries(schema, "buildings").items():
        plant = _entries(building, "pv").get("attributes")
        if isinstance(plant, dict) and "capacity" in plant and "nominal_power" not in plant:
            plant["nominal_power"] = plant.pop("capacity")
            notes.append(f"{name}: capacity of the PV plant is now nominal_power")
    return notes


def _read_schema(folder: Path) -> dict[str, Any]:
    schema = read_json(folder / SCHEMA)
    if not isinstance(schema, dict):
        raise UserError(f"{folder / SCHEMA} must hold one JSON object")
    return schema


def _entries(schema: Mapping[str, Any], key: str) -> dict[str, dict[str, Any]]:
    """The blocks under a key; whatever else stands there is for the reader to refuse."""
    blocks = schema.get(key)
    return {name: own for name, own in blocks.items() if isinstance(own, dict)} if isinstance(blocks, dict) else {}


def _data_files(schema: Mapping[str, Any]) -> list[str]:
    """Names of all files of buildings, weather, prices and carbon, once each."""
    named = [own.get(key) for own in _entries(schema, "buildings").values() for key in DATA_FILES]
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and name.lower().endswith(".csv")))


def _header(path: Path) -> list[str]:
    """The first line's cells; none where the file cannot be read."""
    try:
        line = read_bytes(path, LONGEST_HEADER, cut=True).split(b"\n", 1)[0]
        return next(csv.reader([line.decode("utf-8")]), [])
    except (InputError, UnicodeDecodeError, csv.Error):
        return []


def _old(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if new_names(name) != (name,))


def _rename_columns(path: Path) -> list[str]:
    """Give a file's columns their new names; a column that becomes two is written twice."""
    header = _header(path)
    if not list(_old(header)):
        return []
    try:
        rows = list(csv.reader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise InputError(path, f"is not a readable CSV file: {error}") from None
    places = [(n, new) for n, name in enumerate(header) for new in new_names(name)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([new for _, new in places])
        writer.writerows([row[n] for n, _ in places] for row in rows[1:] if row)
    return [f"{path.name}: {sum(1 for _ in _old(header))} columns renamed"]


def _rename(block: dict[str, Any], knows: Any, kind: str) -> tuple[dict[str, Any], list[str]]:
    """Observations or actions with their new names, without those that CityLearn 3 does not know."""
    found: dict[str, Any] = {}
    notes = []
    for old, value in block.items():
        for new in new_names(old):
            if not knows(new):
                notes.append(f"{kind}: {old} left out, CityLearn 3.0.2 has none such")
            else:
                found[new] = value
                notes += [f"{kind}: {old} is now {new}"] if new != old else []
    return found, notes


def _appliances(machines: dict[str, Any], building: str, target: Path) -> tuple[dict[str, Any], list[str]]:
    """Washing machines as appliances; writes their tables."""
    found, notes = {}, []
    for name, machine in machines.items():
        file = str(machine.get(MACHINE_FILE))
        cycles, lost = fitted(read_cycles(target / file))
        texts = list(dict.fromkeys(cycle.profile for cycle in cycles))
        energies = [np.array(json_value(text), dtype=np.float32) for text in texts]
        profiles = [(f"p{k}", len(own), float(own.sum()), text) for k, (own, text) in enumerate(zip(energies, texts))]
        schedule = [
            (f"c{k}", f"p{texts.index(c.profile)}", c.earliest, c.latest, c.latest + c.steps - 1, 1.0, True)
            for k, c in enumerate(cycles)
        ]
        stem = Path(file).stem
        names = {PROFILES: f"{stem}_profiles.csv", SCHEDULE: f"{stem}_schedule.csv"}
        for key, columns, rows in ((PROFILES, PROFILE_COLUMNS, profiles), (SCHEDULE, SCHEDULE_COLUMNS, schedule)):
            text = io.StringIO()
            pd.DataFrame(rows, columns=list(columns)).to_csv(text, index=False)
            (target / names[key]).write_text(text.getvalue(), encoding="utf-8")
        # A washing machine starts at every action above 0.
        found[name] = {"type": APPLIANCE, **names, "attributes": {"trigger_threshold": 0.0}}
        notes.append(f"{building}: {name} is an appliance with {len(cycles)} cycles now")
        notes += [f"{building}: {name}: a window was shortened or left out, {text}" for text in lost]
    return found, notes


def read_cycles(path: Path) -> list[Cycle]:
    """The cycles of a washing machine: rows that follow each other with one window and one profile.

    Raises:
        UserError: the file cannot be read or has no such columns.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path)))
        first, last = (pd.to_numeric(table[f"wm_{end}_time_step"], errors="coerce") for end in ("start", "end"))
        text = table["load_profile"].map(str)
    except (InputError, ValueError, KeyError) as error:
        raise UserError(f"{path.name} is no file of a washing machine: {' '.join(str(error).split())}") from None
    rows = pd.DataFrame({"first": first.fillna(-1), "last": last.fillna(-1), "text": text})
    rows["row"] = np.arange(len(rows))
    rows = rows[(rows["first"] >= 0) & (rows["row"] >= rows["first"]) & (rows["row"] <= rows["last"])]
    block = ((rows[["first", "last", "text"]] != rows[["first", "last", "text"]].shift()).any(axis=1)).cumsum()
    found = []
    for _, own in rows.groupby(block):
        profile = own["text"].iloc[0]
        try:
            values = np.atleast_1d(np.array(json_value(profile), dtype=np.float64))
        except (ValueError, TypeError, OverflowError):
            continue  # no profile, no cycle: CityLearn does nothing then
        if values.ndim == 1 and len(values) and (values >= 0).all():
            written = json.dumps(values.tolist())
            found.append(Cycle(int(own["row"].iloc[0]), int(own["row"].iloc[-1]), written, len(values)))
    return found


def fitted(cycles: list[Cycle]) -> tuple[list[Cycle], list[str]]:
    """Cycles whose windows, with the time that they run, do not overlap: CityLearn 3 refuses those that do.

    Returns:
        The cycles, and a few words on each window that had to be changed.
    """
    found: list[Cycle] = []
    changed: list[str] = []
    free = 0
    for cycle, after in zip(cycles, [*(c.earliest for c in cycles[1:]), None]):
        earliest = max(cycle.earliest, free)
        if earliest > cycle.latest:
            changed.append(f"rows {cycle.earliest} to {cycle.latest}: the cycle before may still run")
            continue
        latest = cycle.latest if after is None else min(cycle.latest, max(after - cycle.steps, earliest))
        if (earliest, latest) != (cycle.earliest, cycle.latest):
            changed.append(f"rows {cycle.earliest} to {cycle.latest} are now {earliest} to {latest}")
        found.append(cycle._replace(earliest=earliest, latest=latest))
        free = latest + cycle.steps
    return found, changed
