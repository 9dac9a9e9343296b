"""The district engine as stable-baselines3's `VecEnv`, so that its agents train on thousands of sites in one process.

Needs stable-baselines3, which this package does not install.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from iquitos_rl.envs.district.env import DistrictSite

Array = NDArray[Any]
Indices = int | Iterable[int] | None


class SiteVecEnv(VecEnv):
    """E environments of a `DistrictSite`: observations (E, D) float32 and actions (E, A), both in [-1, 1].

    `infos[i]` holds the figures of environment i's step, and at an episode's end `terminal_observation`,
    `TimeLimit.truncated` and `episode` with return `r` and length `l`, as `Monitor` gives them.
    """

    def __init__(self, site: DistrictSite) -> None:
        self.site = site
        observation = gymnasium.spaces.Box(-1.0, 1.0, (site.obs_dim,), np.float32)
        action = gymnasium.spaces.Box(-1.0, 1.0, (site.action_dim,), np.float32)
        super().__init__(site.num_envs, observation, action)
        self._actions = np.zeros((site.num_envs, site.action_dim), np.float32)
        self._returns, self._lengths = np.zeros(site.num_envs), np.zeros(site.num_envs, np.int64)

    def reset(self) -> Array:
        """First observations (E, D). The first of the seeds that `seed` gave determines all environments."""
        self._returns[:], self._lengths[:] = 0, 0
        obs = self.site.reset(self._seeds[0])
        self._reset_seeds()
        return obs.cpu().numpy()

    def step_async(self, actions: Array) -> None:
        self._actions = np.asarray(actions, np.float32)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Observations (E, D), where an episode ended those of the next one; rewards (E,), done (E,), infos."""
        result = self.site.step(torch.from_numpy(self._actions).to(self.site.device))
        reward = result.reward.cpu().numpy().astype(np.float32)
        terminated, done = (x.cpu().numpy().copy() for x in (result.terminated, result.terminated | result.truncated))
        figures = torch.stack([value.double() for value in result.info.values()], dim=1).tolist()
        infos: list[dict[str, Any]] = [dict(zip(result.info, row)) for row in figures]
        self._returns += reward
        self._lengths += 1
        if done.any():
            last = result.next_obs.cpu().numpy()
            for i in np.flatnonzero(done):
                episode = {"r": float(self._returns[i]), "l": int(self._lengths[i])}
                infos[i] |= {"terminal_observation": last[i], "TimeLimit.truncated": not terminated[i]}
                infos[i]["episode"] = episode
            self._returns[done], self._lengths[done] = 0, 0
        return result.obs.cpu().numpy(), reward, done, infos

    def close(self) -> None:
        self.site.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The site's attribute, which all environments share; `render_mode` is None."""
        value = None if attr_name == "render_mode" else getattr(self.site, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        raise AttributeError("all environments are one district: its attributes cannot be set for some of them")

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        raise AttributeError("all environments are one district: call methods of `site`")

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Indices = None
    ) -> list[bool]:
        return [False for _ in self._get_indices(indices)]
