"""What a gymnasium environment can tell agents beyond its two spaces."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
from torch import Tensor


class Description(NamedTuple):
    """The optional parts of `VectorEnv`, of one environment."""

    action_mask_columns: Tensor | None = None
    """(A,) int64, see `VectorEnv`."""
    policy_spec: dict[str, Any] = {}
    """See `VectorEnv`."""
    exogenous_table: Tensor | None = None
    """(R, X) float32, see `Exogenous`."""
    coarse_columns: tuple[int, ...] = ()
    """See `Exogenous`."""
    resumable: bool = False
    """Whether `start_state` and the actions taken since lead back to where an episode stands."""


class DescribedEnv(gymnasium.Env[Any, Any]):
    """A gymnasium environment with a description, which is found through any wrappers around it."""

    description = Description()

    def table_row(self) -> int:
        """The row of `exogenous_table` that the last observation begins with."""
        return 0

    def start_state(self) -> dict[str, Any]:
        """What `restart` needs to start the present episode again, and those after it; where `resumable`."""
        raise NotImplementedError

    def restart(self, start: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Start the episode of a `start_state`; returns what `reset` returned then. Where `resumable`."""
        raise NotImplementedError
