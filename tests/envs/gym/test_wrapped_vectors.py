"""Vector environments inside of wrappers, in whichever gymnasium is installed: against single environments in the same
wrappers' arithmetic, stepped by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from test_autoreset import NUM_ENVS, STEPS, Walk, actions, assert_equals_by_hand, by_hand

from iquitos_rl.agents import A2C, PPO, SAC, A2CConfig, PPOConfig, SACConfig
from iquitos_rl.envs.gym.adapter import as_vector, is_gymnasium_vector
from iquitos_rl.errors import UserError

GYMNASIUM_1 = not gymnasium.__version__.startswith("0.")
WRAPPERS: Any = gymnasium.wrappers.vector if GYMNASIUM_1 else gymnasium.wrappers  # type: ignore[attr-defined]


def sync(make: Any = Walk) -> Any:
    return SyncVectorEnv([make] * NUM_ENVS)


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_statistics_of_episodes_change_nothing(kind: Any) -> None:
    """CleanRL's idiom; before gymnasium 1.0 the result is no vector environment by its class."""
    wrapped = WRAPPERS.RecordEpisodeStatistics(kind([Walk] * NUM_ENVS))
    assert is_gymnasium_vector(wrapped)
    env = as_vector(wrapped)
    try:
        assert env.num_envs == NUM_ENVS
        assert_equals_by_hand(env, seed=4, steps=60 if kind is AsyncVectorEnv else STEPS)
    finally:
        env.close()


@pytest.mark.parametrize("around", [False, True])
def test_normalised_observations_are_those_of_one_and_the_same_scale(around: bool) -> None:
    """The wrapper refuses to reset some environments, or never sees an episode's last observation. What an agent gets
    is in each step the true observation by the statistics that the wrapper has then."""
    wrapper = WRAPPERS.NormalizeObservation(sync())
    env = as_vector(WRAPPERS.RecordEpisodeStatistics(wrapper) if around else wrapper)
    first, expected = by_hand(4)
    assert env.reset(seed=4).shape == first.shape
    for action, step in zip(actions(), expected):
        found = env.step(action)
        mean, deviation = wrapper.obs_rms.mean, np.sqrt(wrapper.obs_rms.var + wrapper.epsilon)
        all_ended = bool((step.terminated | step.truncated).all())  # then their first observations count too
        for name in ("obs",) if all_ended else ("next_obs", "obs"):
            scaled = torch.tensor((getattr(step, name).numpy() - mean) / deviation).float()
            torch.testing.assert_close(getattr(found, name), scaled, rtol=1e-4, atol=1e-4)
        assert found.reward.equal(step.reward)
        assert found.truncated.equal(step.truncated)


@pytest.mark.parametrize(
    "make",
    [
        lambda env: SAC(env, SACConfig(hidden=(8,), batch_size=8, learning_starts=20, buffer_size=9_000)),
        lambda env: PPO(env, PPOConfig(hidden=(8,), horizon=20, batch_size=20, epochs=1)),
        lambda env: A2C(env, A2CConfig(hidden=(8,))),
    ],
)
def test_agents_train_in_every_wrapper(make: Any) -> None:
    for wrap in (WRAPPERS.RecordEpisodeStatistics, WRAPPERS.NormalizeObservation, WRAPPERS.NormalizeReward):
        assert make(wrap(sync())).learn(120).updates > 0


class ClipAction(gymnasium.ActionWrapper[Any, Any, Any]):
    """Gymnasium 1's wrapper of that name."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.action_space = Box(-np.inf, np.inf, env.action_space.shape, env.action_space.dtype)

    def action(self, action: Any) -> Any:
        return np.clip(action, self.env.action_space.low, self.env.action_space.high)


@pytest.mark.parametrize("clip", [ClipAction, gymnasium.wrappers.ClipAction])
def test_the_bounds_inside_of_clip_action_are_found(clip: Any) -> None:
    for env in (
        as_vector([lambda: clip(Walk())] * NUM_ENVS),
        as_vector(SyncVectorEnv([lambda: clip(Walk())] * NUM_ENVS)),
        as_vector(gymnasium.wrappers.TransformReward(clip(Walk()), lambda r: r)),
    ):
        assert env.action_low.tolist() == Walk.action_space.low.tolist()
        assert env.action_high.tolist() == Walk.action_space.high.tolist()
    assert_equals_by_hand(as_vector([lambda: clip(Walk())] * NUM_ENVS), seed=4)
    inner = Walk()
    inner.action_space = Box(-np.inf, np.inf, (2,))
    with pytest.raises(UserError, match="no finite bounds"):
        as_vector(clip(inner))


def test_what_is_no_whole_vector_environment_is_one_sentence() -> None:
    class Half(gymnasium.vector.VectorEnv):
        """As supersuit's: no spaces of one environment."""

        def __init__(self) -> None:
            self.num_envs, self.metadata = 2, {}

    with pytest.raises(UserError, match=r"a Half is no whole vector environment: it has no single_observation_space"):
        as_vector(Half())
