"""Every agent runs out of memory everywhere, and learns the same."""

import copy
import random
from collections import Counter

import pytest
import torch
from model_free import MODEL_FREE
from scripted_env import ScriptedEnv
from tensordict import TensorDict

from iquitos_rl.agents import AGENTS
from iquitos_rl.agents.collector import Batch
from iquitos_rl.checkpoints.state import pack
from iquitos_rl.errors import UserError
from iquitos_rl.memory import recovery
from iquitos_rl.memory.recovery import Parts

CPU = torch.device("cpu")
SETTINGS = {
    "sac": {"hidden": (16, 16), "batch_size": 64, "learning_starts": 80, "buffer_size": 500, "storage": "float32"},
    "ppo": {"hidden": (16, 16), "batch_size": 64, "horizon": 40, "epochs": 2},
    "a2c": {"hidden": (16, 16), "horizon": 40},
}


def make(name, masked=True, **changes):
    entry = AGENTS[name]
    settings = {**SETTINGS[name], **changes}
    return entry.agent(ScriptedEnv(num_envs=3, masked=masked), entry.config(**settings), seed=1)


def parameters(agent):
    if hasattr(agent, "policy"):
        return list(agent.policy.parameters())
    return [*agent.actor.parameters(), *agent.critic.parameters(), *agent.target_critic.parameters(), agent.log_alpha]


def in_float64(agent):
    """The same agent in double precision, so that equality can be told from rounding."""
    for p in parameters(agent):
        p.data = p.data.double()
    for optimizer in agent.optimizers.values():
        for state in optimizer.state.values():
            for key, value in state.items():
                if key != "step":
                    state[key] = value.double()
    return agent


def updates(name, agent, seeds):
    """Give an agent float64 batches and noise, the same for the same seeds whatever happens on the way."""
    for seed in seeds:
        update(name, agent, torch.Generator().manual_seed(seed))
    return agent


def update(name, agent, g):

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    if name == "sac":
        fields = {
            "observation": randn(64, 4),
            "action": randn(64, 2).tanh(),
            "reward": randn(64),
            "next_observation": randn(64, 4),
            "discount": 0.9 * (randn(64) < 1).double(),
        }
        agent.update(TensorDict(fields, batch_size=(64,)), randn(2, 64, 2))
    else:
        log_prob, value, advantage, returns = randn(4, 64)
        agent.update(_Double(randn(64, 4), randn(64, 2), log_prob - 3, randn(64, 2) < 1, value, advantage, returns))


class _Double(Batch):
    """A batch whose parts stay in float64."""

    def take(self, index):
        return _Double(*(field[index] for field in self))


@pytest.mark.parametrize("name", MODEL_FREE)
def test_a_thousand_failures_change_no_update(name, fail):
    """Memory runs out at random, in the middle of gradients, 1,000 times; every update is still the unsplit one."""
    agent = in_float64(make(name))
    agent.micro_batch = parts = Parts("gradient", CPU, floor=8)
    rng = random.Random(0)
    failures = fail("gradient", lambda n: parts.size != parts.floor and rng.random() < 0.7)
    done = 0
    while failures.raised < 1_000:
        parts.size = None  # so that there is something left to split
        updates(name, agent, [done])
        done += 1
    whole = updates(name, in_float64(make(name)), range(done))
    assert agent.updates == whole.updates > 0
    for p, q in zip(parameters(agent), parameters(whole)):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", MODEL_FREE)
@pytest.mark.parametrize("place", ["gradient", "policy"])
def test_training_survives_failures_anywhere(name, place, fail):
    """A whole training: every transition and every update is there, with what was drawn unchanged."""
    calm = make(name)
    calm.learn(250)
    agent = make(name)
    parts = agent.micro_batch
    if place == "policy":
        parts = agent.collector.parts if hasattr(agent, "collector") else agent.acting
    parts.floor, parts._wait = 8 if place == "gradient" else 1, 1
    failures = fail(place, lambda n: n % 3 == 1 and parts.size != parts.floor)
    agent.learn(250)
    assert failures.raised
    assert (agent.steps, agent.updates) == (calm.steps, calm.updates)
    for one, two in zip(agent.env.steps, calm.env.steps, strict=True):
        assert torch.equal(one.reward, two.reward)
    actions = [torch.stack(a.env.actions[:20]) for a in (agent, calm)]
    torch.testing.assert_close(*actions, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODEL_FREE)
def test_a_thousand_failures_at_every_site_lose_nothing(name, monkeypatch):
    """Memory runs out at random while acting, valuing, learning and evaluating, and every size grows back at once."""
    monkeypatch.setattr(recovery, "LONGEST_WAIT", 1)
    few = {"update_ratio": 0.25} if name == "sac" else {}
    calm, agent = make(name, **few), make(name, **few)
    sizes = {"gradient": agent.micro_batch, "policy": agent.acting}
    if name != "sac":
        sizes |= {"policy of a step": agent.collector.parts, "values of a rollout": agent.collector.value_parts}
    for place, parts in sizes.items():
        parts.what, parts.floor, parts._wait = place, 16 if place == "gradient" else 1, 1
    rng, raised = random.Random(0), Counter()

    def failure(place):
        parts = sizes.get(place)
        if parts is not None and parts.size != parts.floor and rng.random() < 0.8:
            raised[place] += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Injected.")

    obs, steps = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), 0
    while raised.total() < 1_000:
        steps += 120
        with monkeypatch.context() as patch:
            patch.setattr(recovery, "failure", failure)
            agent.learn(steps)
            actions = agent.predict(obs)
        calm.learn(steps)
        torch.testing.assert_close(actions, calm.predict(obs), rtol=0, atol=1e-2)
        assert (agent.steps, agent.updates) == (calm.steps, calm.updates)
        # From the same point on: rounding differs by the parts' sizes, and training would magnify it.
        agent.load_state_dict(copy.deepcopy({**calm.state_dict(), "micro_batch": agent.micro_batch.state_dict()}))
    assert set(raised) == set(sizes)
    for one, two in zip(agent.env.steps, calm.env.steps, strict=True):
        assert torch.equal(one.reward, two.reward)


@pytest.mark.parametrize("name", MODEL_FREE)
def test_evaluation_survives(name, fail):
    agent = make(name)
    obs = torch.randn(100, 4)
    expected = agent.predict(obs)
    failures = fail("policy", lambda n: n < 3)
    torch.testing.assert_close(agent.predict(obs), expected)
    assert failures.raised == 2


@pytest.mark.parametrize("name", MODEL_FREE)
def test_what_never_fits_is_one_sentence_with_the_plan(name, fail):
    agent = make(name)
    fail("gradient", lambda n: True)
    with pytest.raises(UserError, match=rf"even with \d+ transitions at a time.*iquitos_rl.plan {name}"):
        agent.learn(400)


@pytest.mark.parametrize("name", MODEL_FREE)
def test_environments_that_do_not_fit_are_one_sentence(name, fail):
    fail("the environments' step", lambda n: n == 5)
    with pytest.raises(UserError, match="lower num_envs"):
        make(name).learn(400)


@pytest.mark.parametrize("name", MODEL_FREE)
def test_the_size_found_is_in_the_checkpoint(name, fail):
    agent = make(name)
    fail("gradient", lambda n: n <= 2)
    agent.learn(200)
    state = copy.deepcopy(agent.state_dict())
    again = make(name)
    again.reset()
    again.load_state_dict(state)
    assert again.micro_batch.size == agent.micro_batch.size is not None


@pytest.mark.parametrize("name", MODEL_FREE)
def test_rehearsal_changes_nothing_and_takes_what_updates_keep(name):
    changes = {} if name == "sac" else {"schedule": "constant"}
    one, two = make(name, **changes), make(name, **changes)
    one.learn(200)
    tree, tensors = pack(copy.deepcopy(one.state_dict()))
    one.rehearse()
    assert pack(one.state_dict())[0] == tree
    assert all(torch.equal(x, tensors[key]) for key, x in pack(one.state_dict())[1].items())
    two.rehearse()
    assert two.metrics.means() == {}
    for agent in (one, two):
        agent.learn(until=400)
    assert all(torch.equal(p, q) for p, q in zip(parameters(one), parameters(two)))
    new = make(name)
    new.rehearse()
    for optimizer in new.optimizers.values():
        moments = [state[key] for state in optimizer.state.values() for key in state if key != "step"]
        assert len(moments) >= len(optimizer.param_groups[0]["params"])


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "left"), [("sac", 320), ("ppo", 320), ("a2c", 200)])
def test_a_real_shortage_of_gpu_memory_is_survived(name, left):
    """Other tensors leave less than a whole batch's gradient needs."""
    values = {"hidden": (2_048, 2_048), "horizon": 128, "batch_size": 8_192, "epochs": 1}
    values |= {"learning_starts": 30, "buffer_size": 500, "update_ratio": 0.1} if name == "sac" else {}
    config = AGENTS[name].config(**{k: v for k, v in values.items() if k in AGENTS[name].config.model_fields})
    envs, steps = (1, 60) if name == "sac" else (64, 8_192)
    agent = AGENTS[name].agent(ScriptedEnv(num_envs=envs), config, device="cuda")
    taken, total = torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((taken + (left << 20)) / total)
    try:
        agent.learn(steps)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert agent.updates > 0
    assert agent.micro_batch.failures > 0
