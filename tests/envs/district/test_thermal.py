"""Tanks, heat pumps, networks and outages against the stock simulator, on random schemas."""

import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thermal_schemas import USES, write_thermal_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs import CityLearnSite, DistrictSite
from iquitos_rl.envs.citylearn.env import load_citylearn
from iquitos_rl.envs.citylearn.precision import computes_in_double
from iquitos_rl.envs.district.physics import Physics

MOST_KELVIN = 2e-5


def device_columns(env, t):
    """What CityLearn booked at row t: of each building net, battery SOC, load, tank SOCs, electricity, temperature."""
    rows = []
    for b in env.buildings:
        tanks = [getattr(b, f"{use}_storage").soc[t] for use in USES]
        electricity = [getattr(b, f"{use}_device").electricity_consumption[t] for use in USES]
        net, battery = b.net_electricity_consumption[t], b.electrical_storage.soc[t]
        load, inside = b.non_shiftable_load_device.electricity_consumption[t], b.energy_simulation
        rows.append([net, battery, load, *tanks, *electricity, inside.indoor_dry_bulb_temperature[t]])
    return np.array(rows, dtype=np.float64)


def our_columns(flows):
    heat = flows.thermal
    columns = [flows.net, flows.battery_soc, heat.load, *heat.tank_soc.unbind(-1), *heat.electricity.unbind(-1)]
    return torch.stack([*columns, heat.temperature], dim=-1)[0].double().numpy()


def worst_difference(folder, seed, exact=True):
    """Largest difference of every column over an episode of random, extreme and sparse actions; and of temperature."""
    site = read_site(folder)
    assert site.unsupported == ()
    env = DistrictSite([site], 1, exact=exact)
    simulator = CityLearnSite([folder], fast=False)
    simulator.reset()
    env.reset()
    rng = np.random.default_rng(seed)
    worst = np.zeros(10)
    for t in range(site.rows - 1):
        action = rng.uniform(-1, 1, env.action_dim)
        if t % 3 == 1:
            action = np.sign(action)
        elif t % 3 == 2:
            action *= rng.random(env.action_dim) < 0.4
        simulator.step(action.astype(np.float32))
        env.step(torch.from_numpy(action.astype(np.float32))[None])
        difference = np.abs(our_columns(env.last_flows) - device_columns(simulator.simulator, t))
        worst = np.maximum(worst, difference.max(0))
    return worst[:-1].max(), worst[-1]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), networks=st.booleans(), outages=st.booleans())
def test_a_random_site_equals_citylearn(tmp_path_factory, seed, networks, outages):
    folder = write_thermal_schema(tmp_path_factory.mktemp("site"), seed, networks, outages)
    electrical, kelvin = worst_difference(folder, seed)
    if computes_in_double():
        assert electrical < 1e-12  # CityLearn's `pow` leaves 1e-16 in an emptied battery
        assert kelvin == 0
    else:
        assert electrical < 1e-2
        assert kelvin < 2e-5


@pytest.mark.parametrize("seed", range(3))
def test_fast_mode_stays_close(tmp_path, seed):
    folder = write_thermal_schema(tmp_path, seed, networks=True, outages=False)
    electrical, kelvin = worst_difference(folder, seed, exact=False)
    assert electrical < 1e-2
    assert kelvin < 0.02


@pytest.fixture
def folder(tmp_path):
    return write_thermal_schema(tmp_path, 3)


def test_both_engines_observe_and_reward_the_same(folder):
    reference, ours = CityLearnSite([folder]), DistrictSite([folder], 1, exact=True)
    obs, _ = reference.reset(seed=0)
    np.testing.assert_array_equal(obs, ours.reset(seed=0)[0].numpy())
    rng = np.random.default_rng(0)
    truncated = False
    while not truncated:
        action = rng.uniform(-1, 1, ours.action_dim).astype(np.float32)
        obs, reward, _, truncated, info = reference.step(action)
        step = ours.step(torch.from_numpy(action)[None])
        np.testing.assert_allclose(obs, step.next_obs[0].numpy(), atol=1e-5)
        assert reward == pytest.approx(float(step.reward), abs=1e-4)
        assert info.keys() == step.info.keys()
        for name, value in info.items():
            assert value == pytest.approx(float(step.info[name]), abs=1e-3), name


def test_doing_nothing_meets_the_demand_of_the_data(tmp_path):
    site = read_site(write_thermal_schema(tmp_path, 5, networks=True, outages=False))
    env = DistrictSite([site], 1, exact=True)
    env.reset()
    for t in range(site.rows - 1):
        env.step(torch.zeros(1, env.action_dim))
        for b, building in enumerate(site.buildings):
            for u, allowed in enumerate(((1, 3), (2, 3))):
                if building.hvac_mode[t] in allowed:
                    asked = float(env.last_flows.thermal.demand[0, b, u])
                    assert asked == pytest.approx(building.end_uses[u].demand[t], rel=1e-6, abs=1e-6)


def test_a_state_is_restored_exactly(folder):
    first, second = (DistrictSite([folder], 3, starts="random", episode_steps=20) for _ in range(2))
    first.reset(seed=1)
    actions = torch.rand(30, 3, first.action_dim, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for action in actions[:15]:
        first.step(action)
    second.reset(seed=7)
    second.load_state_dict(first.state_dict())
    for action in actions[15:]:
        a, b = first.step(action), second.step(action)
        assert torch.equal(a.obs, b.obs)
        assert torch.equal(a.reward, b.reward)


def test_the_outages_are_those_that_citylearn_draws(folder):
    site, simulator = read_site(folder), load_citylearn(folder)
    simulator.reset()
    for ours, theirs in zip(site.buildings, simulator.buildings):
        drawn = theirs._Building__power_outage_signal if theirs.simulate_power_outage else np.zeros(site.rows)
        np.testing.assert_array_equal(ours.outage, drawn.astype(bool))


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_is_read_back_from_the_device(folder, exact):
    """Tensors without data have no values to look at: whatever looks raises. So a step can be captured and compiled."""
    site = read_site(folder)
    engine, buildings = Physics([site], 4, device="meta", exact=exact), len(site.buildings)
    shapes = (buildings,), (len(site.sockets),), (buildings, 3), (buildings, 2)
    flows = engine.step(*(torch.zeros(4, *shape, device="meta") for shape in shapes))
    assert flows.thermal.tank_soc.shape == (4, buildings, 3)
    state = engine.state
    engine.restarted(state, torch.zeros(4, dtype=torch.bool, device="meta"), state.row, state.scenario)


def test_outages_without_a_seed_are_left_to_citylearn(folder):
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    outage = {"simulate_power_outage": True, "stochastic_power_outage": True}
    schema["buildings"]["Building_1"]["power_outage"] = outage
    path.write_text(json.dumps(schema), encoding="utf-8")
    assert "power outages without the seeded model" in read_site(folder).unsupported[0]
