"""A fixed controller's years, hour by hour: where episodes may begin, and what their rewards count from.

An episode that begins where a good controller stood has states of charge and running peaks that a controlled site has.
A reward counted from that controller's reward in the same hour is free of what weather, load and visits do to both;
what is taken off depends on no action, so the best policy stays the same (the input-dependent baselines of Mao et al.
2018, arXiv 1807.02264).

A demand charge bills a month's highest hour, and for up to a month nobody knows whether an hour is that one. Here each
hour pays for what it adds to the charge that the month is expected to end with: the running peak, or the highest import
of the controller in the rest of the month, on average over its years. Over a month that sums to the same bill, as with
any potential (Ng et al. 1999, "Policy Invariance Under Reward Transformations"), but an agent need look a day or two
ahead and not a month, and every hour that is dear in some year teaches, not only the one that was the highest in its
own.
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
    """(S * T,) float32, demand charges as they are expected."""
    peak_ahead: Tensor
    """(T, S, B, 2) kW, highest import from row t to the month's end in each year; the years share a calendar."""
    peak_beyond: Tensor
    """(T, S, B, 2) the same without row t, 0 on a month's last."""
    peak_price: Tensor
    """(2,) reward that a kW of a month's peak costs."""

    def expected(self, reward: Tensor, row: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """(E,) rewards in which the demand charge is what a step adds to the one expected at the month's end.

        Args:
            reward: (E,) of the step, with what it adds to the charge so far.
            row: (E,) of the step.
            before: (E, B, 2) running peak before the step, kW.
            after: (E, B, 2) after it, in the same month.
        """
        t = row % len(self.peak_ahead)
        ahead, beyond = self.peak_ahead.index_select(0, t), self.peak_beyond.index_select(0, t)
        to_come = (beyond - after.unsqueeze(1)).clamp(min=0) - (ahead - before.unsqueeze(1)).clamp(min=0)
        return reward - (to_come.mean(1) * self.peak_price).sum((-1, -2)).to(reward.dtype)
