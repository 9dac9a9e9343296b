"""The district engine as a `gymnasium.vector.VectorEnv`, for agents that are not ours: numpy in, numpy out.

Gymnasium changed its vector API between 0.28 and 1.1; this follows whichever is installed. An environment whose episode
ends begins the next one in the same step: the observation returned is the new episode's first, and what the last action
led to stands in `info["final_obs"]` (gymnasium 1) or `info["final_observation"]` (before). From gymnasium 1.0 on
`metadata["autoreset_mode"]` says so. Episodes are only ever truncated: bootstrap from the final observation.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

Array = NDArray[Any]
GYMNASIUM_1 = not issubclass(gymnasium.vector.VectorEnv, gymnasium.Env)
FINAL_OBS = "final_obs" if GYMNASIUM_1 else "final_observation"
Base: Any = gymnasium.vector.VectorEnv
"""Untyped, since its signatures differ between versions."""


class DistrictVectorEnv(Base):  # type: ignore[misc]
    """E environments of a `DistrictSite`: observations (E, D) float32 in [-1, 1], actions (E, A) in [-1, 1].

    `info` holds the figures of each step by name, (E,) each, with gymnasium's masks: `info["_import_kwh"][i]` says
    whether entry i is given. The figures of an episode's last step are in `info["final_info"]`.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, site: DistrictSite) -> None:
        self.site = site
        self.num_envs = site.num_envs
        self.single_observation_space = gymnasium.spaces.Box(-1.0, 1.0, (site.obs_dim,), np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (site.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.render_mode, self.spec, self.closed = None, None, False
        if not GYMNASIUM_1:
            self.is_vector_env, self.viewer = True, None
        else:
            modes = getattr(gymnasium.vector, "AutoresetMode", None)  # gymnasium 1.0 has none, and our agents read both
            self.metadata = {**self.metadata, "autoreset_mode": modes.SAME_STEP if modes else "SameStep"}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Start E episodes; one seed determines all of them. Raises UserError: there are options, or a seed for each
        environment."""
        if options or isinstance(seed, list | tuple):
            raise UserError("reset takes no options and one seed for all environments")
        return self.site.reset(seed).cpu().numpy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Apply (E, A) actions. Raises UserError: an action is not finite, or there are more or fewer than expected."""
        array = np.asarray(actions, dtype=np.float32)
        if array.shape != self.action_space.shape:
            raise UserError(f"the actions have shape {array.shape} where {self.action_space.shape} is expected")
        if not np.isfinite(array).all():
            env, column = np.argwhere(~np.isfinite(array))[0]
            raise UserError(f"action {column} of environment {env} is not a finite number")
        result = self.site.step(torch.from_numpy(array).to(self.site.device))
        ended = (result.terminated | result.truncated).cpu().numpy()
        return (
            result.obs.cpu().numpy(),
            result.reward.cpu().numpy().astype(np.float64),
            result.terminated.cpu().numpy().copy(),
            result.truncated.cpu().numpy().copy(),
            self._info(result, ended),
        )

    def _info(self, result: StepResult, ended: NDArray[np.bool_]) -> dict[str, Any]:
        values = torch.stack([value.double() for value in result.info.values()]).cpu().numpy()
        figures = dict(zip(result.info, values))
        info: dict[str, Any] = masked(figures, ~ended)
        if not ended.any():
            return info
        (final_obs, final_info), next_obs = np.full((2, self.num_envs), None, object), result.next_obs.cpu().numpy()
        for i in np.flatnonzero(ended):
            final_obs[i] = next_obs[i]
            final_info[i] = {name: float(value[i]) for name, value in figures.items()}
        info |= {FINAL_OBS: final_obs, "final_info": masked(figures, ended) if GYMNASIUM_1 else final_info}
        return info | {f"_{FINAL_OBS}": ended, "_final_info": ended}

    def close_extras(self, **kwargs: Any) -> None:
        self.site.close()

    # Gymnasium before 1.0: its vector wrappers call these.

    reset_wait = reset

    def step_async(self, actions: Array) -> None:
        self._actions = actions

    def step_wait(self, **kwargs: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        return self.step(self._actions)


def masked(figures: dict[str, Array], given: NDArray[np.bool_]) -> dict[str, Array]:
    """Figures (E,) each and their masks, as gymnasium lays them out; nothing where no environment has any."""
    if not given.any():
        return {}
    return {key: x for name, value in figures.items() for key, x in ((name, value * given), (f"_{name}", given.copy()))}
