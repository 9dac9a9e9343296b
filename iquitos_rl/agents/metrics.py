"""Metrics of updates, and the guard that nothing is learned from a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from iquitos_rl.errors import UserError


class Metrics:
    """Metrics of updates by name, summed on the device and read only when a report or a checkpoint is due.

    As soon as a metric is not finite, `found` is 1 and no optimiser's step changes anything any more: they have it as
    their `found_inf`, which PyTorch's fused optimisers read on the device. The bad value stays in the sum, so a late
    check still names the metric and the step. A loss and the norm of its gradient should be among the metrics: these
    two are not finite wherever anything before them was not.
    """

    def __init__(self, optimizers: Iterable[Optimizer], device: torch.device) -> None:
        self.found = torch.zeros((), device=device)
        # By the names of those that were added together: one kernel adds them up.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self.watch(optimizers)

    def watch(self, optimizers: Iterable[Optimizer]) -> None:
        """Let these optimisers stand still from the first metric on that is not finite."""
        for optimizer in optimizers:
            optimizer.found_inf = self.found  # type: ignore[attr-defined]

    def at_step(self, step: int) -> None:
        """The updates to come follow so many transitions."""
        self._step.masked_fill_(self.found == 0, step)

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add metrics, scalars without gradient."""
        names, values = tuple(metrics), torch.stack(list(metrics.values()))
        if names not in self._sums:
            self._sums[names] = torch.zeros(len(names), dtype=torch.float64, device=values.device)
            self._counts[names] = 0
        self._sums[names].add_(values)
        self._counts[names] += 1
        # x - x is zero, and NaN where x is not finite; NaN counts as true.
        self.found.masked_fill_((values - values).any(), 1.0)

    def check(self) -> None:
        """Wait for the device and look.

        Raises:
            UserError: an update's metric was not finite; the networks are those before it.
        """
        self._read()

    def means(self) -> dict[str, float]:
        """Mean of each metric over the updates since the last call, nothing where there was none.

        Raises:
            UserError: as `check`.
        """
        counts = [self._counts[names] for names in self._sums for _ in names]
        means = {name: total / count for (name, total), count in zip(self._read().items(), counts)}
        self._sums.clear()
        self._counts.clear()
        return means

    def _read(self) -> dict[str, float]:
        if not self._sums:
            return {}
        names = [name for group in self._sums for name in group]
        sums = dict(zip(names, torch.cat(list(self._sums.values())).tolist(), strict=True))
        for name, value in sums.items():
            if not isfinite(value):
                step = int(self._step)
                raise UserError(f"training diverged: {name} is {value} at step {step}; try a smaller learning_rate")
        return sums

    def state_dict(self) -> dict[str, Any]:
        """The sums so far; a state to resume from is one that `check` has passed."""
        return {",".join(names): {"sums": sums, "count": self._counts[names]} for names, sums in self._sums.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        groups = {tuple(names.split(",")): group for names, group in state.items()}
        device = self.found.device
        self._sums = {names: group["sums"].to(device, copy=True) for names, group in groups.items()}
        self._counts = {names: int(group["count"]) for names, group in groups.items()}
