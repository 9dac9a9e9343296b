"""The reference engine against CityLearn itself."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from citylearn.energy_model import Battery
from gymnasium.utils.env_checker import check_env
from schemas import Features, write_schema

from iquitos_rl.envs.citylearn.env import CityLearnSite, load_citylearn, resolve_case
from iquitos_rl.envs.task.observation import Encoding
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError

ROWS = 168


def run(env, policy, steps=ROWS - 1, seed=0):
    obs, _ = env.reset(seed=seed)
    history = []
    for t in range(steps):
        obs, reward, terminated, truncated, info = env.step(policy(t, obs))
        history.append((obs, reward, terminated, truncated, info, env.flows))
    return history


@pytest.fixture(scope="module")
def env(week_38):
    return CityLearnSite([week_38])


def random_policy(env, seed=1):
    rng = np.random.default_rng(seed)
    table = rng.uniform(-1, 1, (ROWS, env.task.action_dim)).astype(np.float32)
    return lambda t, obs: table[t]


def test_gymnasium_accepts_the_environment(env):
    check_env(env, skip_render_check=True)


def assert_the_fast_path_is_stock_citylearn(folder, seed):
    """Same actions, stock `CityLearnEnv.step` with rewards, observations, feedback: every SOC and meter equal."""
    fast, stock = load_citylearn(folder, fast=True), load_citylearn(folder, fast=False)
    fast.reset()
    stock.reset()
    rng = np.random.default_rng(seed)
    low, high = stock.action_space[0].low, stock.action_space[0].high
    while not stock.terminated:
        # Zeros too: what is asked for nothing may be left alone.
        action = (rng.uniform(low, high) * rng.choice([0, 1], low.shape)).tolist()
        fast._runtime_service.step_without_feedback([action])
        stock.step([action])
    assert fast.terminated
    for a, b in zip(fast.buildings, stock.buildings, strict=True):
        for series in ("", "_cost", "_emission"):
            name = f"net_electricity_consumption{series}"
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert_equal_batteries(a.electrical_storage, b.electrical_storage)
        for mine, theirs in zip(a.electric_vehicle_chargers or [], b.electric_vehicle_chargers or [], strict=True):
            np.testing.assert_array_equal(mine.electricity_consumption, theirs.electricity_consumption)
            np.testing.assert_array_equal(mine.past_charging_action_values_kwh, theirs.past_charging_action_values_kwh)
            connected = [[ev and ev.name for ev in charger.past_connected_evs] for charger in (mine, theirs)]
            assert connected[0] == connected[1]
    for a, b in zip(fast.electric_vehicles, stock.electric_vehicles, strict=True):
        assert_equal_batteries(a.battery, b.battery)
        assert (a.time_step, a.battery.time_step) == (b.time_step, b.battery.time_step)


def assert_equal_batteries(a, b):
    for name in ("soc", "energy_balance", "electricity_consumption", "capacity_history"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_the_fast_path_is_stock_citylearn(week_38):
    assert_the_fast_path_is_stock_citylearn(week_38, seed=0)


@pytest.mark.parametrize("seed", range(8))
def test_the_fast_path_is_stock_citylearn_with_every_electrical_feature(tmp_path, seed):
    folder = write_schema(tmp_path / "site", seed, Features(rows=72))
    assert_the_fast_path_is_stock_citylearn(folder, seed)


def test_the_fast_path_keeps_citylearns_rules_for_socs_by_the_row(tmp_path):
    """A charger table with SOCs of its own, in which a vehicle leaves and comes back without a free hour between."""
    folder = write_schema(tmp_path / "site", 0, Features(rows=72, sockets=(3, 3)))
    for path in folder.glob("*.csv"):
        table = pd.read_csv(path)
        if "electric_vehicle_charger_state" in table:
            table["electric_vehicle_current_soc"] = np.where(table.index % 5 == 0, 0.4, np.nan)
            table.to_csv(path, index=False)
    assert_the_fast_path_is_stock_citylearn(folder, seed=0)


def test_other_uses_of_citylearn_stay_as_they_are(week_38):
    """What is applied to one instance does not reach the next."""
    load_citylearn(week_38, fast=True).reset()
    stock = load_citylearn(week_38, fast=False)
    assert {type(vehicle.battery) for vehicle in stock.electric_vehicles} == {Battery}
    assert "parse_actions" not in vars(stock._runtime_service)
    assert "reset" not in vars(stock)


@pytest.mark.parametrize(
    "entries",
    [
        {"episode_time_steps": 10},
        {"episode_time_steps": 10, "rolling_episode_split": True, "random_episode_split": True},
        {"interface": "entity"},
        {"central_agent": False},
    ],
)
def test_every_schema_is_run_for_its_whole_year_by_one_agent(tmp_path, entries):
    """Whatever it says about episodes and interfaces: the bill is a year's."""
    features = Features(rows=24, buildings=(1, 1), sockets=(1, 1), omit=0)
    plain = CityLearnSite([write_schema(tmp_path / "plain", 3, features)])
    other = CityLearnSite([write_schema(tmp_path / "other", 3, replace(features, overrides=entries))])
    for expected, found in zip(
        *(run(env, lambda t, obs: np.zeros(plain.task.action_dim, np.float32), steps=23) for env in (plain, other))
    ):
        np.testing.assert_array_equal(expected[0], found[0])
        assert expected[1:4] == found[1:4]
    assert found[3]


def test_every_episode_moves_vehicles_that_are_away_as_the_first(tmp_path):
    """CityLearn draws other factors in its second episode; a policy would be compared with another year then."""
    env = CityLearnSite([write_schema(tmp_path, 4, Features(rows=48, sockets=(4, 4), blank_soc=0.8))])
    assert env.task.sites[0].drift is not None
    first, second = (run(env, lambda t, obs: np.zeros(env.task.action_dim, np.float32), steps=47) for _ in range(2))
    for expected, found in zip(first, second, strict=True):
        np.testing.assert_array_equal(expected[0], found[0])


def test_money_and_carbon_are_citylearns_own(env, week_38):
    """Energy cost and emissions of each step equal what CityLearn books for the building."""
    history = run(env, random_policy(env))
    building = env._sim.buildings[0]
    cost = [info["energy_cost"] for *_, info, _ in history]
    carbon = [info["carbon_kg"] for *_, info, _ in history]
    np.testing.assert_allclose(cost, building.net_electricity_consumption_cost[: len(cost)], rtol=1e-6)
    np.testing.assert_allclose(carbon, building.net_electricity_consumption_emission[: len(cost)], rtol=1e-6)


def test_the_balance_closes_and_reads_the_cell_that_was_just_written(env):
    for *_, info, flows in run(env, random_policy(env)):
        balance = flows.load.sum() - flows.pv.sum() + flows.battery.sum() + flows.sockets.sum()
        assert flows.net.sum() == pytest.approx(balance, abs=1e-3)
        assert info["import_kwh"] - info["export_kwh"] == pytest.approx(flows.net.sum(), abs=1e-9)


def test_every_term_of_the_bill_moves_with_the_actions(week_38):
    """The battery moves energy, carbon and demand; without the guard, refusing to charge moves the shortfall."""
    env = CityLearnSite([week_38], TaskSettings(ev_guard=False))
    sockets = env.task.num_socket_actions

    def totals(battery, charge):
        action = np.array([battery] + [charge] * sockets, dtype=np.float32)
        history = run(env, lambda t, obs: action)
        return {name: sum(h[4][name] for h in history) for name in history[0][4]}, sum(h[1] for h in history)

    idle, idle_reward = totals(0.0, 1.0)
    discharged, _ = totals(-1.0, 1.0)
    refused, refused_reward = totals(0.0, -1.0)
    assert discharged["energy_cost"] < idle["energy_cost"]
    assert discharged["carbon_kg"] < idle["carbon_kg"]
    assert refused["demand_cost"] < idle["demand_cost"]
    assert refused["shortfall_cost"] > 100 * max(idle["shortfall_cost"], 1.0)
    assert refused["served"] < idle["served"]
    assert refused_reward != idle_reward


def test_the_first_step_already_pays_for_its_action(env):
    """A reward that reads a cell not yet written stays constant over actions."""
    rewards = []
    for battery in (-1.0, 0.0, 1.0):
        env.reset(seed=0)
        action = np.zeros(env.task.action_dim, dtype=np.float32)
        action[0] = battery
        rewards.append(env.step(action)[1])
    assert rewards[0] > rewards[1] > rewards[2]


def test_the_year_is_truncated_and_its_last_observation_is_the_true_one(env, week_38):
    history = run(env, random_policy(env))
    *_, (before, *_), (last, _, terminated, truncated, _, flows) = history
    assert [h[2] or h[3] for h in history] == [False] * (ROWS - 2) + [True]
    assert truncated
    assert not terminated
    encoding, task = env.task.encoding, env.task
    exogenous = len(encoding.exogenous)
    np.testing.assert_array_equal(last[:exogenous], task.table[ROWS - 1].numpy())
    assert not np.array_equal(last[:exogenous], before[:exogenous])
    soc = encoding.index("Building_1/battery_soc")
    assert last[soc] == pytest.approx(2 * flows.battery_soc[0] - 1, abs=1e-6)


def test_the_guard_serves_every_departure_that_full_power_serves(week_38):
    worst = CityLearnSite([week_38])
    full = CityLearnSite([week_38])
    late = run(worst, lambda t, obs: np.full(worst.task.action_dim, -1, np.float32))
    early = run(full, lambda t, obs: np.full(full.task.action_dim, 1, np.float32))
    served = [sum(h[4]["served"] for h in history) for history in (late, early)]
    departures = sum(h[4]["departures"] for h in late)
    assert departures > 1000
    assert served[0] == served[1]
    missing = [sum(h[4]["missing_kwh"] for h in history) for history in (late, early)]
    assert missing[0] == pytest.approx(missing[1], abs=0.1)


@pytest.mark.parametrize("sockets", ["each", "fleet"])
def test_empty_sockets_receive_no_request(week_38, sockets):
    env = CityLearnSite([week_38], TaskSettings(sockets=sockets))
    sent = []
    env.reset(seed=0)
    step = env._sim._runtime_service.step_without_feedback

    def spy(actions):
        sent.append(np.array(actions[0]))
        return step(actions)

    env._sim._runtime_service.step_without_feedback = spy
    for t in range(48):
        empty = np.array([charger.vehicle[t] < 0 for _, charger in env.task.sites[0].sockets])
        env.step(np.ones(env.task.action_dim, np.float32))
        assert (sent[-1][env._actions.sockets][empty] == 0).all()
    assert np.any([s[env._actions.sockets] != 0 for s in sent])


def test_observations_name_what_they_hold(week_38):
    env = CityLearnSite([week_38], TaskSettings(sockets="each"))
    history = run(env, random_policy(env), steps=30)
    obs, *_, flows = history[-1]
    column = {
        c.name: (float(obs[i]) + 1) / 2 * (c.high - c.low) + c.low for i, c in enumerate(env.task.encoding.columns)
    }
    site = env.task.sites[0]
    assert column["Building_1/load"] == pytest.approx(site.buildings[0].load[30], rel=1e-4)
    assert column["Building_1/net_consumption"] == pytest.approx(flows.net[0], rel=1e-3)
    assert column["price"] == pytest.approx(site.buildings[0].price[30], rel=1e-4)
    connected = [n for n, (_, c) in enumerate(site.sockets) if c.vehicle[30] >= 0]
    assert column["hour_cos"] == pytest.approx(np.cos(2 * np.pi * site.hour[30] / 24), abs=1e-5)
    for n, (_, charger) in enumerate(site.sockets):
        assert column[f"Building_1/{charger.name}/connected"] == pytest.approx(float(n in connected), abs=1e-6)


def test_a_fleet_moves_as_its_sockets_do_together(week_38):
    """One action for the fleet, or the same action for each socket: the same site."""
    fleet, each = (CityLearnSite([week_38], TaskSettings(sockets=sockets)) for sockets in ("fleet", "each"))
    rng = np.random.default_rng(0)
    table = rng.uniform(-1, 1, (ROWS, 2)).astype(np.float32)
    assert fleet.task.action_dim == 2
    together = run(fleet, lambda t, obs: table[t])
    apart = run(each, lambda t, obs: np.concatenate([table[t, :1], np.full(each.task.num_sockets, table[t, 1])]))
    for a, b in zip(together, apart, strict=True):
        assert a[1] == b[1]
        np.testing.assert_array_equal(a[5].sockets, b[5].sockets)


def test_a_fleet_sees_what_its_sockets_need(week_38):
    """Least, most and needed against sums over the sockets, written out."""
    env = CityLearnSite([week_38])
    env.reset(seed=0)
    for t in range(30):
        obs = env.step(np.array([0.0, -0.5], np.float32))[0]
        site, row = env.task.sites[0], t + 1
        least = most = needed = 0.0
        for n, (_, charger) in enumerate(site.sockets):
            if charger.vehicle[row] < 0:
                continue
            soc, gain = env._now.socket_soc[0, n].item(), env._now.gain[0, n].item()
            steps = (charger.required_soc[row] - soc) / gain
            least += min(max(steps - charger.departure[row], 0), 1) * charger.max_charging_power
            most += min(max(steps, 0), 1) * charger.max_charging_power
            needed += max(steps, 0) * charger.max_charging_power
        column = {c.name: (obs[i] + 1) / 2 * (c.high - c.low) + c.low for i, c in enumerate(env.task.encoding.columns)}
        assert column["Building_1/fleet_least"] == pytest.approx(least, abs=1e-3)
        assert column["Building_1/fleet_most"] == pytest.approx(most, abs=1e-3)
        assert column["Building_1/fleet_needed"] == pytest.approx(needed, abs=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_refused(env, value):
    env.reset(seed=0)
    action = np.zeros(env.task.action_dim, np.float32)
    action[1] = value
    with pytest.raises(UserError, match="action 1 at hour 0 is not a finite number"):
        env.step(action)


def test_actions_of_another_length_are_refused(env):
    env.reset(seed=0)
    with pytest.raises(UserError, match="shape"):
        env.step(np.zeros(3, np.float32))


def test_a_saved_encoding_gives_the_same_numbers_in_another_year(week_38, year_38):
    """Bounds come with the policy, not from the year it is judged on."""
    trained = CityLearnSite([week_38])
    spec = json.loads(json.dumps(trained.policy_spec))
    other = CityLearnSite([year_38], spec=spec)
    assert other.task.encoding == trained.task.encoding
    assert other.task.reward_scale == trained.task.reward_scale
    np.testing.assert_array_equal(trained.reset(seed=0)[0], other.reset(seed=0)[0])


def test_an_encoding_of_another_site_is_refused(env, week_38):
    spec = dict(env.policy_spec)
    encoding = Encoding.from_json(spec["encoding"])
    spec["encoding"] = Encoding(encoding.exogenous[:-1], encoding.endogenous).to_json()
    with pytest.raises(UserError, match="other observation columns"):
        CityLearnSite([week_38], spec=spec)


def test_years_take_turns_in_an_order_that_the_seed_decides(week_38, tmp_path):
    again = shutil.copytree(week_38, tmp_path / "again")
    env = CityLearnSite([week_38, again, week_38])

    def order():
        env.reset(seed=4)
        years = [env.year]
        for _ in range(5):
            env.reset()
            years.append(env.year)
        return years

    first = order()
    assert sorted(first[:3]) == sorted(first[3:]) == [0, 1, 2]
    assert order() == first


@pytest.mark.parametrize("name", ["no_such_dataset_xyz", "folder"])
def test_a_case_that_does_not_exist_is_named(tmp_path, monkeypatch, name):
    monkeypatch.setenv("CITYLEARN_OFFLINE", "1")
    (tmp_path / "folder").mkdir()
    case = tmp_path / name if name == "folder" else name
    with pytest.raises(UserError, match=name):
        resolve_case(case)


def test_tables_that_citylearn_would_download_are_one_sentence(week_38, monkeypatch):
    from citylearn.data import OfflineDataError

    def refuse(*arguments, **options):
        raise OfflineDataError("not found locally")

    monkeypatch.setattr("citylearn.citylearn.CityLearnEnv", refuse)
    with pytest.raises(UserError, match="tables that it downloads"):
        CityLearnSite([week_38])
