"""Affine layers with an activation between them, forwards and backwards, as one operation of autograd.

For networks of these sizes autograd's own work is comparable to the matrix products. `Layers` makes a whole network one
node of its graph, with a backward pass that overwrites gradients in place, leaves out what nobody asked for, and
multiplies narrow matrices the faster way round. `forward` alone is the same formula in operations that autograd and
`torch.compile` can differentiate themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Literal["relu", "tanh"]
Amp = Annotated[Literal["off", "bf16"], BeforeValidator(lambda value: "off" if value is False else value)]
"""YAML reads a bare `off` as false."""
EPS = 1e-5
"""Added to the variance by layer normalisation, as everywhere."""
NARROW = 32
"""Matrices with fewer columns are multiplied transposed, which is faster."""


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


def backward(
    tape: Tape, gradient: Tensor, columns: int = 0, parameters: bool = True
) -> tuple[Tensor | None, list[Tensor]]:
    """The gradients, from the one by the output: by the last `columns` columns of the input (B, columns), summed over
    the networks, None for 0; and by weights, biases and norms in their order, none without `parameters`.

    The tape is used up: what a layer has left is freed as soon as it is not needed any more.
    """
    dtype = gradient.dtype
    of_weights, of_biases, of_norms = [], [], []
    for layer in reversed(range(len(tape.inputs))):
        x, weight = tape.inputs.pop(), tape.weights.pop()
        if parameters:
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
            if parameters:
                of_norms.append(gradient.sum(-2, keepdim=True, dtype=dtype))
                of_norms.append((gradient * normal).sum(-2, keepdim=True, dtype=dtype))
            gradient = torch.ops.aten.native_layer_norm_backward(
                gradient.mul_(scale), raw, raw.shape[-1:], mean, rstd, None, None, [True, False, False]
            )[0]
            del raw, normal
    by_input = None
    if columns:
        by_input = _product(gradient, weight[..., -columns:]).to(dtype).sum_to_size(gradient.shape[-2], columns)
    return by_input, [*reversed(of_weights), *reversed(of_biases), *reversed(of_norms)]


class Layers(torch.autograd.Function):
    """`forward` with the backward pass above; for gradients of first order, taken once.

    Arguments are the activation, `amp`, the numbers of inputs, layers and norms, and then all these tensors: inputs
    (B, n), which are joined, weights, biases, norms.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, activation: Activation, amp: Amp, counts: tuple[int, int, int], *tensors: Tensor
    ) -> Tensor:
        inputs, weights, biases, norms = _grouped(tensors, counts)
        x = inputs[0] if len(inputs) == 1 else torch.cat(list(inputs), -1)
        ctx.widths = [x.shape[-1] for x in inputs]
        output, ctx.tape = forward(x, weights, biases, norms, activation, amp)
        return output

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tape, ctx.tape, widths = ctx.tape, None, ctx.widths
        if tape is None:
            raise RuntimeError("a network's gradient can be taken once: compute its output again")
        needed = ctx.needs_input_grad[3:]
        wanted = needed[: len(widths)]
        first = wanted.index(True) if any(wanted) else len(widths)
        parameters = any(needed[len(widths) :])
        by_input, by_parameters = backward(tape, gradient, sum(widths[first:]), parameters)
        by_inputs = [] if by_input is None else by_input.split(widths[first:], -1)
        none = [None] * (len(needed) - len(widths))
        return None, None, None, *[None] * first, *by_inputs, *(by_parameters if parameters else none)


def network(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    norms: Sequence[Tensor] = (),
    activation: Activation = "relu",
    amp: Amp = "off",
) -> Tensor:
    """`forward` of the inputs (B, n), joined: as one autograd operation, or as plain ones where that does not work."""
    if torch.is_grad_enabled() and inputs[0].dim() == 2 and not torch.compiler.is_compiling():
        counts = len(inputs), len(weights), len(norms)
        return Layers.apply(activation, amp, counts, *inputs, *weights, *biases, *norms)  # type: ignore[no-untyped-call]
    x = inputs[0] if len(inputs) == 1 else torch.cat(list(inputs), -1)
    return forward(x, weights, biases, norms, activation, amp)[0]


def _grouped(tensors: Sequence[Tensor], counts: tuple[int, int, int]) -> tuple[Sequence[Tensor], ...]:
    """Inputs, weights, biases, norms."""
    inputs, layers, _ = counts
    ends = inputs, inputs + layers, inputs + 2 * layers
    return tensors[: ends[0]], tensors[ends[0] : ends[1]], tensors[ends[1] : ends[2]], tensors[ends[2] :]


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
