"""What all agents have in common: networks of any kind, files that find their agent, the description of a policy."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from model_free import MODEL_FREE
from scripted_env import ScriptedEnv
from torch import nn
from toy import ToyBattery

from iquitos_rl.agents import A2C, AGENTS, PPO, SAC, load_agent
from iquitos_rl.agents.agent import Agent
from iquitos_rl.agents.policy_file import PolicySpec, save_policy
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.errors import UserError

SETTINGS = {
    "sac": {"batch_size": 16, "learning_starts": 20, "buffer_size": 500, "log_every": 50},
    "ppo": {"horizon": 24, "batch_size": 16, "epochs": 2},
    "a2c": {"horizon": 12, "log_every": 48},
}


class Values(nn.Module):
    """Two action values by torch's own layers, a convolution over the observation among them."""

    def __init__(self, obs_dim, action_dim):
        super().__init__()
        self.seen = nn.Sequential(nn.Unflatten(1, (1, obs_dim)), nn.Conv1d(1, 3, 2), nn.SiLU(), nn.Flatten())
        self.value = nn.Linear(3 * (obs_dim - 1) + action_dim, 2)

    def forward(self, obs, action):
        return self.value(torch.cat([self.seen(obs), action], -1)).mT


def modules(name, spec, seed=0):
    """An actor and a critic that are not ours."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        outputs = 2 * spec.action_dim if name == "sac" else spec.action_dim
        actor = nn.Sequential(nn.Linear(spec.obs_dim, 12), nn.SiLU(), nn.Linear(12, outputs))
        if name == "sac":
            return {"actor": actor, "critic": Values(spec.obs_dim, spec.action_dim)}
        return {"actor": actor, "critic": nn.Sequential(nn.Linear(spec.obs_dim, 12), nn.SiLU(), nn.Linear(12, 1))}


def make(name, env, networks, seed=1, device="cpu", **changes):
    entry = AGENTS[name]
    return entry.agent(env, entry.config(**{**SETTINGS[name], **changes}), device, seed, **networks)


def weights(agent):
    return torch.cat([p.detach().flatten() for p in agent.networks.parameters()])


SPEC = PolicySpec.of(ScriptedEnv())


@pytest.mark.parametrize("which", [("actor", "critic"), ("actor",), ("critic",)])
@pytest.mark.parametrize("name", MODEL_FREE)
def test_any_module_learns_and_is_saved_and_loaded(name, which, tmp_path):
    def given(seed=0):
        return {net: module for net, module in modules(name, SPEC, seed).items() if net in which}

    agent = make(name, ScriptedEnv(), given())
    before = [p.detach().clone() for p in agent.networks.parameters()]
    agent.learn(200)
    assert agent.updates > 2
    assert not any(torch.equal(p, q) for p, q in zip(agent.networks.parameters(), before)), "every parameter moves"
    agent.save(tmp_path)
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    for loaded in (type(agent).load(tmp_path, **given(seed=7)), load_agent(tmp_path, **given(seed=8))):
        assert type(loaded) is type(agent)
        assert np.array_equal(loaded.predict(obs), agent.predict(obs))
    with pytest.raises(UserError, match=f"made with {', '.join(which)} of its own: give load the same"):
        load_agent(tmp_path)


@pytest.mark.parametrize("name", MODEL_FREE)
def test_modules_of_another_shape_are_refused(name, tmp_path):
    make(name, ScriptedEnv(), modules(name, SPEC)).save(tmp_path / "given")
    other = modules(name, SPEC)
    other["actor"][0] = nn.Linear(4, 13)
    other["actor"][2] = nn.Linear(13, other["actor"][2].out_features)
    with pytest.raises(UserError, match="the weights do not fit"):
        load_agent(tmp_path / "given", **other)
    make(name, ScriptedEnv(), {}).save(tmp_path / "own")
    with pytest.raises(UserError, match="made with no network of its own: give load the same"):
        load_agent(tmp_path / "own", **modules(name, SPEC))


@pytest.mark.parametrize("name", MODEL_FREE)
def test_a_run_with_given_modules_continues_bit_for_bit(name):
    agent = make(name, ToyBattery(), modules(name, PolicySpec.of(as_vector(ToyBattery()))))
    agent.learn(96)
    state = deepcopy(agent.state_dict())
    agent.learn(until=192)
    again = make(name, ToyBattery(), modules(name, PolicySpec.of(as_vector(ToyBattery())), seed=9), seed=5)
    again.env.reset()
    again.load_state_dict(state)
    again.learn(until=192)
    assert torch.equal(weights(agent), weights(again))


@pytest.mark.parametrize("name", MODEL_FREE)
def test_parts_and_graphs_work_with_any_module(name, graph_device):
    changes = ({"compile": "off"}, {"compile": "off", "micro_batch": 5}, {"compile": "graphs"})
    agents = [make(name, ScriptedEnv(masked=True), modules(name, SPEC), device=graph_device, **c) for c in changes]
    for agent in agents:
        agent.learn(150)
        torch.testing.assert_close(weights(agent), weights(agents[0]), rtol=1e-3, atol=1e-4)


def test_frozen_parameters_stay_as_they_are():
    networks = modules("sac", SPEC)
    networks["critic"].seen.requires_grad_(False)
    networks["actor"][0].requires_grad_(False)
    agent = make("sac", ScriptedEnv(), networks)
    before = deepcopy(networks)
    agent.learn(100)
    assert torch.equal(agent.actor[0].weight, before["actor"][0].weight)
    assert torch.equal(agent.critic.seen[1].weight, before["critic"].seen[1].weight)
    assert not torch.equal(agent.critic.value.weight, before["critic"].value.weight)
    assert not agent.critic.seen[1].weight.requires_grad


@pytest.mark.parametrize(("name", "kind"), [("sac", SAC), ("ppo", PPO), ("a2c", A2C)])
def test_a_policy_finds_its_agent(name, kind, tmp_path):
    agent = make(name, ToyBattery(), {})
    agent.save(tmp_path)
    loaded = load_agent(tmp_path, ToyBattery(), seed=3)
    assert type(loaded) is kind
    assert loaded.name == name
    assert torch.equal(weights(loaded), weights(agent))
    assert loaded.env is not None


def test_a_policy_of_an_unknown_agent_is_one_sentence(tmp_path):
    agent = make("a2c", ToyBattery(), {})
    save_policy(
        tmp_path, algorithm="dqn", config=agent.config, spec=agent.spec.model_dump(), tensors={"x": torch.ones(1)}
    )
    with pytest.raises(UserError, match="unknown algorithm dqn"):
        load_agent(tmp_path)


@pytest.mark.parametrize("name", MODEL_FREE)
def test_an_agent_needs_an_environment_or_its_description(name):
    kind: type[Agent] = AGENTS[name].agent
    assert kind(None, spec=SPEC).spec is SPEC
    with pytest.raises(UserError, match="needs an environment"):
        kind(None)
