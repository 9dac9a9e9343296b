"""The agents' own networks: a multilayer perceptron, and SAC's critics as one batched network.

Each is one operation of autograd (`layers.py`). Any `nn.Module` of the same inputs and outputs can take its place.

Every weight is drawn from a generator that the caller owns, so building a network neither reads nor moves torch's
global random state. The initialisation is that of torch's `nn.Linear`: uniform in +-1 / sqrt(fan_in), bias included.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

import torch
from torch import Generator, Tensor, nn

from iquitos_rl.agents import layers
from iquitos_rl.agents.configs import Activation, Amp


class MLP(nn.Module):
    """Linear layers of the given sizes (input, hidden..., output), the activation between them and none at the end."""

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Activation = "relu",
        generator: Generator | None = None,
        amp: Amp = "off",
    ) -> None:
        super().__init__()
        self.activation, self.amp = activation, amp
        self.weights, self.biases = drawn(sizes, (), generator)
        self._given = list(self.weights), list(self.biases)  # a ParameterList is slow to look into

    def forward(self, x: Tensor) -> Tensor:
        """(B, input) to (B, output)."""
        return layers.network((x,), *self._given, (), self.activation, self.amp)


class Critics(nn.Module):
    """`count` independent action values (N, B) from observations (B, D) and actions (B, A).

    All are one network with weights (N, out, in), so a layer is one batched product: as many kernel launches on a GPU
    as for one. With `layer_norm` each hidden layer is normalised before its ReLU (Hiraoka et al. 2022, DroQ, without
    its dropout).
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: bool = False,
        generator: Generator | None = None,
        amp: Amp = "off",
        count: int = 2,
        values: int = 1,
    ) -> None:
        super().__init__()
        self.amp = amp
        self.weights, self.biases = drawn([obs_dim + action_dim, *hidden, values], (count,), generator)
        self.norms = nn.ParameterList()
        for width in hidden if layer_norm else ():
            self.norms.extend([torch.ones(count, 1, width), torch.zeros(count, 1, width)])
        self._given = list(self.weights), list(self.biases), list(self.norms)

    def forward(self, obs: Tensor, *action: Tensor) -> Tensor:
        """Observations (B, D) and actions (B, A) to values (N, B), or observations alone to `values` (N, B, V)."""
        found = layers.network((obs, *action), *self._given, "relu", self.amp)
        return found.squeeze(-1) if action else found


def drawn(
    sizes: Sequence[int], copies: tuple[int, ...], generator: Generator | None
) -> tuple[nn.ParameterList, nn.ParameterList]:
    """Weights (out, in) and biases (out,) of layers of the given sizes, or, with copies (N,), (N, out, in) and (N, 1,
    out)."""
    weights, biases = nn.ParameterList(), nn.ParameterList()
    for fan_in, fan_out in pairwise(sizes):
        for parameters, shape in ((weights, (fan_out, fan_in)), (biases, (1, fan_out) if copies else (fan_out,))):
            bound = 1 / sqrt(fan_in)
            parameters.append(torch.empty(*copies, *shape).uniform_(-bound, bound, generator=generator))
    return weights, biases
