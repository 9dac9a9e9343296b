"""Generalised advantage estimation over a rollout of E environments."""

from __future__ import annotations

import torch
from torch import Tensor

from iquitos_rl.agents import parallel


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    lam: float,
) -> Tensor:
    """Advantages (T, E) by Schulman et al. 2016, "High-dimensional continuous control using GAE", eq. 16.

    All inputs are (T, E). `next_value` is the value of each action's true successor, the final observation where an
    episode ended. Two masks, because the two ways to end differ: a terminated step's successor is worth nothing, a
    truncated step's successor is worth its value, and neither lets the sum run on into the next episode.
    """
    # where, not a product with the mask: the value behind a termination is arbitrary, and NaN times zero is NaN.
    advantage = reward + gamma * torch.where(terminated, 0.0, next_value) - value
    carry = gamma * lam * (~(terminated | truncated)).to(reward.dtype)
    for t in range(reward.shape[0] - 2, -1, -1):
        advantage[t].addcmul_(carry[t], advantage[t + 1])
    return advantage


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """1 - Var(returns - value) / Var(returns), a scalar: 1 is a perfect critic, 0 no better than a constant.

    NaN where the returns do not vary at all. Of all processes' values.
    """
    if parallel.processes() == 1:
        return 1.0 - (returns - value).var(correction=0) / returns.var(correction=0)
    return 1.0 - parallel.moments_of(returns - value)[2] / parallel.moments_of(returns)[2]
