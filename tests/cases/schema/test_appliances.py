"""Reading appliances: whatever CityLearn stops at is an error with file and line, and nothing else is."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.appliance import NOTHING
from iquitos_rl.cases.schema.appliances import parse_profile
from iquitos_rl.cases.schema.reader import read_folder, read_site
from iquitos_rl.envs.citylearn.env import load_citylearn
from iquitos_rl.errors import UserError

MACHINE = "Building_1_machine_0"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_thermal_schema(tmp_path_factory.mktemp("whole"), 5, networks=False, outages=False, appliances=True)


def test_windows_and_programmes_are_those_of_citylearn(whole):
    site, simulator = read_site(whole), load_citylearn(whole)
    simulator.reset()
    start = json.loads((whole / "schema.json").read_text(encoding="utf-8"))["simulation_start_time_step"]
    machines = [machine for b in simulator.buildings for machine in b.deferrable_appliances]
    assert [own.name for _, own in site.appliances] == [machine.name for machine in machines]
    for (_, own), machine in zip(site.appliances, machines):
        for c, cycle in enumerate(machine.deferrable_appliance_simulation.flexibility_schedule):
            rows = np.flatnonzero(own.cycle == c) + start
            may = np.arange(cycle["earliest_start_time_step"], cycle["latest_start_time_step"] + 1)
            may = may[(may >= start) & (may - start + cycle["duration_steps"] < site.rows)]
            np.testing.assert_array_equal(rows, may)
            np.testing.assert_array_equal(own.profiles[c, : cycle["duration_steps"]], cycle["load_profile"])
            assert not own.profiles[c, cycle["duration_steps"] :].any()
        assert own.closes.sum() == len(np.unique(own.cycle[own.cycle != NOTHING]))


DAMAGES = {
    "no profile": ("profiles", lambda table: table.assign(load_profile="[]"), "load_profile"),
    "negative": ("profiles", lambda table: table.assign(load_profile="[-1.0]"), "load_profile"),
    "length": ("profiles", lambda table: table.assign(duration_steps=table.duration_steps + 1), "duration_steps"),
    "sum": ("profiles", lambda table: table.assign(total_energy_kwh=table.total_energy_kwh + 1), "total_energy_kwh"),
    "twice": ("profiles", lambda table: pd.concat([table, table]), "profile_id"),
    "column": ("profiles", lambda table: table.drop(columns="load_profile"), "column load_profile is missing"),
    "unknown": ("schedule", lambda table: table.assign(profile_id="other"), "profile_id"),
    "twice again": ("schedule", lambda table: pd.concat([table, table]), "cycle_id"),
    "negative time": (
        "schedule",
        lambda table: table.assign(earliest_start_time_step=-5),
        "earliest_start_time_step",
    ),
    "too late": (
        "schedule",
        lambda table: table.assign(latest_start_time_step=table.deadline_time_step + 1),
        "latest_start_time_step",
    ),
    "overlap": (
        "schedule",
        lambda table: table.assign(deadline_time_step=table.deadline_time_step + 100),
        "earliest_start_time_step",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_citylearn_stops_at_is_an_error(whole, tmp_path, damage):
    kind, change, named = DAMAGES[damage]
    folder = shutil.copytree(whole, tmp_path / "case")
    path = folder / f"{MACHINE}_{kind}.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    errors = read_folder(folder).report.errors
    assert any(path.name in text and named in text for text in errors), errors
    with pytest.raises(UserError, match="CityLearn cannot load this schema"):
        load_citylearn(folder)


def test_a_programme_beyond_the_nominal_power_is_an_error(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "case")
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    schema["buildings"]["Building_1"]["deferrable_appliances"][MACHINE]["attributes"] = {"nominal_power": 0.5}
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    assert any("nominal_power is 0.5 kW, cycle" in text for text in read_folder(folder).report.errors)
    with pytest.raises(UserError, match="exceeds nominal_power"):
        load_citylearn(folder)


@pytest.mark.parametrize(
    ("text", "values"),
    [("[1, 2.5]", [1, 2.5]), ("0.7", [np.float32(0.7)]), ("-1", []), ("[1, -2]", []), ("None", []), ("[a]", [])],
)
def test_profiles_are_read_as_citylearn_reads_them(text, values):
    from citylearn.data import DeferrableApplianceSimulation

    assert parse_profile(text).tolist() == values
    assert DeferrableApplianceSimulation.parse_load_profile(text).tolist() == values
