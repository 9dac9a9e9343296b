"""Gymnasium's spaces, and the numbers that cross them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.envs.spaces import ActionSpace, ObservationPart, ObservationSpace, kept
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError

Space = gymnasium.Space[Any]
FLOAT32_MAX = float(np.finfo(np.float32).max)
UNBOUNDED = "the action space has no finite bounds, so [-1, 1] cannot be stretched to it"


class SpaceVector(VectorEnv):
    """E environments with gymnasium's spaces: observations as rows of float32, actions in the environment's own form.

    Raises:
        UserError: a space cannot be handled.
    """

    obs_space: ObservationSpace
    action_space: ActionSpace

    def __init__(self, num_envs: int, obs_space: Space, action_space: Space, device: torch.device | str) -> None:
        self.obs_space, self.action_space = observation_of(obs_space), action_of(action_space)
        self.num_envs, self.device = num_envs, torch.device(device)
        self.obs_dim, self.action_dim = self.obs_space.width, self.action_space.width
        self.choices = self.action_space.choices
        if self.choices is None:
            low, high = self.action_space.bounds.astype(np.float64).reshape(2, -1)
        else:
            low, high = np.zeros(self.action_dim), np.array(self.choices) - 1.0
        self.action_low, self.action_high = torch.tensor(low).float(), torch.tensor(high).float()
        places = [place for part, place in self.obs_space.columns() if part.is_bytes]
        self.byte_columns = tuple(i for place in places for i in range(place.start, place.stop))

    def stretch(self, action: Tensor) -> NDArray[Any]:
        """Actions (E, A) of an agent as the environments take them (E, *shape); see `ActionSpace.values`."""
        return self.action_space.values(action.detach().cpu().numpy())

    def observations(self, rows: NDArray[np.float32], names: Sequence[str] | None = None) -> Tensor:
        """Observations (E, D) on the device. Raises UserError: one is not finite; the column is named, by `names` where
        there are any."""
        if not np.isfinite(rows).all():
            env, column = np.argwhere(~np.isfinite(rows))[0]
            value = "NaN" if np.isnan(rows[env, column]) else f"{rows[env, column]}, not a finite float32 number"
            name = f"{column} ({names[column]})" if names else self.obs_space.column_name(int(column))
            raise UserError(f"observation column {name} of environment {env} is {value}")
        return torch.from_numpy(rows).to(self.device)

    def flags(self, values: Sequence[bool] | NDArray[np.bool_]) -> Tensor:
        """Flags (E,) on the device. Raises UserError: these are not E flags."""
        plain = np.asarray(values)
        if plain.shape == (self.num_envs,) and plain.dtype == np.bool_:
            return torch.from_numpy(plain.copy()).to(self.device)
        flat = [np.asarray(value).reshape(-1) for value in values]
        if any(x.size != 1 or x.dtype.kind not in "bui" for x in flat) or len(flat) != self.num_envs:
            raise UserError(f"terminated and truncated must each be a bool, not {list(values)!r}")
        array = np.concatenate(flat)
        return torch.as_tensor(array, dtype=torch.bool, device=self.device)

    def rewards(self, values: Sequence[Any] | NDArray[Any]) -> Tensor:
        """Rewards (E,) on the device. Raises UserError: one is not a finite number."""
        try:
            array = np.array(values, dtype=np.float64)
            if array.shape != (self.num_envs,):
                array = np.array([float(np.asarray(value, dtype=np.float64).reshape(())) for value in values])
        except (TypeError, ValueError):
            raise UserError(f"a reward must be one number, not {list(values)!r}") from None
        if not (fits := np.abs(array) <= FLOAT32_MAX).all():
            bad = int(np.flatnonzero(~fits)[0])
            raise UserError(f"the reward of environment {bad} is {values[bad]}, not a finite float32 number")
        return torch.from_numpy(array.astype(np.float32)).to(self.device)


def observation_of(space: Space) -> ObservationSpace:
    """The parts of an observation space. Raises UserError: it is, or holds, a space that is not a fixed array."""
    parts = tuple(_parts(space, ()))
    if not sum(part.width for part in parts):
        raise UserError(f"the observation space {space} has no numbers in it")
    return ObservationSpace(parts=parts)


def _parts(space: Space, path: tuple[str | int, ...]) -> Iterator[ObservationPart]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _parts(inner, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, inner in enumerate(space.spaces):
            yield from _parts(inner, (*path, i))
    elif isinstance(space, spaces.Box):
        shape, dtype = space.shape, np.dtype(space.dtype).name
        yield ObservationPart(path=path, shape=shape, dtype=dtype, low=kept(space.low), high=kept(space.high))
    elif isinstance(space, spaces.Discrete):
        yield ObservationPart(
            path=path, shape=(), dtype=np.dtype(space.dtype).name, choices=(int(space.n),), start=(int(space.start),)
        )
    elif isinstance(space, spaces.MultiDiscrete):
        choices, start = _choices(space)
        yield ObservationPart(
            path=path, shape=space.nvec.shape, dtype=np.dtype(space.dtype).name, choices=choices, start=start
        )
    elif isinstance(space, spaces.MultiBinary):
        yield ObservationPart(path=path, shape=space.shape, dtype=np.dtype(space.dtype).name, low=[0], high=[1])
    else:
        known = "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these"
        raise UserError(f"the observation space is {_holds(path)}{type(space).__name__}: only {known} are supported")


def action_of(space: Space) -> ActionSpace:
    """The action space. Raises UserError: it is none of the supported kinds, or a Box without bounds."""
    dtype = np.dtype(space.dtype).name if space.dtype is not None else ""
    if isinstance(space, spaces.Discrete):
        return ActionSpace(kind="discrete", shape=(), dtype=dtype, choices=(int(space.n),), start=(int(space.start),))
    if isinstance(space, spaces.MultiDiscrete):
        choices, start = _choices(space)
        return ActionSpace(kind="multi", shape=space.nvec.shape, dtype=dtype, choices=choices, start=start)
    if isinstance(space, spaces.MultiBinary):
        number = int(np.prod(space.shape))
        return ActionSpace(kind="multi", shape=space.shape, dtype=dtype, choices=(2,) * number, start=(0,) * number)
    if not isinstance(space, spaces.Box):
        known = "Box, Discrete, MultiDiscrete and MultiBinary"
        raise UserError(f"the action space is {type(space).__name__}: only {known} are supported")
    if not space.low.size:
        raise UserError(f"the action space {space} has no numbers in it")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise UserError(UNBOUNDED)
    return ActionSpace(kind="box", shape=space.shape, dtype=dtype, low=kept(space.low), high=kept(space.high))


def _choices(space: spaces.MultiDiscrete) -> tuple[tuple[int, ...], tuple[int, ...]]:
    start = getattr(space, "start", np.zeros_like(space.nvec))  # gymnasium 0.28 has none
    return tuple(space.nvec.reshape(-1).tolist()), tuple(np.asarray(start).reshape(-1).tolist())


def _holds(path: tuple[str | int, ...]) -> str:
    return f"a Dict or Tuple whose {'.'.join(map(str, path))} is " if path else ""


def clipped_within(env: Any) -> Space | None:
    """The bounded action space below the wrappers named ClipAction around an environment; None where there is none.

    Since gymnasium 1.0 the wrapper's own space is unbounded: it takes any number and clips it to the space below.
    """
    own = "single_action_space" if hasattr(env, "single_action_space") else "action_space"
    outer: Space = getattr(env, own)
    while hasattr(env, "env"):
        inner = getattr(env.env, own)
        if type(env).__name__ != "ClipAction" and inner != getattr(env, own):
            return None
        env = env.env
        if isinstance(inner, spaces.Box) and np.isfinite(inner.low).all() and np.isfinite(inner.high).all():
            return inner if inner != outer else None
    return None
