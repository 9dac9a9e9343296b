"""Appliances that run a fixed programme once, within a window of time: washing machines, dishwashers, dryers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOTHING = -1
"""Cycle of a row in which no cycle may start."""


@dataclass(frozen=True)
class Appliance:
    """One appliance of a building; `cycle` numbers its cycles from 0. C cycles, L steps of the longest, T rows.

    Source: CityLearn 3.0.2, `energy_model.py`, DeferrableAppliance. The windows of two cycles never overlap.
    """

    name: str
    threshold: float
    """An action above it starts the cycle that may start."""
    cycle: NDArray[np.int64]
    """(T,) the cycle that may start in a row, `NOTHING` where none may."""
    profiles: NDArray[np.float64]
    """(C, L) kWh of each step after the start, 0 after the end."""
    duration: NDArray[np.int64]
    """(C,) steps."""

    @property
    def closes(self) -> NDArray[np.bool_]:
        """(T,) True in the last row in which a cycle may start."""
        following = np.append(self.cycle[1:], NOTHING)
        return (self.cycle != NOTHING) & (following != self.cycle)
