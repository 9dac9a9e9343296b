"""PPO's own rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scripted_env import ScriptedEnv
from toy import ToyBattery, optimal_return

from iquitos_rl.agents.ppo import PPO, PPOConfig, clipped_policy_loss, minibatches, normalised, value_loss


def test_policy_loss_against_numpy() -> None:
    rng = np.random.default_rng(0)
    new, old, advantage = rng.normal(0, 0.3, (3, 200))
    ratio = np.exp(new - old)
    expected = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).mean()
    loss, kl, clip_fraction = clipped_policy_loss(*map(torch.tensor, (new, old, advantage)), 0.2)
    assert float(loss) == pytest.approx(expected)
    assert float(kl) == pytest.approx((ratio - 1 - np.log(ratio)).mean())
    assert float(clip_fraction) == pytest.approx((np.abs(ratio - 1) > 0.2).mean())


def test_the_clip_takes_away_the_gradient_on_the_profitable_side_only() -> None:
    log_prob = torch.tensor([0.5, 0.5, -0.5, -0.5], requires_grad=True)
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    clipped_policy_loss(log_prob, torch.zeros(4), advantage, 0.2)[0].backward()
    assert log_prob.grad is not None
    assert (log_prob.grad == 0).tolist() == [True, False, False, True]


def test_divergence_estimate_is_that_of_two_gaussians() -> None:
    old, new = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.1, 1.1)
    samples = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    kl = clipped_policy_loss(new.log_prob(samples), old.log_prob(samples), torch.zeros(400_000), 0.2)[1]
    assert float(kl) == pytest.approx(float(torch.distributions.kl_divergence(old, new)), rel=0.02)


def test_value_loss_is_half_the_squared_error() -> None:
    value = torch.tensor([1.0, 2.0], requires_grad=True)
    loss = value_loss(value, torch.tensor([0.0, 4.0]))
    loss.backward()
    assert loss.item() == 0.5 * (1 + 4) / 2
    assert value.grad is not None
    assert value.grad.tolist() == [0.5, -1.0]


def test_advantages_of_a_minibatch() -> None:
    advantage = torch.tensor([3.0, 5.0, 10.0])
    assert normalised(advantage).mean().item() == pytest.approx(0.0, abs=1e-6)
    assert normalised(advantage).std().item() == pytest.approx(1.0)
    assert normalised(torch.tensor([3.0])).tolist() == [3.0]
    assert normalised(torch.full((4,), 2.0)).tolist() == [0.0] * 4


def test_every_epoch_sees_everything_in_a_fresh_order() -> None:
    parts = list(minibatches(10, 4, 3, torch.Generator().manual_seed(0)))
    assert [len(part) for part in parts] == [4, 4, 2] * 3
    epochs = [torch.cat(parts[i : i + 3]).tolist() for i in (0, 3, 6)]
    assert all(sorted(order) == list(range(10)) for order in epochs)
    assert all(a != b for a, b in itertools.combinations(epochs, 2))


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_the_ratio_starts_at_one(storage: str) -> None:
    """In the first gradient of a rollout nothing has moved yet, although what is stored is rounded."""
    config = PPOConfig(horizon=40, batch_size=120, epochs=1, storage=storage, hidden=(16,))
    agent = PPO(ScriptedEnv(), config)
    for _ in range(3):
        batch = agent.collector.collect()
        assert batch.obs.dtype == getattr(torch, storage)
        metrics = {name: float(x) for name, x in agent.gradient(batch.take(torch.arange(120))).items()}
        assert abs(metrics["kl"]) < 1e-6
        assert metrics["clip_fraction"] == 0.0
        # With a ratio of one the loss is minus the mean advantage.
        assert metrics["policy_loss"] == pytest.approx(-float(batch.advantage.mean()), abs=1e-5)
        agent.update(batch)


def test_the_divergence_stop_ends_the_whole_update() -> None:
    """The third minibatch of the first of ten epochs has diverged: no step for it, and no other epoch."""
    agent = PPO(ScriptedEnv(), PPOConfig(horizon=40, batch_size=12, epochs=10, target_kl=0.1))
    honest, calls = agent.gradient, []

    def diverged_at_third(batch):  # type: ignore[no-untyped-def]
        metrics = honest(batch)
        calls.append(batch.size)
        return metrics | {"kl": torch.tensor(0.1501 if len(calls) == 3 else 0.1499)}

    agent.gradient = diverged_at_third  # type: ignore[method-assign]
    agent.update(agent.collector.collect())
    assert len(calls) == 3
    assert agent.updates == 2


def test_without_a_divergence_target_all_epochs_are_run() -> None:
    agent = PPO(ScriptedEnv(), PPOConfig(horizon=40, batch_size=50, epochs=4, learning_rate=0.1))
    agent.update(agent.collector.collect())
    metrics = agent.metrics.means()
    assert agent.updates == 4 * 3
    assert metrics["kl"] > 0.1


def test_gradients_are_shortened_to_the_longest_allowed() -> None:
    agent = PPO(ScriptedEnv(), PPOConfig(horizon=40, batch_size=120, epochs=1, max_grad_norm=0.01))
    agent.update(agent.collector.collect())
    metrics = agent.metrics.means()
    length = torch.cat([p.grad.flatten() for p in agent.policy.parameters() if p.grad is not None]).norm()
    assert metrics["grad_norm"] > 0.1
    assert float(length) == pytest.approx(0.01, rel=1e-3)


def test_advantages_are_normalised_over_the_minibatch_and_not_its_parts() -> None:
    """An update in parts is the update of the whole, which normalising within the parts would break."""
    weights = []
    for micro_batch in (None, 5):
        config = PPOConfig(horizon=40, batch_size=60, epochs=2, micro_batch=micro_batch, learning_rate=1e-2)
        agent = PPO(ScriptedEnv(), config)
        agent.update(agent.collector.collect())
        weights.append(torch.cat([p.detach().flatten() for p in agent.policy.parameters()]))
    torch.testing.assert_close(*weights, atol=1e-4, rtol=1e-3)


def test_defaults_of_the_optimiser() -> None:
    agent = PPO(ScriptedEnv())
    assert isinstance(agent.optimizer, torch.optim.Adam)
    group = agent.optimizer.param_groups[0]
    assert (group["eps"], group["fused"]) == (1e-5, True)


@pytest.mark.parametrize(
    "settings", [{"gamma": 1.5}, {"batch_size": 1}, {"learning_rate": 0.0}, {"clip_rnage": 0.1}, {"storage": "int8"}]
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        PPOConfig(**settings)  # type: ignore[arg-type]


def toy_return(agent: PPO) -> float:
    env, total, terminated = ToyBattery(), 0.0, False
    obs, _ = env.reset(seed=0)
    while not terminated:
        obs, reward, terminated, _, _ = env.step(agent.predict(obs))
        total += reward
    return total


def test_learns_the_toy_to_its_optimum() -> None:
    config = PPOConfig(horizon=72, batch_size=64, gamma=1.0, learning_rate=1e-3, storage="float16")
    agent = PPO([ToyBattery] * 8, config).learn(15_000)
    assert toy_return(agent) > 0.98 * optimal_return()
