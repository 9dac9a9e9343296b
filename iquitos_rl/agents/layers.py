"""Affine layers with an activation between them, forwards and backwards.

Autograd can differentiate `forward`, and does so for PPO and A2C. SAC, whose update is a dozen products, calls
`backward`: a network of these sizes otherwise spends as long outside of its products as within. Autograd cannot know
that a gradient may be overwritten, that nobody asks for the one by an observation, or which way round a narrow product
is fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor

Activation = Literal["relu", "tanh"]
Amp = Annotated[Literal["off", "bf16"], BeforeValidator(lambda value: "off" if value is False else value)]
"""YAML reads a bare `off` as false."""
EPS = 1e-5
"""Added to the variance by layer normalisation, as everywhere."""
NARROW = 32
"""Columns up to which a product is better the other way round."""


class Tape(NamedTuple):
    """What `forward` leaves for `backward`, layer by layer, in the type in which it was multiplied."""

    activation: Activation
    inputs: list[Tensor]
    weights: list[Tensor]
    norms: list[tuple[Tensor, ...]]


def forward(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    norms: Sequence[Tensor] = (),
    activation: Activation = "relu",
    amp: Amp = "off",
) -> tuple[Tensor, Tape]:
    """x (B, in) through layers of weights (out, in) and biases (out,) to (B, out).

    With weights (N, out, in) and biases (N, 1, out) these are N networks that read the same input, to (N, B, out).
    `norms` are scale and shift (N, 1, out) of each hidden layer, which is then normalised before its activation.

    With `amp` bf16 the products of all layers but the last are in bfloat16. The output layer is computed in float32,
    and so is all that follows (log-probabilities, targets, losses), optimisers and averages: reinforcement learning
    needs their precision more than images do (Bjorck et al. 2021, arXiv 2102.13565). A value of 200 in bfloat16 could
    only be told from 201.
    """
    tape = Tape(activation, [], [], [])
    last = len(weights) - 1
    if weights[0].dim() == 3:
        if amp == "bf16" and last > 0:
            x = x.to(torch.bfloat16)  # before it is expanded: one copy for all networks
        x = x.expand(len(weights[0]), *x.shape)
    for layer, (weight, bias) in enumerate(zip(weights, biases)):
        if amp == "bf16":
            dtype = torch.float32 if layer == last else torch.bfloat16
            x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
        tape.inputs.append(x)
        tape.weights.append(weight)
        x = _affine(x, weight, bias)
        if layer == last:
            break
        if norms:
            scale, shift = (norm.to(x.dtype) for norm in norms[2 * layer : 2 * layer + 2])
            normal, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, EPS)
            tape.norms.append((x, normal, mean, rstd, scale))
            x = torch.addcmul(shift, normal, scale)
        x = x.relu_() if activation == "relu" else x.tanh_()
    return x, tape


@torch.no_grad()
def backward(tape: Tape, gradient: Tensor, columns: int = 0) -> list[Tensor]:
    """The gradient by everything that `forward` was given, from the one by its output: by the weights,
    the biases and the norms, in their order. With `columns`, by the last so many columns of the input instead, (B,
    columns), summed over the networks. The tape is used up: what a layer has left is freed behind it."""
    dtype = gradient.dtype
    of_weights, of_biases, of_norms = [], [], []
    for layer in reversed(range(len(tape.inputs))):
        x, weight = tape.inputs.pop(), tape.weights.pop()
        if not columns:
            of_weights.append(_product(gradient.mT, x).to(dtype).contiguous())
            of_biases.append(gradient.sum(-2, keepdim=gradient.dim() == 3, dtype=dtype))
        if layer == 0:
            break
        gradient = gradient * weight if weight.shape[-2] == 1 else _product(gradient, weight)
        if tape.activation == "relu":
            torch.ops.aten.threshold_backward.grad_input(gradient, x, 0, grad_input=gradient)
        else:
            torch.ops.aten.tanh_backward.grad_input(gradient, x, grad_input=gradient)
        del x
        gradient = gradient.to(tape.inputs[-1].dtype)
        if tape.norms:
            raw, normal, mean, rstd, scale = tape.norms.pop()
            if not columns:
                of_norms.append(gradient.sum(-2, keepdim=True, dtype=dtype))
                of_norms.append((gradient * normal).sum(-2, keepdim=True, dtype=dtype))
            gradient = torch.ops.aten.native_layer_norm_backward(
                gradient.mul_(scale), raw, raw.shape[-1:], mean, rstd, None, None, [True, False, False]
            )[0]
            del raw, normal
    if columns:
        return [_product(gradient, weight[..., -columns:]).to(dtype).sum_to_size(gradient.shape[-2], columns)]
    return [*reversed(of_weights), *reversed(of_biases), *reversed(of_norms)]


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b of (..., B, in) and (..., out, in)."""
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    if weight.shape[-2] < NARROW:
        return torch.baddbmm(bias.mT, weight, x.mT).mT
    return torch.baddbmm(bias, x, weight.mT)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b of (..., n, k) and (..., k, m), in any order in memory."""
    product = torch.mm if a.dim() == 2 else torch.bmm
    return product(b.mT, a.mT).mT if b.shape[-1] < NARROW else product(a, b)
