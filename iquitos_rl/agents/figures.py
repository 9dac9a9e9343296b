"""What updates tell of themselves, and the guard that nothing is learned from a number that is not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from iquitos_rl.errors import UserError


class Figures:
    """Figures of updates by name, summed on the device and read only when a report or a checkpoint is due.

    From the first figure that is not finite on, `found` is 1 and every step of the optimisers changes nothing: they
    have it as their `found_inf`, which PyTorch's fused optimisers look at on the device. Its sum stays what it is until
    somebody looks, so the host may look late and still learns which figure it was, and at which step.

    Args:
        names: the figures', in the order in which they are computed. A loss and the norm of its gradient should be
            among them: these two are not finite wherever anything before them was not.
    """

    def __init__(self, names: Sequence[str], optimizers: Iterable[Optimizer], device: torch.device) -> None:
        self.names = tuple(names)
        self.found = torch.zeros((), device=device)
        self._sums = torch.zeros(len(self.names), dtype=torch.float64, device=device)
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._count = 0
        for optimizer in optimizers:
            optimizer.found_inf = self.found  # type: ignore[attr-defined]

    def at_step(self, step: int) -> None:
        """The updates to come follow so many transitions."""
        self._step.masked_fill_(self.found == 0, step)

    def add(self, figures: Tensor, first: int = 0) -> None:
        """Add figures (n,) without gradient, the names from `first` on; those of the last name complete an update."""
        last = first + len(figures)
        self._sums[first:last].add_(figures)
        # x - x is zero, and NaN where x is not finite; NaN counts as true.
        self.found.masked_fill_((figures - figures).any(), 1.0)
        self._count += last == len(self.names)

    def check(self) -> None:
        """Wait for the device and look.

        Raises:
            UserError: an update's figure was not finite; the networks are those before it.
        """
        self._read()

    def means(self) -> dict[str, float]:
        """Mean of each figure over the updates since the last call, nothing where there was none.

        Raises:
            UserError: as `check`.
        """
        count, self._count = self._count, 0
        sums = self._read()
        self._sums.zero_()
        return {name: value / count for name, value in zip(self.names, sums)} if count else {}

    def _read(self) -> list[float]:
        sums: list[float] = self._sums.tolist()
        for name, value in zip(self.names, sums):
            if not isfinite(value):
                step = int(self._step)
                raise UserError(f"training diverged: {name} is {value} at step {step}; try a smaller learning_rate")
        return sums

    def state_dict(self) -> dict[str, Any]:
        """The sums so far; a state to go on from is one that `check` has passed."""
        return {"sums": self._sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums.copy_(state["sums"])
        self._count = int(state["count"])
