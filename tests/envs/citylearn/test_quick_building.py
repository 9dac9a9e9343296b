"""Buildings that step faster against CityLearn's own: every series equal to the bit."""

import numpy as np
import pytest
import torch
from citylearn.building import Building, LSTMDynamicsBuilding
from citylearn.energy_model import HeatPump, StorageTank
from precision import needs_double
from schemas import Features, write_schema
from thermal_schemas import USES, write_thermal_schema

from iquitos_rl.envs.citylearn.env import CityLearnSite, load_citylearn

SERIES = (
    *("cooling_demand", "heating_demand", "dhw_demand", "indoor_dry_bulb_temperature", "non_shiftable_load"),
    *(f"indoor_dry_bulb_temperature_{use}_set_point" for use in ("cooling", "heating")),
)
OWN = ("net_electricity_consumption", "net_electricity_consumption_cost", "net_electricity_consumption_emission")


def series(building):
    """Every series that CityLearn computes of a building, by name."""
    found = {name: getattr(building, name) for name in OWN}
    found |= {f"data {name}": getattr(building.energy_simulation, name) for name in SERIES}
    devices = [building.non_shiftable_load_device, *(getattr(building, f"{use}_device") for use in USES)]
    tanks = [building.electrical_storage, *(getattr(building, f"{use}_storage") for use in USES)]
    for name, device, tank in zip(("electric", *USES), devices, tanks, strict=True):
        found[f"{name} device"] = device.electricity_consumption
        found[f"{name} soc"], found[f"{name} balance"] = tank.soc, tank.energy_balance
        found[f"{name} clocks"] = np.array(
            [device.time_step, tank.time_step, building.time_step, building.pv.time_step]
        )
    for use in USES:
        found[f"{use} delivered"] = getattr(building, f"_Building__energy_from_{use}_device")
    found["battery electricity"] = building.electrical_storage.electricity_consumption
    found["load served"] = building.energy_to_non_shiftable_load
    return found


def assert_equal_episodes(folder, seed, episodes=1):
    """Random, extreme and sparse actions on both simulators; afterwards all series and CityLearn's own KPIs."""
    fast, stock = load_citylearn(folder, fast=True), load_citylearn(folder, fast=False)
    rng = np.random.default_rng(seed)
    low, high = (x.astype(np.float64) for x in (stock.action_space[0].low, stock.action_space[0].high))
    for _ in range(episodes):
        fast.reset()
        stock.reset()
        while not stock.terminated:
            action = rng.uniform(low, high)
            if stock.time_step % 3 == 1:
                action = np.where(rng.random(len(low)) < 0.5, low, high)
            elif stock.time_step % 3 == 2:
                action *= rng.random(len(low)) < 0.4
            fast._runtime_service.step_without_feedback([action.tolist()])
            stock.step([action.tolist()])
        assert fast.terminated
        for a, b in zip(fast.buildings, stock.buildings, strict=True):
            mine, theirs = series(a), series(b)
            for name, expected in theirs.items():
                np.testing.assert_array_equal(mine[name], expected, err_msg=f"{a.name}: {name}")
    return fast, stock


@pytest.mark.parametrize(
    ("seed", "networks", "outages"),
    [(0, True, True), (1, True, False), (2, False, True), (3, True, True), (4, False, False), (5, True, True)],
)
def test_thermal_buildings_are_stock_citylearn(tmp_path, seed, networks, outages):
    folder = write_thermal_schema(tmp_path / "site", seed, networks, outages)
    assert_equal_episodes(folder, seed)


def test_a_second_episode_and_the_kpis_are_those_of_stock_citylearn(tmp_path):
    folder = write_thermal_schema(tmp_path / "site", 7)
    fast, stock = assert_equal_episodes(folder, 7, episodes=2)
    assert fast.evaluate().equals(stock.evaluate())


@needs_double
def test_occupants_are_those_of_stock_citylearn(tmp_path):
    """In two episodes, where both go on with the demands and temperatures of the first."""
    folder = write_thermal_schema(tmp_path / "site", 5, occupants=True)
    fast, stock = assert_equal_episodes(folder, 5, episodes=2)
    for a, b in zip(fast.buildings, stock.buildings, strict=True):
        assert a.occupant.time_step == b.occupant.time_step > 0
        assert type(a).__name__ == f"Quick{type(b).__name__}"
        for kind, values in b.occupant.probabilities.items():
            np.testing.assert_array_equal(a.occupant.probabilities[kind], values, err_msg=kind)


@needs_double
def test_end_uses_that_a_building_does_not_have_are_left_out(tmp_path):
    """An electrical site has none; its series stay what CityLearn would have computed."""
    folder = write_schema(tmp_path / "site", 0, Features(rows=24))
    fast, _ = assert_equal_episodes(folder, 0)
    assert all("update_dhw_storage" in vars(building) for building in fast.buildings)


def test_nothing_reaches_the_next_simulator(tmp_path):
    folder = write_thermal_schema(tmp_path / "site", 0)
    load_citylearn(folder, fast=True).reset()
    stock = load_citylearn(folder, fast=False)
    assert {type(building) for building in stock.buildings} <= {Building, LSTMDynamicsBuilding}
    for building in stock.buildings:
        assert type(building.cooling_device) is HeatPump
        assert type(building.dhw_storage) is StorageTank
        assert "next_time_step" not in vars(building)


@needs_double
def test_temperatures_do_not_depend_on_the_callers_gradient_mode(tmp_path):
    """PyTorch's kernel for inference rounds in another way than the one that CityLearn's loop calls."""
    folder = write_thermal_schema(tmp_path / "site", 3)
    found = []
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        env = CityLearnSite([folder])
        with mode():
            env.reset(seed=0)
            for _ in range(30):
                env.step(np.zeros(env.task.action_dim, dtype=np.float32))
        found.append([b.energy_simulation.indoor_dry_bulb_temperature for b in env.simulator.buildings])
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
