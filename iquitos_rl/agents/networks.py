"""Networks of the agents: a multilayer perceptron, and SAC's two critics as one batched network.

Every weight is drawn from a generator that the caller owns, so building a network neither reads nor moves torch's
global random state. The initialisation is that of torch's `nn.Linear`: uniform in +-1 / sqrt(fan_in), bias included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import sqrt
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Generator, Tensor, nn

Activation = Literal["relu", "tanh"]
Amp = Annotated[Literal["off", "bf16"], BeforeValidator(lambda value: "off" if value is False else value)]
"""YAML reads a bare `off` as false."""
Network = Callable[..., Tensor]


def in_precision(net: nn.Module, amp: Amp) -> Network:
    """The network as a function whose products run in bfloat16, or the network itself.

    The output layer is computed in float32, and so is all that follows (log-probabilities, targets, losses), optimisers
    and averages: reinforcement learning needs their precision more than images do (Bjorck et al. 2021, arXiv
    2102.13565). A value of 200 in bfloat16 could only be told from 201.
    """
    if amp == "off":
        return net
    if isinstance(net, nn.Sequential):
        body, head = net[:-1], net[-1]
    else:
        body, head = net, nn.Identity()

    def forward(*inputs: Tensor) -> Tensor:
        with torch.autocast(inputs[0].device.type, torch.bfloat16):
            features: Tensor = body(*inputs)
        output: Tensor = head(features.float())
        return output

    return forward


def allocate_adam(optimizer: torch.optim.Adam, parameters: Sequence[Tensor]) -> None:
    """Take the memory of the moments before the first step; a no-op where they exist. Zero is what they begin with."""
    for p in parameters:
        if not optimizer.state[p]:
            state = {"step": torch.zeros((), device=p.device)}
            optimizer.state[p] = {**state, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}


def mlp(sizes: Sequence[int], activation: Activation = "relu", generator: Generator | None = None) -> nn.Sequential:
    """Linear layers of the given sizes (input, hidden..., output), the activation between them and none at the end."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        _uniform(linear.weight, fan_in, generator)
        _uniform(linear.bias, fan_in, generator)
        # In place: the linear layer's gradient does not need its output, so one (B, width) tensor per layer is saved.
        layers += [linear, nn.ReLU(inplace=True) if activation == "relu" else nn.Tanh()]
    return nn.Sequential(*layers[:-1])


class TwinCritic(nn.Module):
    """Two independent action values Q_1, Q_2 of shape (2, B) from observations (B, D) and actions (B, A).

    Both critics are one network with weights (2, in, out), so a layer is one batched product instead of two: half the
    kernel launches on a GPU. The first layer holds the observation's and the action's part of its weight apart: the
    actor step needs the gradient by the action alone, and skips the far larger part of the observation.

    With `layer_norm` each hidden layer is normalised before its ReLU (Hiraoka et al. 2022, DroQ, without its dropout).
    """

    def __init__(
        self,
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        layer_norm: bool = False,
        generator: Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = [obs_dim + action_dim, *hidden, 1]
        self.obs_weight = _parameter((2, obs_dim, sizes[1]), sizes[0], generator)
        self.action_weight = _parameter((2, action_dim, sizes[1]), sizes[0], generator)
        self.weights = nn.ParameterList(
            _parameter((2, fan_in, fan_out), fan_in, generator) for fan_in, fan_out in pairwise(sizes[1:])
        )
        self.biases = nn.ParameterList(
            _parameter((2, 1, fan_out), fan_in, generator) for fan_in, fan_out in pairwise(sizes)
        )
        widths = list(hidden) if layer_norm else []
        self.norm_weights = nn.ParameterList(torch.ones(2, 1, width) for width in widths)
        self.norm_biases = nn.ParameterList(torch.zeros(2, 1, width) for width in widths)

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        both_obs, both_actions = obs.expand(2, *obs.shape), action.expand(2, *action.shape)
        first, *biases = self.biases
        x = torch.baddbmm(torch.baddbmm(first, both_obs, self.obs_weight), both_actions, self.action_weight)
        for layer, (weight, bias) in enumerate(zip(self.weights, biases)):
            if self.norm_weights:
                x = F.layer_norm(x, x.shape[-1:])
                x = torch.addcmul(self.norm_biases[layer], x, self.norm_weights[layer])
            x = _relu(x)
            if layer < len(self.weights) - 1:
                x = torch.baddbmm(bias, x, weight)
        # A matrix product with a single column is slow on CPUs.
        return (x.to(weight.dtype) * weight.transpose(1, 2)).sum(-1) + bias.squeeze(-1)


def _relu(x: Tensor) -> Tensor:
    """ReLU of a finite tensor that nothing else reads.

    Compiled, its gradient would keep a mask of bools, which the generated CPU code writes and reads one by one; the
    mask here is one of floats.
    """
    if torch.compiler.is_compiling():
        return x * x.clamp_min(0).sign().detach()
    return F.relu_(x)


def _parameter(shape: tuple[int, ...], fan_in: int, generator: Generator | None) -> nn.Parameter:
    parameter = nn.Parameter(torch.empty(shape))
    _uniform(parameter, fan_in, generator)
    return parameter


def _uniform(parameter: Tensor, fan_in: int, generator: Generator | None) -> None:
    bound = 1 / sqrt(fan_in)
    with torch.no_grad():
        parameter.uniform_(-bound, bound, generator=generator)
