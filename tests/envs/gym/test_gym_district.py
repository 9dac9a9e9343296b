"""The district engine's gymnasium face, under whichever gymnasium is installed (0.28 and 1.2 are meant)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from schemas import Features, write_schema

from iquitos_rl.agents import PPO, PPOConfig
from iquitos_rl.envs import DistrictSite, DistrictVectorEnv
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.district import FINAL_OBS, GYMNASIUM_1
from iquitos_rl.errors import UserError

ROWS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = Features(rows=ROWS, buildings=(2, 2), sockets=(3, 3), omit=0)
    return write_schema(tmp_path_factory.mktemp("site"), 5, features)


class Single(gymnasium.Env[Any, Any]):
    """One environment of the engine that ends after `hours` and knows nothing of automatic resets."""

    def __init__(self, folder: Path, hours: int) -> None:
        self.site, self.hours = DistrictSite([folder]), hours
        self.observation_space = gymnasium.spaces.Box(-1, 1, (self.site.obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (self.site.action_dim,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.left = self.hours
        return self.site.reset(seed)[0].numpy(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        result = self.site.step(torch.from_numpy(action).unsqueeze(0))
        self.left -= 1
        info = {name: value.item() * 1.0 for name, value in result.info.items()}
        return result.next_obs[0].numpy(), result.reward.item(), False, self.left == 0, info


def same(ours: Any, theirs: Any) -> None:
    """Equal nested infos: keys, masks, arrays of objects."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, np.ndarray):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        for a, b in zip(ours.tolist(), theirs.tolist()) if ours.dtype == object else ():
            same(a, b)
        if ours.dtype != object:
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)
    elif ours is not None:
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("hours", [[ROWS - 1, ROWS - 1], [4, ROWS - 1]])
def test_steps_as_gymnasiums_own_vector_environment(folder: Path, hours: list[int]) -> None:
    """Observations, rewards, ends and infos of `SyncVectorEnv` over single environments, through several episodes."""
    mode = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP} if GYMNASIUM_1 else {}
    theirs = gymnasium.vector.SyncVectorEnv([lambda h=h: Single(folder, h) for h in hours], **mode)
    ours = DistrictVectorEnv(DistrictSite([folder], 2))
    np.testing.assert_allclose(ours.reset(seed=3)[0], theirs.reset(seed=3)[0], atol=1e-6)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert (ours.num_envs, ours.single_action_space) == (theirs.num_envs, theirs.single_action_space)
    ours.site.steps_left[:] = hours
    ours.action_space.seed(0)
    for t in range(2 * ROWS):
        if t and any(t % h == 0 for h in hours):
            ours.site.steps_left[:] = [h - t % h for h in hours]
        action = ours.action_space.sample()
        own, other = ours.step(action), theirs.step(action)
        for a, b in zip(own[:4], other[:4]):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        same(own[4], other[4])
    theirs.close()


def test_the_final_observation_is_what_the_last_action_led_to(folder: Path) -> None:
    site = DistrictSite([folder], 3)
    env = DistrictVectorEnv(DistrictSite([folder], 3))
    first, _ = env.reset(seed=0)
    site.reset(seed=0)
    action = np.full((3, site.action_dim), 0.3, dtype=np.float32)
    for _ in range(ROWS - 1):
        obs, _, terminated, truncated, info = env.step(action)
        expected = site.step(torch.from_numpy(action))
    assert truncated.all()
    assert not terminated.any()
    np.testing.assert_array_equal(obs, first)
    np.testing.assert_array_equal(np.stack(info[FINAL_OBS]), expected.next_obs.numpy())
    if GYMNASIUM_1:
        assert env.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP


def wrapper() -> Any:
    wrappers: Any = gymnasium.wrappers
    return (wrappers.vector if GYMNASIUM_1 else wrappers).RecordEpisodeStatistics


def test_gymnasiums_wrapper_counts_episodes(folder: Path) -> None:
    env = wrapper()(DistrictVectorEnv(DistrictSite([folder], 2)))
    env.reset(seed=0)
    total = 0.0
    for _ in range(ROWS - 1):
        _, reward, _, _, info = env.step(np.zeros(env.action_space.shape, dtype=np.float32))
        total += reward[0]
    assert info["episode"]["l"].tolist() == [ROWS - 1] * 2
    assert info["episode"]["r"][0] == pytest.approx(total, rel=1e-6)
    env.close()


def test_agents_see_the_engine_through_gymnasiums_wrapper(folder: Path) -> None:
    """Every step as the engine gives it, true successors at the ends of episodes included; and the same training."""

    def site() -> DistrictSite:
        return DistrictSite([folder], 3, starts="random", episode_steps=4)

    def vector() -> Any:
        return DistrictVectorEnv(site())

    env, engine = as_vector(wrapper()(vector())), site()
    assert torch.equal(env.reset(5), engine.reset(5))
    generator, ends = torch.Generator().manual_seed(0), 0
    for _ in range(20):
        action = 2 * torch.rand(3, engine.action_dim, generator=generator) - 1
        found, expected = env.step(action), engine.step(action)
        for name in ("obs", "next_obs", "terminated", "truncated"):
            assert torch.equal(getattr(found, name), getattr(expected, name)), name
        torch.testing.assert_close(found.reward, expected.reward)
        ends += int(found.truncated.sum())
    assert ends > 10
    config = PPOConfig(hidden=(8,), horizon=8, batch_size=24, epochs=1, schedule="constant")
    wrapped, plain = (PPO(one, config).learn(72) for one in (wrapper()(vector()), vector()))
    for p, q in zip(wrapped.policy.actor.parameters(), plain.policy.actor.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_nothing_returned_is_a_view_of_the_engines_state(folder: Path) -> None:
    """Whoever writes into what a step returned must not change the next step."""
    a, b = (DistrictVectorEnv(DistrictSite([folder], 2)) for _ in range(2))
    a.reset(seed=0)
    b.reset(seed=0)
    action = np.zeros(a.action_space.shape, dtype=np.float32)
    for _ in range(ROWS + 3):
        own, other = a.step(action), b.step(action)
        for x, y in zip(own[:4], other[:4]):
            np.testing.assert_array_equal(x, y)
            x[:] = 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_actions_that_are_no_numbers(folder: Path, value: float) -> None:
    env = DistrictVectorEnv(DistrictSite([folder], 2))
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, dtype=np.float32)
    with pytest.raises(UserError, match="shape"):
        env.step(action[:1])
    action[1, 2] = value
    with pytest.raises(UserError, match="action 2 of environment 1"):
        env.step(action)
    with pytest.raises(UserError, match="one seed"):
        env.reset(seed=[1, 2])  # type: ignore[arg-type]
