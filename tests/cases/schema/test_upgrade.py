"""Folders of an older CityLearn: one sentence about them, and what they become."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from schemas import Features, write_schema
from thermal_schemas import write_thermal_schema

from iquitos_rl.case import main
from iquitos_rl.cases.schema.reader import read_folder, read_site
from iquitos_rl.cases.schema.upgrade import SET_POINTS, Cycle, fitted, new_names, read_cycles, upgrade
from iquitos_rl.envs.district.physics import Physics
from iquitos_rl.errors import UserError
from iquitos_rl.judging import twin

UNITS = {
    "month": "Month",
    "hour": "Hour",
    "day_type": "Day Type",
    "indoor_dry_bulb_temperature": "Indoor Temperature (C)",
    "non_shiftable_load": "Equipment Electric Power (kWh)",
    "dhw_demand": "DHW Heating (kWh)",
    "cooling_demand": "Cooling Load (kWh)",
    "heating_demand": "Heating Load [kWh]",
    "solar_generation": "Solar Generation (W/kW)",
    "occupant_count": "Occupant Count (people)",
    "hvac_mode": "HVAC Mode (Off/Cooling/Heating)",
    "outdoor_dry_bulb_temperature": "Outdoor Drybulb Temperature (C)",
    "outdoor_relative_humidity": "Relative Humidity [%]",
    "diffuse_solar_irradiance": "Diffuse Solar Radiation (W/m2)",
    "direct_solar_irradiance": "Direct Solar Radiation [W/m2]",
    "electricity_pricing": "Electricity Pricing [$]",
    "carbon_intensity": "kg_CO2/kWh",
}


def in_words(name):
    base, lead, number = name.partition("_predicted_")
    words = UNITS.get(base, base)
    return f"{ {'1': 6, '2': 12, '3': 24}[number] }h Prediction {words}" if lead else words


def by_hours(name):
    base, lead, number = name.partition("_predicted_")
    return f"{base}_predicted_{ {'1': 6, '2': 12, '3': 24}[number] }h" if lead else name


def age(folder):
    """Write a folder as CityLearn 1 did."""
    for path in folder.glob("*.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        table.rename(columns=in_words).to_csv(path, index=False)
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["observations"]["electricity_pricing_predicted_2"] = {"active": True, "shared_in_central_agent": True}
    schema["observations"] = {by_hours(name): value for name, value in schema["observations"].items()}
    for end in ("start", "end"):
        schema[f"simulation_{end}_timestep"] = schema.pop(f"simulation_{end}_time_step")
    schema["reward_function"] = schema["reward_function"]["type"]
    schema |= {"episodes": 1}
    for block in schema["buildings"].values():
        if "pv" in block:
            block["pv"]["attributes"]["capacity"] = block["pv"]["attributes"].pop("nominal_power")
    path.write_text(json.dumps(schema), encoding="utf-8")


def assert_equal(a, b):
    if is_dataclass(a):
        for field in fields(a):
            if field.name not in ("path", "name", "fingerprint"):
                assert_equal(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, (tuple, list)):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_equal(a[name], b[name])
    else:
        np.testing.assert_array_equal(a, b)


def test_an_older_folder_becomes_its_twin(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(twin, "MEASURED_SECONDS", 0.001)
    monkeypatch.setattr(twin, "ENVIRONMENTS", 4)
    old, new = (write_thermal_schema(tmp_path / name, 5) for name in ("old", "new"))
    age(old)
    assert main(["check", str(old)]) == 2
    error = capsys.readouterr().err
    assert "written for an older CityLearn (column Month in Building_1.csv and" in error
    assert f"`iquitos-rl case upgrade {old} --output NEW` converts it" in error
    assert error.count("\n") == 1
    assert main(["upgrade", str(old), "--output", str(tmp_path / "upgraded")]) == 0
    assert "Building_1.csv: 11 columns renamed" in capsys.readouterr().out
    assert_equal(read_site(tmp_path / "upgraded"), read_site(new))
    assert twin.compare(tmp_path / "upgraded", 30).failures() == []


def write_machine(folder, cycles, rows):
    """A washing machine's file of CityLearn 2, and the schema that names it."""
    table = pd.DataFrame({"day_type": 1, "hour": 1, "wm_start_time_step": -1, "wm_end_time_step": -1}, range(rows))
    table["load_profile"] = "-1"
    for first, last, profile in cycles:
        table.loc[first:last, ["wm_start_time_step", "wm_end_time_step"]] = first, last
        table.loc[first:last, "load_profile"] = str(profile)
    table.to_csv(folder / "Machine.csv", index=False)
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    machine = {
        "type": "citylearn.energy_model.WashingMachine",
        "washing_machine_energy_simulation": "Machine.csv",
    }
    schema["buildings"]["Building_1"]["washing_machines"] = {"washer": machine}
    schema["actions"]["washing_machine"] = {"active": True}
    schema["observations"]["washing_machine_start_time_step"] = {"active": True, "shared_in_central_agent": True}
    path.write_text(json.dumps(schema), encoding="utf-8")


CYCLES = [(2, 4, [1.5]), (8, 13, [2.0, 0.25, 3.0]), (17, 17, [0.5, 0.5]), (20, 30, [4.0])]


def test_a_washing_machine_uses_what_it_used(tmp_path, monkeypatch):
    """CityLearn 3.0.2 still has the older machine's class: both get the same commands."""
    from citylearn.base import EpisodeTracker
    from citylearn.data import WashingMachineSimulation
    from citylearn.energy_model import WashingMachine

    monkeypatch.setattr(twin, "MEASURED_SECONDS", 0.001)
    monkeypatch.setattr(twin, "ENVIRONMENTS", 4)
    features = Features(rows=40, buildings=(1, 1), sockets=(0, 0), seconds=(3600,), offset=0.0, service=0.0)
    old = write_schema(tmp_path / "old", 0, features)
    write_machine(old, CYCLES, 44)
    notes = upgrade(old, tmp_path / "new")
    assert "Building_1: washer is an appliance with 4 cycles now" in notes
    assert twin.compare(tmp_path / "new").failures() == []

    tracker = EpisodeTracker(0, 39)
    tracker.next_episode(40, False, False, 0)
    columns = pd.read_csv(old / "Machine.csv")
    machine = WashingMachine(WashingMachineSimulation(**columns), episode_tracker=tracker, seconds_per_time_step=3600)
    machine.reset()
    engine, rng = Physics([read_site(tmp_path / "new")], 1, exact=True), np.random.default_rng(0)
    found = []
    for _ in range(38):
        action = float(rng.choice([0.0, 0.0, 0.4, 1.0]))
        machine.start_cycle(action)
        flows = engine.step(torch.zeros(1, 1), torch.zeros(1, 0), None, None, torch.tensor([[action]]))
        found.append(flows.appliance_kwh.item())
        machine.next_time_step()
    np.testing.assert_array_equal(found, machine.electricity_consumption[:38])
    assert sum(found) > 0


def test_windows_are_those_of_the_file(tmp_path):
    write_schema(tmp_path, 0, Features(rows=40))
    write_machine(tmp_path, CYCLES, 44)
    assert read_cycles(tmp_path / "Machine.csv") == [
        Cycle(first, last, json.dumps(profile), len(profile)) for first, last, profile in CYCLES
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 8), st.integers(1, 6)), min_size=1, max_size=12))
def test_fitted_windows_never_overlap(gaps):
    cycles, row = [], 0
    for gap, width, steps in gaps:
        row += gap
        cycles.append(Cycle(row, row + width, "[]", steps))
        row += width
    found, changed = fitted(cycles)
    for before, after in pairwise(found):
        assert before.latest + before.steps - 1 < after.earliest
    for cycle in found:
        assert any(own.earliest <= cycle.earliest <= cycle.latest <= own.latest for own in cycles)
    apart = all(a.latest + a.steps - 1 < b.earliest for a, b in pairwise(cycles))
    assert (not changed) == (found == cycles)
    assert not apart or found == cycles


def test_a_present_folder_is_not_converted(tmp_path):
    folder = write_schema(tmp_path / "new", 0, Features(rows=30))
    with pytest.raises(UserError, match="nothing in it is of an older CityLearn"):
        upgrade(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert read_folder(folder).report.errors == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Temperature Set Point (C)", SET_POINTS),
        ("24h Prediction Electricity Pricing [$/kWh]", ("electricity_pricing_predicted_3",)),
        ("direct_solar_irradiance_predicted_6h", ("direct_solar_irradiance_predicted_1",)),
        ("solar_generation", ("solar_generation",)),
        ("My Own Column (C)", ("My Own Column (C)",)),
    ],
)
def test_names(old, new):
    assert new_names(old) == new
