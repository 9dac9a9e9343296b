"""Years of a site under any controller as a Minari dataset, for offline learning.

Needs Minari, the extra `minari`. Minari keeps datasets in `~/.minari`, or where `MINARI_DATASETS_PATH` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from iquitos_rl.envs.gym.adapter import TrainingEnv, as_vector
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.optional import optional

Act = Callable[[NDArray[np.float32]], Any]


def export_minari(
    dataset_id: str, site: TrainingEnv, act: Act, episodes: int = 1, seed: int | None = 0, **about: Any
) -> Any:
    """Run a controller for whole episodes and keep them as a Minari dataset.

    Observations (T + 1, D) and actions (T, A) are float32; actions are those that the engine was given, within [-1, 1].
    `infos` holds the site's figures (T + 1,) by name, NaN at the reset. The metadata `policy_spec` names columns and
    actions.

    Args:
        dataset_id: such as `site/my-case/rule-v0`.
        site: a `CityLearnSite`, or a `DistrictSite` of one environment. One that `gymnasium.make` made can be recovered
            from the dataset.
        act: from an observation (D,) to an action (A,): an agent's `predict`, or
            `iquitos_rl.baselines.guided.controller(agent, site.task)`.
        seed: of the first episode.
        about: further arguments of Minari's `create_dataset_from_buffers`, such as `author` and `algorithm_name`.

    Returns:
        The `MinariDataset`.

    Raises:
        UserError: Minari is not installed, the environment is not one site, or an action does not fit.
    """
    minari, data_collector = optional("minari", "minari"), optional("minari.data_collector", "minari")
    env = as_vector(site)
    if env.num_envs != 1 or "task" not in env.policy_spec:
        raise UserError("a dataset is recorded in one site: give a CityLearnSite, or a DistrictSite with num_envs=1")
    buffers = []
    obs = env.reset(seed)[0].cpu().numpy()
    for episode in range(episodes):
        columns, obs = _episode(env, obs, act)
        buffers.append(data_collector.EpisodeBuffer(id=episode, seed=seed if episode == 0 else None, **columns))
    dataset = minari.create_dataset_from_buffers(
        dataset_id,
        buffers,
        env=site if isinstance(site, gymnasium.Env) else None,
        observation_space=gymnasium.spaces.Box(-1.0, 1.0, (env.obs_dim,), np.float32),
        action_space=gymnasium.spaces.Box(-1.0, 1.0, (env.action_dim,), np.float32),
        **about,
    )
    dataset.storage.update_metadata({"policy_spec": env.policy_spec})
    return dataset


def _episode(env: VectorEnv, obs: NDArray[np.float32], act: Act) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The columns of an episode from its first observation (D,), and the first observation of the next."""
    seen: list[NDArray[np.float32]] = [obs]
    rows: list[tuple[NDArray[np.float32], float, bool, bool, dict[str, float]]] = []
    while not rows or not (rows[-1][2] or rows[-1][3]):
        action = np.asarray(act(obs), np.float32)
        if action.shape != (env.action_dim,) or not np.isfinite(action).all():
            raise UserError(f"the controller must return {env.action_dim} finite numbers, not {action!r}")
        action = action.clip(-1.0, 1.0)
        step = env.step(torch.from_numpy(action)[None].to(env.device))
        figures = {name: float(value[0]) for name, value in step.info.items()}
        rows.append((action, float(step.reward[0]), bool(step.terminated[0]), bool(step.truncated[0]), figures))
        obs = step.obs[0].cpu().numpy()
        seen.append(step.next_obs[0].cpu().numpy())
    actions, rewards, terminations, truncations, figures_of = zip(*rows)
    columns = {
        "observations": np.stack(seen),
        "actions": np.stack(actions),
        "rewards": list(rewards),
        "terminations": list(terminations),
        "truncations": list(truncations),
        "infos": {name: np.array([np.nan, *(row[name] for row in figures_of)]) for name in figures_of[0]},
    }
    return columns, obs
