"""What PPO and A2C have in common: networks, rollouts, a step size that falls to zero, and reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from iquitos_rl.agents.actor_critic import ActorCritic
from iquitos_rl.agents.agent import Agent, OnStep, trainable
from iquitos_rl.agents.collector import ESTIMATE_BYTES, Batch, Collector
from iquitos_rl.agents.compiled import Gradient, Loss
from iquitos_rl.agents.configs import OnPolicyConfig as OnPolicyConfig
from iquitos_rl.agents.gae import explained_variance
from iquitos_rl.buffers.placement import Item
from iquitos_rl.buffers.rollout import storage_type
from iquitos_rl.memory.rehearsal import STEP


def evaluate(policy: ActorCritic, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """What the policy says of a batch now: log-probabilities of its actions (n,), values (n,), and the mean entropy."""
    obs = batch.obs.to(batch.action.dtype)
    output = policy.mean(obs)
    return policy.log_prob(batch.action, output, batch.live), policy.value(obs), policy.entropy(output, batch.live)


class OnPolicy(Agent):
    """An agent that learns from each rollout of its present policy and then forgets it; see `Agent`.

    Actions may be numbers (Box) or choices (Discrete, MultiDiscrete, MultiBinary). The distribution of numbers is an
    unsquashed Gaussian: why, see `actor_critic.py`.

    Args:
        actor: maps normalised observations (B, D) to mean actions (B, A), or the logits of all choices (B, C); by
            default an `MLP`.
        critic: maps normalised observations (B, D) to values (B, 1); by default an `MLP`.
    """

    advice = "agent.horizon or agent.hidden"
    config: OnPolicyConfig
    optimizer: Optimizer

    random_for: ClassVar[tuple[str, ...]] = ("act", "predict")
    """What there are generators for."""

    # --- for each algorithm to say

    def loss(self) -> Loss:
        """The loss of a `Batch`, every other argument bound."""
        raise NotImplementedError

    def make_optimizer(self, parameters: list[nn.Parameter]) -> Optimizer:
        """The optimiser, which must know `found_inf` (`metrics.py`)."""
        raise NotImplementedError

    def update(self, batch: Batch) -> None:
        """Learn from a rollout."""
        raise NotImplementedError

    # --- what is common

    def build(self, actor: nn.Module | None, critic: nn.Module | None) -> None:
        """See `Agent.build`."""
        c = self.config
        self.policy = self.make_policy(actor, critic).to(self.device)
        self.networks = self.policy
        self.spawn(*self.random_for)
        parameters = trainable(self.policy)
        self.optimizer = self.make_optimizer(parameters)
        self.optimizers = {"policy": self.optimizer}
        self.gradients = {"policy": Gradient(self.loss(), parameters, c.compile, self.device)}
        self._recent: list[tuple[Tensor, Tensor]] = []
        """Values and returns of the rollouts since the last report."""
        if self.env is not None:
            self.collector = self.make_collector(
                horizon=c.horizon,
                gamma=c.gamma,
                gae_lambda=c.gae_lambda,
                scale_rewards=c.scale_rewards,
                storage=torch.uint8 if len(self.env.byte_columns) == self.env.obs_dim else storage_type(c.storage),
                seed=self.episode_seed(),
                generator=self.generators["act"],
            )
            self.tracker = self.collector.tracker

    def make_policy(self, actor: nn.Module | None, critic: nn.Module | None) -> ActorCritic:
        """The networks, of which some may be the user's."""
        c = self.config
        return ActorCritic(
            self.spec,
            c.hidden,
            c.activation,
            log_std=c.log_std_init,
            normalise_obs=c.normalise_obs,
            generator=self.init,
            amp=c.amp,
            actor=actor,
            critic=critic,
            features=self.features,
        )

    def make_collector(self, **settings: Any) -> Collector:
        """What fills the rollouts."""
        return Collector(self.environment(), self.policy, **settings)

    def rounds(self, total_steps: int, on_step: OnStep) -> Iterator[None]:
        """A rollout, then the updates from it; the step size falls over the announced steps."""
        while self.steps < total_steps:
            self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * self.left()
            batch = self.collector.collect(on_step, self.steps)
            self.steps += batch.size * self.processes
            self.metrics.at_step(self.steps)
            self.update(batch)
            self._recent.append((batch.value, batch.returns))
            yield

    def round_steps(self) -> int:
        """See `Agent.round_steps`."""
        return self.config.horizon * self.environment().num_envs * self.processes

    def updates_by(self, steps: int) -> int:
        """See `Agent.updates_by`; one for each rollout."""
        return math.ceil(steps / self.round_steps())

    def gradient(self, *arguments: Any) -> dict[str, Tensor]:
        """Set the gradient of the loss of a batch, as many rows at a time as memory allows; returns its metrics."""
        return self.take_gradient("policy", arguments)

    def clipped_gradient(self, *arguments: Any) -> dict[str, Tensor]:
        """The same, shortened to `max_grad_norm`, and the metrics counted."""
        metrics = self.gradient(*arguments)
        nn.utils.clip_grads_with_norm_(self.policy.parameters(), self.config.max_grad_norm, metrics["grad_norm"])
        self.metrics.add(metrics)
        return metrics

    def reset(self) -> None:
        """Start new episodes; the unfinished ones are forgotten."""
        self.environment()
        self.collector.reset(self.steps)

    def leave_episodes(self) -> None:
        """See `Agent.leave_episodes`."""
        self.collector.env = self.environment()
        self.collector.leave_episodes()

    def example(self) -> tuple[Any, ...]:
        """See `Agent.example`."""
        return (self.collector.stored(),)

    def weights(self) -> dict[str, Iterable[Tensor]]:
        """See `Agent.weights`."""
        return {"actor and critic": self.policy.parameters()}

    def stored(self, config: Any) -> list[Item]:
        """See `Agent.stored`."""
        rollout, steps = self.collector.rollout, self.collector.stored().size
        estimates = Item("advantages and returns", "device", ESTIMATE_BYTES * steps)
        return [Item(f"rollout of {steps:,}", "device", rollout.nbytes), estimates]

    def moments(self) -> dict[str, Callable[[], object]]:
        """See `Agent.moments`."""
        moments = super().moments()
        act, obs = moments[STEP], torch.zeros(self.environment().num_envs, self.spec.obs_dim, device=self.device)
        return {
            **moments,
            STEP: lambda: (self.collector.receive(obs), act()),
            "values of a rollout": self.collector.rehearse_values,
        }

    def act(self, obs: Tensor, generator: Generator | None) -> Tensor:
        """See `Agent.act`. The statistics of the observations stay as training left them."""
        return self.policy.act(obs, generator, self.acting)

    def report(self) -> dict[str, float]:
        """The share of the returns' variance that the critic explained (absent where they did not vary), mean deviation
        of the actions, step size. Waits for the device."""
        value, returns = (torch.cat(tensors) for tensors in zip(*self._recent))
        self._recent.clear()
        return report(value, returns, self.policy, self.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """See `Agent.state_dict`; with the rollout in flight."""
        collector = None if self.env is None else self.collector.state_dict()
        return {**super().state_dict(), "recent": list(self._recent), "collector": collector}

    def learning_state(self, buffer: bool) -> dict[str, Any]:
        """See `Agent.learning_state`; a rollout is not kept."""
        state = self.state_dict()
        return {**state, "collector": {**state["collector"], "obs": None, "rollout": None}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Agent.load_state_dict`."""
        super().load_state_dict(state)
        self._recent = [(value.to(self.device), returns.to(self.device)) for value, returns in state["recent"]]
        if self.env is not None:
            self.collector.load_state_dict(state["collector"])


def report(value: Tensor, returns: Tensor, policy: ActorCritic, optimizer: Optimizer) -> dict[str, float]:
    """The metrics of a report, from values and returns (n,)."""
    std = [] if policy.log_std is None else [policy.log_std.detach().exp().mean()]
    explained, *rest = torch.stack([explained_variance(value, returns), *std]).tolist()
    metrics = {**({"std": rest[0]} if rest else {}), "learning_rate": optimizer.param_groups[0]["lr"]}
    return metrics | ({"explained_variance": explained} if math.isfinite(explained) else {})
