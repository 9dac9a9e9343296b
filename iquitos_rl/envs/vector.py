"""The one interface that agents train on: E environments stepped together, everything a tensor.

Gymnasium changed its vector API's autoreset twice, and every convention has cost somebody a wrong bootstrap. Here a
step always returns both observations: the one to act on next, and the true successor of the action. Where no episode
ended the two are equal.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, device


class StepResult(NamedTuple):
    """What one action in each of E environments led to."""

    obs: Tensor
    """(E, D) float32, the observation to act on next: the first of a new episode where one has just ended."""
    reward: Tensor
    """(E,) float32."""
    terminated: Tensor
    """(E,) bool: the task ended, its value is zero from here."""
    truncated: Tensor
    """(E,) bool: only the recording ended, bootstrap from `next_obs`."""
    next_obs: Tensor
    """(E, D) float32, the true successor of the action, before any reset."""
    info: dict[str, Tensor]
    """Per-step figures by name, each (E,): money, energy, carbon of the step."""


class Exogenous(NamedTuple):
    """The part of the observations that no action changes and that is written down already.

    An environment that has such a table offers this as its attribute `exogenous`, at any time for where it stands; a
    replay buffer then keeps the row's number in place of the columns.
    """

    table: Tensor
    """(R, X) float32: the first X columns of every observation are one of these rows, to the last bit."""
    row: Tensor
    """(E,) int64, the row of the observation to act on next."""
    next_row: Tensor
    """(E,) int64, the row of the last step's `next_obs`; after a reset the same as `row`."""
    coarse: tuple[int, ...]
    """Columns of an observation that always lie in [-1, 1] and lose nothing that matters when they are rounded to
    1/127, such as the state of charge of one of many vehicles."""


@runtime_checkable
class VectorEnv(Protocol):
    """E environments with flat float32 observations (E, D) and actions (E, A) in [-1, 1]."""

    num_envs: int
    obs_dim: int
    action_dim: int
    device: device
    action_mask_columns: Tensor | None
    """(A,) int64: for each action the observation column whose sign says whether it is live (> 0), -1 for always live.
    None where every action is always live."""

    def reset(self, seed: int | None = None) -> Tensor:
        """Start E new episodes and return their first observations (E, D)."""

    def step(self, action: Tensor) -> StepResult:
        """Apply actions (E, A) in [-1, 1]; environments whose episode ends are reset at once."""

    def close(self) -> None:
        """Release processes and files."""


def action_mask(obs: Tensor, columns: Tensor | None) -> Tensor | None:
    """Which actions are live: (..., D) observations and (A,) columns to a (..., A) bool mask, or None for all."""
    if columns is None:
        return None
    return (obs[..., columns.clamp(min=0)] > 0) | (columns < 0)
