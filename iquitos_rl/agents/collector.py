"""Running the current policy in the environments, and turning what happened into a batch to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from iquitos_rl.agents import parallel
from iquitos_rl.agents.actor_critic import ActorCritic
from iquitos_rl.agents.agent import take_step
from iquitos_rl.agents.gae import gae
from iquitos_rl.agents.normalisation import RewardScaler
from iquitos_rl.agents.progress import EpisodeTracker
from iquitos_rl.buffers.rollout import Rollout
from iquitos_rl.envs.vector import StepResult, VectorEnv, within
from iquitos_rl.errors import UserError
from iquitos_rl.memory.recovery import Parts

VALUE_CHUNK = 2_048
"""Observations given to the critic at once: the layers' outputs for a whole rollout might not fit in memory."""
ESTIMATE_BYTES = 8 * 4
"""What a transition's advantage is computed from, in float32: reward, value and the next one, continuation, advantage,
return, and in float64 the discounted reward."""


class Batch(NamedTuple):
    """N = T x E transitions; `take` gathers some of them."""

    obs: Tensor
    """(N, D) in the storage type, as the policy saw them."""
    action: Tensor
    """(N, A) as drawn, before clipping; choices as their numbers."""
    log_prob: Tensor
    """(N,) under the policy that drew the actions."""
    live: Tensor | None
    """(N, A) bool, or None where every action is live."""
    value: Tensor
    """(N,) by the critic before the update."""
    advantage: Tensor
    """(N,)."""
    returns: Tensor
    """(N,) value targets: advantage + value."""

    @property
    def size(self) -> int:
        """Transitions, N."""
        return self.action.shape[0]

    def take(self, index: Tensor | slice) -> Batch:
        """The rows at `index`, observations in float32."""
        live = None if self.live is None else self.live[index]
        return Batch(
            self.obs[index].float(),
            self.action[index],
            self.log_prob[index],
            live,
            self.value[index],
            self.advantage[index],
            self.returns[index],
        )


class Collector:
    """E environments, the observation each is at, and the rollout that T steps of them fill."""

    def __init__(
        self,
        env: VectorEnv,
        policy: ActorCritic,
        *,
        horizon: int,
        gamma: float,
        gae_lambda: float,
        scale_rewards: bool,
        storage: torch.dtype,
        seed: int,
        generator: Generator,
    ) -> None:
        """`storage` is the type of stored observations, `seed` that of the environments; `generator`, on the policy's
        device, draws the actions."""
        self.env, self.policy, self.seed, self.generator = env, policy, seed, generator
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.device = next(policy.parameters()).device
        self.rollout = Rollout(
            horizon,
            env.num_envs,
            env.obs_dim,
            env.action_dim,
            masked=policy.columns is not None,
            obs_dtype=storage,
            device=self.device,
        )
        self.scaler = RewardScaler(env.num_envs, gamma, self.device) if scale_rewards else None
        self.tracker = EpisodeTracker(env.num_envs, self.device)
        self.parts = Parts("policy", self.device)
        self.value_parts = Parts("values of a rollout", self.device, VALUE_CHUNK)
        self.obs: Tensor | None = None

    def reset(self, taken: int = 0) -> None:
        """Start new episodes, with other seeds after `taken` transitions; the unfinished ones and the rollout in flight
        are forgotten."""
        self.leave_episodes()
        self.obs = self.receive(self.env.reset(self.seed + taken).to(self.device))

    def leave_episodes(self) -> None:
        """Forget the unfinished episodes and the rollout in flight; the next `collect` starts new ones."""
        self.obs = None
        self.rollout.clear()
        self.tracker.abandon_episodes()
        if self.scaler is not None:
            self.scaler.discounted.zero_()

    @torch.no_grad()
    def collect(self, on_step: Callable[[int], None] | None = None, taken: int = 0) -> Batch:
        """Act until there are T steps of every environment, and estimate the advantages of what was done.

        Args:
            on_step: called after every step with the transitions so far, `taken` and those of this rollout, of all
                processes. What it raises leaves a state that can be resumed.

        Raises:
            UserError: an observation or a reward is not finite, or too large for the storage type; nothing has been
                estimated from the rollout.
        """
        with self._statistics_of_numbers():
            return self._collect(on_step, taken)

    @contextmanager
    def _statistics_of_numbers(self) -> Iterator[None]:
        """Takes back what an observation that is not finite does to the statistics: the check comes after a rollout."""
        normaliser = self.policy.normaliser
        before = (
            [] if normaliser is None else [x.clone() for x in (normaliser.mean, normaliser.squares, normaliser.count)]
        )
        try:
            yield
        except UserError:
            if normaliser is not None and not normaliser.squares.isfinite().all():
                for x, old in zip((normaliser.mean, normaliser.squares, normaliser.count), before):
                    x.copy_(old)
            raise

    def _collect(self, on_step: Callable[[int], None] | None, taken: int) -> Batch:
        if self.obs is None:
            self.reset(taken)
        rollout, policy = self.rollout, self.policy
        while rollout.steps < rollout.horizon:
            assert self.obs is not None
            live = policy.live(self.obs)
            stored = self._encode(self.obs)
            output = self.output(stored.float())  # of what is stored: the update starts from a ratio of one
            action = policy.sample(output, live, self.generator)
            log_prob = policy.log_prob(action, output, live)
            step = take_step(self.env, within(action, self.env.choices), self.device)
            final = self._encode(step.next_obs)
            rollout.add(stored, action, log_prob, live, step, final)
            self.stepped(step, final)
            self.tracker.update(step)
            self.obs = self.receive(step.obs)
            if on_step is not None:
                on_step(taken + rollout.steps * rollout.num_envs * parallel.processes())
        assert self.obs is not None
        last_obs = self._encode(self.obs)
        if found := rollout.not_finite(last_obs):
            raise UserError(f"{found[1]} at step {taken + found[0] * rollout.num_envs * parallel.processes()}")
        batch = self._estimate(last_obs)
        rollout.clear()  # its tensors stay as they are until the next `collect`
        return batch

    def output(self, obs: Tensor) -> Tensor:
        """What the policy draws actions from, for observations (E, D) as they are stored."""
        return self.parts.map(self.policy.mean, obs)

    def stepped(self, step: StepResult, final: Tensor) -> None:
        """Called after each step, with its true successors (E, D) as they are stored."""

    @torch.no_grad()
    def rehearse_values(self) -> None:
        """Compute as many values of a rollout as are computed at once."""
        self._values(self.rollout.obs.flatten(0, 1)[:VALUE_CHUNK])

    def stored(self) -> Batch:
        """What the rollout holds now, zeros at first, as a batch that takes no memory; rewards for all estimates."""
        rollout = self.rollout
        log_prob, reward = rollout.log_prob.flatten(), rollout.reward.flatten()
        live = None if rollout.live is None else rollout.live.flatten(0, 1)
        return Batch(rollout.obs.flatten(0, 1), rollout.action.flatten(0, 1), log_prob, live, reward, reward, reward)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the policy and the environments. Tensors are the collector's own, not copies."""
        return {
            "obs": self.obs,
            "rollout": self.rollout.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "tracker": self.tracker.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`. The environments must be brought to the same point by other means."""
        self.obs = None if state["obs"] is None else state["obs"].to(self.device, copy=True)
        if state["rollout"] is not None:
            self.rollout.load_state_dict(state["rollout"])
        if self.scaler is not None:
            discounted = self.scaler.discounted if state["obs"] is None else state["scaler"]["discounted"]
            self.scaler.load_state_dict({**state["scaler"], "discounted": discounted})
        self.tracker.load_state_dict(state["tracker"])

    def receive(self, obs: Tensor) -> Tensor:
        """Take an observation into the statistics before it is acted on, once."""
        if self.policy.normaliser is not None:
            self.policy.normaliser.update(obs)
        return obs

    def _encode(self, obs: Tensor) -> Tensor:
        return self.policy.normalise(obs).to(self.rollout.obs.dtype)

    def _estimate(self, last_obs: Tensor) -> Batch:
        rollout = self.rollout
        reward = rollout.reward
        if self.scaler is not None:
            self.scaler.update(reward, rollout.terminated | rollout.truncated)
            reward = self.scaler(reward)
        value, next_value = self.values(last_obs)
        advantage = gae(reward, value, next_value, rollout.terminated, rollout.truncated, self.gamma, self.gae_lambda)
        estimates = {"value": value, "advantage": advantage, "returns": advantage + value}
        return self.stored()._replace(**{name: x.flatten() for name, x in estimates.items()})

    def values(self, last_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Of a full rollout's observations and of the actions' true successors, (T, E) each."""
        rollout = self.rollout
        value = self._values(rollout.obs.flatten(0, 1)).view_as(rollout.reward)
        next_value = torch.cat([value[1:], self._values(last_obs)[None]])
        final_obs, row = rollout.final_rows()
        if final_obs.shape[0]:
            next_value = torch.where(row >= 0, self._values(final_obs)[row.clamp(min=0)], next_value)
        return value, next_value

    def _values(self, obs: Tensor) -> Tensor:
        return self.value_parts.map(lambda part: self.policy.value(part.float()), obs)
