"""Settings of the agents, and their entries in the registry. Needs no torch: who mistypes one is told at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from iquitos_rl.agents.registry import AgentEntry
from iquitos_rl.agents.schedules import Schedule
from iquitos_rl.agents.search import GUIDED, WIDTHS, Between, OneOf, Search
from iquitos_rl.assignments import MANY
from iquitos_rl.buffers.registry import Placement, RolloutStorage, Storage

Activation = Literal["relu", "tanh"]
Amp = Annotated[Literal["off", "bf16"], BeforeValidator(lambda value: "off" if value is False else value)]
"""YAML reads a bare `off` as false."""
Compile = Annotated[
    Literal["auto", "off", "default", "graphs"], BeforeValidator(lambda value: "off" if value is False else value)
]
"""`auto`: the fastest that needs no compiler. YAML reads a bare `off` as false."""
Hidden = Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(min_length=1, max_length=64)]
"""Widths of hidden layers."""


class AgentConfig(BaseModel):
    """Settings that all agents have."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    micro_batch: int | None = Field(
        None, ge=1, le=MANY, description="Most transitions per backward pass; null for the batch."
    )
    amp: Amp = Field("off", description="bf16: the networks' products in bfloat16, the rest in float32.")
    compile: Compile = Field(
        "auto", description="graphs: CUDA graphs, as auto on a GPU; default: torch.compile; or off."
    )
    shared: bool = Field(True, description="One network for every building, where a site has several.")


class SACConfig(AgentConfig):
    """Settings of SAC. Steps are transitions of one environment: a step of E environments counts E."""

    hidden: Hidden = Field((256, 256), description="Widths of every network's hidden layers.")
    layer_norm: bool = Field(False, description="Layer normalisation in the critics.")
    critics: int = Field(
        2, ge=1, le=100, description="How many; the least of their values counts, so more are more cautious."
    )
    learning_rate: float = Field(3e-4, gt=0, le=100, description="Adam's step size for actor, critics and temperature.")
    schedule: Schedule = Field("constant", description="How the step size falls to zero at the last step, if it does.")
    normalise_obs: bool = Field(False, description="Running normalisation of each observation column.")
    batch_size: int = Field(256, ge=1, le=MANY, description="Transitions per update.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per step.")
    n_step: int = Field(
        1, ge=1, le=100_000, description="Rewards summed before the bootstrap; only approximately soft above 1."
    )
    tau: float = Field(0.005, gt=0, le=1, description="Polyak step of the target critics per update.")
    alpha_init: float = Field(1.0, gt=0, le=1e6, description="Initial temperature.")
    target_entropy_scale: float = Field(1.0, ge=0, le=1e6, description="Target entropy is minus this per live action.")
    target_entropy_share: float = Field(
        0.89, ge=0, le=1, description="Discrete actions: target entropy, as a share of a uniform choice's."
    )
    update_ratio: float = Field(1.0, gt=0, le=10_000, description="Updates per transition, fractions included.")
    learning_starts: int = Field(
        1_000, ge=1, le=MANY, description="Transitions with random actions before the first update."
    )
    noise_persistence: float = Field(0.0, ge=0, lt=1, description="Correlation of exploration noise, step to step.")
    buffer_size: int = Field(300_000, ge=1, le=1000 * MANY, description="Transitions kept for replay.")
    storage: Storage = Field("auto", description="Type of stored numbers; auto is uint8 for sites, else float32.")
    placement: Placement | Literal["auto"] = Field("auto", description="Where the replay buffer lies.")
    log_every: int = Field(1_000, ge=1, le=MANY, description="Transitions between two progress reports.")
    shared: bool = Field(
        False, description="One network for every building, where a site has several: an update takes longer."
    )


class OnPolicyConfig(AgentConfig):
    """Settings of PPO and A2C. Steps are transitions of one environment: a step of E environments counts E."""

    hidden: Hidden = Field((64, 64), description="Widths of the hidden layers, actor and critic.")
    activation: Activation = Field("tanh", description="Activation between the layers.")
    horizon: int = Field(ge=1, le=MANY, description="Steps of every environment between updates.")
    learning_rate: float = Field(gt=0, le=100, description="The optimiser's step size at the start.")
    schedule: Schedule = Field("linear", description="How the step size falls to zero at the last step, if it does.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per step.")
    gae_lambda: float = Field(ge=0, le=1, description="Weight of the longer estimates in the advantage.")
    entropy_coef: float = Field(0.0, ge=0, le=1e6, description="Weight of the policy's entropy in the loss.")
    value_coef: float = Field(0.5, gt=0, le=1e6, description="Weight of the value loss.")
    max_grad_norm: float = Field(0.5, gt=0, le=1e6, description="Longer gradients are shortened to this.")
    normalise_obs: bool = Field(True, description="Running normalisation of each observation column.")
    scale_rewards: bool = Field(True, description="Divide rewards by the deviation of the discounted return.")
    log_std_init: float = Field(0.0, ge=-5, le=2, description="Log deviation of the actions at the start.")
    storage: RolloutStorage = Field("float32", description="Type of stored observations.")

    @model_validator(mode="before")
    @classmethod
    def _of_older_files(cls, data: Any) -> Any:
        """`anneal`, the setting of before, was true for linear."""
        if isinstance(data, dict) and isinstance(data.get("anneal"), bool):
            data = {"schedule": "linear" if data["anneal"] else "constant", **data}
            del data["anneal"]
        return data


class PPOConfig(OnPolicyConfig):
    """Settings of PPO. Steps are transitions of one environment: a step of E environments counts E."""

    horizon: int = Field(1_024, ge=1, le=MANY, description="Steps of every environment between updates.")
    epochs: int = Field(10, ge=1, le=100_000, description="Passes over a rollout's transitions per update.")
    batch_size: int = Field(64, ge=2, le=MANY, description="Transitions per optimiser step.")
    learning_rate: float = Field(3e-4, gt=0, le=100, description="Adam's step size at the start.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Weight of the longer estimates in the advantage.")
    clip_range: float = Field(0.2, gt=0, lt=1, description="How far the probability ratio profits from moving off 1.")
    target_kl: float | None = Field(None, gt=0, le=1e6, description="An update ends at 1.5 times this; null for never.")
    normalise_advantage: bool = Field(True, description="Zero mean and unit deviation in every minibatch.")


class RecurrentPPOConfig(PPOConfig):
    """Settings of recurrent PPO. Steps are transitions of one environment: a step of E environments counts E."""

    memory: int = Field(64, ge=1, le=65_536, description="Units of the GRU, of actor and critic each.")
    hidden: Hidden = Field((64,), description="Widths of the layers behind the GRU.")
    horizon: int = Field(256, ge=1, le=MANY, description="Steps of every environment between updates.")
    sequence: int | None = Field(
        32, ge=1, le=MANY, description="Steps that gradients flow back through, a part of horizon; null for all of it."
    )
    batch_size: int = Field(128, ge=2, le=MANY, description="Transitions per optimiser step, in whole sequences.")
    micro_batch: int | None = Field(
        None, ge=1, le=MANY, description="Most sequences per backward pass; null for the batch."
    )
    shared: Literal[False] = Field(False, description="A site is taken as a whole, not building by building.")

    @property
    def length(self) -> int:
        """Steps of a sequence."""
        return self.sequence or self.horizon

    @model_validator(mode="after")
    def _whole_sequences(self) -> RecurrentPPOConfig:
        if self.horizon % self.length:
            raise ValueError(f"horizon {self.horizon} is not a multiple of sequence {self.length}")
        return self


class A2CConfig(OnPolicyConfig):
    """Settings of A2C. Steps are transitions of one environment: a step of E environments counts E."""

    horizon: int = Field(5, ge=1, le=MANY, description="Steps of every environment between updates.")
    learning_rate: float = Field(7e-4, gt=0, le=100, description="RMSprop's step size at the start.")
    gae_lambda: float = Field(1.0, ge=0, le=1, description="Weight of the longer estimates in the advantage.")
    log_every: int = Field(1_000, ge=1, le=MANY, description="Transitions between two progress reports.")


class SHACConfig(AgentConfig):
    """Settings of SHAC. Steps are transitions of one environment: a step of E environments counts E."""

    compile: Compile = Field("off", description="The critic's loss through torch.compile: default; or off.")
    hidden: Hidden = Field((64, 64), description="Widths of the hidden layers, actor and critic.")
    activation: Activation = Field("tanh", description="Activation between the layers.")
    horizon: int = Field(24, ge=1, le=MANY, description="Steps of a window, through which gradients flow.")
    learning_rate: float = Field(2e-3, gt=0, le=100, description="Adam's step size of the policy at the start.")
    critic_learning_rate: float = Field(1e-3, gt=0, le=100, description="Adam's step size of the critic at the start.")
    schedule: Schedule = Field("linear", description="How the step sizes fall to zero at the last step, if they do.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount per step.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Weight of the longer estimates in the critic's targets.")
    critic_epochs: int = Field(4, ge=1, le=1000, description="Passes of the critic over a window's transitions.")
    batch_size: int = Field(1_024, ge=1, le=MANY, description="Transitions per gradient step of the critic.")
    tau: float = Field(0.5, gt=0, le=1, description="Share of the critic in the target critic after each window.")
    noise: float = Field(0.1, ge=0, le=10, description="Deviation of the noise on actions before they are squashed.")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="Longer gradients of the policy are shortened to this.")
    normalise_obs: bool = Field(True, description="Running normalisation of each observation column.")
    scale_rewards: bool = Field(True, description="Divide rewards by the deviation of the discounted return.")


ON_POLICY_SEARCH: Search = {
    "agent.learning_rate": Between(1e-4, 3e-3, log=True),
    "agent.gamma": Between(0.9, 0.999),
    "agent.gae_lambda": Between(0.8, 1.0),
    "agent.horizon": Between(8, 64, log=True),
    "agent.entropy_coef": Between(0.0, 0.01),
    "agent.log_std_init": Between(-3.0, 0.0),
    "agent.hidden": WIDTHS,
    **GUIDED,
}
PPO_SEARCH: Search = {
    **ON_POLICY_SEARCH,
    "agent.clip_range": Between(0.1, 0.4),
    "agent.epochs": Between(1, 10),
    "agent.batch_size": OneOf((1024, 2048, 4096, 8192)),
}
RECURRENT_PPO_SEARCH: Search = {
    **PPO_SEARCH,
    "agent.memory": OneOf((32, 64, 128)),
    "agent.hidden": OneOf(((32,), (64,), (128,))),
}
SAC_SEARCH: Search = {
    "agent.learning_rate": Between(1e-4, 3e-3, log=True),
    "agent.gamma": Between(0.9, 0.999),
    "agent.tau": Between(0.001, 0.05, log=True),
    "agent.n_step": Between(1, 12),
    "agent.critics": Between(2, 5),
    "agent.batch_size": OneOf((256, 512, 1024, 2048)),
    "agent.update_ratio": Between(0.005, 0.1, log=True),
    "agent.alpha_init": Between(1e-4, 1.0, log=True),
    "agent.target_entropy_scale": Between(0.1, 2.0, log=True),
    "agent.hidden": WIDTHS,
    **GUIDED,
}
SHAC_SEARCH: Search = {
    "agent.learning_rate": Between(3e-4, 1e-2, log=True),
    "agent.critic_learning_rate": Between(1e-4, 1e-2, log=True),
    "agent.gamma": Between(0.9, 0.999),
    "agent.gae_lambda": Between(0.8, 1.0),
    "agent.horizon": Between(8, 64, log=True),
    "agent.tau": Between(0.05, 1.0, log=True),
    "agent.noise": Between(0.01, 0.5, log=True),
    "agent.hidden": WIDTHS,
    **GUIDED,
}
SAC = AgentEntry("iquitos_rl.agents.sac:SAC", SACConfig, "SAC", "#0072B2", search=SAC_SEARCH)
PPO = AgentEntry("iquitos_rl.agents.ppo:PPO", PPOConfig, "PPO", "#D55E00", search=PPO_SEARCH)
RECURRENT_PPO = AgentEntry(
    "iquitos_rl.agents.recurrent_ppo:RecurrentPPO",
    RecurrentPPOConfig,
    "recurrent PPO",
    "#E69F00",
    named_only=True,
    search=RECURRENT_PPO_SEARCH,
)
A2C = AgentEntry("iquitos_rl.agents.a2c:A2C", A2CConfig, "A2C", "#56B4E9", search=ON_POLICY_SEARCH)
SHAC = AgentEntry("iquitos_rl.agents.shac:SHAC", SHACConfig, "SHAC", "#882255", differentiates=True, search=SHAC_SEARCH)
