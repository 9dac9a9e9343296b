"""PPO with a memory, for environments that do not show everything: the state of a GRU holds what an episode was like.

PPO as in `ppo.py`, and three differences. A minibatch is made of whole sequences, since gradients flow back through the
steps of a sequence. A sequence starts with the state that the policy had there when it acted (the "stored state" of
Kapturowski et al. 2019, R2D2), which is a little stale in later epochs. Values are computed while acting, in the order
of the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from iquitos_rl.agents.collector import Batch, Collector
from iquitos_rl.agents.compiled import Loss
from iquitos_rl.agents.configs import RecurrentPPOConfig as RecurrentPPOConfig
from iquitos_rl.agents.ppo import PPO, clipped_policy_loss, value_loss
from iquitos_rl.agents.recurrent import RecurrentPolicy
from iquitos_rl.buffers.placement import Item
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.memory.rehearsal import STEP


def loss(
    policy: RecurrentPolicy,
    clip_range: float,
    value_coef: float,
    entropy_coef: float,
    batch: Batch,
    state: Tensor,
    starts: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a minibatch, a scalar, and its parts by name.

    Args:
        batch: n sequences, (n, L, ...) each.
        state: (n, 2 H) before each sequence.
        starts: (n, L) whether an episode starts with the transition.
    """
    flat = Batch(*(None if x is None else x.flatten(0, 1) for x in batch))  # type: ignore[arg-type]
    output, value, _ = policy.both(flat.obs.to(flat.action.dtype), state, starts)
    log_prob, entropy = policy.log_prob(flat.action, output, flat.live), policy.entropy(output, flat.live)
    of_policy, kl, clip_fraction = clipped_policy_loss(log_prob, flat.log_prob, flat.advantage, clip_range)
    of_value = value_loss(value, flat.returns)
    total = of_policy + value_coef * of_value - entropy_coef * entropy
    metrics = {"policy_loss": of_policy, "value_loss": of_value, "entropy": entropy}
    return total, {**metrics, "kl": kl, "clip_fraction": clip_fraction}


class SequenceCollector(Collector):
    """A `Collector` of K E sequences of L steps: sequence s is the k-th of environment e, s = k E + e."""

    policy: RecurrentPolicy
    KEPT = "state", "states", "value", "final_value", "starts"

    def __init__(self, env: VectorEnv, policy: RecurrentPolicy, *, sequence: int, horizon: int, **others: Any) -> None:
        super().__init__(env, policy, horizon=horizon, **others)
        self.length, shape, device = sequence, (horizon, env.num_envs), self.device
        self.state = torch.zeros(env.num_envs, 2 * policy.units, device=device)
        """(E, 2 H) before the present observations."""
        self.states = torch.zeros(horizon // sequence, env.num_envs, 2 * policy.units, device=device)
        """(K, E, 2 H) before each sequence."""
        self.value, self.final_value = torch.zeros(shape, device=device), torch.zeros(shape, device=device)
        """(T, E) of the observations, and of the true successors where an episode was cut off."""
        self.starts = torch.zeros(shape, dtype=torch.bool, device=device)
        """(T, E) whether an episode starts with the step, but for the first, whose state says it."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept besides the rollout."""
        return sum(getattr(self, name).nbytes for name in self.KEPT)

    def places(self, sequences: Tensor) -> Tensor:
        """(n, L) which transitions of a `Batch` each of n sequences is."""
        envs = self.env.num_envs
        first = sequences // envs * self.length * envs + sequences % envs
        return first[:, None] + envs * torch.arange(self.length, device=sequences.device)

    def output(self, obs: Tensor) -> Tensor:
        """See `Collector.output`."""
        t = self.rollout.steps
        if t % self.length == 0:
            self.states[t // self.length] = self.state
        output, self.value[t], self.state = self.policy.both(obs, self.state)
        return output

    def stepped(self, step: StepResult, final: Tensor) -> None:
        """See `Collector.stepped`."""
        t, ended = self.rollout.steps - 1, step.terminated | step.truncated
        if step.truncated.any():
            self.final_value[t] = self.policy.value_of(final.float(), self.state)
        if t + 1 < len(self.starts):
            self.starts[t + 1] = ended
        self.state = torch.where(ended[:, None], 0.0, self.state)

    def values(self, last_obs: Tensor) -> tuple[Tensor, Tensor]:
        """See `Collector.values`."""
        rollout, last = self.rollout, self.policy.value_of(last_obs.float(), self.state)
        cut_off = rollout.truncated & ~rollout.terminated
        next_value = torch.where(cut_off, self.final_value, torch.cat([self.value[1:], last[None]]))
        return self.value.clone(), next_value

    def leave_episodes(self) -> None:
        """See `Collector.leave_episodes`."""
        super().leave_episodes()
        self.state = torch.zeros_like(self.state)

    def state_dict(self) -> dict[str, Any]:
        """See `Collector.state_dict`."""
        return {**super().state_dict(), "sequences": {name: getattr(self, name) for name in self.KEPT}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Collector.load_state_dict`."""
        super().load_state_dict(state)
        if state["obs"] is not None:
            for name in self.KEPT:
                setattr(self, name, state["sequences"][name].to(self.device, copy=True))


class RecurrentPPO(PPO):
    """A PPO agent with a memory; see `OnPolicy`.

    `predict` remembers what it was asked before, for each row of a batch: call `forget` where an episode begins. The
    networks are its own; `features` may be yours.
    """

    name, config_type = "recurrent_ppo", RecurrentPPOConfig
    advice = "agent.horizon, agent.memory or agent.hidden"
    config: RecurrentPPOConfig
    policy: RecurrentPolicy
    collector: SequenceCollector
    remembered: Tensor | None = None
    """(B, H) the actor's states of those for whom it acts, outside of training."""

    def loss(self) -> Loss:
        """See `OnPolicy.loss`."""
        c = self.config
        return partial(loss, self.policy, c.clip_range, c.value_coef, c.entropy_coef)

    def make_policy(self, actor: nn.Module | None, critic: nn.Module | None) -> RecurrentPolicy:
        """See `OnPolicy.make_policy`. Raises UserError: a network is given."""
        if actor is not None or critic is not None:
            raise UserError("recurrent_ppo makes actor and critic itself: give features, or set memory and hidden")
        c = self.config
        return RecurrentPolicy(
            self.spec,
            c.memory,
            c.hidden,
            c.activation,
            log_std=c.log_std_init,
            normalise_obs=c.normalise_obs,
            generator=self.init,
            amp=c.amp,
            features=self.features,
        )

    def make_collector(self, **settings: Any) -> SequenceCollector:
        """See `OnPolicy.make_collector`."""
        return SequenceCollector(self.environment(), self.policy, sequence=self.config.length, **settings)

    def rows(self, transitions: int) -> tuple[int, int]:
        """See `PPO.rows`; rows are sequences."""
        sequences = transitions // self.config.length
        return sequences, min(sequences, max(1, self.config.batch_size // self.config.length))

    def arguments(self, batch: Batch, index: Tensor) -> tuple[Any, ...]:
        """See `PPO.arguments`."""
        collector, places = self.collector, self.collector.places(index)
        state, starts = collector.states.flatten(0, 1)[index], collector.starts.flatten()[places]
        return (*super().arguments(batch, places), state, starts)

    def act(self, obs: Tensor, generator: Generator | None) -> Tensor:
        """See `Agent.act`."""
        if self.remembered is None or len(self.remembered) != len(obs):
            self.remembered = torch.zeros(len(obs), self.policy.units, device=obs.device)
        output, self.remembered = self.policy.act_on(self.policy.normalise(obs), self.remembered)
        return self.policy.chosen(output, self.policy.live(obs), generator)

    def forget(self, ended: Tensor | None = None) -> None:
        """See `Agent.forget`."""
        if ended is None or self.remembered is None:
            self.remembered = None
        else:
            self.remembered = torch.where(ended[:, None], 0.0, self.remembered)

    def stored(self, config: Any) -> list[Item]:
        """See `Agent.stored`."""
        return [*super().stored(config), Item("states of sequences", "device", self.collector.nbytes)]

    def moments(self) -> dict[str, Callable[[], object]]:
        """See `Agent.moments`; values are computed with the actions."""
        moments = super().moments()
        del moments["values of a rollout"]
        obs, collector = torch.zeros(self.environment().num_envs, self.spec.obs_dim, device=self.device), self.collector
        return {**moments, STEP: torch.no_grad()(lambda: (collector.receive(obs), collector.output(obs)))}
