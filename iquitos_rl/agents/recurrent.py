"""An actor and a critic that remember: a GRU each (Cho et al. 2014, arXiv 1406.1078), and layers behind it.

What is remembered of an episode is a state per environment, zero at the episode's start. Sequences are N x L
transitions, N after N, each from the state that its environment had before it; where an episode starts inside of a
sequence the state is set to zero there, so nothing is learned across the border. States of actor and critic lie side by
side: (N, 2 H).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from iquitos_rl.agents.actor_critic import ActorCritic, orthogonal_
from iquitos_rl.agents.configs import Activation, Amp
from iquitos_rl.agents.features import Extractors, Features
from iquitos_rl.agents.networks import MLP
from iquitos_rl.agents.policy_file import PolicySpec


class Recurrent(nn.Module):
    """A GRU of H units and the layers behind it."""

    def __init__(self, inputs: int, units: int, layers: MLP, generator: Generator) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # the cell's own initialisation, which is then replaced
            self.cell = nn.GRUCell(inputs, units)
        for weight in (self.cell.weight_ih, self.cell.weight_hh):
            for gate in weight.detach().chunk(3):
                nn.init.orthogonal_(gate, generator=generator)
        for bias in (self.cell.bias_ih, self.cell.bias_hh):
            nn.init.zeros_(bias)
        self.layers = layers

    def forward(self, rows: Tensor, state: Tensor, starts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Rows (N L, D) to outputs (N L, F), and the states (N, H) after them.

        Args:
            state: (N, H) before the sequences.
            starts: (N, L) whether an episode starts with the row; None for single rows, L = 1, that start none.
        """
        after, length = [], 1 if starts is None else starts.shape[1]
        for t, row in enumerate(rows.unflatten(0, (len(state), length)).unbind(1)):
            if starts is not None:
                state = torch.where(starts[:, t, None], 0.0, state)
            state = self.cell(row, state)
            after.append(state)
        return self.layers(torch.stack(after, 1).flatten(0, 1)), state


class RecurrentPolicy(ActorCritic):
    """An `ActorCritic` of two `Recurrent` networks, which have a feature extractor of their own each."""

    def __init__(
        self,
        spec: PolicySpec,
        units: int,
        hidden: Sequence[int],
        activation: Activation,
        *,
        log_std: float,
        normalise_obs: bool,
        generator: Generator,
        amp: Amp,
        features: Features | None,
    ) -> None:
        extractors = Extractors(features, spec.way_in, generator)

        def network(outputs: int, gain: float) -> nn.Module:
            def behind(inputs: int) -> nn.Module:
                layers = orthogonal_(MLP([units, *hidden, outputs], activation, generator, amp), gain, generator)
                return Recurrent(inputs, units, layers, generator)

            return extractors.around(behind)

        choices = spec.way_out.choices
        super().__init__(
            spec,
            hidden,
            activation,
            log_std=log_std,
            normalise_obs=normalise_obs,
            generator=generator,
            actor=network(spec.action_dim if choices is None else sum(choices), 0.01),
            critic=network(1, 1.0),
        )
        self.units = units

    def act_on(self, rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised observations (N, D) to what `mean` returns of others, and the actor's states (N, H) after it."""
        output, state = self.actor(rows, state)
        return output, state

    def both(self, rows: Tensor, state: Tensor, starts: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised observations (N L, D) of sequences to what `mean` returns of others, values (N L,), and the states
        (N, 2 H) after them; arguments as `Recurrent` has them."""
        of_actor, of_critic = state.chunk(2, 1)
        output, of_actor = self.actor(rows, of_actor, starts)
        value, of_critic = self.critic(rows, of_critic, starts)
        return output, value.squeeze(-1), torch.cat([of_actor, of_critic], 1)

    def value_of(self, rows: Tensor, state: Tensor) -> Tensor:
        """Values (N,) of normalised observations (N, D) after the states (N, 2 H)."""
        value, _ = self.critic(rows, state.chunk(2, 1)[1])
        found: Tensor = value.squeeze(-1)
        return found
