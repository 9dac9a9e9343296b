"""Gymnasium environments behind the interface that agents train on.

Every environment is stepped here, or in a process of its own (`WorkerEnv`), and reset here when its episode ends.
Gymnasium's own vector environments are taken too: `autoreset.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.envs.described import DescribedEnv, Description
from iquitos_rl.envs.gym.autoreset import AutoresetVector
from iquitos_rl.envs.gym.spaces import SpaceVector, clipped_within
from iquitos_rl.envs.gym.worker import WorkerEnv
from iquitos_rl.envs.vector import Exogenous, StepResult, VectorEnv
from iquitos_rl.errors import UserError

AnyEnv = gymnasium.Env[Any, Any]
TrainingEnv = AnyEnv | gymnasium.vector.VectorEnv | VectorEnv | Sequence[Callable[[], AnyEnv]]


def as_vector(env: TrainingEnv, device: torch.device | str = "cpu") -> VectorEnv:
    """One gymnasium environment, one from each factory, or gymnasium's own kind of vector environment, as a
    `VectorEnv`; what already is one is returned unchanged.

    Raises:
        UserError: a space cannot be handled, or the environments' spaces differ.
    """
    if is_gymnasium_vector(env):
        return AutoresetVector(env, device)  # type: ignore[arg-type]
    if isinstance(env, gymnasium.Env):
        return GymnasiumVector([env], device)
    if isinstance(env, VectorEnv):
        return env
    if isinstance(env, Sequence) and env and all(callable(factory) for factory in env):
        return GymnasiumVector([factory() for factory in env], device)
    kind = type(env).__name__
    raise UserError(f"cannot train on a {kind}: expected an environment, or a list of functions making one each")


def is_gymnasium_vector(env: object) -> bool:
    """Whether it is one of gymnasium's vector environments, also inside of wrappers: before gymnasium 1.0 those for
    single environments were used around them too."""
    vector = gymnasium.vector.VectorEnv
    return isinstance(env, vector) or isinstance(getattr(env, "unwrapped", None), vector)


class GymnasiumVector(SpaceVector):
    """E gymnasium environments."""

    def __init__(self, envs: Sequence[AnyEnv], device: torch.device | str = "cpu") -> None:
        if bad := [env for env in envs if not isinstance(env, gymnasium.Env)]:
            raise UserError(f"a function of the list made a {type(bad[0]).__name__}, not a gymnasium environment")
        if len({id(env) for env in envs}) < len(envs):
            raise UserError("two functions of the list returned the same environment: each must make one of its own")
        spaces = [(env.observation_space, clipped_within(env) or env.action_space) for env in envs]
        super().__init__(len(spaces), *spaces[0], device)
        if any(space != spaces[0] for space in spaces):
            raise UserError("the environments' observation or action spaces differ")
        self.envs = list(envs)
        first = self.envs[0].unwrapped
        described = first.description if isinstance(first, DescribedEnv) else Description()
        columns, table = described.action_mask_columns, described.exogenous_table
        self.action_mask_columns = None if columns is None else columns.to(self.device)
        self.policy_spec = described.policy_spec
        self._table: Tensor | None = None if table is None else table.to(self.device)
        self._coarse = described.coarse_columns
        self._row = self._next_row = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        # Not through wrappers: what they count would not be restarted.
        own = [env for env in self.envs if isinstance(env, DescribedEnv) and env.description.resumable]
        self._resumable = own if len(own) == self.num_envs else []
        self._starts: list[dict[str, Any]] = []
        """For each environment its `start_state`, and the actions taken since."""
        self._taken: list[list[NDArray[Any]]] = []

    @property
    def exogenous(self) -> Exogenous | None:
        return None if self._table is None else Exogenous(self._table, self._row, self._next_row, self._coarse)

    def reset(self, seed: int | None = None) -> Tensor:
        """First observations (E, D); environment i is seeded with seed + i."""
        rows = [self._first(env, None if seed is None else seed + i) for i, env in enumerate(self.envs)]
        self._row = self._next_row = self._table_rows()
        self._obs = self._named(rows)
        if self._resumable:
            self._starts = [env.start_state() for env in self._resumable]
            self._taken = [[] for _ in self.envs]
        return self._obs

    def step(self, action: Tensor) -> StepResult:
        """Step every environment once and reset those whose episode ends. Raises UserError: an action is NaN, or an
        observation (the column is named) or a reward is not finite, or the environment returns something else."""
        actions = self.stretch(action)
        rows, first_rows, next_row, steps = [], [], [], []
        for env, obs, *step in self._step_all(zip(self.envs, actions)):
            if len(step) != 4 or not isinstance(step[3], Mapping):
                raise UserError(f"the step of a {_name(env)} must return obs, reward, terminated, truncated and info")
            rows.append(self.obs_space.rows(obs, 1)[0])
            next_row.append(self._table_row(env))
            steps.append(step)
            first_rows.append(self._first(env) if step[1] or step[2] else rows[-1])
        rewards, terminated, truncated, infos = zip(*steps)
        next_obs, reward = self._named(rows), self.rewards(rewards)
        ended = [term or trunc for term, trunc in zip(terminated, truncated)]
        if self._resumable:
            self._remember(actions, ended)
        self._next_row, self._row = torch.tensor(next_row, device=self.device), self._table_rows()
        self._obs = self._named(first_rows) if any(ended) else next_obs
        ends = self.flags(terminated), self.flags(truncated)
        return StepResult(self._obs, reward, *ends, next_obs, self._figures(infos))

    def state_dict(self) -> dict[str, Any]:
        """How each environment came to where it stands: the start of its episode and the actions since. Raises
        UserError: the environments are not resumable, see `Description`."""
        if not self._resumable:
            raise UserError("this environment's state cannot be saved: it has no start_state and restart")
        taken = [np.array(actions).reshape(len(actions), *self.action_space.shape) for actions in self._taken]
        return {"starts": self._starts, "taken": taken, "obs": self._obs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Simulate the open episodes again, up to where a `state_dict` left them. Raises UserError: another observation
        came out than was saved: the simulator is not deterministic on this data."""
        results = [env.restart(start) for env, start in zip(self._resumable, state["starts"])]
        self._starts, self._taken = list(state["starts"]), [list(actions) for actions in state["taken"]]
        for t in range(max(len(actions) for actions in self._taken)):
            active = [i for i, actions in enumerate(self._taken) if t < len(actions)]
            stepped = self._step_all((self.envs[i], self._taken[i][t]) for i in active)
            for i, (_, obs, *_, info) in zip(active, stepped):
                results[i] = obs, info
        self._row = self._next_row = self._table_rows()
        self._obs = self._named([self.obs_space.rows(obs, 1)[0] for obs, _ in results])
        if not torch.equal(self._obs, state["obs"].to(self.device)):
            raise UserError("simulating the interrupted episodes again led to other observations than were saved")

    def _remember(self, actions: NDArray[Any], ended: list[bool]) -> None:
        # Asked first: a worker that dies here leaves the account of the step before, which is whole.
        starts = {i: self._resumable[i].start_state() for i, end in enumerate(ended) if end}
        for i, action in enumerate(actions):
            self._taken[i].append(action)
        for i, start in starts.items():
            self._starts[i], self._taken[i] = start, []

    def close(self) -> None:
        for env in self.envs:
            env.close()  # type: ignore[no-untyped-call]

    def _step_all(self, actions: Iterable[tuple[AnyEnv, NDArray[Any]]]) -> Iterator[tuple[Any, ...]]:
        """Step environments, all workers at once: each with what its step returned."""
        actions = list(actions)
        for env, action in actions:
            if isinstance(env, WorkerEnv):
                env.begin_step(self.action_space.one(action))
        for env, action in actions:
            yield env, *(env.finish_step() if isinstance(env, WorkerEnv) else env.step(self.action_space.one(action)))

    def _first(self, env: AnyEnv, seed: int | None = None) -> NDArray[np.float32]:
        """The first observation (D,) of a new episode. Raises UserError: `reset` is not that of gymnasium."""
        try:
            found = env.reset() if seed is None else env.reset(seed=seed)
        except TypeError as error:
            if "seed" not in str(error):
                raise
            raise UserError(
                f"the reset of a {_name(env)} takes no seed: reset(self, *, seed=None, options=None)"
            ) from None
        if not (isinstance(found, tuple) and len(found) == 2):
            raise UserError(f"the reset of a {_name(env)} must return obs and info")
        return self.obs_space.rows(found[0], 1)[0]

    def _named(self, rows: list[NDArray[np.float32]]) -> Tensor:
        return self.observations(np.stack(rows), self.policy_spec.get("observation_names"))

    def _table_row(self, env: AnyEnv) -> int:
        inner = env.unwrapped
        return inner.table_row() if isinstance(inner, DescribedEnv) else 0

    def _table_rows(self) -> Tensor:
        return torch.tensor([self._table_row(env) for env in self.envs], device=self.device)

    def _figures(self, infos: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Float entries of the environments' infos, 0 where an environment has none this step."""
        if not any(infos):
            return {}
        floats = [{name: x for name, x in info.items() if isinstance(x, float | np.floating)} for info in infos]
        names = dict.fromkeys(name for given in floats for name in given)
        return {
            name: torch.tensor([given.get(name, 0.0) for given in floats], dtype=torch.float32, device=self.device)
            for name in names
        }


def _name(env: AnyEnv) -> str:
    return type(env.unwrapped).__name__
