"""The interface of a controller: anything that maps observations of a site to actions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Controller = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Observation (D,) to action (A,) in [-1, 1]."""
