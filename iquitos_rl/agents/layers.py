"""Affine layers with an activation between them, forwards and backwards, as one operation of autograd.

For networks of these sizes autograd's own work is comparable to the matrix products. `Layers` makes a whole network one
node of its graph, with a backward pass that overwrites gradients in place, leaves out what nobody asked for, and
multiplies narrow matrices the faster way round. `forward` alone is the same formula in operations that autograd and
`torch.compile` can differentiate themselves.

Several networks of one input are batched products where calling a kernel is what takes time: on a GPU, and for few rows
on a CPU. Larger ones are computed one after another on a CPU: a network's activations stay in the cache, and PyTorch's
kernels for a single network do more in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from iquitos_rl.agents.configs import Activation, Amp
from iquitos_rl.machine import device

EPS = 1e-5
"""Added to the variance by layer normalisation, as everywhere."""
NARROW = 64
"""Matrices with fewer columns are multiplied transposed, which is faster."""
APART = 1 << 18
"""On a CPU, networks whose hidden layer has more activations than this in all are computed one after another."""
WORTH_A_COPY = 0.8
"""Rows without a gradient are left out if at most this share is left: copying the others costs something too."""


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
    `norms` are scale and shift of each hidden layer, which is then normalised before its activation: (out,), or
    (N, 1, out).

    With `amp` bf16 the products of all layers but the last are in bfloat16. The output layer is computed in float32,
    and so is all that follows (log-probabilities, targets, losses), optimisers and averages: reinforcement learning
    needs their precision more than images do (Bjorck et al. 2021, arXiv 2102.13565). A value of 200 in bfloat16 could
    only be told from 201.
    """
    tape = Tape(activation, [], [], [])
    last = len(weights) - 1
    if weights[0].dim() == 3:
        x = _lowered(x, amp, last).expand(len(weights[0]), *x.shape)
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
            x, kept = _normalised(x, *norms[2 * layer : 2 * layer + 2])
            tape.norms.append(kept)
        x = x.relu_() if activation == "relu" else x.tanh_()
    return x, tape


def backward(tape: Tape, gradient: Tensor, columns: int = 0, slots: Sequence[Tensor] = ()) -> Tensor | None:
    """The gradients, from the one by the output: by the last `columns` columns of the input (B, columns), summed over
    the networks, None for 0; and by weights, biases and norms in their order, written into `slots` where there are any.

    The tape is used up: what a layer has left is freed as soon as it is not needed any more.
    """
    dtype, layers = gradient.dtype, len(tape.inputs)
    for layer in reversed(range(layers)):
        x, weight = tape.inputs.pop(), tape.weights.pop()
        if slots:
            _write_product(slots[layer], gradient.mT, x)
            _write_sum(slots[layers + layer], gradient)
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
            at = 2 * (layers + layer - 1)
            gradient = _normalised_backward(tape.norms.pop(), gradient, slots[at : at + 2])
    if not columns:
        return None
    return _product(gradient, weight[..., -columns:]).to(dtype).sum_to_size(gradient.shape[-2], columns)


def run(
    x: Tensor, parameters: Sequence[Tensor], layers: int, activation: Activation, amp: Amp
) -> tuple[Tensor, list[Tape]]:
    """`forward` the faster way: all networks together, with one tape, or one after another, with a tape for each.

    `parameters` are the weights and biases of so many layers, and the norms.
    """
    if parameters[0].dim() == 2 or device.kind(x) == "cuda" or len(x) * parameters[layers].numel() <= APART:
        output, tape = forward(x, *_grouped(parameters, layers), activation, amp)
        return output, [tape]
    x = _lowered(x, amp, layers)
    results = [forward(x, *_grouped(own, layers), activation, amp) for own in _apart(parameters, layers)]
    return torch.stack([output for output, _ in results]), [tape for _, tape in results]


def run_backward(tapes: list[Tape], gradient: Tensor, columns: int, slots: Sequence[Tensor]) -> Tensor | None:
    """`backward` of what `run` has left."""
    if tapes[0].inputs[0].dim() == gradient.dim():
        return backward(tapes.pop(), gradient, columns, slots)
    found: Tensor | None = None
    own_slots = _apart(slots, len(tapes[0].inputs)) if slots else repeat(())
    for part, own in zip(gradient.unbind(), own_slots):
        tape = tapes.pop(0)
        by_input = backward(tape, part, columns, own) if slots else _backward_of_rows(tape, part, columns)
        found = by_input if found is None or by_input is None else found.add_(by_input)
    return found


class Layers(torch.autograd.Function):
    """Networks as one operation of autograd; for gradients of first order, taken once.

    Arguments are the activation, `amp`, the numbers of inputs and layers, and then all these tensors: inputs (B, n),
    which are joined, weights, biases, norms.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, activation: Activation, amp: Amp, count: int, layers: int, *tensors: Tensor
    ) -> Tensor:
        inputs, ctx.parameters = tensors[:count], tensors[count:]
        ctx.widths = [x.shape[-1] for x in inputs]
        output, ctx.tapes = run(_joined(inputs), ctx.parameters, layers, activation, amp)
        return output

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tapes, ctx.tapes, widths = ctx.tapes, None, ctx.widths
        if tapes is None:
            raise RuntimeError("a network's gradient can be taken once: compute its output again")
        needed = ctx.needs_input_grad[4:]
        wanted, trained = needed[: len(widths)], any(needed[len(widths) :])
        first = wanted.index(True) if any(wanted) else len(widths)
        slots = [torch.empty_like(p) for p in ctx.parameters] if trained else []
        by_input = run_backward(tapes, gradient, sum(widths[first:]), slots)
        by_inputs = () if by_input is None else by_input.split(widths[first:], -1)
        by_parameters = slots if trained else [None] * len(ctx.parameters)
        return None, None, None, None, *[None] * first, *by_inputs, *by_parameters


def network(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    norms: Sequence[Tensor] = (),
    activation: Activation = "relu",
    amp: Amp = "off",
) -> Tensor:
    """`forward` of the inputs (B, n), joined: as one autograd operation, or as plain ones where that does not work."""
    if inputs[0].dim() != 2 or torch.compiler.is_compiling():
        return forward(_joined(inputs), weights, biases, norms, activation, amp)[0]
    parameters = *weights, *biases, *norms
    if torch.is_grad_enabled():
        return Layers.apply(activation, amp, len(inputs), len(weights), *inputs, *parameters)  # type: ignore[no-untyped-call]
    return run(_joined(inputs), parameters, len(weights), activation, amp)[0]


def _joined(inputs: Sequence[Tensor]) -> Tensor:
    return inputs[0] if len(inputs) == 1 else torch.cat(list(inputs), -1)


def _lowered(x: Tensor, amp: Amp, layers: int) -> Tensor:
    """The input in the type of the first product: one copy for all networks."""
    return x.to(torch.bfloat16) if amp == "bf16" and layers > 1 else x


def _grouped(parameters: Sequence[Tensor], layers: int) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    """Weights, biases, norms."""
    return parameters[:layers], parameters[layers : 2 * layers], parameters[2 * layers :]


def _apart(parameters: Sequence[Tensor], layers: int) -> Iterable[Sequence[Tensor]]:
    """The parameters of each of N networks, as views."""
    of_weights = (p.unbind() for p in parameters[:layers])
    return zip(*of_weights, *(p.squeeze(1).unbind() for p in parameters[layers:]))


def _backward_of_rows(tape: Tape, gradient: Tensor, columns: int) -> Tensor | None:
    """`backward` without the rows that have no gradient, by the input alone.

    The least of several critics gives the gradient of each row to one of them.
    """
    if gradient.device.type != "cpu":
        return backward(tape, gradient, columns)
    rows = gradient.squeeze(-1).nonzero().squeeze(-1)
    if len(rows) > WORTH_A_COPY * len(gradient):
        return backward(tape, gradient, columns)
    for layer in range(1, len(tape.inputs)):  # one by one, so that what is copied is freed; the first is not looked at
        tape.inputs[layer] = tape.inputs[layer].index_select(0, rows)
    for layer, kept in enumerate(tape.norms):
        tape.norms[layer] = (*(x.index_select(0, rows) for x in kept[:3]), *kept[3:])
    found = backward(tape, gradient[rows], columns)
    return None if found is None else found.new_zeros(len(gradient), columns).index_copy_(0, rows, found)


def _normalised(x: Tensor, scale: Tensor, shift: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Each row of x (..., B, out) normalised, scaled and shifted, and what the way back needs."""
    if x.dim() == 2:
        output, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], scale, shift, EPS)
        return output, (x, mean, rstd, scale, shift)
    normal, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], None, None, EPS)
    scale = scale.to(x.dtype)
    return torch.addcmul(shift.to(x.dtype), normal, scale), (x, mean, rstd, scale, normal)


def _normalised_backward(kept: tuple[Tensor, ...], gradient: Tensor, slots: Sequence[Tensor]) -> Tensor:
    """The gradient by x, and by scale and shift into `slots`. What is `kept` is freed with the caller's reference."""
    x, mean, rstd, scale, last = kept
    size, backward = x.shape[-1:], torch.ops.aten.native_layer_norm_backward
    if x.dim() == 2:
        by_x, *others = backward(gradient, x, size, mean, rstd, scale, last, [True, bool(slots), bool(slots)])
        for slot, other in zip(slots, others):
            slot.copy_(other)
        return by_x
    if slots:
        torch.sum(gradient * last, -2, keepdim=True, dtype=slots[0].dtype, out=slots[0])
        torch.sum(gradient, -2, keepdim=True, dtype=slots[1].dtype, out=slots[1])
    return backward(gradient.mul_(scale), x, size, mean, rstd, None, None, [True, False, False])[0]


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x W^T + b of (..., B, in) and (..., out, in)."""
    if weight.dim() == 2:
        if x.dim() == 2 and device.kind(x) == "cpu":
            return torch.mm(x, weight.mT).add_(bias)  # one pass less than when the product is added to copies of it
        return F.linear(x, weight, bias)
    if weight.shape[-2] < NARROW:
        return torch.baddbmm(bias.mT, weight, x.mT).mT
    return torch.baddbmm(bias, x, weight.mT)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a b of (..., n, k) and (..., k, m), in any order in memory."""
    product = torch.mm if a.dim() == 2 else torch.bmm
    return product(b.mT, a.mT).mT if b.shape[-1] < NARROW else product(a, b)


def _write_product(slot: Tensor, a: Tensor, b: Tensor) -> None:
    """Put a b, as of `_product`, into a slot that may be of another type."""
    if b.shape[-1] < NARROW or slot.dtype != a.dtype:
        slot.copy_(_product(a, b))
    else:
        (torch.mm if a.dim() == 2 else torch.bmm)(a, b, out=slot)


def _write_sum(slot: Tensor, gradient: Tensor) -> None:
    """Put the sum over the rows into a slot (..., out)."""
    torch.sum(gradient, -2, keepdim=gradient.dim() == 3, dtype=slot.dtype, out=slot)
