"""The one interface that agents train on: E environments stepped together, everything a tensor.

Gymnasium changed its vector API's autoreset twice, and every convention has cost somebody a wrong bootstrap. Here a
step always returns both observations: the one to act on next, and the true successor of the action. Where no episode
ended the two are equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iquitos_rl.envs.spaces import ActionSpace, ObservationSpace
from iquitos_rl.errors import UserError


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

    A replay buffer keeps the row's number in place of the columns, see `VectorEnv.exogenous`.
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


class VectorEnv(ABC):
    """E environments with flat float32 observations (E, D) and actions (E, A) in [-1, 1], or numbers of choices.

    A subclass sets the first four attributes and has `reset` and `step`; everything else is optional.
    """

    num_envs: int
    """E."""
    obs_dim: int
    """D."""
    action_dim: int
    """A."""
    device: torch.device
    """Of every tensor that goes in or comes out."""

    action_mask_columns: Tensor | None = None
    """(A,) int64: for each action the observation column whose sign says whether it is live (> 0), -1 for always live.
    None where every action is always live."""
    action_low: Tensor = torch.tensor(-1.0)
    """(A,) or one for all: what an action of -1 means, in the unit of whatever is controlled. Stored with a policy."""
    action_high: Tensor = torch.tensor(1.0)
    """The same for an action of 1."""
    choices: tuple[int, ...] | None = None
    """Where actions are choices: how many there are for each of the A numbers, which count from 0."""
    obs_space: ObservationSpace | None = None
    """How the environment's own observations become rows; None where they are rows."""
    action_space: ActionSpace | None = None
    """The same for actions."""
    byte_columns: tuple[int, ...] = ()
    """Columns of an observation that are whole numbers from 0 to 255."""
    episode_steps: int | None = None
    """Length of every episode but the first, where all are equally long."""
    policy_spec: dict[str, Any] = {}
    """What a policy needs to see the same numbers elsewhere, such as names and bounds of columns; JSON."""
    state_bytes: int = 0
    """Bytes that one environment of a batched engine keeps between two steps, about."""

    differentiable: bool = False
    """Autograd can go through `step`, from actions and earlier steps to observations and rewards."""

    @property
    def exogenous(self) -> Exogenous | None:
        """Which rows of its table the environment is at, None where it has no table."""
        return None

    @abstractmethod
    def reset(self, seed: int | None = None) -> Tensor:
        """Start E new episodes and return their first observations (E, D)."""

    @abstractmethod
    def step(self, action: Tensor) -> StepResult:
        """Apply actions (E, A); environments whose episode ends are reset at once."""

    def example_step(self, count: int, traced: bool = False) -> Callable[[], object] | None:
        """What does the work of a step of `count` environments, on numbers of no meaning, and returns all that a step
        keeps until its end: the planner measures its memory. None where that cannot be done without stepping.

        Args:
            traced: actions require a gradient, and so does the state that follows from earlier ones.
        """
        return None

    def detach(self) -> None:
        """Forget how the present state came about: autograd goes back no further than to here."""
        return

    def part(self, first: int, last: int) -> VectorEnv:
        """The environments from `first` to before `last`, on their own; `join` brings them back.

        Raises:
            UserError: these environments cannot be taken apart.
        """
        raise UserError(f"a {type(self).__name__} cannot be taken apart: lower num_envs")

    def join(self, parts: Sequence[VectorEnv]) -> None:
        """Stand where the parts, which are all of these environments in their order, stand."""
        raise UserError(f"a {type(self).__name__} cannot be put together")

    def close(self) -> None:
        """Release processes and files."""
        return

    def capture(self) -> None:
        """Step as CUDA graphs from now on, where the environment can."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly from here.

        Raises:
            UserError: this environment cannot be saved.
        """
        raise UserError(f"the state of a {type(self).__name__} cannot be saved: it has no state_dict")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            UserError: this environment cannot be brought to where it was saved.
        """
        raise UserError(f"the state of a {type(self).__name__} cannot be restored: it has no load_state_dict")


def action_mask(obs: Tensor, columns: Tensor | None) -> Tensor | None:
    """Which actions are live: (..., D) observations and (A,) columns to a (..., A) bool mask, or None for all."""
    if columns is None:
        return None
    return (obs[..., columns.clamp(min=0)] > 0) | (columns < 0)


def within(action: Tensor, choices: tuple[int, ...] | None) -> Tensor:
    """Actions (E, A) as `step` takes them: cut to [-1, 1], choices as they are."""
    return action.clamp(-1.0, 1.0) if choices is None else action
