"""What PPO and A2C have in common: seeds, continuation, saved policies, masks, prediction."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from scripted_env import ScriptedEnv
from torch import Tensor
from toy import ToyBattery

from iquitos_rl.agents.a2c import A2C, A2CConfig
from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.agents.progress import Progress
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.errors import UserError

Agent = PPO | A2C
Make = Callable[..., Any]


def make_ppo(env: Any, seed: int = 0, **settings: Any) -> PPO:
    return PPO(env, PPOConfig(**{"horizon": 50, "batch_size": 32, "epochs": 3, "hidden": (16,), **settings}), seed=seed)


def make_a2c(env: Any, seed: int = 0, **settings: Any) -> A2C:
    return A2C(env, A2CConfig(**{"horizon": 5, "hidden": (16,), "log_every": 100, **settings}), seed=seed)


both = pytest.mark.parametrize("make", [make_ppo, make_a2c])


def weights(agent: Agent) -> Tensor:
    return torch.cat([p.detach().flatten() for p in agent.policy.parameters()])


@both
def test_same_seed_same_weights(make: Make) -> None:
    """Whatever the process-wide generator does meanwhile."""
    first = weights(make([ToyBattery] * 2).learn(1_000))
    torch.manual_seed(1234)
    state = torch.get_rng_state()
    second = weights(make([ToyBattery] * 2).learn(1_000))
    assert first.equal(second)
    assert torch.get_rng_state().equal(state)
    assert not first.equal(weights(make([ToyBattery] * 2, seed=1).learn(1_000)))


@both
def test_the_number_of_updates_is_known_beforehand(make: Make) -> None:
    agent = make([ToyBattery] * 2)
    assert agent.updates_by(950) == agent.learn(950).updates > 0


@both
def test_a_continued_run_is_the_uninterrupted_one(make: Make) -> None:
    states: dict[int, Any] = {}
    agent = make([ToyBattery] * 2)
    agent.learn(1_000, on_log=lambda p: states.update({p.steps: deepcopy((agent.state_dict(), agent.env))}))
    state, env = states[500]
    resumed = make(env, seed=77)
    resumed.load_state_dict(state)
    reports: list[Progress] = []
    resumed.learn(until=1_000, on_log=reports.append)
    assert resumed.steps == 1_000
    assert resumed.updates == agent.updates
    assert weights(resumed).equal(weights(agent))
    assert reports[-1].episodes == 2 * (1_000 // 2 // 24)
    observation = np.zeros(4, np.float32)
    assert resumed.predict(observation, deterministic=False) == agent.predict(observation, deterministic=False)


@both
def test_a_loaded_state_is_a_copy(make: Make) -> None:
    agent, twin = make([ToyBattery]), make([ToyBattery], seed=5)
    agent.learn(200)
    twin.load_state_dict(agent.state_dict())
    before = deepcopy(agent.state_dict())
    twin.learn(400)
    torch.testing.assert_close(agent.state_dict(), before, atol=0, rtol=0)


@both
def test_saved_policy_acts_the_same_and_is_complete(make: Make, tmp_path: Path) -> None:
    agent = make([lambda: gymnasium.make("Pendulum-v1")] * 2, hidden=(8, 8), activation="relu")
    agent.learn(400)
    agent.save(tmp_path)
    loaded = type(agent).load(tmp_path)
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    np.testing.assert_array_equal(loaded.predict(obs), agent.predict(obs))
    assert loaded.config == agent.config
    assert loaded.policy.normaliser is not None
    assert float(loaded.policy.normaliser.count) == 402  # observations, the two first ones included
    with pytest.raises(UserError, match="without an environment"):
        loaded.learn(10)
    with pytest.raises(UserError, match="without an environment"):
        loaded.reset()


@both
def test_saved_policy_goes_on_learning(make: Make, tmp_path: Path) -> None:
    make([ToyBattery]).learn(200).save(tmp_path)
    agent_type = type(make([ToyBattery]))
    agent = agent_type.load(tmp_path, [ToyBattery])
    before = weights(agent)
    agent.learn(200)
    assert not weights(agent).equal(before)


@both
def test_what_is_no_such_policy_is_refused(make: Make, tmp_path: Path) -> None:
    agent = make([ToyBattery])
    other = A2C if isinstance(agent, PPO) else PPO
    agent.save(tmp_path)
    with pytest.raises(UserError, match="was trained by"):
        other.load(tmp_path)
    with pytest.raises(UserError, match="obs_dim"):
        type(agent).load(tmp_path, gymnasium.make("Pendulum-v1"))
    meta = tmp_path / "policy.json"
    text = meta.read_text(encoding="utf-8")
    meta.write_text(text.replace('"gamma": 0.99', '"gamma": 99'), encoding="utf-8")
    with pytest.raises(UserError, match="gamma"):
        type(agent).load(tmp_path)
    meta.write_text(text.replace("16", "17"), encoding="utf-8")
    with pytest.raises(UserError, match="do not fit"):
        type(agent).load(tmp_path)


@both
def test_prediction_changes_nothing_and_is_in_the_environments_range(make: Make) -> None:
    agent = make(gymnasium.make("Pendulum-v1"))
    agent.learn(100)
    before = deepcopy(agent.policy.state_dict())
    action = agent.predict(np.full((500, 3), 9.0, np.float32), deterministic=False)
    assert action.shape == (500, 1)
    assert 1.0 < np.abs(action).max() <= 2.0
    assert np.ptp(agent.predict(np.full((5, 3), 9.0, np.float32))) < 1e-6
    torch.testing.assert_close(agent.policy.state_dict(), before, atol=0, rtol=0)


@both
def test_a_dead_action_learns_nothing(make: Make) -> None:
    env = ScriptedEnv(masked=True)
    last_is_dead = torch.tensor([1.0, 1.0, 1.0, -1.0])
    env._obs = lambda: torch.rand(3, 4, generator=env.generator) * last_is_dead  # type: ignore[method-assign]
    agent = make(env, entropy_coef=0.1)
    before = deepcopy(agent.policy)
    agent.learn(600)
    last, first = agent.policy.actor.weights[-1], before.actor.weights[-1]
    assert torch.stack(env.actions)[..., 1].abs().max() == 0.0
    assert last[1].equal(first[1])
    assert agent.policy.log_std[1] == before.log_std[1]
    assert not last[0].equal(first[0])
    assert agent.policy.log_std[0] != before.log_std[0]
    assert agent.predict(-torch.ones(4)).tolist() == [0.0, 0.0]


@both
def test_reports(make: Make) -> None:
    reports: list[Progress] = []
    agent = make([ToyBattery] * 2, normalise_obs=False)
    agent.learn(1_000, on_log=reports.append)
    assert [r.steps for r in reports] == list(range(100, 1_001, 100))
    assert sum(r.metrics["env/money"] for r in reports) < 0
    finished = [r for r in reports if "episode_return" in r.metrics]
    assert finished[-1].episodes == reports[-1].episodes == 2 * 20
    assert all(r.metrics["episode_length"] == 24 for r in finished)
    expected = {"policy_loss", "value_loss", "entropy", "grad_norm", "std", "learning_rate", "explained_variance"}
    assert all(expected <= set(r.metrics) for r in reports)
    rates = [r.metrics["learning_rate"] / agent.config.learning_rate for r in reports]
    last_steps = agent.config.horizon * 2
    assert rates == pytest.approx([1 - (r.steps - last_steps) / 1_000 for r in reports])


@both
def test_broken_rewards_end_in_one_sentence(make: Make) -> None:
    env = ScriptedEnv()
    honest = env.step
    bad = torch.tensor([1.0, float("nan"), 1.0])

    def step(action):  # type: ignore[no-untyped-def]
        result = honest(action)
        return result._replace(reward=bad) if len(env.steps) == 21 else result

    env.step = step  # type: ignore[method-assign]
    with pytest.raises(UserError, match="the reward of environment 1 is not a finite number at step 63"):
        make(env).learn(300)


@both
def test_parts_of_a_batch_add_up_to_its_gradient(make: Make) -> None:
    whole, parts = (make(ScriptedEnv(masked=True), entropy_coef=0.1, micro_batch=m) for m in (None, 7))
    gradients = []
    for agent in (whole, parts):
        batch = agent.collector.collect()
        metrics = agent.gradient(batch.take(torch.arange(batch.size)))
        gradients.append((metrics, [p.grad for p in agent.policy.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


@both
def test_environments_of_all_three_kinds(make: Make) -> None:
    for env in (ToyBattery(), [ToyBattery, ToyBattery], as_vector(ToyBattery())):
        assert make(env).learn(120).steps >= 120


def test_the_description_alone_is_enough_to_predict() -> None:
    spec = PolicySpec.of(as_vector(ToyBattery()))
    agent = PPO(None, PPOConfig(), spec=spec)
    assert agent.predict(np.zeros(4, np.float32)).shape == (1,)
    assert agent.state_dict()["collector"] is None


@both
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_statistics_are_those_before_an_observation_that_is_not_finite(make: Make, bad: float) -> None:
    """Also where no adapter looks at each observation: the check comes once a rollout."""
    env = ScriptedEnv()
    honest = env._obs

    def broken() -> Tensor:
        obs = honest()
        obs[1, 2] = bad if len(env.steps) > 70 else obs[1, 2]
        return obs

    env._obs = broken  # type: ignore[method-assign]
    agent = make(env)
    with pytest.raises(UserError, match="not a finite number"):
        agent.learn(600)
    normaliser = agent.policy.normaliser
    seen = torch.cat(env.observations)[: int(normaliser.count)]
    assert len(seen) >= 3 * 50
    torch.testing.assert_close(normaliser.mean, seen.double().mean(0))
