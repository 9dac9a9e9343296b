"""The networks and the action distributions that PPO and A2C share.

Discrete actions are drawn by the softmax of their logits (`categorical.py`). For numbers the distribution is an
independent Gaussian per action, unsquashed, with a deviation that does not depend on the state.
Its sample is stored as drawn; only the environment's copy is clipped to [-1, 1]. Two reasons against the squashed
Gaussian that SAC uses. A tanh cancels out of PPO's ratio, so it would buy nothing but an entropy without a closed form
and an inverse that saturates. And the best battery and charger schedules run at full power or not at all: a clipped
Gaussian reaches the bound with its mean just outside, a squashed one only with its mean at infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from iquitos_rl.agents import categorical, shared
from iquitos_rl.agents.configs import Activation, Amp
from iquitos_rl.agents.features import Extractors, Features
from iquitos_rl.agents.networks import MLP
from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.envs.vector import action_mask
from iquitos_rl.memory.recovery import Parts


class ActorCritic(nn.Module):
    """Separate networks for the mean action, or the logits of choices, and for the value; one log deviation per action
    that is a number."""

    log_std: nn.Parameter | None

    def __init__(
        self,
        spec: PolicySpec,
        hidden: Sequence[int],
        activation: Activation,
        *,
        log_std: float,
        normalise_obs: bool,
        generator: Generator,
        amp: Amp = "off",
        actor: nn.Module | None = None,
        critic: nn.Module | None = None,
        features: Features | None = None,
    ) -> None:
        """`log_std` is its first value; `generator`, on the CPU so that a seed means the same weights on every device,
        draws the weights. `actor` and `critic` take the place of the perceptrons, which read the `features`."""
        super().__init__()
        self.choices, buildings = spec.way_out.choices, spec.buildings
        extractors = Extractors(features, spec.way_in, generator)

        def perceptron(outputs: int, gain: float) -> nn.Module:
            def network(inputs: int) -> nn.Module:
                return orthogonal_(MLP([inputs, *hidden, outputs], activation, generator, amp), gain, generator)

            return extractors.around(network)

        # The small last layer makes the first policy do the same everywhere, whatever the observations' scale.
        outputs = spec.action_dim if self.choices is None else sum(self.choices)
        self.actor: nn.Module
        self.critic: nn.Module
        if buildings is not None:
            form = shared.Form(hidden, activation, generator, amp)
            self.actor = shared.SharedActor(buildings, form._replace(gain=0.01))
            self.critic = shared.SharedValue(buildings, form._replace(gain=1.0))
        else:
            self.actor = perceptron(outputs, 0.01) if actor is None else actor
            self.critic = perceptron(1, 1.0) if critic is None else critic
        devices = None if buildings is None else shared.devices_of(buildings)
        self.devices: Tensor | None
        """(A,) which deviation is each action's, where buildings share them."""
        self.register_buffer("devices", devices, persistent=False)
        deviations = spec.action_dim if buildings is None else len(buildings.devices)
        self.register_parameter("log_std", None if self.choices else nn.Parameter(torch.full((deviations,), log_std)))
        self.normaliser = shared.normaliser_of(spec) if normalise_obs else None
        columns = spec.action_mask_columns
        self.columns: Tensor | None
        self.register_buffer("columns", None if columns is None else torch.tensor(columns), persistent=False)

    def normalise(self, obs: Tensor) -> Tensor:
        """Raw observations (..., D) to what the networks read."""
        return obs if self.normaliser is None else self.normaliser(obs)

    def mean(self, obs: Tensor) -> Tensor:
        """Normalised observations (N, D) to mean actions (N, A), which may lie outside [-1, 1], or to logits (N, C)."""
        output: Tensor = self.actor(obs)
        return output

    def value(self, obs: Tensor) -> Tensor:
        """Normalised observations (N, D) to values (N,)."""
        output: Tensor = self.critic(obs)
        return output.squeeze(-1)

    def live(self, obs: Tensor) -> Tensor | None:
        """Which actions are live (N, A), from raw observations: normalising would move the sign that says so."""
        return action_mask(obs, self.columns)

    def act(self, obs: Tensor, generator: Generator | None, parts: Parts | None = None) -> Tensor:
        """Actions (N, A) for raw observations (N, D), the mean ones without a generator. Not clipped, dead ones 0."""
        normalised, live = self.normalise(obs), self.live(obs)
        output = self.mean(normalised) if parts is None else parts.map(self.mean, normalised)
        return self.chosen(output, live, generator)

    def chosen(self, output: Tensor, live: Tensor | None, generator: Generator | None) -> Tensor:
        """Actions (N, A) by what `mean` returns, the mean or likeliest ones without a generator."""
        if generator is not None:
            return self.sample(output, live, generator)
        return live_only(output, live) if self.choices is None else categorical.mode(output, self.choices)

    def sample(self, output: Tensor, live: Tensor | None, generator: Generator) -> Tensor:
        """Draw actions (N, A) by what `mean` returns."""
        if self.log_std is None:
            return categorical.sample(output, self.choices or (), generator)
        return sample(output, self.log_deviation(self.log_std), live, generator)

    def log_prob(self, action: Tensor, output: Tensor, live: Tensor | None) -> Tensor:
        """Log density or log-probability (N,) of actions (N, A) by what `mean` returns."""
        if self.log_std is None:
            return categorical.log_prob(action, output, self.choices or ())
        return log_prob(action, output, self.log_deviation(self.log_std), live)

    def entropy(self, output: Tensor, live: Tensor | None) -> Tensor:
        """Mean over the batch of an action's entropy by what `mean` returns, a scalar, in nats."""
        if self.log_std is None:
            return categorical.entropy(output, self.choices or ())
        return entropy(self.log_deviation(self.log_std), live)

    def log_deviation(self, log_std: Tensor) -> Tensor:
        """(A,) of the actions, from the parameter, which has one for each device where buildings share them."""
        return log_std if self.devices is None else log_std.index_select(0, self.devices)


def orthogonal_(net: MLP, last_gain: float, generator: Generator) -> MLP:
    """Give a perceptron orthogonal weights of gain sqrt(2), `last_gain` in the last layer, and zero biases."""
    for weight, bias in zip(net.weights, net.biases):
        nn.init.orthogonal_(weight, last_gain if weight is net.weights[-1] else math.sqrt(2.0), generator=generator)
        nn.init.zeros_(bias)
    return net


def sample(mean: Tensor, log_std: Tensor, live: Tensor | None, generator: Generator) -> Tensor:
    """Draw actions (N, A) around `mean` (N, A); dead ones are zero. Not clipped."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return live_only(mean + log_std.exp() * noise, live)


def log_prob(action: Tensor, mean: Tensor, log_std: Tensor, live: Tensor | None) -> Tensor:
    """Log density (N,) of unclipped actions (N, A), over the live ones."""
    z = (action - mean) * torch.exp(-log_std)
    return live_only(-0.5 * z.square() - log_std - 0.5 * math.log(2.0 * math.pi), live).sum(-1)


def entropy(log_std: Tensor, live: Tensor | None) -> Tensor:
    """Mean over the batch of the entropy of the live actions, a scalar, in nats."""
    each = log_std + 0.5 * math.log(2.0 * math.pi * math.e)
    return each.sum() if live is None else live_only(each.expand(live.shape), live).sum(-1).mean()


def live_only(values: Tensor, live: Tensor | None) -> Tensor:
    """Values (N, A) of the live actions, zero for the dead."""
    return values if live is None else torch.where(live, values, 0.0)
