"""Progress reports of a training run, and the episode metrics in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from iquitos_rl.agents import parallel
from iquitos_rl.envs.vector import StepResult


class Progress(NamedTuple):
    """One report of a running `learn`, made at a moment when the agent's `state_dict` is complete."""

    steps: int
    """Transitions so far, over all environments."""
    updates: int
    """Optimiser steps so far."""
    episodes: int
    """Episodes finished so far, over all environments."""
    metrics: dict[str, float]
    """Metrics since the last report by name; one that does not exist (no episode ended) is absent."""


class EpisodeTracker:
    """Adds up raw rewards and step infos where they are, and reads them back only when a report is due.

    `update` never waits for the device; `collect` does, once. Returns are those the environment paid, whatever
    scaling the agent trains on.
    """

    def __init__(self, num_envs: int, device: torch.device | str) -> None:
        self.episodes = 0
        self._running = torch.zeros(2, num_envs, dtype=torch.float64, device=device)  # return, length
        self._finished = torch.zeros(3, dtype=torch.float64, device=device)  # sum of returns, of lengths, count
        # By the names of a step: an environment may have more to tell at some steps, and there are few such sets.
        self._info: dict[tuple[str, ...], Tensor] = {}

    def update(self, step: StepResult) -> None:
        """Count one step of every environment."""
        ended = step.terminated | step.truncated
        self._running[0] += step.reward
        self._running[1] += 1.0
        self._finished[:2] += self._running.masked_fill(~ended, 0.0).sum(dim=1)
        self._finished[2] += ended.sum()
        self._running.masked_fill_(ended, 0.0)
        if step.info:
            names = tuple(step.info)
            sums = torch.stack(tuple(step.info.values())).sum(dim=1, dtype=torch.float64)
            self._info[names] = self._info[names] + sums if names in self._info else sums

    def collect(self) -> dict[str, float]:
        """Figures since the last call: `episode_return` and `episode_length` (means over the episodes that finished,
        absent where none did) and `env/<name>`, each info summed over steps and environments. Of all processes."""
        returns, lengths, count, *sums = torch.cat([self._finished, *self._info.values()]).tolist()
        infos = list(zip([name for names in self._info for name in names], sums, strict=True))
        if parallel.processes() > 1:
            returns, lengths, count = (sum(own) for own in zip(*parallel.gather((returns, lengths, count))))
            infos = [info for own in parallel.gather(infos) for info in own]
        metrics = {"episode_return": returns / count, "episode_length": lengths / count} if count else {}
        for name, total in infos:
            metrics[f"env/{name}"] = metrics.get(f"env/{name}", 0.0) + total
        self.episodes += int(count)
        self._finished.zero_()
        self._info.clear()
        return metrics

    def abandon_episodes(self) -> None:
        """Forget the unfinished episodes: their environments were reset from outside."""
        self._running.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue counting, tensors copied."""
        return {
            "episodes": self.episodes,
            "running": self._running.clone(),
            "finished": self._finished.clone(),
            "info": {",".join(names): sums.clone() for names, sums in self._info.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`; the open episodes of another number of environments are not taken over."""
        self.episodes = int(state["episodes"])
        if state["running"].shape == self._running.shape:
            self._running.copy_(state["running"])
        self._finished.copy_(state["finished"])
        device = self._finished.device
        self._info = {tuple(names.split(",")): sums.clone().to(device) for names, sums in state["info"].items()}
