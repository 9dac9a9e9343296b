"""People who change a building's set-points when they are too warm or too cold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEEN = ("set-point", "set-point of the row before", "temperature less set-point of the row before")
"""What a decision tree looks at, in its order."""
LOGISTIC = ("a_increase", "b_increase", "a_decrease", "b_decrease")
"""Columns of the parameters, with CityLearn's names."""


@dataclass(frozen=True)
class Tree:
    """A decision tree of K nodes as arrays, (K,) each; node 0 is the root."""

    feature: NDArray[np.int64]
    """Index into `SEEN` of what a node looks at; 0 at a leaf."""
    threshold: NDArray[np.float64]
    """What is seen is single precision, and so is this: rounded down, which decides the same."""
    left: NDArray[np.int64]
    """The next node where what is seen is at most the threshold; a leaf names itself."""
    right: NDArray[np.int64]
    change: NDArray[np.float64]
    """K by which a leaf changes the set-point; 0 elsewhere."""

    @property
    def depth(self) -> int:
        """Nodes between the root and the deepest leaf, the leaf included."""
        depth = np.zeros(len(self.left), dtype=np.int64)
        for node in range(len(self.left)):
            for child in (self.left[node], self.right[node]):
                if child != node:
                    depth[child] = depth[node] + 1
        return int(depth.max())


@dataclass(frozen=True)
class Occupant:
    """Who lives in a building (`citylearn/occupant.py`, LogisticRegressionOccupant). T rows.

    In each row two logistic functions of the temperature inside tell how likely a higher and a lower set-point is. If
    a drawn number lets exactly one of the two happen, its tree says by how much. A set-point that was changed holds
    until it is changed again.
    """

    logistic: NDArray[np.float64]
    """(T, 4) intercept and slope per C for a higher set-point, and for a lower one."""
    seed: int
    """The number of step t of an episode is the first of `numpy.random.RandomState(max(seed, 1) + t)`."""
    increase: Tree
    decrease: Tree
