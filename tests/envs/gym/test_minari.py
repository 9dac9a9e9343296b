"""A recorded year comes back out of Minari as it was stepped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from schemas import Features, write_schema

from iquitos_rl.envs import CityLearnSite, DistrictSite
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.minari import export_minari
from iquitos_rl.errors import UserError

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari.*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    features = Features(rows=12, buildings=(2, 2), sockets=(3, 3), omit=0)
    return write_schema(tmp_path_factory.mktemp("site"), 5, features)


@pytest.fixture(autouse=True)
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def district(folder: Path) -> Any:
    return DistrictSite([folder], starts="random", episode_steps=5)


def citylearn(folder: Path) -> Any:
    pytest.importorskip("citylearn")
    return CityLearnSite([folder])


@pytest.mark.parametrize("make", [district, citylearn])
def test_a_round_trip(folder: Path, make: Any) -> None:
    def act(obs: Any) -> Any:
        return 1.5 * np.sin(100 * obs[: env.action_dim])  # out of bounds at times

    env = as_vector(make(folder))
    export_minari("site/test/sine-v0", make(folder), act, episodes=2, seed=3, author="nobody")
    found = minari.load_dataset("site/test/sine-v0")
    assert found.total_episodes == 2
    assert found.storage.metadata["policy_spec"] == json.loads(json.dumps(env.policy_spec))
    obs = env.reset(3)
    for episode in found.iterate_episodes():
        length = len(episode.rewards)
        assert len(episode.observations) == length + 1
        for t in range(length):
            assert np.array_equal(episode.observations[t], obs[0].numpy())
            action = np.clip(act(obs[0].numpy()), -1, 1).astype(np.float32)
            assert np.array_equal(episode.actions[t], action)
            step = env.step(torch.from_numpy(action)[None])
            assert episode.rewards[t] == float(step.reward[0])
            assert (episode.terminations[t], episode.truncations[t]) == (False, bool(step.truncated[0]))
            assert episode.truncations[t] == (t == length - 1)
            assert {name: x[t + 1] for name, x in episode.infos.items()} == {
                name: float(x[0]) for name, x in step.info.items()
            }
            obs = step.obs
        assert np.array_equal(episode.observations[-1], step.next_obs[0].numpy())
        assert all(np.isnan(x[0]) and len(x) == length + 1 for x in episode.infos.values())
        assert found.observation_space.contains(episode.observations[0])
        assert found.action_space.contains(episode.actions[0])


def test_a_registered_site_is_recovered(folder: Path) -> None:
    pytest.importorskip("citylearn")
    env = gymnasium.make("iquitos_rl/Site-v0", case=str(folder), disable_env_checker=True)
    export_minari("site/test/still-v0", env, lambda obs: np.zeros(env.action_space.shape), seed=1)
    again = minari.load_dataset("site/test/still-v0").recover_environment()
    assert again.observation_space == env.observation_space
    assert again.spec.kwargs["case"] == str(folder)


def test_what_cannot_be_recorded_is_a_sentence(folder: Path) -> None:
    for env in (DistrictSite([folder], 2), gymnasium.make("Pendulum-v1")):
        with pytest.raises(UserError, match="a dataset is recorded in one site"):
            export_minari("site/test/none-v0", env, lambda obs: obs)
    with pytest.raises(UserError, match="the controller must return"):
        export_minari("site/test/none-v0", district(folder), lambda obs: obs)
