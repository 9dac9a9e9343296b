"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) for continuous actions.

Details after "The 37 Implementation Details of PPO" (Huang et al. 2022) and "What Matters in On-Policy Reinforcement
Learning" (Andrychowicz et al. 2020, arXiv 2006.05990). Values are not clipped: paper and peers find no gain in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam

from iquitos_rl.agents import parallel
from iquitos_rl.agents.actor_critic import ActorCritic
from iquitos_rl.agents.collector import Batch
from iquitos_rl.agents.compiled import Loss
from iquitos_rl.agents.configs import PPOConfig as PPOConfig
from iquitos_rl.agents.on_policy import OnPolicy, evaluate


def clipped_policy_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. 7 of the paper, negated, from (n,) each: loss, and without gradient KL(old | new) and the share clipped.

    The divergence is Schulman's k3 estimate, the mean of (r - 1) - log r: never negative, and of low variance.
    """
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    with torch.no_grad():
        kl = (ratio - 1.0 - log_ratio).mean()
        clip_fraction = ((ratio - 1.0).abs() > clip_range).float().mean()
    return loss, kl, clip_fraction


def value_loss(value: Tensor, returns: Tensor) -> Tensor:
    """Half the mean squared error of (n,) values."""
    return 0.5 * (value - returns).square().mean()


def loss(
    policy: ActorCritic, clip_range: float, value_coef: float, entropy_coef: float, batch: Batch
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a minibatch of n transitions, a scalar, and its parts by name."""
    log_prob, value, entropy = evaluate(policy, batch)
    of_policy, kl, clip_fraction = clipped_policy_loss(log_prob, batch.log_prob, batch.advantage, clip_range)
    of_value = value_loss(value, batch.returns)
    total = of_policy + value_coef * of_value - entropy_coef * entropy
    metrics = {"policy_loss": of_policy, "value_loss": of_value, "entropy": entropy}
    return total, {**metrics, "kl": kl, "clip_fraction": clip_fraction}


def normalised(advantage: Tensor) -> Tensor:
    """Advantages less their mean, over their deviation; a single one is returned as it is, for it has none. Mean and
    deviation are of all processes' advantages."""
    if parallel.processes() > 1:
        n, mean, squares = parallel.moments_of(advantage)
        return (advantage - mean) / ((squares / (n - 1)).sqrt() + 1e-8)
    if advantage.numel() == 1:
        return advantage
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def minibatches(size: int, batch_size: int, epochs: int, generator: Generator) -> Iterator[Tensor]:
    """Indices of all minibatches of all epochs, each epoch in a fresh order. One iterator, so that one `break` ends the
    update, and not merely the epoch."""
    for _ in range(epochs):
        order = torch.randperm(size, generator=generator, device=generator.device)
        yield from order.split(batch_size)


class PPO(OnPolicy):
    """A PPO agent; see `OnPolicy`."""

    name, config_type = "ppo", PPOConfig
    shareable = True
    random_for = ("act", "shuffle", "predict")
    config: PPOConfig

    def loss(self) -> Loss:
        """See `OnPolicy.loss`."""
        c = self.config
        return partial(loss, self.policy, c.clip_range, c.value_coef, c.entropy_coef)

    def make_optimizer(self, parameters: list[nn.Parameter]) -> Adam:
        """See `OnPolicy.make_optimizer`."""
        return Adam(parameters, lr=self.config.learning_rate, eps=1e-5, fused=True)

    def updates_by(self, steps: int) -> int:
        """See `Agent.updates_by`; fewer where `target_kl` ends a rollout's epochs."""
        rows, size = self.rows(self.config.horizon * self.environment().num_envs)
        return super().updates_by(steps) * self.config.epochs * ceil(rows / size)

    def update(self, batch: Batch) -> None:
        """All epochs over a rollout's transitions."""
        rows, size = self.rows(batch.size)
        for index in minibatches(rows, size, self.config.epochs, self.generators["shuffle"]):
            metrics = self.clipped_gradient(*self.arguments(batch, index))
            # The one place where an update waits for the device, and only where asked to: whether to stop is the
            # host's decision, and asking once per epoch would let through the very steps that this is to prevent.
            if self.config.target_kl is not None and float(metrics["kl"]) > 1.5 * self.config.target_kl:
                break
            self.optimizer.step()
            self.updates += 1

    def rows(self, transitions: int) -> tuple[int, int]:
        """What is shuffled of so many transitions of this process, and how many of that are its part of a minibatch."""
        return transitions, min(transitions, parallel.share("agent.batch_size", self.config.batch_size))

    def arguments(self, batch: Batch, index: Tensor) -> tuple[Any, ...]:
        """Of the loss, for some rows of a rollout."""
        part = batch.take(index)
        return (part._replace(advantage=normalised(part.advantage)) if self.config.normalise_advantage else part,)

    def batches(self) -> list[int]:
        """See `Agent.batches`."""
        rows, size = self.rows(self.collector.stored().size)
        return [size, rows % size] if rows % size else [size]

    def example(self) -> tuple[Any, ...]:
        """See `Agent.example`."""
        rollout = self.collector.stored()
        return self.arguments(rollout, torch.arange(self.rows(rollout.size)[1], device=self.device))
