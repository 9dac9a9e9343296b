"""Water levels: how much to take off, or put on top of, a row of expected hours so that the rest is level.

Exact, by sorting the points at which an hour starts or stops to give way; batched over leading dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shave_level(expected: Tensor, limit: Tensor, energy: Tensor, live: Tensor) -> Tensor:
    """The level to which `energy` lowers the live hours, each by at most `limit`.

    Solves sum over live hours of clamp(expected - level, 0, limit) = energy. Where the energy suffices for every hour
    in full, the level is that at which the last hour reaches its limit; with no energy it is the highest hour.

    Args:
        expected: (..., H) kW.
        limit: (...) kW, > 0.
        energy: (...) kWh, >= 0, hours being the steps.
        live: (..., H) bool; at least one.

    Returns:
        (...) kW.
    """
    far = torch.full_like(expected, -1e9)
    shown = torch.where(live, expected, far)
    # The amount taken is piecewise linear in the level: at its knots, from the highest down, an hour starts to give
    # (one more in the slope) or has given all it can (one less). Hours that are not live change nothing.
    knots, order = torch.cat([shown, shown - limit.unsqueeze(-1)], dim=-1).sort(dim=-1, descending=True)
    starts = live.to(expected.dtype).expand_as(expected)
    slope = torch.cat([starts, -starts], dim=-1).gather(-1, order).cumsum(-1)
    taken = (slope[..., :-1] * (knots[..., :-1] - knots[..., 1:])).cumsum(-1)
    taken = torch.cat([torch.zeros_like(taken[..., :1]), taken], dim=-1)  # (..., 2 H), rising
    index = (taken < energy.unsqueeze(-1)).sum(-1, keepdim=True).clamp(1, knots.shape[-1] - 1)
    upper, lower = knots.gather(-1, index - 1), knots.gather(-1, index)
    more, less = taken.gather(-1, index), taken.gather(-1, index - 1)
    share = ((energy.unsqueeze(-1) - less) / (more - less).clamp(min=1e-9)).clamp(0, 1)
    level = (upper + share * (lower - upper)).squeeze(-1)
    lowest = torch.where(live, expected, -far).amin(-1) - limit
    return torch.maximum(level, lowest)
