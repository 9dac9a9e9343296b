"""A site as a PettingZoo `ParallelEnv`: every building is an agent, and all share the site's reward.

Needs PettingZoo, the extra `pettingzoo`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from iquitos_rl.envs.gym.adapter import TrainingEnv, as_vector
from iquitos_rl.envs.task.buildings import NOWHERE, Buildings
from iquitos_rl.errors import UserError
from iquitos_rl.machine.optional import optional

Floats = NDArray[np.float32]
Base: Any = optional("pettingzoo", "pettingzoo").ParallelEnv


class SiteParallelEnv(Base):  # type: ignore[misc]
    """A site in which each building that has something to move is an agent, under the building's name.

    An agent sees its building's columns and those of the whole district (hour, prices), float32 in [-1, 1], and moves
    its building's devices, in [-1, 1]. `columns` and `devices` name them. Buildings with other devices have other
    spaces. All agents get the site's reward, not a share of it: what one building does may cost or save elsewhere.
    Each `info` holds the site's figures of the step. An episode ends for all agents together, always by truncation.

    Args:
        site: a `CityLearnSite`, or a `DistrictSite` of one environment.

    Raises:
        UserError: PettingZoo is not installed, there are several environments, or no building can move anything.
    """

    metadata: dict[str, Any] = {"name": "iquitos_rl_site_v0", "render_modes": [], "is_parallelizable": True}
    render_mode = None

    def __init__(self, site: TrainingEnv) -> None:
        self.site = as_vector(site)
        buildings = Buildings.read(self.site.policy_spec)
        if buildings is None or not buildings.devices:
            raise UserError("agents are buildings with devices, and this environment has none")
        if self.site.num_envs != 1:
            raise UserError(f"agents act in one environment, not in {self.site.num_envs}: give num_envs=1")
        names = [*buildings.common, *buildings.features]
        self.columns: dict[str, tuple[str, ...]] = {}
        """What each agent sees, by name."""
        self.devices: dict[str, tuple[str, ...]] = {}
        """What each agent moves, by name."""
        self._seen: dict[str, list[int]] = {}
        self._moved: dict[str, list[int]] = {}
        for building, own, actions in zip(buildings.names, buildings.columns, buildings.actions):
            moved = {name: place for name, place in zip(buildings.devices, actions) if place != NOWHERE}
            seen = [(n, place) for n, place in zip(names, [*buildings.common_columns, *own]) if place != NOWHERE]
            if moved:
                self.columns[building], self._seen[building] = tuple(n for n, _ in seen), [place for _, place in seen]
                self.devices[building], self._moved[building] = tuple(moved), list(moved.values())
        self.possible_agents = list(self.devices)
        self.agents: list[str] = []
        self.observation_spaces = {agent: _box(places) for agent, places in self._seen.items()}
        self.action_spaces = {agent: _box(places) for agent, places in self._moved.items()}
        self.state_space = gymnasium.spaces.Box(-1.0, 1.0, (self.site.obs_dim,), np.float32)
        self._state: Floats = np.zeros(self.site.obs_dim, np.float32)

    def observation_space(self, agent: str) -> gymnasium.spaces.Box:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.Box:
        return self.action_spaces[agent]

    def state(self) -> Floats:
        """(D,) the observation of the whole site."""
        return self._state.copy()

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Floats], dict[str, dict[str, Any]]]:
        """Start an episode. There are no options."""
        self._state = self.site.reset(seed)[0].cpu().numpy()
        self.agents = list(self.possible_agents)
        return self._views(), {agent: {} for agent in self.agents}

    def step(
        self, actions: dict[str, Any]
    ) -> tuple[dict[str, Floats], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Apply the action of every agent.

        Raises:
            UserError: an agent's action is missing, of another shape, or not finite; or the episode has ended.
        """
        if not self.agents:
            raise UserError("the episode has ended: call reset")
        action = np.zeros((1, self.site.action_dim), np.float32)
        for agent in self.agents:
            own = np.asarray(actions.get(agent, np.nan), np.float32)
            if own.shape != self.action_spaces[agent].shape or not np.isfinite(own).all():
                wanted = len(self.devices[agent])
                raise UserError(f"agent {agent} needs an action of {wanted} finite numbers, not {actions.get(agent)!r}")
            action[0, self._moved[agent]] = own
        result = self.site.step(torch.from_numpy(action).to(self.site.device))
        self._state = result.next_obs[0].cpu().numpy()
        terminated, truncated = bool(result.terminated[0]), bool(result.truncated[0])
        figures = {name: float(value[0]) for name, value in result.info.items()}
        agents, views = self.agents, self._views()
        if terminated or truncated:
            self.agents = []
        return (
            views,
            dict.fromkeys(agents, float(result.reward[0])),
            dict.fromkeys(agents, terminated),
            dict.fromkeys(agents, truncated),
            {agent: dict(figures) for agent in agents},
        )

    def close(self) -> None:
        self.site.close()

    def _views(self) -> dict[str, Floats]:
        return {agent: self._state[self._seen[agent]] for agent in self.agents}


def _box(places: list[int]) -> gymnasium.spaces.Box:
    return gymnasium.spaces.Box(-1.0, 1.0, (len(places),), np.float32)
