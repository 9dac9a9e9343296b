"""Frozen folders: in CityLearn they are what they were, and nothing in them is drawn or computed any more."""

from __future__ import annotations

import json

import numpy as np
import pytest
from schemas import Features, write_schema
from test_upgrade import assert_equal
from thermal_schemas import write_thermal_schema

from iquitos_rl.case import main
from iquitos_rl.cases.schema.freeze import freeze, sized_by_citylearn
from iquitos_rl.cases.schema.reader import read_folder, read_site
from iquitos_rl.envs.citylearn.env import load_citylearn
from iquitos_rl.envs.citylearn.sizes import citylearn_sizes


def nets(folder, steps=40):
    """(steps, B) net consumption, and every SOC (steps, B), under random actions."""
    env, rng = load_citylearn(folder, fast=False), np.random.default_rng(0)
    env.reset()
    low, high = env.action_space[0].low, env.action_space[0].high
    for _ in range(steps):
        env.step([rng.uniform(low, high).tolist()])
    stores = [(b.electrical_storage, b.cooling_storage, b.heating_storage, b.dhw_storage) for b in env.buildings]
    vehicles = [vehicle.battery.soc[:steps] for vehicle in env.electric_vehicles]
    series = [b.net_electricity_consumption[:steps] for b in env.buildings]
    return np.array(series + [store.soc[:steps] for own in stores for store in own] + vehicles)


@pytest.mark.parametrize("seed", [1, 4, 6])
def test_a_frozen_folder_is_what_it_was(tmp_path, seed, capsys):
    folder = write_thermal_schema(tmp_path / "drawn", seed, networks=seed > 1, outages=False)
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    assert '"autosize": true' in path.read_text(encoding="utf-8")
    assert main(["freeze", str(folder), "--output", str(tmp_path / "frozen")]) == 0
    assert "devices frozen" in capsys.readouterr().out
    assert '"autosize": true' not in (tmp_path / "frozen" / "schema.json").read_text(encoding="utf-8")
    assert not any("draws at random" in text for text in read_folder(tmp_path / "frozen").report.warnings)
    assert_equal(read_site(tmp_path / "frozen"), read_site(folder))
    np.testing.assert_array_equal(nets(tmp_path / "frozen"), nets(folder))

    # Another seed, other rows: the frozen devices stay.
    frozen = json.loads((tmp_path / "frozen" / "schema.json").read_text(encoding="utf-8"))
    frozen["random_seed"] = schema["random_seed"] + 1
    frozen["simulation_end_time_step"] -= 24
    (tmp_path / "frozen" / "schema.json").write_text(json.dumps(frozen), encoding="utf-8")
    for ours, theirs in zip(read_site(tmp_path / "frozen").buildings, read_site(folder).buildings):
        assert_equal(ours.battery, theirs.battery)
        for a, b in zip(ours.end_uses, theirs.end_uses, strict=True):
            assert (a.device, a.tank) == (b.device, b.tank)


@pytest.fixture
def sized(tmp_path, monkeypatch):
    """A folder whose batteries and PV CityLearn sizes, with stand-ins for PySAM and the tables that are not here."""
    from citylearn.data import DataSet
    from citylearn.energy_model import PV, Battery

    folder = write_schema(tmp_path / "sized", 3, Features(rows=60, sockets=(0, 0), seconds=(3600,), offset=0.0))
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    for block in schema["buildings"].values():
        block["electrical_storage"] = {"type": "citylearn.energy_model.Battery", "autosize": True}
        attributes = {"epw_filepath": "weather.epw"}
        block["pv"] = {"type": "citylearn.energy_model.PV", "autosize": True, "autosize_attributes": attributes}
        block["inactive_actions"] = []
        block.pop("electrical_service", None)
    path.write_text(json.dumps(schema), encoding="utf-8")
    generation = np.random.default_rng(0).uniform(0, 900, 64)
    monkeypatch.setattr(DataSet, "get_pv_sizing_data", lambda self: None)
    monkeypatch.setattr(DataSet, "get_battery_sizing_data", lambda self: None)
    monkeypatch.setattr(PV, "autosize", lambda self, demand, *_, **__: (demand / 1000, generation))
    monkeypatch.setattr(Battery, "autosize", lambda self, demand, **_: (demand * 3, demand, 0.8, 0.93, 0.001, 2e-5))
    return folder


def test_sizes_that_only_citylearn_has_are_frozen_too(sized, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    devices = sized_by_citylearn(sized)
    assert {device.partition(".")[2] for device in devices} == {"electrical_storage", "pv"}
    assert len(read_site(sized).unsupported) == len(devices)
    freeze(sized, tmp_path / "frozen", citylearn_sizes(sized))
    assert read_site(tmp_path / "frozen").unsupported == ()
    assert all(b.battery is not None and b.pv.any() for b in read_site(tmp_path / "frozen").buildings)
    np.testing.assert_array_equal(nets(tmp_path / "frozen"), nets(sized))


def test_what_is_missing_is_one_sentence(sized, tmp_path, capsys):
    assert main(["freeze", str(sized), "--output", str(tmp_path / "frozen")]) == 2
    error = capsys.readouterr().err
    assert "CityLearn sizes Building_1.electrical_storage and" in error
    assert "PySAM is not installed" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "frozen").exists()
