"""One network for every building: against loops over buildings, other orders, other numbers of buildings."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from street import street

from iquitos_rl.agents import A2C, PPO, SAC, SHAC
from iquitos_rl.agents.agent import load_agent
from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.agents.shared import SharedNormaliser, normaliser_of
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.buildings import NOWHERE
from iquitos_rl.errors import UserError

SMALL = {
    PPO: {"hidden": (8, 6), "horizon": 12, "batch_size": 48},
    A2C: {"hidden": (8, 6), "horizon": 12},
    SHAC: {"hidden": (8, 6, 5), "horizon": 6, "batch_size": 32},
    SAC: {
        "shared": True,
        "hidden": (8, 6),
        "batch_size": 16,
        "learning_starts": 32,
        "critics": 3,
        "layer_norm": True,
        "update_ratio": 0.2,
    },
}


def engine(site, agent=None, envs=4):
    spec = None if agent is None else agent.spec.environment
    return DistrictSite([site], envs, spec=spec, starts="random", episode_steps=48)


def learned(kind, site, **changes):
    config = kind.config_type(**{**SMALL[kind], "normalise_obs": True, **changes})
    return kind(engine(site), config, seed=3).learn(200)


def spec_of(site, agent):
    return PolicySpec.of(engine(site, agent))


def observations(site, agent, count=5):
    env = engine(site, agent, envs=count)
    env.reset(seed=1)
    for _ in range(7):
        obs = env.step(torch.rand(count, env.action_dim) * 2 - 1).obs
    return obs


def by_hand(net, spec, obs, more=None):
    """`Shared`, one building and one row after another, in float64: (N, B, outputs)."""
    map_, act = spec.buildings, np.tanh if net.activation == "tanh" else lambda x: x.clip(min=0)
    weights, biases = ([p.detach().double().numpy() for p in group] for group in (net.weights, net.biases))
    norms = [p.detach().double().numpy() for p in net.norms]
    mean, scale = net.mean.double().numpy(), net.scale.double().numpy()
    results = []
    for n, row in enumerate(obs.double().numpy()):
        encodings = []
        for b in range(len(map_.names)):
            own = [0.0 if place == NOWHERE else row[place] for place in map_.columns[b]]
            common = [row[place] for place in map_.common_columns]
            facts = ((np.array(map_.values[b]) - mean) * scale).clip(-3, 3)
            extra = [] if more is None else more[n, b].double().numpy()
            encodings.append(act(weights[0] @ np.array([*own, *common, *facts, *extra]) + biases[0]))
        each = []
        for code in encodings:
            y = weights[1] @ np.concatenate([code, np.mean(encodings, 0)]) + biases[1]
            for k in range(2, len(weights)):
                if norms:
                    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * norms[2 * k - 4] + norms[2 * k - 3]
                y = weights[k] @ act(y) + biases[k]
            each.append(y)
        results.append(each)
    return np.array(results)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return street(tmp_path_factory.mktemp("two") / "s", 2)


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Other buildings, one without a battery."""
    return street(tmp_path_factory.mktemp("five") / "s", 5, first=4, without_battery=(6,))


@pytest.fixture(scope="module", params=SMALL, ids=lambda kind: kind.name)
def agent(request, two):
    return learned(request.param, two)


def seen(agent, obs):
    return agent.networks.see(obs) if agent.name == "sac" else agent.policy.normalise(obs)


def acting_on(agent):
    return agent.networks.actor if agent.name == "sac" else agent.policy.actor


def test_on_five_buildings_each_action_is_the_function_of_that_buildings_columns(agent, five):
    """Learned on two others; nothing is trained again."""
    moved = agent.at(spec_of(five, agent))
    obs = observations(five, agent)
    found = by_hand(acting_on(moved).net, moved.spec, seen(moved, obs))
    raw = found[:, [0, 1, 3, 4], 0]  # the third has no battery
    expected = np.tanh(raw) if agent.name in ("sac", "shac") else raw
    np.testing.assert_allclose(moved.act(obs, None).detach().numpy(), expected, atol=2e-5)
    assert np.ptp(expected, axis=1).min() > 1e-4


def test_in_another_order_of_buildings_the_actions_are_in_that_order(agent, five):
    order = [3, 0, 4, 2, 1]
    other = replace(five, buildings=tuple(five.buildings[b] for b in order))
    obs, shuffled = (observations(site, agent, 1) for site in (five, other))
    here, there = (agent.at(spec_of(site, agent)) for site in (five, other))
    obs = shuffled.clone()
    for row, own in zip(here.spec.buildings.columns, (there.spec.buildings.columns[order.index(b)] for b in range(5))):
        for place, old in zip(row, own):
            if place != NOWHERE:
                obs[:, place] = shuffled[:, old]
    names = [name for name in (b.name for b in five.buildings) if name != "House 6"]
    again = [b.name for b in other.buildings if b.name != "House 6"]
    first, second = here.act(obs, None)[0], there.act(shuffled, None)[0]
    for i, name in enumerate(names):
        torch.testing.assert_close(first[i], second[again.index(name)])


def test_values_are_the_mean_of_what_buildings_add(agent, two):
    obs = observations(two, agent)
    rows = seen(agent, obs)
    if agent.name == "sac":
        action = torch.rand(5, 2) * 2 - 1
        found = agent.networks.critic(rows, action)
        expected = [
            by_hand(net, agent.spec, rows, action[..., None]).mean((1, 2)) for net in agent.networks.critic.nets
        ]
    else:
        found, expected = agent.policy.value(rows), by_hand(agent.policy.critic.net, agent.spec, rows).mean((1, 2))
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-5)


def test_a_saved_policy_is_the_same_and_goes_to_another_site(agent, two, five, tmp_path):
    agent.save(tmp_path / "policy")
    again = load_agent(tmp_path / "policy")
    obs = observations(two, agent)
    torch.testing.assert_close(again.act(obs, None), agent.act(obs, None))
    there = observations(five, agent)
    moved, other = (own.at(spec_of(five, agent)) for own in (agent, again))
    torch.testing.assert_close(other.act(there, None), moved.act(there, None))
    assert moved.act(there, None).shape == (5, 4)
    if agent.name != "sac":  # whose buffer is of other observations
        longer = type(agent).load(tmp_path / "policy", engine(five, agent))
        assert longer.learn(200).steps >= agent.steps + 200
    assert "buildings" in json.loads((tmp_path / "policy" / "policy.json").read_text())["spec"]["environment"]


def test_the_flat_form_is_there_for_the_asking_and_stays_at_its_site(two, five):
    flat = learned(PPO, two, shared=False)
    assert flat.spec.buildings is None
    assert flat.policy.log_std.shape == (2,)
    with pytest.raises(UserError, match="other observation columns"):
        engine(five, flat)
    with pytest.raises(UserError, match="obs_dim is"):
        flat.at(PolicySpec.of(engine(five)))


def test_one_building_is_learned_flat_and_a_shared_policy_acts_there(two, tmp_path):
    one = street(tmp_path / "one", 1, first=9)
    assert PPO(engine(one)).spec.buildings is None
    agent = learned(PPO, two)
    assert agent.at(spec_of(one, agent)).act(observations(one, agent), None).shape == (5, 1)


def test_deviations_of_actions_are_the_devices(two, five):
    agent = learned(PPO, two)
    assert agent.policy.log_std.shape == (1,)
    moved = agent.at(spec_of(five, agent))
    with torch.no_grad():
        moved.policy.log_std.fill_(0.25)
    assert moved.policy.log_deviation(moved.policy.log_std).tolist() == [0.25] * 4


def test_the_normaliser_takes_all_columns_of_a_name_as_samples_of_one_number(five):
    env = engine(five, envs=16)
    spec = PolicySpec.of(env)
    net = normaliser_of(spec)
    assert isinstance(net, SharedNormaliser)
    rows = [env.reset(seed=0)] + [env.step(torch.rand(16, 4) * 2 - 1).obs for _ in range(40)]
    for part in rows:
        net.update(part)
    every, found = torch.cat(rows).double(), net(rows[-1])
    for f in range(len(spec.buildings.features)):
        places = sorted({row[f] for row in spec.buildings.columns} - {NOWHERE})
        samples = every[:, places]
        std = samples.std(correction=0)
        wanted = (rows[-1][:, places] - samples.mean()) / (std if std > 1e-4 else 1.0)
        torch.testing.assert_close(found[:, places], wanted.clamp(-10, 10).float(), atol=1e-4, rtol=1e-4)


def test_a_site_with_a_device_that_the_policy_does_not_know_is_refused(two, tmp_path):
    agent = learned(PPO, two)
    spec = PolicySpec.of(engine(two))
    own = spec.environment["buildings"]
    strange = spec.model_copy(update={"environment": {**spec.environment, "buildings": {**own, "devices": ["tank"]}}})
    with pytest.raises(UserError, match="this site has the device tank"):
        agent.at(strange)
    with pytest.raises(UserError, match="nothing says what is a building's"):
        agent.at(spec.flat())
