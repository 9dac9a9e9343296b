"""How step sizes fall in the course of a training."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import Literal

Schedule = Literal["constant", "linear", "cosine"]
FACTORS: dict[Schedule, Callable[[float], float]] = {
    "constant": lambda passed: 1.0,
    "linear": lambda passed: 1 - passed,
    "cosine": lambda passed: 0.5 * (1 + cos(pi * passed)),
}
"""The share of the first step size that is left where a share of the training has passed."""
