"""An environment that follows a script and remembers everything, for tests of what agents make of it."""

from __future__ import annotations

import torch
from torch import Tensor

from iquitos_rl.envs.vector import StepResult, VectorEnv


class ScriptedEnv(VectorEnv):
    """E environments whose observations, rewards and ends are random numbers; `steps` and `actions` keep them all.

    With `masked`, column i of the observation says whether action i is live. Observations have mean 5 and deviation 3
    in column D - 1, so that normalising turns the signs of some.
    """

    def __init__(self, num_envs: int = 3, obs_dim: int = 4, action_dim: int = 2, masked: bool = False) -> None:
        self.num_envs, self.obs_dim, self.action_dim = num_envs, obs_dim, action_dim
        self.device = torch.device("cpu")
        self.action_mask_columns = torch.arange(obs_dim - action_dim, obs_dim) if masked else None
        self.generator = torch.Generator().manual_seed(0)
        self.observations: list[Tensor] = []
        self.actions: list[Tensor] = []
        self.steps: list[StepResult] = []

    def reset(self, seed: int | None = None) -> Tensor:
        self.generator.manual_seed(seed or 0)
        self.observations.append(self._obs())
        return self.observations[-1]

    def step(self, action: Tensor) -> StepResult:
        terminated, truncated = torch.rand(2, self.num_envs, generator=self.generator) < 0.15
        next_obs = self._obs()
        obs = torch.where((terminated | truncated)[:, None], self._obs(), next_obs)
        reward = torch.randn(self.num_envs, generator=self.generator) * 20 + 3
        self.actions.append(action.clone())
        self.observations.append(obs)
        self.steps.append(StepResult(obs, reward, terminated, truncated, next_obs, {"money": 2 * reward}))
        return self.steps[-1]

    def close(self) -> None:
        pass

    def _obs(self) -> Tensor:
        obs = torch.randn(self.num_envs, self.obs_dim, generator=self.generator)
        obs[:, -1] = obs[:, -1] * 3 + 5
        return obs
