"""A site as PettingZoo sees it: that library's own test, and every step against the engine below."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from schemas import Features, write_schema
from street import street

from iquitos_rl.envs import CityLearnSite, DistrictSite
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.errors import UserError

pytest.importorskip("pettingzoo")
from pettingzoo.test import parallel_api_test, parallel_seed_test
from pettingzoo.utils import parallel_to_aec

from iquitos_rl.envs.gym.pettingzoo import SiteParallelEnv

HOURS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    features = Features(rows=HOURS, buildings=(3, 3), sockets=(4, 4), omit=0)
    return write_schema(tmp_path_factory.mktemp("site"), 5, features)


def district(folder: Path, envs: int = 1) -> DistrictSite:
    return DistrictSite([folder], envs)


def citylearn(folder: Path) -> CityLearnSite:
    pytest.importorskip("citylearn")
    return CityLearnSite([folder])


@pytest.mark.parametrize("make", [district, citylearn])
def test_pettingzoos_own_test_passes(folder: Path, make: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(agent|attribute|possible).*", category=UserWarning)
        parallel_api_test(SiteParallelEnv(make(folder)), num_cycles=30)


def test_the_same_seed_is_the_same_episode(folder: Path) -> None:
    def make() -> SiteParallelEnv:
        return SiteParallelEnv(DistrictSite([folder], starts="random", episode_steps=5))

    parallel_seed_test(make, num_cycles=12)


@pytest.mark.parametrize("make", [district, citylearn])
def test_every_step_is_the_sites(folder: Path, make: Any) -> None:
    env, site = SiteParallelEnv(make(folder)), as_vector(make(folder))
    buildings = site.policy_spec["buildings"]
    rng = np.random.default_rng(0)
    views, infos = env.reset(seed=3)
    obs, ended = site.reset(3), False
    assert set(views) == set(infos) == set(env.agents) == set(env.possible_agents) <= set(buildings["names"])
    while not ended:
        assert np.array_equal(env.state(), obs[0].numpy())
        flat = np.zeros((1, site.action_dim), np.float32)
        actions = {}
        for agent in env.agents:
            b = buildings["names"].index(agent)
            names = dict(
                zip(
                    [*buildings["common"], *buildings["features"]],
                    [*buildings["common_columns"], *buildings["columns"][b]],
                )
            )
            for name, value in zip(env.columns[agent], views[agent], strict=True):
                assert value == obs[0, names[name]]
            assert env.observation_space(agent).contains(views[agent])
            actions[agent] = rng.uniform(-1, 1, env.action_space(agent).shape).astype(np.float32)
            for name, value in zip(env.devices[agent], actions[agent], strict=True):
                flat[0, buildings["actions"][b][buildings["devices"].index(name)]] = value
        assert flat.all()  # every device of the site belongs to an agent
        views, rewards, terminated, truncated, infos = env.step(actions)
        step = site.step(torch.from_numpy(flat))
        obs, ended = step.next_obs, bool(step.truncated[0])
        assert set(rewards.values()) == {float(step.reward[0])}
        assert set(truncated.values()) == {ended}
        assert not any(terminated.values())
        assert all(info == {name: float(x[0]) for name, x in step.info.items()} for info in infos.values())
    assert env.agents == []
    assert env.state_space.contains(env.state())
    with pytest.raises(UserError, match="the episode has ended: call reset"):
        env.step(actions)


def test_a_building_without_devices_is_no_agent(tmp_path: Path) -> None:
    env = SiteParallelEnv(DistrictSite([street(tmp_path, 3, without_battery=(1,))]))
    assert env.possible_agents == ["House 0", "House 2"]
    assert env.devices == {"House 0": ("battery",), "House 2": ("battery",)}
    env.reset(seed=0)
    rewards = env.step({agent: np.zeros(1) for agent in env.agents})[1]
    assert set(rewards) == {"House 0", "House 2"}


def test_it_works_as_an_aec_environment(folder: Path) -> None:
    env = parallel_to_aec(SiteParallelEnv(district(folder)))
    env.reset(seed=0)
    steps = 0
    for agent in env.agent_iter():
        _, _, terminated, truncated, _ = env.last()
        env.step(None if terminated or truncated else env.action_space(agent).sample())
        steps += 1
    assert steps == (HOURS - 1 + 1) * len(env.possible_agents)


@pytest.mark.parametrize("wrong", [None, [0.0] * 99, [np.nan], 0.5])
def test_a_wrong_action_is_a_sentence(tmp_path: Path, wrong: Any) -> None:
    env = SiteParallelEnv(DistrictSite([street(tmp_path, 2)]))
    env.reset(seed=0)
    actions = {"House 0": np.zeros(1), **({} if wrong is None else {"House 1": wrong})}
    with pytest.raises(UserError, match="agent House 1 needs an action of 1 finite numbers"):
        env.step(actions)


def test_what_has_no_agents_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one environment, not in 2"):
        SiteParallelEnv(district(folder, 2))
    with pytest.raises(UserError, match="this environment has none"):
        SiteParallelEnv(DistrictSite([street(tmp_path, 2, without_battery=(0, 1))]))
