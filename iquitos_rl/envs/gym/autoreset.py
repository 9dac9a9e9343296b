"""Gymnasium's own vector environments behind the interface that agents train on.

After an episode's end they disagree on what a step returns. "SameStep" (gymnasium below 1.0, an option since 1.1): the
first observation of the next episode, the true successor in the infos. "NextStep" (the default since 1.0): the true
successor, and the step after it is a reset that ignores its action, a transition that never happened and must not be
learned from. "Disabled": the true successor, and the caller resets.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.envs.gym.spaces import bounds, box, refuse_infinite, refuse_nan, stretch
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError

ADVICE = "give a list of functions that make one environment each"


class AutoresetVector(VectorEnv):
    """A `gymnasium.vector.VectorEnv` with Box spaces; actions in [-1, 1] are stretched to the space's bounds.

    Where the environment leaves the reset to its next step or to the caller, ended episodes are reset at once, with
    gymnasium's `reset_mask`: no step is spent on a reset. Infos are not passed on.

    Raises:
        UserError: a space cannot be handled, or the environment does not say how it resets.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, device: torch.device | str = "cpu") -> None:
        self.env, self.device = env, torch.device(device)
        obs_space = box(env.single_observation_space, "observation")
        self._action_space = box(env.single_action_space, "action")
        self._low, self._high = bounds(self._action_space)
        self._same_step = autoreset_mode(env) == "SameStep"
        self.num_envs: int = env.num_envs
        self.obs_dim, self.action_dim = int(np.prod(obs_space.shape)), int(np.prod(self._action_space.shape))
        self.action_low = torch.as_tensor(self._low.reshape(-1), dtype=torch.float32)
        self.action_high = torch.as_tensor(self._high.reshape(-1), dtype=torch.float32)

    def reset(self, seed: int | None = None) -> Tensor:
        """First observations (E, D); environment i is seeded with seed + i."""
        return self._tensor(self._rows(self.env.reset(seed=seed)[0]))

    def step(self, action: Tensor) -> StepResult:
        """Step every environment once and reset those whose episode ends.

        Raises:
            UserError: an action or an observation is NaN, a reward is not finite, or the environment resets in another
                way than it says.
        """
        actions = stretch(action, self._low, self._high, self._action_space.dtype)
        obs, reward, terminated, truncated, info = self.env.step(actions)
        next_rows, ended = self._rows(obs), terminated | truncated
        rows = next_rows
        if ended.any():
            if self._same_step:
                next_rows = self._with_final(rows, ended, info)
            else:
                rows = self._reset(rows, ended)
        refuse_infinite(reward)
        return StepResult(
            obs=self._tensor(rows),
            reward=torch.as_tensor(reward, dtype=torch.float32, device=self.device),
            terminated=torch.as_tensor(terminated, dtype=torch.bool, device=self.device),
            truncated=torch.as_tensor(truncated, dtype=torch.bool, device=self.device),
            next_obs=self._tensor(next_rows),
            info={},
        )

    def close(self) -> None:
        self.env.close()  # type: ignore[no-untyped-call]

    def _with_final(self, rows: NDArray[np.float32], ended: NDArray[Any], info: dict[str, Any]) -> NDArray[np.float32]:
        """The rows with the final observation, from the infos, where an episode ended."""
        final = info.get("final_obs", info.get("final_observation"))
        if final is None:
            raise UserError(f"the vector environment ended an episode without its final observation; {ADVICE}")
        rows = rows.copy()
        for i in np.flatnonzero(ended):
            rows[i] = np.asarray(final[i], dtype=np.float32).reshape(-1)
        return rows

    def _reset(self, rows: NDArray[np.float32], ended: NDArray[Any]) -> NDArray[np.float32]:
        """The rows with the first observation of a new episode where one ended."""
        first = self._rows(self.env.reset(options={"reset_mask": np.asarray(ended, dtype=np.bool_)})[0])
        if not np.array_equal(first[~ended], rows[~ended], equal_nan=True):
            raise UserError(f"the vector environment reset more than the reset_mask asks for; {ADVICE}")
        return first

    def _rows(self, obs: Any) -> NDArray[np.float32]:
        """Observations as a copy (E, D): an environment may write its next ones into the same array."""
        return np.array(obs, dtype=np.float32).reshape(self.num_envs, -1)

    def _tensor(self, rows: NDArray[np.float32]) -> Tensor:
        refuse_nan(rows)
        return torch.from_numpy(rows).to(self.device)


def autoreset_mode(env: gymnasium.vector.VectorEnv) -> str:
    """ "SameStep", "NextStep" or "Disabled".

    Raises:
        UserError: the environment does not say, and gymnasium's version does not either.
    """
    # The attribute first: gymnasium 1 writes the mode into metadata that all environments of a class share.
    mode = getattr(env.unwrapped, "autoreset_mode", (env.metadata or {}).get("autoreset_mode"))
    if mode is not None:
        return str(getattr(mode, "value", mode))
    if gymnasium.__version__.startswith("0."):
        return "SameStep"
    raise UserError(f"the vector environment does not say how it resets (metadata['autoreset_mode']); {ADVICE}")
