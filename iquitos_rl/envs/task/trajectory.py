"""A fixed controller's years, hour by hour: start states of episodes, and a baseline for their rewards.

An episode that starts in a state of this controller has realistic SOCs and running peaks. Subtracting the controller's
reward in the same hour removes what weather, load and visits do to both. That baseline does not depend on actions, so
the best policy stays the same (input-dependent baselines, Mao et al. 2018, arXiv 1807.02264).

A demand charge bills the month's highest hour, which is not known until the month ends. Here an hour pays for what it
adds to the expected charge at the month's end. That is based on the larger of the running peak and the controller's
highest import in the rest of the month, averaged over its years. Over a month this sums to the same bill, since it is a
potential-based shaping (Ng et al. 1999, "Policy Invariance Under Reward Transformations"). The agent then needs a
horizon of days, not a month, and learns from the expensive hours of all years.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Trajectory(NamedTuple):
    """S years of T rows, row t of year s at s * T + t. A year's last row has no step and repeats another row."""

    battery_soc: Tensor
    """(S * T, B) before the row's action."""
    vehicle_soc: Tensor
    """(S * T, W) before the row's action, see `physics.State`."""
    running_peak: Tensor
    """(S * T, B, C) kW, highest imports before this row, see `Tariff.meters`; those of the month come first."""
    net: Tensor
    """(S * T, B) net consumption of the row before, kWh."""
    reward: Tensor
    """(S * T,) float32, with expected demand charges."""
    peak_ahead: Tensor
    """(G * T, S, B, P) kW, highest import of each demand charge from row t to the month's end in each year, by each of
    G calendars: years whose months begin in other rows have another one."""
    peak_beyond: Tensor
    """(G * T, S, B, P) the same without row t; 0 in a month's last row."""
    peak_price: Tensor
    """(P,) reward per kW of a month's peak."""
    place: Tensor
    """(S * T,) where a row is in `peak_ahead`."""

    def expected(self, reward: Tensor, row: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """(E,) rewards in which a step pays for the increase of the expected demand charge at the month's end.

        Args:
            reward: (E,) of the step, in which it pays for the increase of the charge so far.
            row: (E,) of the step.
            before: (E, B, C) running peak before the step, kW.
            after: (E, B, C) after it, in the same month.
        """
        before, after = (peak[..., : len(self.peak_price)] for peak in (before, after))
        t = self.place.index_select(0, row)
        ahead, beyond = self.peak_ahead.index_select(0, t), self.peak_beyond.index_select(0, t)
        to_come = (beyond - after.unsqueeze(1)).clamp(min=0) - (ahead - before.unsqueeze(1)).clamp(min=0)
        return reward - (to_come.mean(1) * self.peak_price).sum((-1, -2)).to(reward.dtype)
