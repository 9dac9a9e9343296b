"""Appliances against the stock simulator, on random schemas and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cpu_graphs import graphs_on_cpu
from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.appliance import NOTHING
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs import CityLearnSite, DistrictSite
from iquitos_rl.envs.district.appliances import Appliances
from iquitos_rl.envs.district.physics import Physics
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.judging import twin


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    monkeypatch.setattr(twin, "MEASURED_SECONDS", 0.001)
    monkeypatch.setattr(twin, "ENVIRONMENTS", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With limits, outages, networks and eight appliances."""
    return write_thermal_schema(tmp_path_factory.mktemp("machines"), 5, appliances=True)


@pytest.mark.parametrize("seed", [5])
def test_a_random_site_equals_citylearn(tmp_path, seed):
    folder = write_thermal_schema(tmp_path, seed, networks=seed % 3 > 0, outages=seed % 2 > 0, appliances=True)
    found = twin.compare(folder, 40, seed)
    assert found.failures() == []
    assert found.exact["appliances (kWh)"] == 0


def test_limits_and_outages_refuse_starts(folder, monkeypatch):
    """Without the refusals the engine differs: the comparison above does test them."""
    monkeypatch.setattr(Appliances, "_permitted", lambda self, state, here, asked, now: asked)
    assert any(text.startswith("appliances (kWh)") for text in twin.compare(folder, 30, 5).failures())


def physics(folder, environments=1):
    site = read_site(folder)
    return site, Physics([site], environments)


def commands(engine, value):
    shapes = {"battery": engine.buildings, "sockets": engine.sockets}
    nothing = [torch.zeros(engine.num_envs, count) for count in shapes.values()]
    thermal = [torch.zeros(engine.num_envs, engine.buildings, n) for n in (3, 2)]
    return *nothing, *thermal, torch.full((engine.num_envs, len(engine.state.appliances.cycle[0])), value)


@pytest.fixture(scope="module")
def unhindered(tmp_path_factory):
    """A folder in which nothing refuses the start of a machine."""
    folder = write_thermal_schema(
        tmp_path_factory.mktemp("unhindered"), 4, networks=False, outages=False, appliances=True
    )
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    for block in schema["buildings"].values():
        block.pop("electrical_service", None)
        block["inactive_actions"] = [name for name in block["inactive_actions"] if name != "deferrable_appliance"]
    path.write_text(json.dumps(schema), encoding="utf-8")
    return folder


def test_every_cycle_is_served_or_missed_once(unhindered):
    """Energy of all cycles = energy used + energy missed, whatever the commands; nothing refuses a start here."""
    site, engine = physics(unhindered, 5)
    offered = sum(own.profiles[c].sum() for _, own in site.appliances for c in np.unique(own.cycle) if c != NOTHING)
    assert offered > 0
    used, missed = torch.zeros(5), torch.zeros(5)
    generator = torch.Generator().manual_seed(0)
    often = torch.tensor([0.0, 0.02, 0.2, 0.5, 1.0])
    for _ in range(site.rows - 1):
        *others, machines = commands(engine, 0.0)
        on = (torch.rand(machines.shape, generator=generator) < often[:, None]).float()
        flows = engine.step(*others, on)
        used, missed = used + flows.appliance_kwh.sum(-1), missed + flows.missed_kwh
    torch.testing.assert_close(used + missed, torch.full((5,), float(offered)), rtol=1e-5, atol=1e-3)
    assert used[0] == 0
    assert used.diff().min() >= 0
    assert missed[-1] == 0


def test_both_environments_show_and_pay_the_same(folder):
    settings = TaskSettings(ev_guard=False)
    stock, engine = CityLearnSite([folder], settings), DistrictSite([folder], 1, settings, exact=True)
    expected, _ = stock.reset(seed=0)
    assert np.abs(engine.reset(seed=0)[0].numpy() - expected).max() < 5e-7
    rng = np.random.default_rng(0)
    missed = 0.0
    for _ in range(30):
        action = rng.uniform(-1, 0.3, stock.task.action_dim).astype(np.float32)
        expected, reward, _, _, info = stock.step(action)
        step = engine.step(torch.from_numpy(action)[None])
        assert np.abs(step.next_obs[0].numpy() - expected).max() < 1e-5
        assert float(step.reward) == pytest.approx(reward, rel=1e-5, abs=1e-5)
        for name, value in info.items():
            assert float(step.info[name]) == pytest.approx(value, rel=1e-5, abs=1e-5), name
        missed += info["missed_cycles_kwh"]
    assert missed > 0


def test_doing_nothing_starts_a_machine_as_soon_as_it_may(folder):
    """An action of 0 is an action of 1; without the guard no machine runs below 0."""
    engine = DistrictSite([folder], 3, TaskSettings(ev_guard=False))
    engine.reset()
    first = engine.task.num_battery_actions + engine.task.num_thermal_actions
    action = torch.zeros(3, engine.action_dim)
    action[1, first : first + engine.task.num_appliance_actions] = 1
    action[2, first : first + engine.task.num_appliance_actions] = -1
    used, missed = torch.zeros(3), torch.zeros(3)
    for _ in range(30):
        missed += engine.step(action).info["missed_cycles_kwh"]
        used += engine.last_flows.appliance_kwh.sum(-1)
    assert used[0] == used[1] > 0
    assert used[2] == 0
    assert missed[0] == missed[1] < missed[2]


def test_the_guard_lets_no_cycle_be_missed(unhindered):
    """Whatever the actions: waiting as long as possible, or at random."""
    site = read_site(unhindered)
    engine = DistrictSite([site], 4)
    engine.reset()
    generator, missed, used = torch.Generator().manual_seed(0), torch.zeros(4), torch.zeros(4)
    for _ in range(site.rows - 1):
        action = torch.rand(4, engine.action_dim, generator=generator) * 2 - 1
        action[0] = -1
        missed += engine.step(action).info["missed_cycles_kwh"]
        used += engine.last_flows.appliance_kwh.sum(-1)
    assert (missed == 0).all()
    assert (used > 0).all()


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_is_read_back_from_the_device(folder, exact):
    """Tensors without data have no values to look at: whatever looks raises."""
    site = read_site(folder)
    engine = Physics([site], 4, device="meta", exact=exact)
    action = [x.to("meta") for x in commands(engine, 1.0)]
    flows = engine.step(*action)
    assert flows.appliance_kwh.shape == (4, len(site.appliances))


def test_captured_and_plain_steps_are_equal(folder):
    with graphs_on_cpu():
        plain, captured = (DistrictSite([folder], 3, starts="random", episode_steps=9) for _ in range(2))
        captured.capture()
        generator = torch.Generator().manual_seed(0)
        torch.testing.assert_close(plain.reset(seed=0), captured.reset(seed=0))
        for _ in range(14):
            action = 2 * torch.rand((3, plain.action_dim), generator=generator) - 1
            expected, found = plain.step(action), captured.step(action)
            torch.testing.assert_close(found.obs, expected.obs)
            torch.testing.assert_close(found.reward, expected.reward)
            for name, value in expected.info.items():
                torch.testing.assert_close(found.info[name], value)


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
