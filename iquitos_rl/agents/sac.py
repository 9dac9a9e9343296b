"""Soft actor-critic: Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications" (arXiv 1812.05905).

From top to bottom: the settings, the losses and their gradients as pure functions, the agent. The losses are means over
their batch and take their noise as an argument, so the gradient of a batch is the weighted mean of the gradients of its
parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tensordict import TensorDict
from torch import Generator, Tensor, nn

from iquitos_rl.agents import squashed_gaussian
from iquitos_rl.agents.adam import Adam
from iquitos_rl.agents.compiled import Compile, Gradient, elsewhere, join_graphs, traced
from iquitos_rl.agents.figures import Figures
from iquitos_rl.agents.layers import Amp, backward
from iquitos_rl.agents.networks import MLP, Critics
from iquitos_rl.agents.policy_file import ArrayOrTensor, PolicySpec, apply_policy, load_policy, save_policy
from iquitos_rl.agents.progress import EpisodeTracker, Progress
from iquitos_rl.agents.registry import AgentEntry
from iquitos_rl.buffers.placement import Placement
from iquitos_rl.buffers.replay import ReplayBuffer, Storage
from iquitos_rl.envs.gym.adapter import TrainingEnv, as_vector
from iquitos_rl.envs.vector import Exogenous, StepResult, action_mask
from iquitos_rl.errors import UserError
from iquitos_rl.memory.recovery import Parts, explained

BATCHES_PER_GATHER = 8
"""Most update batches fetched from the buffer at once: many updates may follow one step of many environments."""

ADVICE = "python -m iquitos_rl.plan sac shows what each setting needs; lower agent.hidden or agent.buffer_size"

MODULES = ("actor", "critic", "target_critic")
FIELDS = ("observation", "action", "reward", "discount", "next_observation")
"""What an update needs of a batch."""
METRICS = {
    "critic": ("critic_loss", "q", "critic_grad_norm"),
    "policy": ("alpha", "entropy", "alpha_loss", "actor_loss", "policy_grad_norm"),
}


class SACConfig(BaseModel):
    """Settings of SAC. Steps are transitions of one environment: a step of E environments counts E."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: tuple[int, ...] = Field((256, 256), min_length=1, description="Widths of every network's hidden layers.")
    layer_norm: bool = Field(False, description="Layer normalisation in the critics.")
    critics: int = Field(2, ge=1, description="How many; the least of their values counts, so more are more cautious.")
    learning_rate: float = Field(3e-4, gt=0, description="Adam's step size for actor, critics and temperature.")
    batch_size: int = Field(256, ge=1, description="Transitions per update.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per step.")
    n_step: int = Field(1, ge=1, description="Rewards summed before the bootstrap; only approximately soft above 1.")
    tau: float = Field(0.005, gt=0, le=1, description="Polyak step of the target critics per update.")
    alpha_init: float = Field(1.0, gt=0, description="Initial temperature.")
    target_entropy_scale: float = Field(1.0, ge=0, description="Target entropy is minus this per live action.")
    update_ratio: float = Field(1.0, gt=0, description="Updates per transition, fractions included.")
    learning_starts: int = Field(1_000, ge=1, description="Transitions with random actions before the first update.")
    noise_persistence: float = Field(
        0.0, ge=0, lt=1, description="Correlation of exploration noise with the last step."
    )
    buffer_size: int = Field(300_000, ge=1, description="Transitions kept for replay.")
    storage: Storage = Field("auto", description="Type of stored numbers; auto is uint8 for sites, else float16.")
    placement: Placement | Literal["auto"] = Field("auto", description="Where the replay buffer lies.")
    log_every: int = Field(1_000, ge=1, description="Transitions between two progress reports.")
    micro_batch: int | None = Field(None, ge=1, description="Most transitions per backward pass; null for the batch.")
    amp: Amp = Field("off", description="bf16: the networks' products in bfloat16, the rest in float32.")
    compile: Compile = Field(
        "auto", description="graphs: CUDA graphs, as auto on a GPU; default: torch.compile; or off."
    )


def td_target(
    actor: MLP,
    target_critic: Critics,
    batch: Mapping[str, Tensor],
    alpha: Tensor,
    noise: Tensor,
    columns: Tensor | None,
) -> Tensor:
    """y (B,) = reward + discount * (min_i Q'_i(s', a') - alpha log pi(a'|s')), a' drawn with the noise (B, A).

    The discount is 0 where the episode terminated and gamma^k elsewhere, truncation included. With n-step returns the
    entropy of the steps between is left out, so the value is only approximately soft.
    """
    next_obs = batch["next_observation"]
    action, log_prob = squashed_gaussian.sample(actor(next_obs), noise, action_mask(next_obs, columns))
    value = target_critic(next_obs, action).amin(0) - alpha * log_prob
    target: Tensor = batch["reward"] + batch["discount"] * value
    return target


def critic_gradient(
    critic: Critics, batch: Mapping[str, Tensor], target: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Half the squared error to the target (B,), batch mean, summed over the critics; the mean of Q; and the loss's
    gradient by the critics' parameters."""
    q, tape = critic.record(batch["observation"], batch["action"])
    error = q - target
    loss = 0.5 / len(target) * error.square().sum()
    return loss, q.mean(), backward(tape, (error / len(target)).unsqueeze(-1))


def actor_gradient(
    actor: MLP, critic: Critics, batch: Mapping[str, Tensor], alpha: Tensor, noise: Tensor, columns: Tensor | None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Mean of alpha log pi(a|s) - min_i Q_i(s, a), a drawn with the noise (B, A); log pi(a|s) (B,); and the loss's
    gradient by the actor's parameters."""
    obs, rows = batch["observation"], len(noise)
    mask = action_mask(obs, columns)
    output, actor_tape = actor.record(obs)
    action, log_prob = squashed_gaussian.sample(output, noise, mask)
    q, critic_tape = critic.record(obs, action)
    loss = (alpha * log_prob - q.amin(0)).mean()
    by_q = torch.zeros_like(q).scatter_(0, q.argmin(0, keepdim=True), -1 / rows)
    (by_action,) = backward(critic_tape, by_q.unsqueeze(-1), columns=action.shape[-1])
    by_output = squashed_gaussian.backward(output, noise, action, by_action, alpha / rows, mask)
    return loss, log_prob, backward(actor_tape, by_output)


def alpha_gradient(log_alpha: Tensor, log_prob: Tensor, target_entropy: Tensor | float) -> tuple[Tensor, Tensor]:
    """A loss that raises log alpha while the entropy -log pi is below its target and lowers it while above; and its
    gradient."""
    gradient = -(log_prob + target_entropy).mean()
    return log_alpha * gradient, gradient


def to_device(step: StepResult, device: torch.device) -> StepResult:
    """The same step with every tensor on the device."""
    info = {name: figures.to(device) for name, figures in step.info.items()}
    moved = {name: field.to(device) for name, field in step._asdict().items() if name != "info"}
    return StepResult(**moved, info=info)


class SAC:
    """A soft actor-critic agent.

    The least of twin critics or more (An et al. 2021, arXiv 2110.01548), learned temperature, squashed Gaussian policy
    with log std in [-5, 2] by a smooth map. All randomness comes from generators that the agent owns: the same seed
    gives the same weights, whatever else the process draws.

    Args:
        env: a gymnasium environment, a list of functions that each make one, or a `VectorEnv`. None only together with
            `spec`, for an agent that predicts but does not learn.
        spec: what to know of the environment, taken from `env` where there is one.

    Raises:
        UserError: the environment's spaces cannot be handled.
    """

    def __init__(
        self,
        env: TrainingEnv | None,
        config: SACConfig | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        *,
        spec: PolicySpec | None = None,
    ) -> None:
        self.config = c = config or SACConfig()
        self.device, self.seed = torch.device(device), seed
        self.env = None if env is None else as_vector(env, self.device)
        if self.env is not None:
            spec = PolicySpec.of(self.env)
        if spec is None:
            raise UserError("an agent needs an environment, or the description of one")
        self.spec = spec
        columns = spec.action_mask_columns
        self.mask_columns = None if columns is None else torch.tensor(columns, device=self.device)

        # Weights are drawn on the CPU, so a seed means the same network on every device.
        init = Generator().manual_seed(seed)
        obs_dim, action_dim = spec.obs_dim, spec.action_dim
        self.actor = MLP([obs_dim, *c.hidden, 2 * action_dim], generator=init, amp=c.amp).to(self.device)
        self.critic = Critics(obs_dim, action_dim, c.hidden, c.layer_norm, init, c.amp, c.critics).to(self.device)
        self.target_critic = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.full((), c.alpha_init, device=self.device).log().requires_grad_()
        self._target_parameters: list[Tensor] = list(self.target_critic.parameters())
        self._parameters: dict[str, list[Tensor]] = {
            "critic": list(self.critic.parameters()),
            "policy": [*self.actor.parameters(), self.log_alpha],
        }
        self.optimizers = {name: Adam(parameters, lr=c.learning_rate) for name, parameters in self._parameters.items()}
        gradients = {"critic": self._critic_gradient, "policy": self._policy_gradient}
        self.gradients = {
            name: Gradient(traced(gradients[name], c.compile), parameters, c.compile, self.device)
            for name, parameters in self._parameters.items()
        }
        seeds = torch.randint(2**62, (3,), generator=init).tolist()
        self._noise, self._predict_noise = (Generator(self.device).manual_seed(seed) for seed in seeds[:2])

        self.steps = self.updates = 0
        self.micro_batch = Parts("gradient", self.device, c.micro_batch, lambda: ADVICE)
        self.acting = Parts("policy", self.device, advice=lambda: ADVICE)
        names = [*METRICS["critic"], *METRICS["policy"]]
        self.figures = Figures(names, self.optimizers.values(), self.device)
        self._obs: Tensor | None = None
        if self.env is not None:
            join_graphs(self.env, c.compile, self.device)
            # Drawn, not zero: a first action is as wide as any other.
            self._exploration = torch.randn(self.env.num_envs, action_dim, generator=init).to(self.device)
            self.tracker = EpisodeTracker(self.env.num_envs, self.device)
            sizes = c.buffer_size, self.env.num_envs, obs_dim, action_dim
            kind: dict[str, Any] = {
                "gamma": c.gamma,
                "n_step": c.n_step,
                "storage": c.storage,
                "placement": c.placement,
                "exogenous": self._exogenous(),
                "episode_steps": self.env.episode_steps,
            }
            self.buffer = ReplayBuffer(*sizes, **kind, device=self.device, seed=seeds[2])

    def learn(
        self,
        total_steps: int,
        on_log: Callable[[Progress], None] | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> SAC:
        """Train until `steps` reaches `total_steps`; report every `log_every` transitions and at the end.

        A second call goes on where the first one stopped.

        Args:
            on_log: called with every report.
            on_step: called with the transitions so far after every step of the environments. The state is complete
                then, so what it raises ends training at a point from which it can go on.

        Raises:
            UserError: there is no environment, it yields numbers that are not finite, or training diverges.
        """
        if self._obs is None:
            self.reset()
        if self.updates == 0:
            self.rehearse()
        every = self.config.log_every
        while self.steps < total_steps:
            before = self.steps
            self.collect()
            self.figures.at_step(self.steps)
            self.train(self.updates_due())
            if self.steps // every > before // every or self.steps >= total_steps:
                progress = self._progress()
                if on_log is not None:
                    on_log(progress)
            if on_step is not None:
                on_step(self.steps)
        return self

    def reset(self) -> None:
        """Start new episodes; those still open count as truncated where they are."""
        if self.env is None:
            raise UserError("this agent was made without an environment: it can predict but not learn")
        self._obs = self.env.reset(self.seed + self.steps).to(self.device)
        self.buffer.start(self._obs, self._exogenous())
        self.tracker.abandon_episodes()

    def collect(self) -> None:
        """One step of every environment into the buffer."""
        assert self.env is not None
        assert self._obs is not None
        action = self.explore(self._obs)
        with explained("the environments' step", "lower num_envs", self.device):
            step = to_device(self.env.step(action.to(self.env.device)), self.device)
        self.buffer.add(action, step, self._exogenous())
        self.tracker.update(step)
        self._obs = step.obs
        self.steps += self.env.num_envs

    def _exogenous(self) -> Exogenous | None:
        return None if self.env is None else self.env.exogenous

    def explore(self, obs: Tensor) -> Tensor:
        """Actions (E, A) for observations (E, D): uniform at first, then drawn from the policy.

        The noise is an autoregressive process of unit variance: with `noise_persistence` rho its correlation over k
        steps is rho^k. Each action alone is distributed as without it, but together they lead further: what must be
        kept up for many steps (filling a battery, gaining momentum) independent noise hardly ever does. See Eberhard
        et al. 2023, "Pink Noise Is All You Need", for what correlation does.
        """
        mask, rho = action_mask(obs, self.mask_columns), self.config.noise_persistence
        noise = torch.randn(self._exploration.shape, device=self.device, generator=self._noise)
        self._exploration = noise = rho * self._exploration + sqrt(1 - rho**2) * noise
        if self.steps < self.config.learning_starts:
            action = torch.erf(noise / sqrt(2))
            return action if mask is None else action * mask
        with torch.no_grad():
            return squashed_gaussian.sample(self.acting.map(self.actor, obs), noise, mask)[0]

    def updates_due(self) -> int:
        """What is yet to do of `update_ratio` times the transitions since `learning_starts`; no fraction is lost."""
        transitions = max(0, self.steps - self.config.learning_starts)
        return int(Fraction(str(self.config.update_ratio)) * transitions) - self.updates

    def train(self, updates: int) -> None:
        """Make the given number of updates on freshly sampled batches."""
        size = self.config.batch_size
        while updates > 0:
            count = min(updates, BATCHES_PER_GATHER)
            noise = torch.randn(count, 2, size, self.spec.action_dim, device=self.device, generator=self._noise)
            for i, batch in enumerate(self.buffer.batches(size, count)):
                self.update(batch, noise[i])
            updates -= count

    def update(self, batch: TensorDict, noise: Tensor) -> None:
        """A gradient step of the critics, then one of actor and temperature; noise (2, B, A): next and own actions."""
        self.figures.add(self.gradient("critic", batch, noise[0]))
        self.optimizers["critic"].step()
        self.figures.add(self.gradient("policy", batch, noise[1]), first=len(METRICS["critic"]))
        self.optimizers["policy"].step()
        with torch.no_grad():
            torch._foreach_lerp_(self._target_parameters, self._parameters["critic"], self.config.tau)
        self.updates += 1

    def target_entropy(self, obs: Tensor) -> Tensor | float:
        """Minus `target_entropy_scale` per live action: (B,) where actions can be dead, else one number."""
        mask = action_mask(obs, self.mask_columns)
        live = self.spec.action_dim if mask is None else mask.sum(-1)
        return -self.config.target_entropy_scale * live

    @torch.no_grad()
    def gradient(self, name: str, batch: TensorDict, noise: Tensor) -> Tensor:
        """Set the gradient of the loss of "critic" or "policy", as many transitions at a time as memory allows; returns
        its `METRICS`. The parts are weighted by their share, so their size does not matter for the result."""
        fields = [*(batch[field] for field in FIELDS), noise]

        def attempt(size: int) -> Tensor:
            parts = [tuple(fields)] if size >= len(noise) else zip(*(field.split(size) for field in fields))
            return self.gradients[name].set(parts, len(noise))

        figures = self.micro_batch.run(len(noise), attempt)
        norm = nn.utils.get_total_norm([x.grad for x in self._parameters[name]])  # type: ignore[misc]
        return torch.cat([figures, norm[None]])

    def _critic_gradient(self, *fields: Tensor) -> tuple[Tensor, list[Tensor]]:
        *columns, noise = fields
        batch = dict(zip(FIELDS, columns))
        target = td_target(self.actor, self.target_critic, batch, self.log_alpha.exp(), noise, self.mask_columns)
        loss, q, gradient = critic_gradient(self.critic, batch, target)
        return torch.stack([loss, q]), gradient

    def _policy_gradient(self, *fields: Tensor) -> tuple[Tensor, list[Tensor]]:
        *columns, noise = fields
        batch, alpha = dict(zip(FIELDS, columns)), self.log_alpha.exp()
        pi_loss, log_prob, gradient = actor_gradient(self.actor, self.critic, batch, alpha, noise, self.mask_columns)
        temperature_loss, by_log_alpha = alpha_gradient(
            self.log_alpha, log_prob, self.target_entropy(batch["observation"])
        )
        figures = torch.stack([alpha, -log_prob.mean(), temperature_loss, pi_loss])
        return figures, [*gradient, by_log_alpha]

    def rehearse(self) -> None:
        """Take all memory that an update needs: where it does not fit, that shows now and not after hours."""
        b, spec = self.config.batch_size, self.spec
        shapes = {"observation": (b, spec.obs_dim), "action": (b, spec.action_dim), "reward": (b,), "discount": (b,)}
        shapes["next_observation"] = shapes["observation"]
        zeros = {name: torch.zeros(shape, device=self.device) for name, shape in shapes.items()}
        for name in self._parameters:
            self.gradient(name, TensorDict(zeros, batch_size=(b,)), torch.zeros(shapes["action"], device=self.device))
            self.optimizers[name].zero_grad()

    def _progress(self) -> Progress:
        """Read the figures since the last report and begin anew."""
        metrics = self.figures.means() | self.tracker.collect()
        return Progress(self.steps, self.updates, self.tracker.episodes, metrics)

    def predict(self, obs: ArrayOrTensor, deterministic: bool = True) -> ArrayOrTensor:
        """Actions in the environment's own range for observations (D,) or (B, D); an array for an array.

        Raises:
            UserError: the observation has another width or is not finite.
        """
        return apply_policy(lambda rows: self._act(rows, deterministic), obs, self.spec, self.device)

    def _act(self, obs: Tensor, deterministic: bool) -> Tensor:
        mask = action_mask(obs, self.mask_columns)
        output = self.acting.map(self.actor, obs)
        if deterministic:
            return squashed_gaussian.mode(output, mask)
        noise = torch.randn(len(obs), self.spec.action_dim, device=self.device, generator=self._predict_noise)
        return squashed_gaussian.sample(output, noise, mask)[0]

    def save(self, directory: str | Path) -> None:
        """Write networks and temperature with the settings, for `load`. Neither the buffer nor the optimisers."""
        tensors = {f"{part}.{name}": x for part in MODULES for name, x in getattr(self, part).state_dict().items()}
        tensors["log_alpha"] = self.log_alpha
        # Where the buffer lay and how gradients were run say nothing about the policy, and may not exist elsewhere.
        config = self.config.model_copy(update={"placement": "auto", "compile": elsewhere(self.config.compile)})
        save_policy(directory, algorithm="sac", config=config, spec=self.spec.model_dump(), tensors=tensors)

    @classmethod
    def load(
        cls, directory: str | Path, env: TrainingEnv | None = None, device: torch.device | str = "cpu", seed: int = 0
    ) -> SAC:
        """The agent that `save` wrote; without an environment it predicts only, with one it can go on learning.

        Raises:
            UserError: the files are not a SAC policy, or not one for this environment.
        """
        meta, tensors = load_policy(directory)
        if meta["algorithm"] != "sac":
            raise UserError(f"{directory}: the policy was trained by {meta['algorithm']!r}, not by 'sac'")
        try:
            config, spec = SACConfig(**meta["config"]), PolicySpec(**meta["spec"])
        except ValidationError as error:
            raise UserError(f"{directory}: policy.json does not describe a SAC policy ({error})") from error
        agent = cls(env, config, device, seed, spec=spec)
        agent.spec.must_match(spec)
        parts = nn.ModuleDict({name: getattr(agent, name) for name in MODULES})
        parts.log_alpha = nn.Parameter(agent.log_alpha)  # shares its storage, so loading fills both
        try:
            parts.load_state_dict(tensors)
        except RuntimeError as error:
            raise UserError(f"{directory}: the weights do not fit the settings in policy.json") from error
        return agent

    def state_dict(self) -> dict[str, Any]:
        """Everything but the environment's own state, to continue exactly. Tensors are the agent's, not copies."""
        return {
            **{name: getattr(self, name).state_dict() for name in MODULES},
            "log_alpha": self.log_alpha.detach(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "generators": {"noise": self._noise.get_state(), "predict": self._predict_noise.get_state()},
            "steps": self.steps,
            "updates": self.updates,
            "figures": self.figures.state_dict(),
            "micro_batch": self.micro_batch.state_dict(),
            "tracker": self.tracker.state_dict(),
            "obs": self._obs,
            "exploration": self._exploration,
            "buffer": self.buffer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of an agent with the same settings; bring the environment to the same point too."""
        for name in MODULES:
            getattr(self, name).load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.log_alpha.data.copy_(state["log_alpha"])
        self._noise.set_state(state["generators"]["noise"].cpu())
        self._predict_noise.set_state(state["generators"]["predict"].cpu())
        self.steps, self.updates = int(state["steps"]), int(state["updates"])
        self.figures.load_state_dict(state["figures"])
        self.micro_batch.load_state_dict(state["micro_batch"])
        self.tracker.load_state_dict(state["tracker"])
        self._obs = None if state["obs"] is None else state["obs"].to(self.device, copy=True)
        self._exploration = state["exploration"].to(self.device, copy=True)
        self.buffer.load_state_dict(state["buffer"])


ENTRY = AgentEntry(SAC, SACConfig, "SAC", "#0072B2")
