"""Random CityLearn schema folders with thermal devices, networks, outages, appliances and occupants, on top of the
electrical."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from schemas import Features, write_csv, write_schema
from sklearn.tree import DecisionTreeClassifier

from iquitos_rl.cases.schema.appliances import SCHEDULE_COLUMNS as SCHEDULE
from iquitos_rl.envs.citylearn.trees import exported_trees

USES = ("cooling", "heating", "dhw")
INPUTS = (
    *("month_sin", "month_cos", "hour_sin", "hour_cos", "day_type_sin", "outdoor_dry_bulb_temperature"),
    *("occupant_count", "cooling_demand", "heating_demand", "indoor_dry_bulb_temperature"),
)
SET_POINTS = tuple(f"indoor_dry_bulb_temperature_{use}_set_point" for use in ("cooling", "heating"))
HVAC = ("cooling_device", "heating_device", "cooling_or_heating_device")
ELECTRICAL = {
    3600: Features(rows=72, seconds=(3600,), sockets=(0, 2), roaming=0.2, offset=0.5, blank_soc=0.1),
    900: Features(rows=192, seconds=(900,), sockets=(0, 2), roaming=0.2, offset=0.5, blank_soc=0.1, hourly_data=0.0),
}
"""By seconds per step; whole days, which outages need."""


def write_thermal_schema(
    folder: Path,
    seed: int,
    networks: bool = True,
    outages: bool = True,
    appliances: bool = False,
    occupants: bool = False,
) -> Path:
    """Write a random folder, every fourth with steps of 15 minutes; equal arguments write equal folders.

    Args:
        occupants: who may change the set-points, by trees as pickles and as arrays; needs networks.
    """
    write_schema(folder, seed, ELECTRICAL[900 if seed % 4 == 3 else 3600])
    rng = np.random.default_rng(seed)
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    hvac = str(rng.choice(HVAC)) if networks else None
    for action in ["cooling_storage", "heating_storage", "dhw_storage", *([hvac] if hvac else [])]:
        schema["actions"][action] = {"active": True}
    for observation in ("cooling_demand", "heating_demand", "dhw_demand", "indoor_dry_bulb_temperature"):
        schema["observations"][observation] = {"active": True, "shared_in_central_agent": False}
    for name, block in schema["buildings"].items():
        _write_data(folder / f"{name}.csv", rng, outages)
        block |= _devices(rng)
        if hvac:
            block["type"] = "citylearn.building.LSTMDynamicsBuilding"
            block["dynamics"] = _network(folder / f"{name}.pth", rng)
        if outages and rng.random() < 0.7:
            block["power_outage"] = _outage(rng)
    if appliances:
        add_appliances(schema, folder, np.random.default_rng((seed, 1)))
    if occupants:
        add_occupants(schema, folder, np.random.default_rng((seed, 2)))
    (folder / "schema.json").write_text(json.dumps(schema, indent=1), encoding="utf-8")
    if occupants:
        write_trees(folder)
    return folder


def write_trees(folder: Path) -> None:
    """Write the occupants' trees down as `case freeze` does, and leave everything else as it is."""
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    for name, trees in exported_trees(folder).items():
        (folder / f"{name}-trees.json").write_text(json.dumps(trees), encoding="utf-8")
        schema["buildings"][name]["occupant"]["trees"] = f"{name}-trees.json"
    (folder / "schema.json").write_text(json.dumps(schema, indent=1), encoding="utf-8")


def add_appliances(schema: dict[str, Any], folder: Path, rng: Generator) -> None:
    """Give buildings up to three appliances, with windows that may start before the simulated rows and end after."""
    schema["actions"]["deferrable_appliance"] = {"active": True}
    for observation in ("pending", "running", "can_start", "current_step_energy_kwh"):
        schema["observations"][f"deferrable_appliance_{observation}"] = {"active": bool(rng.random() < 0.5)}
    end = schema["simulation_end_time_step"]
    for name, block in schema["buildings"].items():
        block["deferrable_appliances"] = {}
        for n in range(int(rng.integers(0, 4))):
            label = f"{name}_machine_{n}"
            programmes = [rng.uniform(0, 8, int(rng.integers(1, 7))).round(3) for _ in range(3)]
            write_csv(
                folder / f"{label}_profiles.csv",
                {
                    "profile_id": [f"p{k}" for k in range(3)],
                    "duration_steps": [len(profile) for profile in programmes],
                    "total_energy_kwh": [profile.sum().round(6) for profile in programmes],
                    "load_profile": [str(profile.tolist()) for profile in programmes],
                },
            )
            rows, at = [], int(rng.integers(0, 12))
            while at < end + 6:
                k = int(rng.integers(3))
                latest = at + int(rng.integers(0, 9))
                deadline = latest + len(programmes[k]) - 1 + int(rng.integers(0, 4))
                rows.append((f"c{len(rows)}", f"p{k}", at, latest, deadline, 0.5, True))
                at = deadline + 1 + int(rng.choice([0, 0, 1, 5]))
            write_csv(folder / f"{label}_schedule.csv", dict(zip(SCHEDULE, zip(*rows))))
            block["deferrable_appliances"][label] = {
                "cycle_profiles_file": f"{label}_profiles.csv",
                "flexibility_schedule_file": f"{label}_schedule.csv",
                "attributes": {"trigger_threshold": 0.3} if rng.random() < 0.5 else {},
            }
        if rng.random() < 0.15:
            block["inactive_actions"].append("deferrable_appliance")


def add_occupants(schema: dict[str, Any], folder: Path, rng: Generator) -> None:
    """Give most buildings with a network an occupant, and some of the networks set-points to read and a dropout."""
    start = schema["simulation_start_time_step"]
    for n, (name, block) in enumerate(schema["buildings"].items()):
        network = block["dynamics"]["attributes"]
        if rng.random() < 0.3:
            network["dropout"] = 0.3
        if rng.random() < 0.5:
            _read_set_points(folder / network["filename"], network)
        if n and rng.random() < 0.25:
            continue
        table = pd.read_csv(folder / f"{name}.csv")
        acts = np.arange(len(table)) >= start + network["lookback"]
        table["hvac_mode"] = np.where(acts, 1 + table["hvac_mode"] % 2, table["hvac_mode"])
        table.to_csv(folder / f"{name}.csv", index=False)
        block["type"] = "citylearn.building.LogisticRegressionOccupantInteractionBuilding"
        block["occupant"] = _occupant(folder, name, len(table), rng)


def _read_set_points(path: Path, network: dict[str, Any]) -> None:
    """Let a network read both set-points besides; what it had read before it sees as before."""
    network["input_observation_names"] += SET_POINTS
    network["input_normalization_minimum"] += [15.0, 15.0]
    network["input_normalization_maximum"] += [30.0, 30.0]
    network["input_size"] += 2
    content = torch.load(path, weights_only=True)
    weights = content.get("model_state_dict", content)
    first = weights["l_lstm.weight_ih_l0"]
    generator = torch.Generator().manual_seed(len(first))
    weights["l_lstm.weight_ih_l0"] = torch.cat([first, torch.randn(len(first), 2, generator=generator) / 2], dim=1)
    torch.save(content, path)


def _occupant(folder: Path, name: str, rows: int, rng: Generator) -> dict[str, Any]:
    """An occupant who acts in about a third of the rows, by trees that tell small changes of set-points apart."""
    columns = {}
    for change, sign in (("increase", -1), ("decrease", 1)):
        slope = sign * rng.uniform(0.02, 0.12, rows)
        columns |= {f"a_{change}": (rng.uniform(-4, 1, rows) - 20 * slope).round(4), f"b_{change}": slope.round(4)}
    write_csv(folder / f"{name}_occupant.csv", columns)
    attributes: dict[str, Any] = {"delta_output_map": {"0": 0.5, "1": 1.5, "2": float(rng.choice([0.0, 0.75]))}}
    for change in ("increase", "decrease"):
        points = rng.uniform(18, 26, (300, 2)).round(1)
        seen = np.column_stack([points, rng.normal(0, 3, 300).round(2)])
        tree = DecisionTreeClassifier(max_depth=int(rng.integers(1, 6)), random_state=int(rng.integers(1000)))
        tree.fit(seen, rng.integers(0, 3, 300))
        file = f"{name}_{change}.pkl"
        (folder / file).write_bytes(pickle.dumps(tree))
        attributes[f"setpoint_{change}_model_filename"] = file
    return {
        "type": "citylearn.occupant.LogisticRegressionOccupant",
        "parameters_filename": f"{name}_occupant.csv",
        "attributes": attributes,
    }


def _write_data(path: Path, rng: Generator, outages: bool) -> None:
    """Give a building's file demands, never for cooling and heating in one row, a temperature, people and modes."""
    table = pd.read_csv(path)
    rows = len(table)
    cools = rng.random(rows) < 0.5
    table["cooling_demand"] = (rng.uniform(0, 9, rows) * cools * (rng.random(rows) < 0.8)).round(4)
    table["heating_demand"] = (rng.uniform(0, 9, rows) * ~cools * (rng.random(rows) < 0.8)).round(4)
    table["dhw_demand"] = (rng.uniform(0, 4, rows) * (rng.random(rows) < 0.5)).round(4)
    table["indoor_dry_bulb_temperature"] = rng.uniform(18, 28, rows).round(4)
    table["occupant_count"] = rng.integers(0, 4, rows)
    table["indoor_dry_bulb_temperature_cooling_set_point"] = rng.uniform(22, 26, rows).round(2)
    table["indoor_dry_bulb_temperature_heating_set_point"] = rng.uniform(18, 21, rows).round(2)
    table["hvac_mode"] = rng.integers(0, 4, rows)
    if outages:
        table["power_outage"] = (rng.random(rows) < 0.2).astype(int)
    table.to_csv(path, index=False)


def _devices(rng: Generator) -> dict[str, Any]:
    """Devices that meet every demand, sized by CityLearn or large enough, and tanks with and without limits."""
    block: dict[str, Any] = {}
    for use in USES:
        pump = use != "dhw" or rng.random() < 0.3
        attributes: dict[str, Any] = {} if rng.random() < 0.3 else {"efficiency": round(rng.uniform(0.2, 0.9), 3)}
        sized = rng.random() < 0.5
        block[f"{use}_device"] = {
            "type": f"citylearn.energy_model.{'HeatPump' if pump else 'ElectricHeater'}",
            "autosize": bool(sized),
            "attributes": attributes if sized else {**attributes, "nominal_power": round(rng.uniform(20, 60), 3)},
        }
        if rng.random() < 0.25:
            continue
        tank: dict[str, Any] = {"initial_soc": 0.0} if rng.random() < 0.5 else {"loss_coefficient": 0.01}
        if rng.random() < 0.4:
            tank |= {
                "max_input_power": round(rng.uniform(0.5, 3), 3),
                "max_output_power": round(rng.uniform(0.5, 3), 3),
            }
        sized = rng.random() < 0.5
        block[f"{use}_storage"] = {
            "type": "citylearn.energy_model.StorageTank",
            "autosize": bool(sized),
            "attributes": tank if sized else {**tank, "capacity": round(rng.uniform(1, 30), 3)},
        }
    return block


def _network(path: Path, rng: Generator) -> dict[str, Any]:
    """A network with random weights; the files of one folder may differ in shape."""
    layers, width, lookback = int(rng.integers(1, 3)), int(rng.choice([4, 6])), int(rng.integers(2, 6))
    torch.manual_seed(int(rng.integers(2**31)))
    lstm = torch.nn.LSTM(len(INPUTS), width, layers, batch_first=True)
    head = torch.nn.Linear(width, 1)
    state = {f"l_lstm.{name}": value for name, value in lstm.state_dict().items()}
    state |= {f"l_linear.{name}": value for name, value in head.state_dict().items()}
    torch.save({"model_state_dict": state} if rng.random() < 0.5 else state, path)
    low = [-1.0] * 5 + [0.0, 0.0, 0.0, 0.0, 15.0]
    high = [1.0] * 5 + [40.0, 4.0, 10.0, 10.0, 32.0]
    return {
        "type": "citylearn.dynamics.LSTMDynamics",
        "attributes": {
            "input_size": len(INPUTS),
            "hidden_size": width,
            "num_layers": layers,
            "lookback": lookback,
            "filename": path.name,
            "input_normalization_minimum": low,
            "input_normalization_maximum": high,
            "input_observation_names": list(INPUTS),
        },
    }


def _outage(rng: Generator) -> dict[str, Any]:
    drawn = bool(rng.random() < 0.5)
    model = {
        "type": "citylearn.power_outage.ReliabilityMetricsPowerOutage",
        "attributes": {"random_seed": int(rng.integers(1000)), "saifi": 150.0, "caidi": 331.2},
    }
    return {"simulate_power_outage": True, "stochastic_power_outage": drawn, "stochastic_power_outage_model": model}
