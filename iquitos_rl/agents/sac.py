"""Soft actor-critic: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications" (arXiv 1812.05905).

From top to bottom: the settings, the losses as pure functions, the agent. Losses are means over their batch and take
their noise as an argument, so the gradient of a batch is the weighted mean of the gradients of its parts. Each returns
a scalar and metrics by name; a new term is one more summand, a new metric one more key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from fractions import Fraction
from functools import partial
from math import ceil, sqrt
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam

from iquitos_rl.agents import categorical, discrete_sac, parallel, shared, squashed_gaussian
from iquitos_rl.agents.agent import Agent, OnStep, take_step, trainable
from iquitos_rl.agents.compiled import Gradient
from iquitos_rl.agents.configs import SACConfig as SACConfig
from iquitos_rl.agents.features import Extractors
from iquitos_rl.agents.networks import MLP, Critics
from iquitos_rl.agents.normalisation import ObservationNormaliser
from iquitos_rl.agents.progress import EpisodeTracker
from iquitos_rl.buffers.placement import Item
from iquitos_rl.buffers.replay import ReplayBuffer
from iquitos_rl.envs.vector import action_mask
from iquitos_rl.errors import UserError

BATCHES_PER_GATHER = 8
"""Most update batches fetched from the buffer at once: many updates may follow one step of many environments."""

Batch = Mapping[str, Tensor]  # the fields of B transitions, by the names in `FIELDS`
FIELDS = ("observation", "action", "reward", "discount", "next_observation")
Loss = tuple[Tensor, dict[str, Tensor]]  # a scalar to descend, and metrics, scalars by name


class Networks(nn.Module):
    """What SAC trains, and the average of the critics that targets are computed with."""

    def __init__(
        self, actor: nn.Module, critic: nn.Module, alpha: float, normaliser: ObservationNormaliser | None = None
    ) -> None:
        super().__init__()
        self.actor, self.critic = actor, critic
        self.target_critic = deepcopy(critic).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(alpha).log())
        self.normaliser = normaliser

    def see(self, obs: Tensor) -> Tensor:
        """Observations (B, D) to what the networks read."""
        return obs if self.normaliser is None else self.normaliser(obs)


def td_target(nets: Networks, columns: Tensor | None, batch: Batch, noise: Tensor) -> Tensor:
    """y (B,) = reward + discount * (min_i Q'_i(s', a') - alpha log pi(a'|s')), a' drawn with the noise (B, A).

    The discount is 0 where the episode terminated and gamma^k elsewhere, truncation included. With n-step returns the
    entropy of the steps between is left out, so the value is only approximately soft.
    """
    next_obs = batch["next_observation"]
    seen, mask = nets.see(next_obs), action_mask(next_obs, columns)
    action, log_prob = squashed_gaussian.sample(nets.actor(seen), noise, mask)
    value = nets.target_critic(seen, action).amin(0) - nets.log_alpha.exp() * log_prob
    return torch.addcmul(batch["reward"], batch["discount"], value)


def critic_loss(nets: Networks, columns: Tensor | None, batch: Batch, noise: Tensor) -> Loss:
    """Half the squared error to the target, batch mean, summed over the critics; noise (B, A) of the next actions."""
    with torch.no_grad():
        target = td_target(nets, columns, batch, noise)
    q = nets.critic(nets.see(batch["observation"]), batch["action"])
    loss = 0.5 / len(target) * (q - target).square().sum()
    return loss, {"critic_loss": loss, "q": q.mean()}


def actor_loss(nets: Networks, columns: Tensor | None, batch: Batch, noise: Tensor) -> Loss:
    """Mean of alpha log pi(a|s) - min_i Q_i(s, a), a drawn with the noise (B, A)."""
    obs = batch["observation"]
    seen = nets.see(obs)
    action, log_prob = squashed_gaussian.sample(nets.actor(seen), noise, action_mask(obs, columns))
    q = nets.critic(seen, action).min(0).values
    loss = (nets.log_alpha.exp().detach() * log_prob - q).mean()
    return loss, {"actor_loss": loss, "entropy": -log_prob.mean()}


def alpha_loss(log_alpha: Tensor, entropy: Tensor, target_entropy: Tensor | float) -> Loss:
    """Raises log alpha while the entropy, a batch mean, is below its target (B,) and lowers it while above."""
    loss = log_alpha * (entropy - target_entropy).mean().detach()
    return loss, {"alpha_loss": loss, "alpha": log_alpha.exp()}


def target_entropy(obs: Tensor, columns: Tensor | None, actions: int, scale: float) -> Tensor | float:
    """Minus `scale` per live action: (B,) where actions can be dead, else one number."""
    mask = action_mask(obs, columns)
    return -scale * (actions if mask is None else mask.to(obs.dtype).sum(-1))


def policy_loss(nets: Networks, columns: Tensor | None, scale: float, batch: Batch, noise: Tensor) -> Loss:
    """The losses of actor and temperature, which share no parameter; `scale` of the target entropy."""
    of_actor, metrics = actor_loss(nets, columns, batch, noise)
    target = target_entropy(batch["observation"], columns, noise.shape[-1], scale)
    of_alpha, more = alpha_loss(nets.log_alpha, metrics["entropy"], target)
    return of_actor + of_alpha, metrics | more


class SAC(Agent):
    """A soft actor-critic agent; see `Agent`.

    The least of twin critics or more (An et al. 2021, arXiv 2110.01548), learned temperature, squashed Gaussian policy
    with log std in [-5, 2] by a smooth map. Where actions are one choice (Discrete), see `discrete_sac.py`.

    Args:
        actor: maps observations (B, D) to (B, 2A), means and unbounded log deviations, or to the logits of A choices
            (B, A); by default an `MLP`.
        critic: maps observations (B, D) and actions (B, A) to values (N, B) of N critics, or observations to the values
            of A choices (N, B, A); by default `Critics`.

    Raises:
        UserError: actions are several choices, or a setting has no meaning for choices.
    """

    name, config_type = "sac", SACConfig
    shareable = True
    advice = "agent.hidden or agent.buffer_size"
    not_portable = {"placement": "auto"}
    config: SACConfig
    networks: Networks

    def build(self, actor: nn.Module | None, critic: nn.Module | None) -> None:
        """See `Agent.build`."""
        c, d, a, self.choices = self.config, self.spec.obs_dim, self.spec.action_dim, self.spec.way_out.choices
        if self.choices is not None and (len(self.choices) > 1 or c.noise_persistence):
            what = "MultiDiscrete or MultiBinary, as PPO and A2C do" if len(self.choices) > 1 else "noise_persistence"
            raise UserError(f"SAC takes Box or Discrete actions, and for Discrete ones no {what}")
        outputs, inputs, values = (2 * a, a, 1) if self.choices is None else (*self.choices, 0, *self.choices)
        extractors = Extractors(self.features, self.spec.way_in, self.init)
        buildings, form = self.spec.buildings, shared.Form(c.hidden, "relu", self.init, c.amp)
        if buildings is not None:
            actor = shared.SharedActor(buildings, form, 2)
            critic = shared.SharedCritics(buildings, form._replace(layer_norm=c.layer_norm), c.critics)
        if actor is None:
            actor = extractors.around(lambda n: MLP([n, *c.hidden, outputs], generator=self.init, amp=c.amp))
        if critic is None:
            shape = c.hidden, c.layer_norm, self.init, c.amp, c.critics, values
            critic = extractors.around(lambda n: Critics(n, inputs, *shape))
        normaliser = shared.normaliser_of(self.spec) if c.normalise_obs else None
        self.networks = nets = Networks(actor, critic, c.alpha_init, normaliser).to(self.device)
        self.actor, self.critic, self.target_critic = nets.actor, nets.critic, nets.target_critic
        self.log_alpha = nets.log_alpha
        columns = self.spec.action_mask_columns
        self.mask_columns = None if columns is None else torch.tensor(columns, device=self.device)
        self.spawn("noise", "predict", "buffer")
        self._critic: list[Tensor] = list(self.critic.parameters())
        self._target: list[Tensor] = list(self.target_critic.parameters())
        trained = {"critic": trainable(self.critic), "policy": [*trainable(self.actor), self.log_alpha]}
        if self.choices is None:
            of_critic, of_policy = critic_loss, partial(policy_loss, nets, self.mask_columns, c.target_entropy_scale)
        else:
            of_critic = discrete_sac.critic_loss
            of_policy = partial(discrete_sac.policy_loss, nets, None, c.target_entropy_share)
        self.gradients = {
            "critic": Gradient(partial(of_critic, nets, self.mask_columns), trained["critic"], c.compile, self.device),
            "policy": Gradient(of_policy, trained["policy"], c.compile, self.device, frozen=trained["critic"]),
        }
        self.optimizers = {name: Adam(group, lr=c.learning_rate, fused=True) for name, group in trained.items()}
        self.log_every = c.log_every
        self._obs: Tensor | None = None
        self.waited = 0
        """Transitions without updates, since the buffer had to be filled again."""
        if self.env is not None:
            every = torch.randn(self.processes, self.env.num_envs, a, generator=self.init)  # not zero
            self._exploration = every[parallel.rank()].to(self.device)
            self.tracker = EpisodeTracker(self.env.num_envs, self.device)
            self.batch_size = parallel.share("agent.batch_size", c.batch_size)
            capacity = c.buffer_size // self.processes
            sizes, seed = (capacity, self.env.num_envs, d, a), self.generators["buffer"].initial_seed()
            kind: dict[str, Any] = {name: getattr(c, name) for name in ("gamma", "n_step", "storage", "placement")}
            kind |= {name: getattr(self.env, name) for name in ("exogenous", "episode_steps", "byte_columns")}
            kind["choices"] = self.env.choices is not None
            self.buffer = ReplayBuffer(*sizes, **kind, device=self.device, seed=seed)

    def rounds(self, total_steps: int, on_step: OnStep) -> Iterator[None]:
        """One step of every environment, then the updates due."""
        if self._obs is None:
            self.reset()
        while self.steps < total_steps:
            if self.config.schedule != "constant":
                for optimizer in self.optimizers.values():
                    optimizer.param_groups[0]["lr"] = self.config.learning_rate * self.left()
            self.collect()
            self.metrics.at_step(self.steps)
            self.train(self.updates_by(self.steps) - self.updates)
            yield
            if on_step is not None:
                on_step(self.steps)

    def reset(self) -> None:
        """Start new episodes; those still open count as truncated where they are."""
        self._obs = self.environment().reset(self.episode_seed()).to(self.device)
        self.buffer.start(self._obs, self.environment().exogenous)
        self.receive(self._obs)
        self.tracker.abandon_episodes()

    def leave_episodes(self) -> None:
        """See `Agent.leave_episodes`."""
        self._obs = None
        self.tracker.abandon_episodes()

    def collect(self) -> None:
        """One step of every environment into the buffer."""
        assert self._obs is not None
        action = self.explore(self._obs)
        step = take_step(self.environment(), action, self.device)
        self.buffer.add(action, step, self.environment().exogenous)
        self.receive(step.obs)
        self.tracker.update(step)
        self._obs = step.obs
        self.steps += len(action) * self.processes

    def receive(self, obs: Tensor) -> None:
        """Take observations (E, D), which the buffer has found finite, into the statistics."""
        if self.networks.normaliser is not None:
            self.networks.normaliser.update(obs)

    def explore(self, obs: Tensor) -> Tensor:
        """Actions (E, A) for observations (E, D): uniform at first, then drawn from the policy.

        The noise is an autoregressive process of unit variance: with `noise_persistence` rho its correlation over k
        steps is rho^k. Each action alone is distributed as without it, but what must be kept up for many steps, such as
        filling a battery, is tried more often. See Eberhard et al. 2023, "Pink Noise Is All You Need".
        """
        if self.choices is not None:
            random, generator = self.steps < self.config.learning_starts, self.generators["noise"]
            logits = torch.zeros(len(obs), *self.choices, device=self.device)
            with torch.no_grad():
                return categorical.sample(logits if random else self.output(obs), self.choices, generator)
        mask, rho = action_mask(obs, self.mask_columns), self.config.noise_persistence
        noise = torch.randn(self._exploration.shape, device=self.device, generator=self.generators["noise"])
        self._exploration = noise = rho * self._exploration + sqrt(1 - rho**2) * noise
        if self.steps < self.config.learning_starts:
            action = torch.erf(noise / sqrt(2))
            return action if mask is None else action * mask
        with torch.no_grad():
            return squashed_gaussian.sample(self.output(obs), noise, mask)[0]

    def output(self, obs: Tensor) -> Tensor:
        """What the actor says of observations (B, D), as many at a time as memory allows."""
        return self.acting.map(self.actor, self.networks.see(obs))

    def updates_by(self, steps: int) -> int:
        """`update_ratio` times the transitions since `learning_starts`; no fraction is lost."""
        transitions = max(0, steps - self.config.learning_starts - self.waited)
        return int(Fraction(str(self.config.update_ratio)) * transitions)

    def train(self, updates: int) -> None:
        """Make the given number of updates on freshly sampled batches."""
        while updates > 0:
            count = min(updates, BATCHES_PER_GATHER)
            for batch, noise in self.fetch(count):
                self.update(batch, noise)
            del batch, noise  # before the next ones are there
            updates -= count

    def fetch(self, count: int) -> Iterator[tuple[Batch, Tensor]]:
        """Freshly sampled batches, each with noise (2, B, A) for `update`."""
        size, a = self.batch_size, self.spec.action_dim
        noise = torch.randn(count, 2, size, a, device=self.device, generator=self.generators["noise"])
        yield from zip(self.buffer.batches(size, count), noise)

    def update(self, batch: Batch, noise: Tensor) -> None:
        """A gradient step of the critics, then one of actor and temperature; noise (2, B, A): next and own actions."""
        fields = {name: batch[name] for name in FIELDS}
        for (name, gradient), eps in zip(self.gradients.items(), noise):
            metrics = self.united(name, self.micro_batch.run(len(eps), partial(gradient.set, (fields, eps))))
            metrics[f"{name}_grad_norm"] = metrics.pop("grad_norm")
            self.metrics.add(metrics)
            self.optimizers[name].step()
        with torch.no_grad():
            torch._foreach_lerp_(self._target, self._critic, self.config.tau)
        self.updates += 1

    def example(self) -> tuple[Any, ...]:
        """See `Agent.example`."""
        b, d, a = self.batch_size, self.spec.obs_dim, self.spec.action_dim
        shapes = zip(FIELDS, ((b, d), (b, a), (b,), (b,), (b, d)))
        batch = {name: torch.zeros(shape, device=self.device) for name, shape in shapes}
        return batch, batch["action"]

    def weights(self) -> dict[str, Iterable[Tensor]]:
        """See `Agent.weights`."""
        trained = [*self.actor.parameters(), *self.critic.parameters()]
        return {"actor and critics": trained, "target critics": self.target_critic.parameters()}

    def stored(self, config: SACConfig) -> list[Item]:
        """See `Agent.stored`."""
        return self.buffer.items(config.buffer_size // self.processes, config.placement)

    def moments(self) -> dict[str, Callable[[], object]]:
        """See `Agent.moments`; an update comes with the batches that one step of the environments pays for."""
        count = min(ceil(self.config.update_ratio * self.round_steps()), BATCHES_PER_GATHER)

        def update() -> None:
            batches = self.fetch(count)
            self.update(*next(batches))

        return {**super().moments(), f"{count} batches and an update": update}

    def act(self, obs: Tensor, generator: Generator | None) -> Tensor:
        """See `Agent.act`."""
        mask, output = action_mask(obs, self.mask_columns), self.output(obs)
        if self.choices is not None:
            if generator is None:
                return categorical.mode(output, self.choices)
            return categorical.sample(output, self.choices, generator)
        if generator is None:
            return squashed_gaussian.mode(output, mask)
        noise = torch.randn(len(obs), self.spec.action_dim, device=self.device, generator=generator)
        return squashed_gaussian.sample(output, noise, mask)[0]

    def state_dict(self) -> dict[str, Any]:
        """See `Agent.state_dict`; with the whole replay buffer."""
        state = super().state_dict()
        if self.env is not None:
            state |= {"tracker": self.tracker.state_dict(), "buffer": self.buffer.state_dict()}
            state |= {"obs": self._obs, "exploration": self._exploration, "waited": self.waited}
        return state

    def learning_state(self, buffer: bool) -> dict[str, Any]:
        """See `Agent.learning_state`."""
        state = self.state_dict()
        return {**state, "obs": None, "buffer": state["buffer"] if buffer else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Agent.load_state_dict`."""
        super().load_state_dict(state)
        if self.env is not None:
            self.tracker.load_state_dict(state["tracker"])
            self._obs = None if state["obs"] is None else state["obs"].to(self.device, copy=True)
            if state["exploration"].shape == self._exploration.shape:
                self._exploration = state["exploration"].to(self.device, copy=True)
            self.waited = int(state.get("waited", 0))
            if state["buffer"] is not None:
                self.buffer.load_state_dict(state["buffer"])
            else:
                self.waited += min(self.steps, self.config.learning_starts)
