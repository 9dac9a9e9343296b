"""Gymnasium's own vector environments behind the interface that agents train on.

After an episode's end they disagree on what a step returns. "SameStep" (gymnasium below 1.0, an option since 1.1): the
first observation of the next episode, the true successor in the infos. "NextStep" (the default since 1.0): the true
successor, and the step after it is a reset that ignores its action, a transition that never happened and must not be
learned from. "Disabled": the true successor, and the caller resets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.envs.gym.spaces import UNBOUNDED, SpaceVector, clipped_within
from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

ADVICE = "give a list of functions that make one environment each"


class AutoresetVector(SpaceVector):
    """A `gymnasium.vector.VectorEnv`, with any wrappers around it.

    Where the environment leaves the reset to its next step or to the caller, ended episodes are reset at once: no step
    is spent on a reset. Infos are not passed on.

    Raises:
        UserError: a space cannot be handled, or the environment does not say how it resets.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, device: torch.device | str = "cpu") -> None:
        for name in ("num_envs", "single_observation_space", "single_action_space"):
            if not hasattr(env, name):
                raise UserError(f"a {type(env).__name__} is no whole vector environment: it has no {name}; {ADVICE}")
        try:
            super().__init__(env.num_envs, single_space(env), clipped_within(env) or env.single_action_space, device)
        except UserError as error:
            if str(error) == UNBOUNDED and (inner := first_clipped(env)) is not None:
                super().__init__(env.num_envs, single_space(env), inner, device)
            else:
                raise
        self.env, self._same_step = env, autoreset_mode(env) == "SameStep"

    def reset(self, seed: int | None = None) -> Tensor:
        """First observations (E, D); environment i is seeded with seed + i."""
        return self.observations(self._rows(self.env.reset(seed=seed)[0]))

    def step(self, action: Tensor) -> StepResult:
        """Step every environment once and reset those whose episode ends. Raises UserError: an action is NaN, an
        observation or a reward is not finite, or the environment resets in another way than it says."""
        obs, reward, terminated, truncated, info = self.env.step(self.stretch(action))
        rows, ended = self._rows(obs), np.asarray(terminated) | np.asarray(truncated)
        next_rows = rows
        if ended.any() and self._same_step:
            next_rows = self._with_final(rows, ended, info)
        elif ended.any():
            rows = self._reset(rows, ended)
        rewards, first, last = self.rewards(reward), self.observations(rows), self.observations(next_rows)
        return StepResult(first, rewards, self.flags(terminated), self.flags(truncated), last, info={})

    def close(self) -> None:
        self.env.close()  # type: ignore[no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        if isinstance(self.env.unwrapped, gymnasium.vector.AsyncVectorEnv):
            raise UserError("an agent whose environments run in processes cannot be copied: use save and load")
        return self.__dict__

    def _with_final(self, rows: NDArray[np.float32], ended: NDArray[Any], info: Any) -> NDArray[np.float32]:
        """The rows with the final observation, from the infos, where an episode ended."""
        final = None
        if isinstance(info, dict):
            final = info.get("final_obs", info.get("final_observation"))
        if final is None:
            raise UserError(f"the vector environment ended an episode without its final observation; {ADVICE}")
        rows = rows.copy()
        for i in np.flatnonzero(ended):
            last = {key: x[i] for key, x in final.items()} if isinstance(final, dict) else final[i]
            rows[i] = self.obs_space.rows(seen_through(self.env, last), 1)
        return rows

    def _reset(self, rows: NDArray[np.float32], ended: NDArray[Any]) -> NDArray[np.float32]:
        """The rows with the first observation of a new episode where one ended."""
        first = self._rows(reset_some(self.env, np.asarray(ended, dtype=np.bool_)))
        if not np.array_equal(first[~ended], rows[~ended], equal_nan=True):
            raise UserError(f"the vector environment reset more than the reset_mask asks for; {ADVICE}")
        return first

    def _rows(self, obs: Any) -> NDArray[np.float32]:
        """Observations as a copy (E, D): an environment may write its next ones into the same array."""
        return self.obs_space.rows(obs, self.num_envs)


def wrappers(env: Any) -> Iterator[Any]:
    """The wrappers around a vector environment, from the outermost."""
    while env is not env.unwrapped and hasattr(env, "env"):
        yield env
        env = env.env


def single_space(env: Any) -> gymnasium.Space[Any]:
    """The observation space of one of the environments. A wrapper for single environments around a vector environment
    (gymnasium below 1.0) changes the space of all and not that of one."""
    one: Any = env.single_observation_space
    every: Any = getattr(env, "observation_space", None)
    boxes = all(isinstance(space, gymnasium.spaces.Box) for space in (one, every))
    changed = boxes and every.shape[1:] != one.shape
    if changed and one is getattr(env.unwrapped, "single_observation_space", None):
        return gymnasium.spaces.Box(every.low[0], every.high[0], dtype=every.dtype)
    return one  # type: ignore[no-any-return]


def first_clipped(env: Any) -> gymnasium.Space[Any] | None:
    """The bounded space inside of ClipAction around each environment of a SyncVectorEnv."""
    envs = getattr(env.unwrapped, "envs", None)
    return clipped_within(envs[0]) if envs else None


def reset_some(env: Any, mask: NDArray[np.bool_]) -> Any:
    """Reset those of the environments that a mask (E,) names, and return the present observations of all.

    gymnasium 1.0 has no `reset_mask`, and some wrappers refuse it: below them it works, and what they would have made
    of the observations is made here.

    Raises:
        UserError: the environment cannot reset some and leave the others.
    """
    base = env.unwrapped
    if of_gymnasium_1_0(base):
        return seen_through(env, _reset_some_1_0(base, mask))
    try:
        return env.reset(options={"reset_mask": mask})[0]
    except (AssertionError, ValueError) as error:
        if base is env:
            reason = f"the vector environment cannot reset some of its environments ({error})"
            raise UserError(f"{reason}; {ADVICE}") from None
    return seen_through(env, base.reset(options={"reset_mask": mask})[0])


def of_gymnasium_1_0(base: Any) -> bool:
    """Whether this is one of gymnasium 1.0's own classes, which neither say how they reset nor know a `reset_mask`."""
    own = gymnasium.vector.SyncVectorEnv, gymnasium.vector.AsyncVectorEnv
    return gymnasium.__version__.startswith("1.0.") and isinstance(base, own)


def _reset_some_1_0(vector: Any, mask: NDArray[np.bool_]) -> Any:
    """The same for the two classes of gymnasium 1.0, which would reset these environments in their next step."""
    base: Any = vector
    if isinstance(vector, gymnasium.vector.SyncVectorEnv):
        from gymnasium.vector.utils import concatenate, iterate

        rows = list(iterate(base.observation_space, base._observations))
        for i in np.flatnonzero(mask):
            rows[i] = base.envs[i].reset()[0]
            base._autoreset_envs[i] = False
        copies = [np.copy(row) if isinstance(row, np.ndarray) else row for row in rows]
        base._observations = concatenate(base.single_observation_space, copies, base._observations)
        return base._observations
    if not base.shared_memory:
        raise UserError(f"an AsyncVectorEnv of gymnasium 1.0 needs shared_memory=True; {ADVICE}")
    pipes = [base.parent_pipes[i] for i in np.flatnonzero(mask)]
    for pipe in pipes:
        pipe.send(("reset", {"seed": None, "options": None}))
    if not all([pipe.recv()[1] for pipe in pipes]):
        raise UserError("an environment of the vector environment failed in its reset")
    return base.observations


def seen_through(env: Any, obs: Any) -> Any:
    """What the wrappers around a vector environment make of an observation of it, or of all. Running statistics are
    used and not changed: the observation of another environment would be counted twice."""
    for wrapper in reversed(list(wrappers(env))):
        if "obs_rms" in vars(wrapper):
            statistics = wrapper.obs_rms
            obs = (obs - statistics.mean) / np.sqrt(statistics.var + wrapper.epsilon)
        elif callable(change := getattr(type(wrapper), "observations", getattr(type(wrapper), "observation", None))):
            obs = change(wrapper, obs)
    return obs


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
    if of_gymnasium_1_0(env.unwrapped):
        return "NextStep"
    raise UserError(f"the vector environment does not say how it resets (metadata['autoreset_mode']); {ADVICE}")
