"""Steering around a rule: an action of zero is the rule, on both engines, and rewards count from what it earned."""

import shutil

import numpy as np
import pytest
import torch
from thermal_schemas import write_thermal_schema

from iquitos_rl.baselines.guided import Guide, GuidedSite
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.recording import record_years
from iquitos_rl.baselines.rule import Rule, default_settings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.buildings import action_names
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError

REACH = 0.07


@pytest.fixture(scope="module")
def trajectory(site, rule):
    return record_years([site, site], rule, TaskSettings())


def make(site, rule, trajectory, episode_steps=40, beyond=0.1):
    env = DistrictSite([site, site], 6, starts="random", episode_steps=episode_steps, trajectory=trajectory)
    return GuidedSite(env, rule, REACH, beyond)


def reaches(site):
    """(A,) by how much an action of 1 departs: of the battery's nominal power, and of a range that is 2 wide."""
    battery = site.buildings[0].battery
    return REACH * torch.tensor([battery.capacity / battery.nominal_power, 2.0])


def test_an_action_of_zero_earns_nothing_more_than_the_rule(site, rule, trajectory):
    """From any hour on, through the ends of episodes, but for rounding and the capacity that batteries have lost."""
    env = make(site, rule, trajectory)
    env.reset(seed=3)
    largest = trajectory.reward.abs().max()
    for _ in range(100):
        step = env.step(torch.zeros(6, env.action_dim))
        assert step.reward.abs().max() < 1e-4 * largest


def test_episodes_begin_where_the_rule_stood(site, rule, trajectory):
    env = make(site, rule, trajectory).env
    env.reset(seed=1)
    state, at = env.physics.state, env.physics.table_row
    assert (at % site.rows > 0).any()
    assert torch.equal(state.battery_soc, trajectory.battery_soc[at])
    assert torch.equal(state.vehicle_soc, trajectory.vehicle_soc[at])
    assert torch.equal(env.state_dict()["running_peak"], trajectory.running_peak[at])


def test_rewards_differ_from_plain_ones_by_the_rules_reward(site, rule, trajectory):
    """Sum over a whole episode against a second environment that is moved by hand."""
    env, plain = make(site, rule, trajectory), make(site, rule, trajectory._replace(reward=trajectory.reward * 0))
    env.reset(seed=5)
    plain.reset(seed=5)
    torch.manual_seed(0)
    for _ in range(60):
        row, action = env.exogenous.row, torch.rand(6, env.action_dim) * 2 - 1
        difference = plain.step(action).reward - env.step(action).reward
        torch.testing.assert_close(difference, trajectory.reward[row], atol=1e-6, rtol=1e-6)


def test_actions_count_from_the_rules_and_are_clamped(site, rule, trajectory):
    env = make(site, rule, trajectory)
    seen = env.reset(seed=0)
    own = Rule(env.env.task, rule)(seen[:, : env.env.obs_dim])
    assert torch.equal(seen[:, -env.action_dim :], own)
    action = torch.full((6, env.action_dim), -1.0)
    torch.testing.assert_close(env.guide.act(seen, action), (own - reaches(site)).clamp(-1, 1))


def test_margins_are_what_is_left_of_the_months_peak(site, rule, trajectory):
    """Against the meter: follow the rule for an hour, and compare its import with the running peak before it."""
    env = make(site, rule, trajectory, episode_steps=160)
    seen = env.reset(seed=4)
    most = REACH * (site.buildings[0].battery.capacity + fleet_span(site, env))
    within = 0
    for _ in range(30):
        left = highest(site, env)
        margin = seen[:, -env.action_dim - 1]
        seen = env.step(torch.zeros(6, env.action_dim)).obs
        expected = ((left - env.env.last_flows.net[:, 0]) / most).clamp(-1, 1)
        torch.testing.assert_close(margin, expected, atol=0.02, rtol=0)
        within += int((expected.abs() < 1).sum())
    assert within > 10


def fleet_span(site, env):
    """kW between the least and the most that the fleet's columns can show."""
    columns = {column.name: column for column in env.env.task.encoding.columns}
    name = site.buildings[0].name
    return columns[f"{name}/fleet_most"].high - columns[f"{name}/fleet_least"].low


def highest(site, env):
    """(E,) kW of the month's highest import so far in the period of the present hour."""
    now, peak = env.env.exogenous.row, env.env.state_dict()["running_peak"][:, 0]
    dear = torch.isin(torch.tensor(site.hour)[now % site.rows], torch.tensor([18, 19, 20, 21, 22]))
    return torch.where(dear, peak[:, 0], peak[:, 1])


def test_nothing_left_beyond_means_no_departure_raises_the_months_highest_import(site, rule, trajectory):
    """Whatever the agent does, the meter stays at the month's highest or at what the rule would import here."""
    agent, follower = (make(site, rule, trajectory, episode_steps=160, beyond=0) for _ in range(2))
    agent.reset(seed=6)
    follower.reset(seed=6)
    torch.manual_seed(2)
    raised = at_edge = 0
    for hour in range(150):
        follower.load_state_dict(agent.state_dict())
        edge = highest(site, agent)
        follower.step(torch.zeros(6, 2))
        agent.step(torch.rand(6, 2) * 2 - 1 if hour % 2 else torch.ones(6, 2))
        ours, rules = (env.env.last_flows.net[:, 0] for env in (agent, follower))
        assert (ours <= torch.maximum(edge, rules) + 1e-3).all()
        raised += int((ours > rules + 1).sum())
        at_edge += int(((ours - edge).abs() < 1e-3).sum())
    assert raised > 100
    assert at_edge > 10


@pytest.mark.parametrize("beyond", [0, 0.25, 1])
def test_only_what_adds_to_the_import_beyond_the_edge_is_scaled_down(site, rule, trajectory, beyond):
    env = make(site, rule, trajectory, episode_steps=160, beyond=beyond)
    seen, torch_rng = env.reset(seed=6), torch.Generator().manual_seed(0)
    fleet = [env.env.task.encoding.index(f"{site.buildings[0].name}/fleet_{end}") for end in ("least", "most")]
    bounds = [(column.low, column.high) for column in env.env.task.encoding.columns]
    over = 0
    for _ in range(60):
        action = torch.rand(6, 2, generator=torch_rng) * 2 - 1
        own = seen[:, -2:]
        wanted = (own + reaches(site) * action).clamp(-1, 1) - own
        done = env.guide.act(seen, action) - own
        for i in range(6):
            fleet_kw = (low + (seen[i, c].item() + 1) / 2 * (high - low) for c in fleet for low, high in [bounds[c]])
            kw = (site.buildings[0].battery.nominal_power, -np.subtract(*fleet_kw) / 2)
            adds = sum(max(k * w.item(), 0) for k, w in zip(kw, wanted[i]))
            left = sum(max(k * d.item(), 0) for k, d in zip(kw, done[i]))
            most = REACH * (site.buildings[0].battery.capacity + fleet_span(site, env))
            edge = min(max(seen[i, -3].item(), 0) * most, adds)
            assert left == pytest.approx(edge + beyond * (adds - edge), abs=0.02)
            assert all(abs(d - w) < 1e-5 for d, w in zip(done[i], wanted[i]) if w < 0)
            over += adds > edge + 1
        seen = env.step(action).obs
    assert over > 10


def test_departures_are_free_where_no_demand_is_charged(site, rule, trajectory, tmp_path):
    free = tmp_path / "free"
    shutil.copytree(site.path, free)
    (free / "tariff.json").unlink()
    env = make(read_site(free), rule, trajectory)
    seen = env.reset(seed=0)
    assert (seen[:, -env.action_dim - 1] == 1).all()
    action = torch.rand(6, env.action_dim)
    expected = (seen[:, -env.action_dim :] + reaches(site) * action).clamp(-1, 1)
    torch.testing.assert_close(env.guide.act(seen, action), expected)


def test_the_controller_on_citylearn_is_the_guided_policy(week_38, site, rule, trajectory):
    """What is stored with a policy leads to the same actions on CityLearn as on the district engine."""
    judge = CityLearnSite([week_38])
    stored = make(site, rule, trajectory).policy_spec["guide"]
    weights = torch.linspace(-1, 1, Guide.from_json(judge.task, stored).obs_dim)

    def predict(obs: np.ndarray) -> np.ndarray:
        return np.tanh(obs @ weights.numpy()) * np.ones(judge.task.action_dim, dtype=np.float32)

    controller = Guide.from_json(judge.task, stored).around(predict)
    year = DistrictSite([week_38], 1)
    engine = GuidedSite(year, rule, REACH, 0.1)
    obs, _ = judge.reset(options={"year": 0})
    seen = engine.reset(seed=0)
    for _ in range(100):
        expected = engine.guide.act(seen, torch.from_numpy(predict(seen[0].numpy())).unsqueeze(0))[0]
        action = controller(obs)
        np.testing.assert_allclose(action, expected.numpy(), atol=1e-4)
        seen = engine.step(torch.from_numpy(predict(seen[0].numpy())).unsqueeze(0)).obs
        obs, *_ = judge.step(action)


def test_goes_on_exactly_from_a_state(site, rule, trajectory):
    env, again = make(site, rule, trajectory), make(site, rule, trajectory)
    env.reset(seed=2)
    again.reset(seed=9)
    torch.manual_seed(1)
    actions = torch.rand(80, 6, env.action_dim) * 2 - 1
    for action in actions[:35]:
        env.step(action)
    again.load_state_dict(env.state_dict())
    for action in actions[35:]:
        ours, theirs = env.step(action), again.step(action)
        assert torch.equal(ours.obs, theirs.obs)
        assert torch.equal(ours.reward, theirs.reward)


def test_a_stored_guide_that_is_damaged_is_refused(site, rule, trajectory):
    env = make(site, rule, trajectory)
    for broken in ({}, {"rule": {}, "reach": 0.3, "beyond": 0}, {**env.guide.to_json(), "reach": "far"}):
        with pytest.raises(UserError):
            Guide.from_json(env.env.task, broken)


def test_what_no_rule_moves_obeys_the_agent_alone(tmp_path):
    """Tanks, cooling and heating: with a guide as without one, whatever its reach. A guide that held them would leave
    an agent nothing to do on a site without batteries and vehicles."""
    site = read_site(write_thermal_schema(tmp_path, seed=2))
    env = DistrictSite([site], 4)
    guide = Guide(env.task, default_settings("strongest", fit_profiles([site])), reach=0.01, beyond=0.1)
    names = action_names(site, "fleet")
    ruled = [i for i, name in enumerate(names) if name.endswith(("/battery", "/sockets"))]
    others = [i for i in range(len(names)) if i not in ruled]
    assert ruled
    assert others
    torch.manual_seed(0)
    action = torch.rand(4, env.action_dim) * 2 - 1
    acted = guide.act(guide.see(env.reset(seed=1)), action)
    torch.testing.assert_close(acted[:, others], action[:, others])
    assert (acted[:, ruled] - action[:, ruled]).abs().amax() > 0.1
