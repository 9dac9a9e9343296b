"""Piecewise linear functions of many devices at once: efficiency by power, available power by SOC.

There are two ways to evaluate them. `exact` repeats CityLearn's arithmetic operation by operation. `fast` computes a
line plus one change of slope per inner knot, without masks: on a CPU a selection by mask takes 20 times as long as an
addition.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Floats

BEYOND = 1e9
"""x of the knots that pad shorter curves, larger than any argument."""


class Curves(NamedTuple):
    """One function per device: D devices (1 if all functions are equal), K >= 2 knots."""

    x: Tensor
    """(K, D) rising."""
    y: Tensor
    """(K, D)."""
    last: Tensor
    """(2, D) x and y of the last knot that is not padding."""
    intercept: Tensor
    """(D,) value of the first segment's line at x = 0."""
    slope: Tensor
    """(D,) of the first segment."""
    bend: Tensor
    """(K - 2, D) change of slope at each inner knot."""

    def select(self, device: Tensor) -> Curves:
        """The functions of the devices with these indices, of any shape; fields then end in that shape, not in D."""
        return self if self.x.shape[-1] == 1 else Curves(*(field[..., device] for field in self))


def make_curves(curves: Sequence[Floats], dtype: torch.dtype, where: torch.device) -> Curves:
    """Pad and stack the (2, K_d) knots of each device."""
    knots = max([2, *(curve.shape[1] for curve in curves)])
    x = np.full((knots, len(curves)), BEYOND) + np.arange(knots)[:, None]
    y = np.empty((knots, len(curves)))
    for d, curve in enumerate(curves):
        count = curve.shape[1]
        x[:count, d] = curve[0]
        y[:, d] = curve[1, -1]
        y[:count, d] = curve[1]
    slopes = np.diff(y, axis=0) / np.diff(x, axis=0)
    bend = np.diff(slopes, axis=0)
    last = np.array([[curve[0, -1] for curve in curves], [curve[1, -1] for curve in curves]])
    for d, curve in enumerate(curves):
        # Beyond its last knot a curve continues with the last slope, so padding must not change the slope.
        bend[max(curve.shape[1] - 2, 0) :, d] = 0.0
    arrays = (x, y, last, y[0] - slopes[0] * x[0], slopes[0], bend)
    same = all(bool((array == array[..., :1]).all()) for array in arrays) and len(curves) > 0
    return Curves(*(torch.as_tensor(array[..., :1] if same else array, dtype=dtype, device=where) for array in arrays))


def fast(curves: Curves, q: Tensor) -> Tensor:
    """Values at q (..., D), extrapolated linearly beyond the outer knots."""
    value = torch.addcmul(curves.intercept, q, curves.slope)
    for k in range(curves.bend.shape[0]):
        value = torch.addcmul(value, (q - curves.x[k + 1]).relu(), curves.bend[k])
    return value


def exact(curves: Curves, q: Tensor) -> Tensor:
    """As `fast`, in the order of operations of `energy_model.py`, get_current_efficiency."""
    x0, y0, dx, dy = _segment(curves, q, from_knot_on=False)
    return y0 + (q - x0) * dy / dx


def exact_bounded(curves: Curves, q: Tensor) -> Tensor:
    """As `exact`, constant beyond the outer knots, as `np.interp`, which CityLearn uses for chargers."""
    x0, y0, dx, dy = _segment(curves, q, from_knot_on=True)
    value = dy / dx * (q - x0) + y0
    value = torch.where(q >= curves.last[0], curves.last[1], value)
    return torch.where(q < curves.x[0], curves.y[0], value)


def fast_bounded(curves: Curves, q: Tensor) -> Tensor:
    """As `fast`, constant beyond the outer knots."""
    return fast(curves, q.clamp(min=curves.x[0]).clamp(max=curves.last[0]))


def _segment(curves: Curves, q: Tensor, from_knot_on: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Start (x, y) and extent (dx, dy) of the segment that holds q.

    A knot belongs to the segment to its right if `from_knot_on`, else to the one to its left.
    """
    x0, y0 = curves.x[0], curves.y[0]
    dx, dy = curves.x[1] - curves.x[0], curves.y[1] - curves.y[0]
    for k in range(1, curves.x.shape[0] - 1):
        past = q >= curves.x[k] if from_knot_on else q > curves.x[k]
        # The last segment before the padding has no end.
        past = past & (curves.x[k] < curves.last[0])
        x0, y0 = torch.where(past, curves.x[k], x0), torch.where(past, curves.y[k], y0)
        dx = torch.where(past, curves.x[k + 1] - curves.x[k], dx)
        dy = torch.where(past, curves.y[k + 1] - curves.y[k], dy)
    return x0, y0, dx, dy
