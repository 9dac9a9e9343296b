"""Gymnasium's Box spaces and the numbers that cross them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.errors import UserError


def box(space: gymnasium.Space[Any], role: str) -> gymnasium.spaces.Box:
    """The space itself.

    Raises:
        UserError: it is no Box.
    """
    if not isinstance(space, gymnasium.spaces.Box):
        raise UserError(f"the {role} space is {type(space).__name__}, only Box is supported")
    return space


def bounds(space: gymnasium.spaces.Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An action space's lowest and highest values, in its shape.

    Raises:
        UserError: one of them is not finite.
    """
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise UserError("the action space has no finite bounds, so [-1, 1] cannot be stretched to it")
    return low, high


def stretch(action: Tensor, low: NDArray[np.float64], high: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    """Actions (E, A) in [-1, 1] in the environment's range, type and shape (E, *shape), never beyond the bounds.

    Raises:
        UserError: an action is NaN.
    """
    rows = action.detach().cpu().numpy().astype(np.float64)
    if np.isnan(rows).any():
        env, column = np.argwhere(np.isnan(rows))[0]
        raise UserError(f"action {column} of environment {env} is NaN")
    rows = rows.reshape(len(rows), *low.shape)
    return np.clip(low + (rows + 1) / 2 * (high - low), low, high).astype(dtype)


def refuse_nan(obs: NDArray[np.float32], names: Sequence[str] | None = None) -> None:
    """Check observations (E, D).

    Raises:
        UserError: one is NaN; the column is named, by its name where `names` has it.
    """
    if np.isnan(obs).any():
        env, column = np.argwhere(np.isnan(obs))[0]
        name = f" ({names[column]})" if names else ""
        raise UserError(f"observation column {column}{name} of environment {env} is NaN")


def refuse_infinite(reward: Sequence[float] | NDArray[Any]) -> None:
    """Check rewards (E,).

    Raises:
        UserError: one is not a finite number.
    """
    if not np.isfinite(reward).all():
        bad = int(np.flatnonzero(~np.isfinite(reward))[0])
        raise UserError(f"the reward of environment {bad} is {reward[bad]}, not a finite number")
