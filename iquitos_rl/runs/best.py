"""When a run's policy was at its best, by what training measures anyway."""

from __future__ import annotations

from math import inf
from typing import Any

from iquitos_rl.agents.progress import Progress

YEARS = 4
"""Site-years of finished episodes that a mean is taken over: a month's weather should not decide."""


class Best:
    """The highest mean reward per hour of recent training episodes, exploration included.

    Args:
        window: hours of finished episodes that make a mean.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self.reward, self.step = -inf, 0
        """The highest mean so far and the step at which it was reported."""
        self._episodes = 0
        self._recent: list[tuple[float, float]] = []  # hours and reward of the episodes that each report told of

    def mean(self, progress: Progress) -> float | None:
        """Take a report in; the mean over the last `window` hours or a report more, None while there are fewer."""
        finished, self._episodes = progress.episodes - self._episodes, progress.episodes
        if finished:
            metrics = progress.metrics
            self._recent.append((finished * metrics["episode_length"], finished * metrics["episode_return"]))
        while sum(hours for hours, _ in self._recent[1:]) >= self.window:
            del self._recent[0]
        hours, reward = (sum(column) for column in zip(*self._recent)) if self._recent else (0, 0)
        return reward / hours if hours >= self.window else None

    def state_dict(self) -> dict[str, Any]:
        return {"reward": self.reward, "step": self.step, "episodes": self._episodes, "recent": list(self._recent)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reward, self.step = float(state["reward"]), int(state["step"])
        self._episodes, self._recent = (
            int(state["episodes"]),
            [(float(hours), float(reward)) for hours, reward in state["recent"]],
        )
