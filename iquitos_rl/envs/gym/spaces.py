"""Gymnasium's Box spaces and the numbers that cross them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError

Space = gymnasium.Space[Any]


class BoxVector(VectorEnv):
    """E environments with Box spaces, flattened; actions in [-1, 1] are stretched to the action space's bounds. Raises
    UserError: a space is no Box, or the action space is not bounded."""

    def __init__(self, num_envs: int, obs_space: Space, action_space: Space, device: torch.device | str) -> None:
        obs_space, self._action_space = _box(obs_space, "observation"), _box(action_space, "action")
        self._low, self._high = np.array([self._action_space.low, self._action_space.high], dtype=np.float64)
        if not (np.isfinite(self._low).all() and np.isfinite(self._high).all()):
            raise UserError("the action space has no finite bounds, so [-1, 1] cannot be stretched to it")
        self.num_envs, self.device = num_envs, torch.device(device)
        self.obs_dim, self.action_dim = int(np.prod(obs_space.shape)), int(np.prod(self._action_space.shape))
        self.action_low, self.action_high = torch.tensor(np.stack([self._low, self._high])).float().flatten(1)

    def stretch(self, action: Tensor) -> NDArray[Any]:
        """Actions (E, A) in [-1, 1] in the environment's range, type and shape (E, *shape), never beyond the bounds.
        Raises UserError: an action is NaN."""
        rows = action.detach().cpu().numpy().astype(np.float64)
        if np.isnan(rows).any():
            env, column = np.argwhere(np.isnan(rows))[0]
            raise UserError(f"action {column} of environment {env} is NaN")
        rows = self._low + (rows.reshape(len(rows), *self._low.shape) + 1) / 2 * (self._high - self._low)
        return np.clip(rows, self._low, self._high).astype(self._action_space.dtype)

    def observations(self, rows: NDArray[np.float32], names: Sequence[str] | None = None) -> Tensor:
        """Observations (E, D) on the device. Raises UserError: one is NaN; the column is named, by its name where
        `names` has it."""
        if np.isnan(rows).any():
            env, column = np.argwhere(np.isnan(rows))[0]
            name = f" ({names[column]})" if names else ""
            raise UserError(f"observation column {column}{name} of environment {env} is NaN")
        return torch.from_numpy(rows).to(self.device)

    def flags(self, values: Sequence[bool] | NDArray[np.bool_]) -> Tensor:
        return torch.as_tensor(values, dtype=torch.bool, device=self.device)

    def rewards(self, values: Sequence[float] | NDArray[Any]) -> Tensor:
        """Rewards (E,) on the device. Raises UserError: one is not a finite number."""
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            raise UserError(f"the reward of environment {bad} is {values[bad]}, not a finite number")
        return torch.as_tensor(values, dtype=torch.float32, device=self.device)


def _box(space: Space, role: str) -> gymnasium.spaces.Box:
    if not isinstance(space, gymnasium.spaces.Box):
        raise UserError(f"the {role} space is {type(space).__name__}, only Box is supported")
    return space
