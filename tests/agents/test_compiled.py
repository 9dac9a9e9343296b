"""Compiled and captured gradients are those of the code as it is written."""

import copy

import pytest
import torch
from model_free import MODEL_FREE
from scripted_env import ScriptedEnv
from tensordict import TensorDict

from iquitos_rl.agents import AGENTS, compiled
from iquitos_rl.agents.collector import Batch
from iquitos_rl.errors import UserError

SETTINGS = {
    "sac": {"hidden": (8, 8), "batch_size": 32, "learning_starts": 32, "buffer_size": 300, "storage": "float32"},
    "ppo": {"hidden": (8, 8), "batch_size": 32, "horizon": 8, "epochs": 1},
    "a2c": {"hidden": (8, 8), "horizon": 8},
}


def make(name, mode, device="cpu", **changes):
    entry = AGENTS[name]
    env = ScriptedEnv(num_envs=4, masked=True)
    return entry.agent(env, entry.config(**SETTINGS[name], compile=mode, **changes), device=device, seed=1)


def parameters(agent):
    nets = [agent.policy] if hasattr(agent, "policy") else [agent.actor, agent.critic, agent.target_critic]
    return [p for net in nets for p in net.parameters()]


def update(agent, g):
    def randn(*shape):
        return torch.randn(*shape, generator=g).to(agent.device)

    if hasattr(agent, "policy"):
        log_prob, value, advantage, returns = randn(4, 32)
        live = torch.rand(32, 2, generator=g).to(agent.device) < 0.5
        agent.update(Batch(randn(32, 4), randn(32, 2), log_prob - 3, live, value, advantage, returns))
    else:
        fields = {"observation": randn(32, 4), "action": randn(32, 2).tanh(), "reward": randn(32)}
        fields |= {"next_observation": randn(32, 4), "discount": 0.9 * (randn(32) < 1).float()}
        agent.update(TensorDict(fields, batch_size=(32,)), randn(2, 32, 2))


def after_100_updates(agent):
    g = torch.Generator().manual_seed(0)
    for _ in range(100):
        update(agent, g)
    return parameters(agent)


def agree(one, other):
    before = parameters(make(one, "off"))
    results = [after_100_updates(agent) for agent in (make(one, "off"), other)]
    assert any((p - q).abs().max() > 0.01 for p, q in zip(before, results[0])), "100 updates move the weights"
    for p, q in zip(*results):
        torch.testing.assert_close(p, q.cpu(), rtol=1e-3, atol=1e-4)


@pytest.fixture
def quick(monkeypatch):
    """Traced and differentiated as for any compiler, without the minute in which C++ is made of it."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")


@pytest.mark.parametrize("name", ["sac", "ppo"])
def test_traced_and_eager_agree_over_100_updates(name, quick):
    agree(name, make(name, "default"))


def test_compiled_and_eager_agree_over_100_updates():
    agree("a2c", make("a2c", "default"))


@pytest.mark.parametrize("name", MODEL_FREE)
def test_a_compiled_run_goes_on_bit_for_bit(name, quick):
    whole, first, second = (make(name, "default") for _ in range(3))
    g = torch.Generator().manual_seed(0)
    for agent in (whole, first):
        agent.reset()
        g.manual_seed(0)
        for _ in range(5):
            update(agent, g)
    second.reset()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for agent in (whole, second):
        g.manual_seed(1)
        for _ in range(5):
            update(agent, g)
    assert all(torch.equal(p, q) for p, q in zip(parameters(whole), parameters(second)))


def test_auto_is_graphs_on_a_gpu_and_nothing_elsewhere():
    assert compiled.resolve("auto", torch.device("cuda")) == "graphs"
    assert compiled.resolve("auto", torch.device("cpu")) == "off"


@pytest.mark.parametrize("name", MODEL_FREE)
def test_what_cannot_work_is_one_sentence(name, monkeypatch):
    with pytest.raises(UserError, match="graphs needs a CUDA device, and this agent is on cpu"):
        make(name, "graphs")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="needs a C\\+\\+ compiler, and there is no no-such-compiler here"):
        make(name, "default")


@pytest.mark.parametrize("name", MODEL_FREE)
def test_a_policy_predicts_where_it_could_not_be_compiled(name, tmp_path, monkeypatch, quick):
    agent = make(name, "default")
    agent.save(tmp_path)
    monkeypatch.setenv("CXX", "no-such-compiler")
    obs = torch.randn(3, 4)
    assert torch.equal(type(agent).load(tmp_path).predict(obs), agent.predict(obs))


@pytest.mark.parametrize("name", MODEL_FREE)
def test_graphs_and_eager_agree_over_100_updates(name, graph_device):
    agree(name, make(name, "graphs", graph_device))


@pytest.mark.parametrize("name", MODEL_FREE)
def test_graphs_are_captured_anew_in_smaller_parts(name, graph_device, fail):
    agent, plain = make(name, "graphs", graph_device), make(name, "off", graph_device)
    for each in (agent, plain):
        update(each, torch.Generator().manual_seed(2))
    failures = fail("gradient", lambda n: n == 2)
    for each in (agent, plain):
        g = torch.Generator().manual_seed(3)
        for _ in range(3):
            update(each, g)
    assert failures.raised == 1
    assert (agent.micro_batch.size, plain.micro_batch.size) == (16, None)
    for p, q in zip(parameters(agent), parameters(plain)):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
