"""An agent that was saved and loaded goes on as if nothing had been; `learn` counts what is to come."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from toy import ToyBattery

from iquitos_rl.agents import AGENTS, SAC, A2CConfig, PPOConfig, RecurrentPPOConfig, SACConfig, load_agent
from iquitos_rl.checkpoints.state import pack
from iquitos_rl.errors import UserError

CONFIGS: dict[str, Any] = {
    "sac": SACConfig(hidden=(8, 8), batch_size=8, learning_starts=20, buffer_size=400, noise_persistence=0.5),
    "ppo": PPOConfig(hidden=(8,), horizon=10, batch_size=8, epochs=2, schedule="constant"),
    "a2c": A2CConfig(hidden=(8,), schedule="constant"),
    "recurrent_ppo": RecurrentPPOConfig(
        memory=6, hidden=(8,), horizon=10, sequence=5, batch_size=10, epochs=2, schedule="constant"
    ),
}
every = pytest.mark.parametrize("name", CONFIGS)


def make(name: str, envs: int = 2, **changes: Any) -> Any:
    return AGENTS[name].agent([ToyBattery] * envs, CONFIGS[name].model_copy(update=changes), seed=3)


def weights(agent: Any) -> Any:
    return torch.cat([x.double().flatten() for x in agent.networks.state_dict().values()])


@every
def test_a_loaded_agent_goes_on_exactly(name: str, tmp_path: Path) -> None:
    """Against the agent itself in new episodes: weights, reports, draws of predict, and the state in full."""
    agent = make(name).learn(120)
    agent.save(tmp_path, buffer=True)
    twin = load_agent(tmp_path, [ToyBattery] * 2, seed=3)
    agent.set_env([ToyBattery] * 2)
    reports: list[Any] = [[], []]
    for one, told in zip((agent, twin), reports):
        assert one.steps == 120
        one.learn(150, told.append)
    assert torch.equal(weights(agent), weights(twin))
    assert reports[0] == reports[1]
    (tree, tensors), (same, others) = (pack(one.state_dict()) for one in (agent, twin))
    assert tree == same
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)
    obs = np.zeros((4, 4), np.float32)
    assert np.array_equal(agent.predict(obs, False), twin.predict(obs, False))


@every
def test_without_stored_transitions_everything_else_goes_on(name: str, tmp_path: Path) -> None:
    agent = make(name).learn(120)
    agent.save(tmp_path)
    for envs in (2, 3):
        twin = load_agent(tmp_path, [ToyBattery] * envs)
        assert (twin.steps, twin.updates) == (agent.steps, agent.updates)
        assert twin.tracker.episodes == agent.tracker.episodes
        for one, other in zip(agent.optimizers.values(), twin.optimizers.values()):
            torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
        if name != "sac":
            scales = [a.collector.scaler.moments.state_dict() for a in (agent, twin)]
            torch.testing.assert_close(*scales, rtol=0, atol=0)
        assert twin.learn(120).updates > agent.updates


def test_sac_acts_by_its_policy_until_its_buffer_is_full_enough_again(tmp_path: Path) -> None:
    agent = make("sac").learn(120)
    agent.save(tmp_path)
    twin = load_agent(tmp_path, [ToyBattery] * 2)
    twin.reset()
    with torch.no_grad():
        assert not torch.equal(twin.explore(twin._obs), torch.erf(twin._exploration / 2**0.5)), "not random"
    updates = twin.updates
    twin.learn(20)
    assert twin.updates == updates
    twin.learn(20)
    assert twin.updates == updates + 20
    again = load_agent(tmp_path)
    assert again.predict(np.zeros(4, np.float32)).shape == (1,), "a policy alone predicts"


@every
def test_a_policy_alone_starts_a_new_learning(name: str, tmp_path: Path) -> None:
    make(name).learn(120).save_policy(tmp_path)
    twin = load_agent(tmp_path, [ToyBattery] * 2)
    assert (twin.steps, twin.updates) == (0, 0)
    twin.learn(60)


@every
def test_a_state_of_another_policy_or_other_environments_is_one_sentence(name: str, tmp_path: Path) -> None:
    agent = make(name).learn(60)
    agent.save(tmp_path / "a", buffer=True)
    agent.learn(60).save(tmp_path / "b", buffer=True)
    if name == "sac":
        with pytest.raises(UserError, match="the replay buffer is of 2 environments, and there are 3 here"):
            load_agent(tmp_path / "a", [ToyBattery] * 3)
    shutil.rmtree(tmp_path / "a" / "learning")
    shutil.copytree(tmp_path / "b" / "learning", tmp_path / "a" / "learning")
    with pytest.raises(UserError, match="not the state of this policy"):
        load_agent(tmp_path / "a", [ToyBattery] * 2)
    assert load_agent(tmp_path / "a").steps == 0
    for file in (tmp_path / "b" / "learning").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-3] + b"xyz")
    with pytest.raises(UserError):
        load_agent(tmp_path / "b", [ToyBattery] * 2)
    agent.save_policy(tmp_path / "b")
    assert not (tmp_path / "b" / "learning").exists(), "no state of a policy that is gone"


@every
def test_other_environments(name: str) -> None:
    agent = make(name).learn(60)
    with pytest.raises(UserError, match="3 environments where the agent had 2"):
        agent.set_env([ToyBattery] * 3)
    with pytest.raises(UserError, match="obs_dim is 3"):
        agent.set_env([lambda: gymnasium.make("Pendulum-v1")] * 2)
    with pytest.raises(UserError, match="made without an environment"):
        AGENTS[name].agent(None, spec=agent.spec).set_env(ToyBattery())
    others = [ToyBattery(), ToyBattery()]
    assert agent.set_env([lambda: others[0], lambda: others[1]]) is agent
    agent.learn(30)
    assert others[0]._hour > 0


@every
def test_learn_takes_so_many_more_steps(name: str) -> None:
    agent = make(name)
    for steps, total in ((40, 40), (40, 80), (20, 100)):
        assert agent.learn(steps).steps == total
    assert agent.learn(until=100).steps == 100
    assert agent.learn(until=140).steps == 140
    assert agent.learn(40, until=1_000).steps == 180
    assert agent.learn(40, until=200).steps == 200


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_one_training_in_several_calls_anneals_once(name: str) -> None:
    """imitation#262: a sawtooth where it is learned in pieces."""
    pieces, whole = make(name, schedule="linear", log_every=20), make(name, schedule="linear", log_every=20)
    rates: list[Any] = [[], []]
    whole.learn(400, lambda p: rates[0].append(p.metrics["learning_rate"]))
    for _ in range(4):
        pieces.learn(100, lambda p: rates[1].append(p.metrics["learning_rate"]), until=400)
    assert rates[0] == rates[1] == sorted(rates[0], reverse=True)
    assert torch.equal(weights(pieces), weights(whole))
    whole.learn(100, lambda p: rates[0].append(p.metrics["learning_rate"]))
    assert rates[0][len(rates[1])] > 0.8 * CONFIGS[name].learning_rate, "a training of its own falls from the start"


def test_a_round_that_is_longer_than_what_was_asked_for_is_told() -> None:
    agent = AGENTS["ppo"].agent([ToyBattery] * 8, PPOConfig(hidden=(8,), horizon=64))
    with pytest.warns(UserWarning, match="16 steps were asked for, and ppo takes them in rounds of 512"):
        agent.learn(16)
    assert agent.steps == 512
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent.learn(512)


def test_evaluating_on_the_training_environment_leaves_no_stale_observation() -> None:
    """SB3#1731: the first step afterwards started at an observation of before."""
    from iquitos_rl import evaluate_policy

    env = ToyBattery()
    agent = SAC(env, CONFIGS["sac"].model_copy(update={"learning_starts": 1_000}), seed=3).learn(30)
    evaluate_policy(agent, env, episodes=1)
    agent.learn(30)
    batch = agent.buffer.sample(3_000)
    hours = [torch.atan2(batch[key][:, 0], batch[key][:, 1]) for key in ("observation", "next_observation")]
    passed = (hours[1] - hours[0]).remainder(2 * torch.pi) * 24 / (2 * torch.pi)
    torch.testing.assert_close(passed.remainder(24), torch.ones_like(passed), atol=1e-3, rtol=0)
