"""The policy distribution of SAC: a diagonal Gaussian u ~ N(mean, std) squashed to the action a = tanh(u) in (-1, 1).

Noise is an argument, never drawn here: the same noise gives the same action, whole or in parts of a batch.
Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications", appendix C.
"""

from __future__ import annotations

from math import log, pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""The network's output is mapped into this range smoothly, by tanh: a hard clamp would end its gradient."""
LOG_STD_MIDDLE, LOG_STD_REACH = (LOG_STD_MAX + LOG_STD_MIN) / 2, (LOG_STD_MAX - LOG_STD_MIN) / 2


def split(output: Tensor) -> tuple[Tensor, Tensor]:
    """The network's output (..., 2A) as mean and log standard deviation of u, each (..., A)."""
    mean, raw = output.chunk(2, dim=-1)
    return mean, LOG_STD_MIDDLE + LOG_STD_REACH * raw.tanh()


def sample(output: Tensor, noise: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Actions (..., A) and log-probabilities (...,) from the network's output (..., 2A) and noise (..., A) ~ N(0, 1).

    `mask` (..., A) bool says which actions are live. A dead one is 0, whatever the network says: it adds neither to the
    log-probability nor to any gradient.
    """
    if output.requires_grad and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        drawn: tuple[Tensor, Tensor] = Sample.apply(output, noise, mask)  # type: ignore[no-untyped-call]
        return drawn
    return formula(output, noise, mask)[:2]


def formula(output: Tensor, noise: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """`sample` in operations that autograd and `torch.compile` can differentiate, and the log standard deviation."""
    mean, log_std = split(output)
    u = torch.addcmul(mean, log_std.exp(), noise)
    action = u.tanh()
    log_prob = gaussian_log_prob(noise, log_std) - log_tanh_slope(u)
    if mask is not None:
        live = mask.to(action.dtype)
        action, log_prob = action * live, log_prob * live
    return action, log_prob.sum(-1), log_std


class Sample(torch.autograd.Function):
    """`formula` as one operation of autograd, whose own would take longer than the computation; first order only.

    With a = tanh(u): da/du = 1 - a^2, and of the log-probability d/du = 2a and d/d(log std) = -1 where u stays.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, noise: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        action, log_prob, log_std = formula(output, noise, mask)
        ctx.save_for_backward(action, log_std, noise, mask)
        return action, log_prob

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, by_action: Tensor, by_log_prob: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        action, log_std, noise, mask = ctx.saved_tensors
        by_log_prob = by_log_prob.unsqueeze(-1)
        by_u = torch.addcmul(by_action, 2 * by_log_prob - by_action * action, action)
        by_log_std = by_u * log_std.exp() * noise - by_log_prob
        slope = LOG_STD_REACH - (log_std - LOG_STD_MIDDLE).square() / LOG_STD_REACH
        by_output = torch.cat([by_u, by_log_std * slope], -1)
        return by_output if mask is None else by_output * torch.cat([mask, mask], -1), None, None


def mode(output: Tensor, mask: Tensor | None = None) -> Tensor:
    """The deterministic action tanh(mean) (..., A), dead actions 0."""
    action = split(output)[0].tanh()
    return action if mask is None else action * mask


def gaussian_log_prob(noise: Tensor, log_std: Tensor) -> Tensor:
    """log N(u; mean, std) of each u = mean + std * noise; with the noise known, nothing is divided by a small std."""
    return -0.5 * noise.square() - log_std - 0.5 * log(2 * pi)


def log_tanh_slope(u: Tensor) -> Tensor:
    """log(1 - tanh(u)^2), exact also where tanh(u) rounds to 1: 2 (log 2 - u - softplus(-2u))."""
    return 2 * (log(2) - u - F.softplus(-2 * u))
