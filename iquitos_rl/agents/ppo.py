"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) for continuous actions.

Details after "The 37 Implementation Details of PPO" (Huang et al. 2022) and "What Matters in On-Policy Reinforcement
Learning" (Andrychowicz et al. 2020, arXiv 2006.05990). The action distribution is an unsquashed Gaussian: why, see
`actor_critic.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor, nn

from iquitos_rl.agents import actor_critic
from iquitos_rl.agents.actor_critic import ActorCritic, read_actor_critic, spawn, spec_of
from iquitos_rl.agents.adam import Adam
from iquitos_rl.agents.collector import NO_ENVIRONMENT, Batch, Collector, report
from iquitos_rl.agents.compiled import Compile, Gradient, differentiated, elsewhere, join_graphs, traced
from iquitos_rl.agents.figures import Figures
from iquitos_rl.agents.layers import Activation, Amp
from iquitos_rl.agents.policy_file import ArrayOrTensor, PolicySpec, apply_policy, save_policy
from iquitos_rl.agents.progress import Progress
from iquitos_rl.agents.registry import AgentEntry
from iquitos_rl.buffers.rollout import RolloutStorage, storage_type
from iquitos_rl.envs.gym.adapter import TrainingEnv, as_vector
from iquitos_rl.errors import UserError
from iquitos_rl.memory.recovery import Parts

ADVICE = "python -m iquitos_rl.plan ppo shows what each setting needs; lower agent.hidden or agent.horizon"
METRICS = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "grad_norm")
KL, GRAD_NORM = METRICS.index("kl"), METRICS.index("grad_norm")


class PPOConfig(BaseModel):
    """Settings of PPO. Steps are transitions of one environment: a step of E environments counts E."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hidden: tuple[int, ...] = Field(
        (64, 64), min_length=1, description="Widths of the hidden layers, actor and critic."
    )
    activation: Activation = Field("tanh", description="Activation between the layers.")
    horizon: int = Field(1_024, ge=1, description="Steps of every environment between updates.")
    epochs: int = Field(10, ge=1, description="Passes over a rollout's transitions per update.")
    batch_size: int = Field(64, ge=2, description="Transitions per optimiser step.")
    learning_rate: float = Field(3e-4, gt=0, description="Adam's step size at the start.")
    anneal: bool = Field(True, description="Lower the step size linearly, to zero at the last step.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per step.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Weight of the longer estimates in the advantage.")
    clip_range: float = Field(0.2, gt=0, lt=1, description="How far the probability ratio profits from moving off 1.")
    clip_value: float | None = Field(None, gt=0, description="How far a value moves in one update; null for freely.")
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the policy's entropy in the loss.")
    value_coef: float = Field(0.5, gt=0, description="Weight of the value loss.")
    max_grad_norm: float = Field(0.5, gt=0, description="Longer gradients are shortened to this.")
    target_kl: float | None = Field(None, gt=0, description="An update ends at 1.5 times this; null for never.")
    normalise_advantage: bool = Field(True, description="Zero mean and unit deviation in every minibatch.")
    normalise_obs: bool = Field(True, description="Running normalisation of each observation column.")
    scale_rewards: bool = Field(True, description="Divide rewards by the deviation of the discounted return.")
    log_std_init: float = Field(0.0, ge=-5, le=2, description="Log deviation of the actions at the start.")
    storage: RolloutStorage = Field("float32", description="Type of stored observations.")
    micro_batch: int | None = Field(None, ge=1, description="Most transitions per backward pass; null for the batch.")
    amp: Amp = Field("off", description="bf16: the networks' products in bfloat16, the rest in float32.")
    compile: Compile = Field(
        "auto", description="graphs: CUDA graphs, as auto on a GPU; default: torch.compile; or off."
    )


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


def value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip_value: float | None) -> Tensor:
    """Half the mean squared error of (n,) values; with `clip_value`, the worse of moving freely and moving at most so
    far from the old value. Paper and peers find no gain in clipping, hence the default."""
    error = (value - returns).square()
    if clip_value is not None:
        clipped = old_value + (value - old_value).clamp(-clip_value, clip_value)
        error = torch.maximum(error, (clipped - returns).square())
    return 0.5 * error.mean()


def normalised(advantage: Tensor) -> Tensor:
    """Advantages (n,) less their mean, over their deviation; a single one is returned as it is, for it has none."""
    if advantage.shape[0] == 1:
        return advantage
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)


def minibatches(size: int, batch_size: int, epochs: int, generator: Generator) -> Iterator[Tensor]:
    """Indices of all minibatches of all epochs, each epoch in a fresh order. One iterator, so that one `break` ends the
    update, and not merely the epoch."""
    for _ in range(epochs):
        order = torch.randperm(size, generator=generator, device=generator.device)
        yield from order.split(batch_size)


class PPO:
    """A PPO agent on the transitions of one gymnasium environment, of several, or of a `VectorEnv`.

    All randomness comes from generators that the agent owns: the same seed gives the same weights, whatever else the
    process draws.

    Args:
        env: an environment, a list of functions that each make one, or None together with `spec`, for an agent that
            predicts but does not learn.
        spec: what to know of the environment, taken from `env` where there is one.

    Raises:
        UserError: the environment's spaces cannot be handled.
    """

    def __init__(
        self,
        env: TrainingEnv | None,
        config: PPOConfig = PPOConfig(),
        device: torch.device | str = "cpu",
        seed: int = 0,
        *,
        spec: PolicySpec | None = None,
    ) -> None:
        self.config = c = config
        self.device, self.seed = torch.device(device), seed
        self.env = None if env is None else as_vector(env, self.device)
        self.spec = spec_of(self.env, spec)
        init = Generator().manual_seed(seed)
        self.policy = ActorCritic(
            self.spec,
            c.hidden,
            c.activation,
            log_std=c.log_std_init,
            normalise_obs=c.normalise_obs,
            generator=init,
            amp=c.amp,
        ).to(self.device)
        parameters = list(self.policy.parameters())
        evaluate = differentiated(traced(self._loss, c.compile), parameters)
        self._gradient = Gradient(evaluate, parameters, c.compile, self.device)
        self.optimizer = Adam(self.policy.parameters(), lr=c.learning_rate, eps=1e-5)
        self.generators = spawn(init, ("act", "shuffle", "predict"), self.device)
        self.figures = Figures(METRICS, [self.optimizer], self.device)
        self.steps = self.updates = 0
        self.micro_batch = Parts("gradient", self.device, c.micro_batch, lambda: ADVICE)
        self.acting = Parts("policy", self.device, advice=lambda: ADVICE)
        if self.env is not None:
            join_graphs(self.env, c.compile, self.device)
            self.collector = Collector(
                self.env,
                self.policy,
                horizon=c.horizon,
                gamma=c.gamma,
                gae_lambda=c.gae_lambda,
                scale_rewards=c.scale_rewards,
                storage=storage_type(c.storage),
                seed=seed,
                generator=self.generators["act"],
            )

    # --- learning

    def learn(
        self,
        total_steps: int,
        on_log: Callable[[Progress], None] | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> PPO:
        """Train until `steps` reaches `total_steps`, in whole rollouts; report after each.

        A second call goes on where the first one stopped, the step size annealed over the new total.

        Args:
            on_log: called with every report.
            on_step: called with the transitions so far after every step of the environments. The state is complete
                then, so what it raises ends training at a point from which it can go on.

        Raises:
            UserError: there is no environment, it yields numbers that are not finite, or training diverged.
        """
        if self.env is None:
            raise UserError(NO_ENVIRONMENT)
        while self.steps < total_steps:
            if self.config.anneal:
                self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * (1 - self.steps / total_steps)
            batch = self.collector.collect(on_step, self.steps)
            self.steps += batch.size
            self.figures.at_step(self.steps)
            metrics = self.update(batch) | self.collector.tracker.collect()
            if on_log is not None:
                on_log(Progress(self.steps, self.updates, self.collector.tracker.episodes, metrics))
        return self

    def reset(self) -> None:
        """Start new episodes; the unfinished ones are forgotten."""
        if self.env is None:
            raise UserError(NO_ENVIRONMENT)
        self.collector.reset()

    def update(self, batch: Batch) -> dict[str, float]:
        """All epochs over a rollout's transitions; returns the figures' means over the minibatches.

        Raises:
            UserError: the loss or the gradient is not finite.
        """
        for index in minibatches(batch.size, self.config.batch_size, self.config.epochs, self.generators["shuffle"]):
            part = batch.take(index)
            if self.config.normalise_advantage:
                part = part._replace(advantage=normalised(part.advantage))
            figures = self.gradient(part)
            figures[GRAD_NORM] = nn.utils.clip_grad_norm_(self.policy.parameters(), self.config.max_grad_norm)
            self.figures.add(figures)
            # The one place where an update waits for the device, and only where asked to: whether to go on is the
            # host's decision, and asking once per epoch would let through the very steps that this is to prevent.
            if self.config.target_kl is not None and float(figures[KL]) > 1.5 * self.config.target_kl:
                break
            self.optimizer.step()
            self.updates += 1
        return self.figures.means() | report(batch.value, batch.returns, self.policy, self.optimizer)

    def gradient(self, batch: Batch) -> Tensor:
        """Set the gradient of a minibatch's loss, as many transitions at a time as memory allows.

        The parts are weighted by their share, and nothing in the loss depends on the rest of the batch, so their size
        changes memory and nothing else. Returns the figures in the order of `METRICS`.
        """
        return self.micro_batch.run(
            batch.size, lambda size: self._gradient.set(map(tuple, batch.split(size)), batch.size)
        )

    def _loss(self, *fields: Tensor | None) -> tuple[Tensor, Tensor]:
        c, net, part = self.config, self.policy, Batch(*fields)  # type: ignore[arg-type]
        log_prob = actor_critic.log_prob(part.action, net.mean(part.obs), net.log_std, part.live)
        old, advantage = part.log_prob, part.advantage
        policy_part, kl, clip_fraction = clipped_policy_loss(log_prob, old, advantage, c.clip_range)
        value_part = value_loss(net.value(part.obs), part.value, part.returns, c.clip_value)
        entropy = actor_critic.entropy(net.log_std, part.live)
        loss = policy_part + c.value_coef * value_part - c.entropy_coef * entropy
        zero = torch.zeros_like(kl)
        return loss, torch.stack([policy_part, value_part, entropy, kl, clip_fraction, zero]).detach()

    # --- acting and keeping

    def predict(self, obs: ArrayOrTensor, deterministic: bool = True) -> ArrayOrTensor:
        """Actions in the environment's own range for observations (D,) or (B, D); an array gives an array, a tensor a
        tensor. The statistics of the observations stay as training left them.

        Raises:
            UserError: the observation has another width or is not finite.
        """
        generator = None if deterministic else self.generators["predict"]
        return apply_policy(lambda rows: self.policy.act(rows, generator, self.acting), obs, self.spec, self.device)

    def save(self, directory: str | Path) -> None:
        """Write networks and observation statistics with the settings, for `load`. Not the optimiser."""
        tensors = self.policy.state_dict()
        config = self.config.model_copy(update={"compile": elsewhere(self.config.compile)})
        save_policy(directory, algorithm="ppo", config=config, spec=self.spec.model_dump(), tensors=tensors)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        env: TrainingEnv | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> PPO:
        """The agent that `save` wrote; without an environment it predicts only, with one it can go on learning.

        Raises:
            UserError: the files are not a PPO policy, or not one for this environment.
        """
        config, spec, tensors = read_actor_critic(directory, "ppo", PPOConfig)
        agent = cls(env, config, device, seed, spec=spec)
        agent.spec.must_match(spec)
        agent.policy.adopt(tensors, directory)
        return agent

    def state_dict(self) -> dict[str, Any]:
        """Everything but the environment's own state, for an exact continuation. Tensors are the agent's own, not
        copies; the rollout in flight is among it."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
            "counters": {"steps": self.steps, "updates": self.updates},
            "micro_batch": self.micro_batch.state_dict(),
            "figures": self.figures.state_dict(),
            "collector": None if self.env is None else self.collector.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of an agent with the same settings; the caller brings the environment to the same
        point, or calls `reset`."""
        self.policy.load_state_dict(state["policy"])
        self.optimizer.load_state_dict(deepcopy(state["optimizer"]))  # which otherwise shares its tensors
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name].cpu())
        counters = state["counters"]
        self.steps, self.updates = counters["steps"], counters["updates"]
        self.micro_batch.load_state_dict(state["micro_batch"])
        self.figures.load_state_dict(state["figures"])
        if self.env is not None:
            self.collector.load_state_dict(state["collector"])


ENTRY = AgentEntry(PPO, PPOConfig, "PPO", "#D55E00")
