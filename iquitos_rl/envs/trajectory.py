"""A fixed controller's years, hour by hour: where episodes may begin, and what their rewards count from.

An episode that begins where a good controller stood has states of charge and running peaks that a controlled site has.
A reward counted from that controller's reward in the same hour is free of what weather, load and visits do to both;
what is taken off depends on no action, so the best policy stays the same (the input-dependent baselines of Mao et al.
2018, arXiv 1807.02264).
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Trajectory(NamedTuple):
    """S years of T rows, row t of year s at s * T + t. On a year's last row no step is defined; it repeats another."""

    battery_soc: Tensor
    """(S * T, B) before the row's action."""
    vehicle_soc: Tensor
    """(S * T, W) the same, see `physics.State`."""
    running_peak: Tensor
    """(S * T, B, 2) kW, highest import of the month before this row, peak and off-peak period."""
    net: Tensor
    """(S * T, B) kWh of the row before."""
    reward: Tensor
    """(S * T,) float32."""
