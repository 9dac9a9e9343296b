"""Random CityLearn schema folders that use every electrical feature, for comparing our engine with the simulator."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from iquitos_rl.cases.schema.names import PRICE_COLUMNS, WEATHER_COLUMNS

CHARGER_COLUMNS = [
    "electric_vehicle_charger_state",
    "electric_vehicle_id",
    "electric_vehicle_departure_time",
    "electric_vehicle_required_soc_departure",
    "electric_vehicle_estimated_arrival_time",
    "electric_vehicle_estimated_soc_arrival",
]
SOCKET_OBSERVATIONS = [
    "electric_vehicle_charger_connected_state",
    "connected_electric_vehicle_at_charger_departure_time",
    "connected_electric_vehicle_at_charger_required_soc_departure",
    "connected_electric_vehicle_at_charger_soc",
    "connected_electric_vehicle_at_charger_battery_capacity",
    "electric_vehicle_charger_incoming_state",
    "incoming_electric_vehicle_at_charger_estimated_arrival_time",
    "incoming_electric_vehicle_at_charger_estimated_soc_arrival",
]


@dataclass
class Features:
    """What a random schema may contain; probabilities where a number."""

    rows: int = 120
    buildings: tuple[int, int] = (1, 3)
    sockets: tuple[int, int] = (0, 6)
    seconds: tuple[int, ...] = (3600, 900)
    roaming: float = 0.5
    v2g: float = 0.7
    curves: float = 0.7
    losses: float = 0.5
    deadbands: float = 0.5
    service: float = 0.35
    constraints: float = 0.2
    omit: float = 0.4
    offset: float = 0.3
    inactive: float = 0.1
    hourly_data: float = 0.3
    """That data with a row an hour are simulated by the quarter of an hour."""
    blank_soc: float = 0.0
    """Of a visit, that the file does not say its arrival SOC; CityLearn then lets the vehicle drift."""
    overrides: Mapping[str, Any] = field(default_factory=dict)


def write_schema(folder: Path, seed: int, features: Features | None = None) -> Path:
    """Write a random schema folder; equal arguments write equal folders."""
    rng, f = np.random.default_rng(seed), features or Features()
    folder.mkdir(parents=True, exist_ok=True)
    start = int(rng.integers(1, 30)) if _chance(rng, f.offset) else 0
    total = start + f.rows + int(rng.integers(0, 4))
    seconds = int(rng.choice(f.seconds))
    _write_shared(folder, rng, total)
    count = int(rng.integers(f.buildings[0], f.buildings[1] + 1))
    chargers = [f"charger_{n}" for n in range(int(rng.integers(f.sockets[0], f.sockets[1] + 1)))]
    roaming = _chance(rng, f.roaming)
    vehicles = [f"EV {v}" for v in range(max(len(chargers) + (int(rng.integers(0, 4)) if roaming else 0), 0))]
    _write_visits(folder, rng, chargers, vehicles, total, roaming, f.blank_soc)
    homes: list[list[str]] = [[] for _ in range(count)]
    for charger in chargers:
        homes[int(rng.integers(count))].append(charger)
    hourly_data = seconds == 900 and _chance(rng, f.hourly_data)
    buildings = {
        f"Building_{b + 1}": _building(folder, rng, f, f"Building_{b + 1}", homes[b], total, seconds, hourly_data)
        for b in range(count)
    }
    schema: dict[str, Any] = {
        "random_seed": int(rng.integers(0, 1000)),
        "root_directory": None,
        "central_agent": True,
        "simulation_start_time_step": start,
        "simulation_end_time_step": start + f.rows - 1,
        "episode_time_steps": None,
        "seconds_per_time_step": seconds,
        "observations": {
            name: {"active": True, "shared_in_central_agent": name == "hour"}
            for name in ["hour", "electrical_storage_soc", "net_electricity_consumption", *SOCKET_OBSERVATIONS]
        },
        "actions": {"electrical_storage": {"active": True}, "electric_vehicle_storage": {"active": True}},
        "reward_function": {"type": "citylearn.reward_function.RewardFunction", "attributes": {}},
        "electric_vehicles_def": {name: _vehicle(rng, f) for name in vehicles},
        "buildings": buildings,
    }
    schema |= f.overrides
    (folder / "schema.json").write_text(json.dumps(schema, indent=1), encoding="utf-8")
    return folder


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values()))


def _chance(rng: Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _write_shared(folder: Path, rng: Generator, rows: int) -> None:
    write_csv(folder / "weather.csv", {name: rng.uniform(0, 40, rows).round(3) for name in WEATHER_COLUMNS})
    write_csv(folder / "pricing.csv", {name: rng.uniform(0.1, 0.5, rows).round(4) for name in PRICE_COLUMNS})
    write_csv(folder / "carbon_intensity.csv", {"carbon_intensity": rng.uniform(0, 0.7, rows).round(5)})


def _building(
    folder: Path, rng: Generator, f: Features, name: str, chargers: list[str], rows: int, seconds: int, hourly: bool
) -> dict[str, Any]:
    k = np.arange(rows)
    slot = k * (3600 if hourly else seconds) // 60
    zero = np.zeros(rows)
    columns = {
        "month": 1 + (slot // 43200) % 12,
        "hour": slot // 60 % 24 + 1,
        "minutes": slot % 60,
        "day_type": slot // 1440 % 7 + 1,
        "indoor_dry_bulb_temperature": [""] * rows,
        "non_shiftable_load": rng.uniform(0, 60, rows).round(4),
        "dhw_demand": zero,
        "cooling_demand": zero,
        "heating_demand": zero,
        "solar_generation": np.maximum(rng.uniform(-400, 900, rows), 0).round(3),
    }
    write_csv(folder / f"{name}.csv", columns)
    block: dict[str, Any] = {
        "include": True,
        "energy_simulation": f"{name}.csv",
        "weather": "weather.csv",
        "inactive_observations": [],
        "inactive_actions": [],
    }
    if not _chance(rng, 0.2):
        block |= {"pricing": "pricing.csv", "carbon_intensity": "carbon_intensity.csv"}
    if not _chance(rng, 0.2):
        absolute = {"generation_mode": "absolute"} if _chance(rng, 0.2) else {}
        attributes = {"nominal_power": round(rng.uniform(10, 120), 3)} | absolute
        block["pv"] = {"type": "citylearn.energy_model.PV", "autosize": False, "attributes": attributes}
    three_phase = _chance(rng, 0.5)
    if _chance(rng, 0.8):
        attributes = _battery(rng, f, round(rng.uniform(20, 200), 2), round(rng.uniform(5, 100), 2))
        block["electrical_storage"] = {
            "type": "citylearn.energy_model.Battery",
            "autosize": False,
            "attributes": attributes,
        }
        if _chance(rng, f.inactive):
            block["inactive_actions"].append("electrical_storage")
    else:
        block["inactive_actions"].append("electrical_storage")
    if chargers and _chance(rng, f.inactive):
        block["inactive_actions"].append("electric_vehicle_storage")
    block["chargers"] = {charger: _charger(rng, f, charger) for charger in chargers}
    if _chance(rng, f.service):
        block["electrical_service"] = _service(rng, three_phase)
        phases = ["L1", "L2", "L3", "all_phases"] if three_phase else ["L1"]
        for owner in [*block["chargers"].values(), block.get("electrical_storage", {"attributes": {}})]:
            if _chance(rng, 0.7):
                owner["attributes"]["phase_connection"] = str(rng.choice(phases))
    elif _chance(rng, f.constraints):
        block["charging_constraints"] = {
            "building_limit_kw": round(rng.uniform(5, 60), 2),
            "phases": [
                {"name": "a", "limit_kw": round(rng.uniform(3, 40), 2), "chargers": chargers[::2]},
                {"name": "b", "limit_kw": round(rng.uniform(3, 40), 2), "chargers": chargers[1:]},
            ],
        }
    return block


def _service(rng: Generator, three_phase: bool) -> dict[str, Any]:
    def limits(scale: float) -> dict[str, float]:
        both = {
            "import_kw": round(scale * rng.uniform(5, 100), 2),
            "export_kw": round(scale * rng.uniform(0, 80), 2),
        }
        return {key: value for key, value in both.items() if _chance(rng, 0.75)}

    phases = ["L1", "L2", "L3"] if three_phase else ["L1"]
    return {
        "mode": "three_phase" if three_phase else "single_phase",
        "default_split": str(rng.choice(["balanced", *phases])),
        "limits": {"total": limits(1.0), "per_phase": {p: limits(0.5) for p in phases if _chance(rng, 0.6)}},
    }


def _curve(rng: Generator, low: float, high: float) -> list[list[float]]:
    inner = sorted(set(rng.uniform(0.05, 0.95, int(rng.integers(0, 4))).round(3).tolist()))
    return [[x, round(rng.uniform(low, high), 4)] for x in [0.0, *inner, 1.0]]


def _battery(rng: Generator, f: Features, capacity: float, power: float) -> dict[str, Any]:
    attributes: dict[str, Any] = {"capacity": capacity, "nominal_power": power}
    optional = {
        "efficiency": round(rng.uniform(0.85, 1.0), 3),
        "loss_coefficient": round(rng.uniform(0, 0.02), 5) if _chance(rng, f.losses) else 0.0,
        "capacity_loss_coefficient": round(rng.uniform(0, 1e-3), 7) if _chance(rng, f.losses) else 0.0,
        "depth_of_discharge": round(rng.uniform(0.5, 1.0), 3),
        "initial_soc": round(rng.uniform(0, 1), 3),
        "power_efficiency_curve": _curve(rng, 0.7, 1.0) if _chance(rng, f.curves) else [[0, 0.9], [1, 0.9]],
        "capacity_power_curve": _curve(rng, 0.1, 1.0) if _chance(rng, f.curves) else [[0, 1], [1, 1]],
    }
    omitting = _chance(rng, f.omit)
    return attributes | {key: value for key, value in optional.items() if not (omitting and _chance(rng, 0.5))}


def _vehicle(rng: Generator, f: Features) -> dict[str, Any]:
    capacity = int(rng.integers(20, 90)) if _chance(rng, 0.5) else round(rng.uniform(4, 90), 2)
    attributes = _battery(rng, f, capacity, round(rng.uniform(3, 60), 2))
    return {"include": True, "battery": {"type": "citylearn.energy_model.Battery", "attributes": attributes}}


def _charger(rng: Generator, f: Features, name: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "efficiency": round(rng.uniform(0.85, 1.0), 3),
        "max_charging_power": float(rng.choice([3.7, 7.4, 11.0, 22.0, 60.0])),
        "max_discharging_power": float(rng.choice([3.7, 7.4, 22.0])) if _chance(rng, f.v2g) else 0.0,
    }
    if _chance(rng, f.deadbands):
        attributes["min_charging_power"] = round(rng.uniform(0.5, 5), 2)
        attributes["min_discharging_power"] = round(rng.uniform(0.5, 5), 2)
    if _chance(rng, f.curves / 2):
        attributes["charge_efficiency_curve"] = _curve(rng, 0.8, 1.0)
    if _chance(rng, f.curves / 2):
        attributes["discharge_efficiency_curve"] = _curve(rng, 0.8, 1.0)
    return {
        "type": "citylearn.electric_vehicle_charger.Charger",
        "charger_simulation": f"{name}.csv",
        "attributes": attributes,
    }


def _write_visits(
    folder: Path, rng: Generator, chargers: list[str], vehicles: list[str], rows: int, roaming: bool, blank_soc: float
) -> None:
    """Visits of random length and spacing, back to back too, in every convention that CityLearn reads."""
    busy = {vehicle: np.zeros(rows, dtype=bool) for vehicle in vehicles}
    for n, charger in enumerate(chargers):
        cells = {name: [""] * rows for name in CHARGER_COLUMNS}
        cells[CHARGER_COLUMNS[0]] = ["3"] * rows
        sessions, with_sessions, current = [""] * rows, _chance(rng, 0.3), [""] * rows
        percent, last_count = (100, 1)[int(rng.integers(2))], int(rng.integers(2))
        place = str(rng.choice(["both", "before", "on", "current"]))
        row = int(rng.integers(0, 6))
        while row < rows:
            stay = int(rng.integers(1, 12))
            end = min(row + stay, rows)
            free = [v for v in (vehicles if roaming else vehicles[n : n + 1]) if not busy[v][row:end].any()]
            if not free:
                row += 1
                continue
            vehicle = str(rng.choice(free))
            busy[vehicle][row:end] = True
            soc = f"{percent * rng.uniform(0.02, 0.98):.4f}"
            soc = "" if blank_soc and _chance(rng, blank_soc) else soc
            _write_visit(cells, rng, row, end, vehicle, soc, f"{percent * rng.uniform(0.4, 1):.4f}", last_count, place)
            sessions[row:end] = [f"{charger} from {row}"] * (end - row)
            current[row] = soc
            row = end + int(rng.choice([0, 0, 1, 2, 3, 8]))
        extra = ({"electric_vehicle_session_id": sessions} if with_sessions else {}) | (
            {"electric_vehicle_current_soc": current} if place == "current" else {}
        )
        write_csv(folder / f"{charger}.csv", cells | extra)


def _write_visit(
    cells: dict[str, list[str]],
    rng: Generator,
    row: int,
    end: int,
    vehicle: str,
    soc: str,
    required: str,
    last_count: int,
    place: str,
) -> None:
    state, name, departure, wanted, arrival, arriving = (cells[column] for column in CHARGER_COLUMNS)
    # Where a row announces the vehicle, CityLearn looks for the SOC there and nowhere else.
    announced = 0 if place == "on" else int(rng.integers(0, 3))
    for back in range(1, announced + 1):
        at = row - back
        if at < 0 or state[at] != "3":
            break
        state[at], name[at], arrival[at] = "2", vehicle, str(back)
        if place in ("both", "before"):
            arriving[at] = soc
    for at in range(row, end):
        state[at], name[at], wanted[at] = "1", vehicle, required
        departure[at] = str(end - 1 - at + last_count)
    before = row - 1
    if place in ("both", "before") and before >= 0 and state[before] == "3":
        arriving[before] = soc
    # A visit that follows another without a gap has no row before it to say its SOC.
    if place in ("both", "on") or before < 0 or state[before] == "1":
        arriving[row] = soc
