"""Short-horizon actor-critic (Xu et al. 2022, arXiv 2204.07137): the policy's gradient by autograd through the engine.

A window of a few hours is simulated with autograd on, a critic values what comes after it, and the gradient of what all
windows earn is followed. Nothing is estimated from noise, but it needs an engine of differentiable operations. Why
windows are short: the gradient of a long chain of steps grows and loses its meaning.

Where the engine has a kink (a full battery, a closed deadband, the month's highest import) autograd takes the slope of
one side. `noise` on the actions smooths kinks over the environments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam

from iquitos_rl.agents import parallel
from iquitos_rl.agents.actor_critic import ActorCritic, live_only
from iquitos_rl.agents.agent import Agent, OnStep, trainable
from iquitos_rl.agents.compiled import Gradient
from iquitos_rl.agents.configs import SHACConfig as SHACConfig
from iquitos_rl.agents.gae import explained_variance, gae
from iquitos_rl.agents.normalisation import RewardScaler
from iquitos_rl.agents.progress import EpisodeTracker
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.memory.recovery import Parts, taking_memory
from iquitos_rl.memory.rehearsal import graph_bytes


class Window(NamedTuple):
    """What the critic learns from: H steps of E environments, without graph."""

    obs: Tensor
    """(H, E, D) normalised."""
    reward: Tensor
    """(H, E) scaled."""
    next_value: Tensor
    """(H, E) of each action's true successor, by the target critic."""
    terminated: Tensor
    truncated: Tensor
    last_obs: Tensor
    """(E, D) where the environments stand afterwards."""
    steps: list[StepResult]
    """As the environments gave them, without graph."""


def critic_loss(policy: ActorCritic, obs: Tensor, returns: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the mean squared error of values of observations (n, D) against targets (n,)."""
    loss = 0.5 * (policy.value(obs) - returns).square().mean()
    return loss, {"value_loss": loss}


class Networks(nn.Module):
    """Everything that a saved policy holds."""

    def __init__(self, policy: ActorCritic) -> None:
        super().__init__()
        self.policy, self.target = policy, deepcopy(policy.critic).requires_grad_(False)


class SHAC(Agent):
    """A short-horizon actor-critic; see `Agent`. The policy is deterministic but for the noise of training, and
    squashed: a = tanh(actor(s) + noise).

    Args:
        actor: maps normalised observations (B, D) to actions before the squashing (B, A); by default an `MLP`.
        critic: maps normalised observations (B, D) to values (B, 1); by default an `MLP`.

    Raises:
        UserError: the environments are not differentiable.
    """

    name, config_type = "shac", SHACConfig
    advice = "agent.horizon or num_envs"
    # A window keeps many small tensors between others that are freed, and the holes are too small for the next ones.
    # An allowance: what they take differs from site to site (`benchmarks/results/vram_sites.md`).
    holes = 0.5
    shareable = True
    config: SHACConfig

    def build(self, actor: nn.Module | None, critic: nn.Module | None) -> None:
        """See `Agent.build`."""
        c = self.config
        if self.env is not None and not self.env.differentiable:
            raise UserError(
                "shac follows the gradient of the simulation, and these environments have none: it trains on the"
                " district engine, not in exact mode and not as CUDA graphs (agent.compile: off)"
            )
        policy = ActorCritic(
            self.spec,
            c.hidden,
            c.activation,
            log_std=0.0,  # for policies that draw their actions: here the noise is a setting
            normalise_obs=c.normalise_obs,
            generator=self.init,
            amp=c.amp,
            actor=actor,
            critic=critic,
            features=self.features,
        )
        self.networks = nets = Networks(policy).to(self.device)
        self.policy, self.target = nets.policy, nets.target
        self.spawn("noise", "shuffle", "predict")
        self.trained = {"policy": trainable(self.policy.actor), "critic": trainable(self.policy.critic)}
        self.rates = {"policy": c.learning_rate, "critic": c.critic_learning_rate}
        # The window's gradients point in similar directions, so little momentum is needed: the paper's betas.
        self.optimizers = {
            name: Adam(group, lr=self.rates[name], betas=(0.7, 0.95), fused=True)
            for name, group in self.trained.items()
        }
        loss = partial(critic_loss, self.policy)
        self.gradients = {"critic": Gradient(loss, self.trained["critic"], c.compile, self.device)}
        self._obs: Tensor | None = None
        self._recent: list[tuple[Tensor, Tensor]] = []
        """Values and targets since the last report."""
        if self.env is not None:
            self.tracker = EpisodeTracker(self.env.num_envs, self.device)
            self.scaler = RewardScaler(self.env.num_envs, c.gamma, self.device)
            self.batch_size = parallel.share("agent.batch_size", c.batch_size)
            self.windows = Parts("window", self.device, advice=partial(str, f"lower {self.advice}"), floor=1)

    # --- the algorithm

    def rounds(self, total_steps: int, on_step: OnStep) -> Iterator[None]:
        """A window, a step of the policy along its gradient, then the critic's steps."""
        env = self.environment()
        if self._obs is None:
            self.reset()
        while self.steps < total_steps:
            for name, optimizer in self.optimizers.items():
                optimizer.param_groups[0]["lr"] = self.rates[name] * self.left()
            noise = self.draw_noise()
            start = env.state_dict()
            window = self.windows.run(env.num_envs, partial(self.roll_out, noise, start))
            self.steps += self.round_steps()
            self.metrics.at_step(self.steps)
            self.step_policy()
            self.train_critic(window)
            self.take_in(window)
            del window  # before the next one is taken
            self.updates += 1
            yield
            if on_step is not None:
                on_step(self.steps)

    def roll_out(self, noise: Tensor, start: dict[str, Any], size: int) -> Window:
        """Set the policy's gradient to that of a window, `size` environments at a time, from where they stood."""
        env = self.environment()
        for p in self.trained["policy"]:
            p.grad = None  # also what a failed attempt has left
        if size == env.num_envs:
            env.detach()
            found = [self.window(env, self.start_obs(), noise)]
        else:
            env.load_state_dict(start)  # also where a larger part failed half way
            parts, found = [], []
            for first in range(0, env.num_envs, size):
                last = min(first + size, env.num_envs)
                parts.append(env.part(first, last))
                found.append(self.window(parts[-1], self.start_obs()[first:last], noise[:, first:last]))
            env.join(parts)
        return found[0] if len(found) == 1 else joined(found)

    def step_policy(self) -> None:
        """Follow the mean of all processes' gradients, shortened to `max_grad_norm`."""
        parallel.averaged(self.trained["policy"], {})
        norm = nn.utils.clip_grad_norm_(self.trained["policy"], self.config.max_grad_norm)
        self.metrics.add({"policy_grad_norm": norm})
        self.optimizers["policy"].step()

    def window(self, env: VectorEnv, obs: Tensor, noise: Tensor) -> Window:
        """Add the gradient of what a window earns to the policy's.

        Args:
            env: e of the E environments.
            obs: (e, D) where they stand.
            noise: (H, e, A).
        """
        c, policy = self.config, self.policy
        scale = self.scaler.moments.std().to(torch.float32) if c.scale_rewards else 1.0
        earned, discount = torch.zeros(env.num_envs, device=self.device), torch.ones(env.num_envs, device=self.device)
        kept: list[tuple[Tensor, ...]] = []
        steps: list[StepResult] = []
        for t, eps in enumerate(noise):
            taking_memory("window")
            seen = policy.normalise(obs)
            action = live_only((policy.mean(seen) + c.noise * eps).tanh(), policy.live(obs))
            step = env.step(action)
            reward, ended = step.reward / scale, step.terminated | step.truncated
            following: Tensor = self.target(policy.normalise(step.next_obs)).squeeze(-1)
            earned = earned + discount * reward
            discount = discount * c.gamma
            # What comes after the window, or after an episode's end by its length, is what the critic says.
            closes = (step.truncated if t < len(noise) - 1 else torch.ones_like(ended)) & ~step.terminated
            earned = earned + torch.where(closes, discount * following, 0.0)
            discount = torch.where(ended, 1.0, discount)
            kept.append((seen.detach(), reward.detach(), following.detach(), step.terminated, step.truncated))
            steps.append(without_graph(step))
            obs = step.obs
        loss = -earned.sum() / (c.horizon * self.environment().num_envs)
        gradient = torch.autograd.grad(loss, self.trained["policy"])
        for p, g in zip(self.trained["policy"], gradient):
            p.grad = g if p.grad is None else p.grad.add_(g)
        env.detach()
        seen, reward, following, terminated, truncated = (torch.stack(x) for x in zip(*kept))
        return Window(seen, reward, following, terminated, truncated, obs.detach(), steps)

    def train_critic(self, window: Window) -> None:
        """Fit the values of a window to TD(lambda) targets; then the target critic follows."""
        c = self.config
        with torch.no_grad():
            value = self.target(window.obs).squeeze(-1)
            ends = window.terminated, window.truncated
            advantage = gae(window.reward, value, window.next_value, *ends, c.gamma, c.gae_lambda)
            obs, returns = window.obs.flatten(0, 1), (advantage + value).flatten()
        for _ in range(c.critic_epochs):
            order = torch.randperm(len(obs), generator=self.generators["shuffle"], device=self.device)
            for index in order.split(self.batch_size):
                part = obs[index], returns[index]
                metrics = self.take_gradient("critic", part)
                metrics["critic_grad_norm"] = metrics.pop("grad_norm")
                self.metrics.add(metrics)
                self.optimizers["critic"].step()
        with torch.no_grad():
            for target, own in zip(self.target.parameters(), self.policy.critic.parameters()):
                target.lerp_(own, c.tau)
        self._recent.append((value.flatten(), returns))

    @torch.no_grad()
    def take_in(self, window: Window) -> None:
        """Statistics of observations and rewards change between windows only: within one they are constants."""
        self._obs = window.last_obs
        for step in window.steps:
            self.tracker.update(step)
            if self.policy.normaliser is not None:
                self.policy.normaliser.update(step.obs)
        raw = torch.stack([step.reward for step in window.steps])
        self.scaler.update(raw, window.terminated | window.truncated)

    def draw_noise(self) -> Tensor:
        """(H, E, A) for a window, the same whether it is computed whole or in parts."""
        shape = self.config.horizon, self.environment().num_envs, self.spec.action_dim
        return torch.randn(shape, generator=self.generators["noise"], device=self.device)

    def start_obs(self) -> Tensor:
        """(E, D) where the environments stand."""
        assert self._obs is not None
        return self._obs

    def reset(self) -> None:
        """Start new episodes; the unfinished ones are forgotten."""
        self.leave_episodes()
        self._obs = self.environment().reset(self.episode_seed()).to(self.device)
        if self.policy.normaliser is not None:
            self.policy.normaliser.update(self._obs)

    def leave_episodes(self) -> None:
        """See `Agent.leave_episodes`."""
        self._obs = None
        self.tracker.abandon_episodes()
        self.scaler.discounted.zero_()

    def act(self, obs: Tensor, generator: Generator | None) -> Tensor:
        """See `Agent.act`."""
        u = self.acting.map(lambda rows: self.policy.mean(self.policy.normalise(rows)), obs)
        if generator is not None:
            u = u + self.config.noise * torch.randn(u.shape, generator=generator, device=u.device)
        return live_only(u.tanh(), self.policy.live(obs))

    # --- reports, memory, state

    def round_steps(self) -> int:
        """See `Agent.round_steps`."""
        return self.config.horizon * self.environment().num_envs * self.processes

    def updates_by(self, steps: int) -> int:
        """See `Agent.updates_by`; one for each window."""
        return math.ceil(steps / self.round_steps())

    def report(self) -> dict[str, float]:
        """The share of the targets' variance that the critic explained (absent where they did not vary), step size."""
        value, returns = (torch.cat(tensors) for tensors in zip(*self._recent))
        self._recent.clear()
        explained = float(explained_variance(value, returns))
        metrics = {"learning_rate": self.optimizers["policy"].param_groups[0]["lr"]}
        return metrics | ({"explained_variance": explained} if math.isfinite(explained) else {})

    def example(self) -> tuple[Any, ...]:
        """See `Agent.example`; of the critic."""
        size = min(self.batch_size, self.config.horizon * self.environment().num_envs)
        obs = torch.zeros(size, self.spec.obs_dim, device=self.device)
        return obs, obs[:, 0]

    def rehearse(self) -> None:
        """See `Agent.rehearse`; the policy's optimiser makes its moments too."""
        super().rehearse()
        for p in self.trained["policy"]:
            p.grad = torch.zeros_like(p)
        self.metrics.found.fill_(1.0)
        self.optimizers["policy"].step()
        self.metrics.found.zero_()

    def moments(self) -> dict[str, Callable[[], object]]:
        """See `Agent.moments`. A window keeps what its backward pass needs of the environments, measured on a few, of
        the networks, and what the critic learns from."""
        env, c = self.environment(), self.config
        graph = int(graph_bytes(env) * env.num_envs * c.horizon)

        def window() -> object:
            left: list[Tensor] = [torch.empty(graph, dtype=torch.uint8, device=self.device)]
            # Observations follow from actions, so the critic's layers are kept too although its weights rest.
            obs = torch.zeros(env.num_envs, self.spec.obs_dim, device=self.device, requires_grad=True)
            for _ in range(c.horizon):
                left += self.policy.mean(self.policy.normalise(obs)).tanh(), self.target(self.policy.normalise(obs))
            loss = torch.stack([x.sum() for x in left[1:]]).sum()
            return torch.autograd.grad(loss, [*self.trained["policy"], obs])

        return {**super().moments(), f"a window of {c.horizon} steps": window}

    def weights(self) -> dict[str, Iterable[Tensor]]:
        """See `Agent.weights`."""
        return {"actor and critic": self.policy.parameters(), "target critic": self.target.parameters()}

    def state_dict(self) -> dict[str, Any]:
        """See `Agent.state_dict`."""
        state = {**super().state_dict(), "recent": list(self._recent), "obs": self._obs}
        if self.env is not None:
            state |= {"tracker": self.tracker.state_dict(), "scaler": self.scaler.state_dict()}
            state |= {"windows": self.windows.state_dict()}
        return state

    def learning_state(self, buffer: bool) -> dict[str, Any]:
        """See `Agent.learning_state`."""
        return {**self.state_dict(), "obs": None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Agent.load_state_dict`."""
        super().load_state_dict(state)
        self._recent = [(value.to(self.device), returns.to(self.device)) for value, returns in state["recent"]]
        self._obs = None if state["obs"] is None else state["obs"].to(self.device, copy=True)
        if self.env is not None:
            self.tracker.load_state_dict(state["tracker"])
            self.scaler.load_state_dict(state["scaler"])
            self.windows.load_state_dict(state["windows"])


def without_graph(step: StepResult) -> StepResult:
    """The numbers of a step alone."""
    info = {name: x.detach() for name, x in step.info.items()}
    fields = {name: x.detach() for name, x in step._asdict().items() if name != "info"}
    return StepResult(**fields, info=info)


def joined(windows: list[Window]) -> Window:
    """The windows of environments side by side as one."""
    obs, reward, value, terminated, truncated = (torch.cat(x, dim=1) for x in zip(*(window[:5] for window in windows)))
    steps = []
    for parts in zip(*(window.steps for window in windows)):
        info = {name: torch.cat([own.info[name] for own in parts]) for name in parts[0].info}
        fields = (name for name in StepResult._fields if name != "info")
        steps.append(StepResult(**{name: torch.cat([getattr(p, name) for p in parts]) for name in fields}, info=info))
    last_obs = torch.cat([window.last_obs for window in windows])
    return Window(obs, reward, value, terminated, truncated, last_obs, steps)
