"""One network for every building of a site, so that a policy works on any number of them.

For each building the network reads the building's own columns, those of the whole district, and facts about it. A first
layer encodes every building; their mean tells each of them about the others; the layers after it give the building's
actions, or its part of the value. Permuting the buildings permutes the actions (Zaheer et al. 2017, "Deep Sets",
arXiv 1703.06114). Every building's hours train the same weights.

What all buildings have in common is multiplied once, and not once for each of them: columns of the district, the mean.

N observations, B buildings, S devices of a building, A actions of the site.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from iquitos_rl.agents.configs import Activation, Amp
from iquitos_rl.agents.networks import drawn
from iquitos_rl.agents.normalisation import CLIP, ObservationNormaliser, RunningMoments
from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.envs.task.buildings import NOWHERE, Buildings

ALIKE = 1e-4
"""Buildings are alike in a fact that deviates by less."""
FACT_CLIP = 3.0
"""A fact counts as at most so many deviations of the training buildings away from their mean."""


class Form(NamedTuple):
    """What networks of this kind are made of."""

    hidden: Sequence[int]
    activation: Activation
    generator: Generator
    amp: Amp = "off"
    layer_norm: bool = False
    """Of the layers after the mean."""
    gain: float | None = None
    """Orthogonal weights with this gain in the last layer; None for torch's own initialisation."""


class Shared(nn.Module):
    """Each building through the same network, which has the mean of all encodings, to `outputs` numbers.

    Facts are normalised by the buildings of the training, whose mean and deviation are saved with the weights. A fact
    in which those were all alike is left out: nothing could be learned of it.

    Args:
        more: numbers of each building on top of the observation's.
    """

    own: Tensor
    same: Tensor
    of_own: Tensor
    of_same: Tensor
    facts: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, buildings: Buildings, form: Form, outputs: int, more: int = 0) -> None:
        super().__init__()
        self.activation, self.amp, self.count = form.activation, form.amp, len(buildings.names)
        table = torch.tensor([[*own, *buildings.common_columns] for own in buildings.columns], device="cpu") + 1
        alike = (table == table[:1]).all(0)  # every building reads the same column, such as the weather
        places = {"of_own": (~alike).nonzero()[:, 0], "of_same": alike.nonzero()[:, 0]}
        indices = {**places, "own": table[:, ~alike].flatten(), "same": table[0, alike]}
        facts = torch.tensor(buildings.values)
        for name, index in indices.items():
            self.register_buffer(name, index.to(facts.device), persistent=False)
        self.register_buffer("facts", facts, persistent=False)
        self.register_buffer("mean", facts.mean(0))
        deviation = facts.std(0, correction=0)
        self.register_buffer("scale", torch.where(deviation > ALIKE, 1 / deviation, 0.0))
        self.widths = [table.shape[1], len(buildings.facts), more]
        inner, *others = form.hidden
        first = drawn([sum(self.widths), inner], (), form.generator)
        after = drawn([2 * inner, *others, outputs], (), form.generator)
        self.weights, self.biases = (nn.ParameterList([*a, *b]) for a, b in zip(first, after))
        self.norms = nn.ParameterList()
        for width in others if form.layer_norm else ():
            self.norms.extend([torch.ones(width), torch.zeros(width)])
        if form.gain is not None:
            for weight, bias in zip(self.weights, self.biases):
                gain = form.gain if weight is self.weights[-1] else 2**0.5
                nn.init.orthogonal_(weight, gain, generator=form.generator)
                nn.init.zeros_(bias)

    def forward(self, obs: Tensor, more: Tensor | None = None) -> Tensor:
        """Observations (N, D), and further numbers of each building (N, B, more), to (N, B, outputs)."""
        weights, biases = list(self.weights), list(self.biases)
        of_columns, of_facts, of_more = weights[0].split(self.widths, 1)
        padded = torch.cat([obs.new_zeros(len(obs), 1), obs], dim=1)  # a column that is not there is 0
        own = padded.index_select(1, self.own).view(len(obs), self.count, -1)
        same = padded.index_select(1, self.same)
        facts = ((self.facts - self.mean) * self.scale).clamp(-FACT_CLIP, FACT_CLIP)
        # What is added in place is never kept twice: neither for the backward pass nor as a hole in the heap.
        x = self.times(own, of_columns.index_select(1, self.of_own)).add_(self.times(facts, of_facts))
        x.add_((self.times(same, of_columns.index_select(1, self.of_same)) + biases[0]).unsqueeze(1))
        if more is not None:
            x.add_(self.times(more, of_more))
        x = self.active(x)
        of_each, of_mean = weights[1].chunk(2, 1)
        last = len(weights) - 1
        y = self.times(x, of_each, last == 1)
        y.add_((self.times(x.mean(1), of_mean, last == 1) + biases[1]).unsqueeze(1))
        for k in range(2, len(weights)):
            if len(self.norms):
                y = F.layer_norm(y, y.shape[-1:], *self.norms[2 * k - 4 : 2 * k - 2])
            y = self.times(self.active(y), weights[k], k == last).add_(biases[k])
        return y

    def times(self, x: Tensor, weight: Tensor, last: bool = False) -> Tensor:
        """x W^T; see `layers.forward` for the types."""
        if self.amp == "off" or last:
            return F.linear(x, weight)
        return F.linear(x.to(torch.bfloat16), weight.to(torch.bfloat16)).float()

    def active(self, x: Tensor) -> Tensor:
        """In place."""
        return x.relu_() if self.activation == "relu" else x.tanh_()


class SharedActor(nn.Module):
    """Observations (N, D) to `each` numbers for every action (N, each A): all first numbers, then all second ones."""

    order: Tensor

    def __init__(self, buildings: Buildings, form: Form, each: int = 1) -> None:
        super().__init__()
        self.net, self.each = Shared(buildings, form, each * len(buildings.devices)), each
        self.register_buffer("order", torch.tensor(slots_of(buildings), dtype=torch.int64), persistent=False)

    def forward(self, obs: Tensor) -> Tensor:
        found = self.net(obs).unflatten(-1, (self.each, -1)).transpose(1, 2).flatten(2)  # (N, each, B S)
        return found.index_select(2, self.order).flatten(1)


class SharedValue(nn.Module):
    """Observations (..., D) to values (..., 1): the mean of what every building adds."""

    def __init__(self, buildings: Buildings, form: Form) -> None:
        super().__init__()
        self.net = Shared(buildings, form, 1)

    def forward(self, obs: Tensor) -> Tensor:
        found: Tensor = self.net(obs.flatten(0, -2))
        return found.mean(1).view(*obs.shape[:-1], 1)


class SharedCritics(nn.Module):
    """Observations (N, D) and actions (N, A) to `count` independent action values (count, N)."""

    place: Tensor

    def __init__(self, buildings: Buildings, form: Form, count: int) -> None:
        super().__init__()
        devices = len(buildings.devices)
        self.nets = nn.ModuleList([Shared(buildings, form, 1, devices) for _ in range(count)])
        self.shape = len(buildings.names), devices
        rows = torch.tensor(buildings.actions)
        self.register_buffer("place", (rows + 1).flatten(), persistent=False)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        padded = torch.cat([action.new_zeros(len(action), 1), action], dim=1)
        own = padded.index_select(1, self.place).view(-1, *self.shape)
        return torch.stack([net(obs, own).mean((1, 2)) for net in self.nets])


class SharedNormaliser(ObservationNormaliser):
    """As `ObservationNormaliser`, with one mean and one deviation for all columns of a name, whichever building's."""

    group: Tensor
    size: Tensor

    def __init__(self, buildings: Buildings, width: int) -> None:
        names = len(buildings.common) + len(buildings.features)
        RunningMoments.__init__(self, (names + 1,))  # the last is of columns that nothing reads
        group = torch.full((width,), names)
        for row in buildings.columns:
            for f, column in enumerate(row):
                if column != NOWHERE:
                    group[column] = len(buildings.common) + f
        for g, column in enumerate(buildings.common_columns):
            group[column] = g
        self.register_buffer("group", group, persistent=False)
        size = torch.zeros(names + 1, dtype=torch.float64).index_add_(0, group, torch.ones(width, dtype=torch.float64))
        self.register_buffer("size", size.clamp(min=1.0), persistent=False)

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Take in observations (N, D). Columns of one name are so many samples of one number."""
        samples = samples.to(torch.float64)
        n, own = samples.shape[0], samples.mean(dim=0)
        mean = torch.zeros_like(self.mean).index_add_(0, self.group, own) / self.size
        spread = (samples - mean[self.group]).square().mean(dim=0)
        self._add(n, mean, n * torch.zeros_like(mean).index_add_(0, self.group, spread) / self.size)

    def forward(self, obs: Tensor) -> Tensor:
        """Observations (..., D) to normalised float32 (..., D). Changes no statistics."""
        mean, std = self.mean[self.group], self.std()[self.group]
        return ((obs - mean) / std).clamp(-CLIP, CLIP).to(torch.float32)


def slots_of(buildings: Buildings) -> list[int]:
    """(A,) where each action is in a table of the buildings' devices (B S)."""
    flat = [place for row in buildings.actions for place in row]
    return [slot for _, slot in sorted((place, slot) for slot, place in enumerate(flat) if place != NOWHERE)]


def devices_of(buildings: Buildings) -> Tensor:
    """(A,) which of the S devices each action moves."""
    return torch.tensor([slot % len(buildings.devices) for slot in slots_of(buildings)], dtype=torch.int64)


def normaliser_of(spec: PolicySpec) -> ObservationNormaliser | None:
    """What normalises observations of an environment; see `ObservationNormaliser.of`."""
    buildings = spec.buildings
    if buildings is None:
        return ObservationNormaliser.of(spec.way_in)
    return SharedNormaliser(buildings, spec.obs_dim)
