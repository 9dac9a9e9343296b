"""Occupants against the stock simulator, on random schemas and by hand."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from cpu_graphs import graphs_on_cpu
from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs import CityLearnSite, DistrictSite
from iquitos_rl.envs.district.occupants import NONE, Occupants, draws
from iquitos_rl.envs.district.physics import Physics
from iquitos_rl.envs.district.states import named_tensors
from iquitos_rl.envs.task.settings import ObjectiveSettings
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.judging import twin
from iquitos_rl.judging.kpis import evaluate
from iquitos_rl.judging.series import engine_series, simulated_series


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    monkeypatch.setattr(twin, "MEASURED_SECONDS", 0.001)
    monkeypatch.setattr(twin, "ENVIRONMENTS", 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two days of three occupants, with outages, and networks of which one reads set-points and one has a dropout."""
    folder = write_thermal_schema(tmp_path_factory.mktemp("home"), 5, occupants=True)
    edit(folder, lambda schema: schema.update(simulation_end_time_step=schema["simulation_start_time_step"] + 47))
    return folder


def edit(folder, change):
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    change(schema)
    path.write_text(json.dumps(schema), encoding="utf-8")


@pytest.fixture(scope="module")
def site(folder):
    return read_site(folder)


def test_a_random_site_equals_citylearn(folder, site):
    networks = [b.dynamics.inputs[-1] for b in site.buildings]
    assert len(set(networks)) == 2
    assert '"dropout": 0.3' in (folder / "schema.json").read_text(encoding="utf-8")
    found = twin.compare(folder, seed=5)
    assert found.failures() == []
    assert found.exact["set-points (C)"] == found.exact["temperature (C)"] == 0


@pytest.mark.parametrize("missed", ["higher", "lower"])
def test_a_changed_engine_is_found(folder, monkeypatch, missed):
    act = Occupants.act

    def one_way(self, chosen, here, *rest):
        found, now = act(self, chosen, here, *rest), self.points(chosen, here)
        return torch.where(found > now if missed == "higher" else found < now, chosen, found)

    monkeypatch.setattr(Occupants, "act", one_way)
    assert any(text.startswith("set-points (C)") for text in twin.compare(folder, 22, 5).failures())


def by_hand(occupant, points, mode, inside, lookback):
    """Set-points (T, 2) of one building, number by number as CityLearn does it, from temperatures (T - 1,)."""
    series, drawn = points.copy(), draws(occupant.seed, len(inside))
    for t in range(lookback, len(inside)):
        column = 0 if mode[t] == 1 else 1
        a_up, b_up, a_down, b_down = occupant.logistic[t]
        up, down = (1 / (1 + np.exp(-(a + b * inside[t]))) >= drawn[t] for a, b in ((a_up, b_up), (a_down, b_down)))
        if up == down:
            continue
        tree, node = (occupant.increase if up else occupant.decrease), 0
        seen = series[t, column], series[t - 1, column], np.float32(inside[t - 1] - series[t - 1, column])
        while tree.left[node] != node:
            node = (tree.left if seen[tree.feature[node]] <= tree.threshold[node] else tree.right)[node]
        if tree.change[node]:
            series[t:, column] = np.float32(series[t, column] + (1 if up else -1) * tree.change[node])
    return series


def test_set_points_follow_the_rule_and_hold(site):
    engine, generator = Physics([site], 3, exact=True), torch.Generator().manual_seed(0)
    rows, buildings = site.rows - 1, len(site.buildings)
    inside, found = [], []
    for _ in range(rows):
        flows = engine.step(*actions(engine, generator))
        inside.append(flows.thermal.temperature)
        found.append(flows.thermal.set_points)
    inside, found = torch.stack(inside, 1).numpy(), torch.stack(found, 1).numpy()
    for e in range(3):
        for b in range(buildings):
            own = site.buildings[b]
            expected = by_hand(own.occupant, own.set_points, own.hvac_mode, inside[e, :, b], own.dynamics.lookback)
            np.testing.assert_allclose(found[e, :, b], expected[:rows], atol=1e-6)
    assert (found[0] != found[1]).any()


def actions(engine, generator):
    shapes = (engine.buildings,), (engine.sockets,), (engine.buildings, 3), (engine.buildings, 2)
    return [torch.rand(engine.num_envs, *shape, generator=generator) for shape in shapes]


def test_both_environments_show_and_pay_the_same_in_every_episode(folder):
    """Also in the second episode, where CityLearn by itself would go on with the first one's temperatures."""
    settings = TaskSettings(objective=ObjectiveSettings(preset="challenge-2023"))
    stock, engine = CityLearnSite([folder], settings), DistrictSite([folder], 1, settings, exact=True)
    rng, comfort = np.random.default_rng(0), 0.0
    first = engine.reset(seed=0)[0].numpy()
    for _ in range(2):
        expected, _ = stock.reset(seed=0)
        np.testing.assert_allclose(first, expected, atol=5e-7)
        truncated, flows = False, []
        while not truncated:
            action = rng.uniform(-1, 1, stock.task.action_dim).astype(np.float32)
            expected, reward, _, truncated, info = stock.step(action)
            step = engine.step(torch.from_numpy(action)[None])
            np.testing.assert_allclose(step.next_obs[0].numpy(), expected, atol=1e-5)
            assert float(step.reward) == pytest.approx(reward, rel=1e-5, abs=1e-5)
            for name, value in info.items():
                assert float(step.info[name]) == pytest.approx(value, rel=1e-5, abs=1e-5), name
            flows.append(engine.last_flows)
            comfort += info["comfort_cost"]
        ours, theirs = (
            evaluate(own) for own in (engine_series(engine.task.sites[0], flows), simulated_series(stock.simulator))
        )
        compare(ours, theirs)
        first = step.obs[0].numpy()
    assert comfort > 0


def compare(ours, theirs):
    assert sum(name.startswith("discomfort") for name in theirs.building) > 5
    for name, expected in theirs.building.items():
        np.testing.assert_allclose(ours.building[name][0], expected, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_is_read_back_from_the_device(site, exact):
    """Tensors without data have no values to look at: whatever looks raises."""
    engine = Physics([site], 4, device="meta", exact=exact)
    shapes = (engine.buildings,), (engine.sockets,), (engine.buildings, 3), (engine.buildings, 2)
    flows = engine.step(*(torch.zeros(4, *shape, device="meta") for shape in shapes))
    assert flows.thermal.set_points.shape == (4, engine.buildings, 2)


def test_captured_and_plain_steps_are_equal(folder):
    with graphs_on_cpu():
        plain, captured = (DistrictSite([folder], 3, starts="random", episode_steps=19) for _ in range(2))
        captured.capture()
        generator = torch.Generator().manual_seed(0)
        torch.testing.assert_close(plain.reset(seed=0), captured.reset(seed=0))
        for _ in range(24):
            action = 2 * torch.rand((3, plain.action_dim), generator=generator) - 1
            expected, found = plain.step(action), captured.step(action)
            torch.testing.assert_close(found.obs, expected.obs)
            torch.testing.assert_close(found.reward, expected.reward)
        assert (plain.physics.state.thermal.chosen != NONE).any()
        assert all(x.isfinite().all() for x in named_tensors(plain.physics.state).values() if x.is_floating_point())


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


def test_comfort_follows_the_occupants_where_only_citylearn_runs_them(folder, tmp_path):
    """Trees that are pickles only: CityLearn's engine still rewards by the set-points that the occupants left."""
    pickles = shutil.copytree(folder, tmp_path / "pickles")
    edit(pickles, lambda schema: [block["occupant"].pop("trees") for block in schema["buildings"].values()])
    frozen, only = CityLearnSite([folder]), CityLearnSite([pickles])
    assert only.task.sites[0].unsupported
    frozen.reset(seed=0)
    only.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        action = rng.uniform(-1, 1, frozen.task.action_dim).astype(np.float32)
        expected, found = frozen.step(action)[4], only.step(action)[4]
        assert found["comfort_cost"] == expected["comfort_cost"]


def test_a_building_without_set_points_is_next_to_one_with_an_occupant(folder, tmp_path):
    """Where nobody lives the data may leave them blank; the observation has no NaN for it."""
    home = shutil.copytree(folder, tmp_path / "home")
    plain = {"type": "citylearn.building.LSTMDynamicsBuilding"}
    edit(home, lambda schema: schema["buildings"]["Building_2"].update(plain))
    assert read_site(home).buildings[1].dynamics.inputs[-1] == "indoor_dry_bulb_temperature"
    table = pd.read_csv(home / "Building_2.csv")
    for use in ("cooling", "heating"):
        table[f"indoor_dry_bulb_temperature_{use}_set_point"] = np.nan
    table.to_csv(home / "Building_2.csv", index=False)
    stock, engine = CityLearnSite([home]), DistrictSite([home], 1, exact=True)
    expected, _ = stock.reset(seed=0)
    np.testing.assert_allclose(engine.reset(seed=0)[0].numpy(), expected, atol=5e-7)
    for _ in range(10):
        action = np.zeros(stock.task.action_dim, dtype=np.float32)
        expected = stock.step(action)[0]
        found = engine.step(torch.from_numpy(action)[None]).next_obs[0].numpy()
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, expected, atol=1e-5)
