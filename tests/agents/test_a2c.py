"""A2C's own rules."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripted_env import ScriptedEnv
from toy import ToyBattery, optimal_return

from iquitos_rl.agents.a2c import A2C, A2CConfig, policy_loss, value_loss
from iquitos_rl.agents.rmsprop import RMSpropTF


def test_losses_against_numpy() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100))
    assert float(policy_loss(torch.tensor(a), torch.tensor(b))) == pytest.approx(-(a * b).mean())
    assert float(value_loss(torch.tensor(a), torch.tensor(b))) == pytest.approx(0.5 * ((a - b) ** 2).mean())


def test_advantages_are_taken_as_they_are() -> None:
    """Ten times the advantage is ten times the policy's gradient: nothing was divided by a deviation."""
    lengths = []
    for scale in (1.0, 10.0):
        agent = A2C(ScriptedEnv(), A2CConfig(horizon=5))
        batch = agent.collector.collect()
        agent.gradient(batch._replace(advantage=batch.advantage * scale))
        lengths.append(float(agent.policy.log_std.grad.norm()))  # type: ignore[union-attr]
    assert lengths[1] == pytest.approx(10 * lengths[0], rel=1e-4)


def test_one_step_of_the_optimiser_per_rollout() -> None:
    agent = A2C(ScriptedEnv(num_envs=4), A2CConfig(horizon=5)).learn(200)
    assert agent.steps == 200
    assert agent.updates == 200 // (5 * 4)


def test_the_step_is_rmsprops_on_the_shortened_gradient() -> None:
    agent = A2C(ScriptedEnv(), A2CConfig(max_grad_norm=0.01, learning_rate=0.1))
    before = [p.detach().clone() for p in agent.policy.parameters()]
    agent.update(agent.collector.collect())
    assert agent.metrics.means()["grad_norm"] > 0.1
    for p, old in zip(agent.policy.parameters(), before):
        assert p.grad is not None
        average = 0.99 + 0.01 * p.grad.square()
        torch.testing.assert_close(p.detach(), old - 0.1 * p.grad / (average + 1e-5).sqrt())


def test_defaults_are_the_published_ones() -> None:
    agent = A2C(ScriptedEnv())
    assert isinstance(agent.optimizer, RMSpropTF)
    group = agent.optimizer.param_groups[0]
    assert (group["lr"], group["alpha"], group["eps"]) == (7e-4, 0.99, 1e-5)
    assert (agent.config.horizon, agent.config.gae_lambda, agent.config.value_coef) == (5, 1.0, 0.5)


def test_learns_the_toy_close_to_its_optimum() -> None:
    config = A2CConfig(horizon=8, gamma=1.0, gae_lambda=0.95, learning_rate=3e-3)
    agent = A2C([ToyBattery] * 8, config).learn(60_000)
    env, total, terminated = ToyBattery(), 0.0, False
    obs, _ = env.reset(seed=0)
    while not terminated:
        obs, reward, terminated, _, _ = env.step(agent.predict(obs))
        total += reward
    assert total > 0.95 * optimal_return()
