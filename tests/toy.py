"""A battery for one day whose best schedule is known exactly: a small task on which an agent can be checked."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

HOURS = 24
BLOCK = 3
"""Hours for which the price stays cheap or dear before it alternates."""
CHEAP, DEAR = 1.0, 3.0
POWER = 0.5
"""Share of the battery's capacity that one hour can charge or discharge."""
LEVELS = 5
"""The optimum visits only these states of charge, 0, 1/4 ... 1: bounds, power and start are all multiples of 1/4."""
INITIAL_SOC = 0.25
EFFICIENCY = 0.9


def price(hour: int) -> float:
    """Money per unit of capacity in hour 0 to 23."""
    return CHEAP if hour // BLOCK % 2 == 0 else DEAR


def profit(hour: int, change: float) -> float:
    """Money earned by changing the state of charge by `change`; losses on both ways."""
    return -price(hour) * (change / EFFICIENCY if change > 0 else change * EFFICIENCY)


class ToyBattery(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Buy cheap, sell dear: 24 hourly steps, then the episode terminates and what is left in the battery is worthless.

    Observation (4,): sine and cosine of the time of day, price as -1 (cheap) or 1 (dear), state of charge as -1 to 1.
    Action (1,) in [-1, 1]: change of the state of charge in units of `POWER`, cut off at empty and full.
    Reward: money earned in the hour.
    """

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self) -> None:
        self._hour, self._soc = 0, INITIAL_SOC

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._hour, self._soc = 0, INITIAL_SOC
        return self._observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        soc = min(1.0, max(0.0, self._soc + POWER * float(action[0])))
        reward = profit(self._hour, soc - self._soc)
        self._hour, self._soc = self._hour + 1, soc
        return self._observe(), reward, self._hour == HOURS, False, {"money": reward}

    def _observe(self) -> NDArray[np.float32]:
        angle = 2 * np.pi * self._hour / HOURS
        tariff = -1.0 if price(self._hour % HOURS) == CHEAP else 1.0
        return np.array([np.sin(angle), np.cos(angle), tariff, 2 * self._soc - 1], np.float32)


def optimal_return() -> float:
    """The largest total reward of a day, exact.

    The task is linear between multiples of 1/4 of the capacity, so a vertex of it, and with it an optimum, lies on that
    grid, and dynamic programming over five states of charge finds it.
    """
    grid = [level / (LEVELS - 1) for level in range(LEVELS)]
    value = [0.0] * LEVELS
    for hour in reversed(range(HOURS)):
        value = [
            max(profit(hour, after - soc) + value[k] for k, after in enumerate(grid) if abs(after - soc) <= POWER)
            for soc in grid
        ]
    return value[grid.index(INITIAL_SOC)]
