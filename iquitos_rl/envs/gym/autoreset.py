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

from iquitos_rl.envs.gym.spaces import BoxVector
from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

ADVICE = "give a list of functions that make one environment each"


class AutoresetVector(BoxVector):
    """A `gymnasium.vector.VectorEnv` with Box spaces.

    Where the environment leaves the reset to its next step or to the caller, ended episodes are reset at once, with
    gymnasium's `reset_mask`: no step is spent on a reset. Infos are not passed on.

    Raises:
        UserError: a space cannot be handled, or the environment does not say how it resets.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, device: torch.device | str = "cpu") -> None:
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space, device)
        self.env, self._same_step = env, autoreset_mode(env) == "SameStep"

    def reset(self, seed: int | None = None) -> Tensor:
        """First observations (E, D); environment i is seeded with seed + i."""
        return self.observations(self._rows(self.env.reset(seed=seed)[0]))

    def step(self, action: Tensor) -> StepResult:
        """Step every environment once and reset those whose episode ends. Raises UserError: an action or an observation
        is NaN, a reward is not finite, or the environment resets in another way than it says."""
        obs, reward, terminated, truncated, info = self.env.step(self.stretch(action))
        rows, ended = self._rows(obs), terminated | truncated
        next_rows = rows
        if ended.any() and self._same_step:
            next_rows = self._with_final(rows, ended, info)
        elif ended.any():
            rows = self._reset(rows, ended)
        rewards, first, last = self.rewards(reward), self.observations(rows), self.observations(next_rows)
        return StepResult(first, rewards, self.flags(terminated), self.flags(truncated), last, info={})

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
