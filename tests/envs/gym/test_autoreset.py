"""Gymnasium's vector environments of every autoreset convention, against environments stepped by hand."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Text
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.agents.sac import SAC, SACConfig
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.autoreset import AutoresetVector, autoreset_mode
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError

STEPS, NUM_ENVS = 200, 3
MODES = ("SameStep", "NextStep", "Disabled")
NAMED_MODES = hasattr(gymnasium.vector, "AutoresetMode")  # since gymnasium 1.1


class Walk(gymnasium.Env[Any, Any]):
    """Observation (episode, step, sum of actions); ends at random, one way or the other or both."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))

    def __init__(self) -> None:
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t, self.total = self.episode + 1, 0, float(self.np_random.random())
        return self._obs(), {}

    def step(self, action: Any) -> Any:
        self.t, self.total = self.t + 1, self.total + float(np.sum(action))
        terminated, truncated = self.np_random.random(2) < 0.1
        return self._obs(), self.total, bool(terminated), bool(truncated), {"cost": 1.0}

    def _obs(self) -> Any:
        return np.array([self.episode, self.t, self.total], np.float32)


class Scripted(gymnasium.vector.VectorEnv):
    """Each convention as gymnasium's documentation describes it, whatever the version installed."""

    def __init__(self, mode: str | None, final_key: str = "final_obs", envs: int = NUM_ENVS) -> None:
        self.envs, self.mode, self.final_key, self.num_envs = [Walk() for _ in range(envs)], mode, final_key, envs
        self.single_observation_space, self.single_action_space = Walk.observation_space, Walk.action_space
        self.metadata = {} if mode is None else {"autoreset_mode": mode}
        self.ended = np.zeros(envs, dtype=bool)
        self.closed = False
        self.obs = np.zeros((envs, 3), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, dtype=bool))
        for i in np.flatnonzero(mask):
            self.obs[i], _ = self.envs[i].reset(seed=None if seed is None else seed + int(i))
            self.ended[i] = False
        return self.obs, {}  # the same array every time

    def step(self, actions: Any) -> Any:
        reward, terminated, truncated = np.zeros(self.num_envs), *np.zeros((2, self.num_envs), dtype=bool)
        info: dict[str, Any] = {}
        for i, env in enumerate(self.envs):
            if self.ended[i]:
                assert self.mode == "NextStep", "an ended environment was stepped"
                self.obs[i], _ = env.reset()
                self.ended[i] = False
                continue
            obs, reward[i], terminated[i], truncated[i], _ = env.step(actions[i])
            if terminated[i] or truncated[i]:
                if self.mode in ("SameStep", None):
                    info.setdefault(self.final_key, np.full(self.num_envs, None, dtype=object))[i] = obs
                    obs, _ = env.reset()
                else:
                    self.ended[i] = True
            self.obs[i] = obs
        return self.obs, reward, terminated, truncated, info

    def close(self, **kwargs: Any) -> None:
        self.closed = True


def actions(steps: int = STEPS) -> torch.Tensor:
    return torch.rand(steps, NUM_ENVS, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1


def by_hand(seed: int, steps: int = STEPS) -> tuple[torch.Tensor, list[StepResult]]:
    """First observations and all steps of single environments, each reset when its episode ends."""
    envs = [Walk() for _ in range(NUM_ENVS)]
    first = torch.tensor(np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)]))
    low, high = Walk.action_space.low, Walk.action_space.high
    results = []
    for row in actions(steps).double().numpy():
        taken = [env.step((low + (a + 1) / 2 * (high - low)).astype(np.float32)) for env, a in zip(envs, row)]
        next_obs, reward, terminated, truncated = (torch.tensor(np.array([t[k] for t in taken])) for k in range(4))
        obs = [env.reset()[0] if t[2] or t[3] else t[0] for env, t in zip(envs, taken)]
        results.append(StepResult(torch.tensor(np.stack(obs)), reward.float(), terminated, truncated, next_obs, {}))
    return first, results


def assert_equals_by_hand(env: VectorEnv, seed: int, steps: int = STEPS) -> None:
    first, expected = by_hand(seed, steps)
    kept = [env.reset(seed=seed)]
    found = [env.step(action) for action in actions(steps)]
    assert kept[0].equal(first)
    for one, other in zip(found, expected, strict=True):
        for name in ("obs", "reward", "terminated", "truncated", "next_obs"):
            assert getattr(one, name).equal(getattr(other, name)), name
            assert getattr(one, name).dtype == getattr(other, name).dtype, name
    ends = torch.stack([step.terminated | step.truncated for step in expected])
    assert ends.any(0).all()
    assert ends.all(1).any() or steps < STEPS, "all at once happens too"


@pytest.mark.parametrize("mode", MODES)
def test_every_convention_is_the_environments_stepped_by_hand(mode: str) -> None:
    """No dummy transition, the true successor at every end, the first observation of the next episode to act on."""
    env = as_vector(Scripted(mode))
    assert isinstance(env, VectorEnv)
    assert as_vector(env) is env
    assert_equals_by_hand(env, seed=4)


def test_the_final_observation_by_its_name_of_gymnasium_0() -> None:
    assert_equals_by_hand(as_vector(Scripted("SameStep", final_key="final_observation")), seed=4)


@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("mode", MODES if NAMED_MODES else [None])
def test_gymnasiums_own_classes(kind: Any, mode: str | None) -> None:
    env = as_vector(kind([Walk] * NUM_ENVS, **({} if mode is None else {"autoreset_mode": mode})))
    try:
        assert_equals_by_hand(env, seed=4, steps=60 if kind is AsyncVectorEnv else STEPS)
    finally:
        env.close()


def test_a_time_limit_of_gymnasiums_own_task() -> None:
    """Pendulum only ever truncates; in the convention that gymnasium's class has by default."""
    make = [lambda: gymnasium.make("Pendulum-v1")] * 2
    one, other = as_vector(make), as_vector(SyncVectorEnv(make))
    assert one.reset(seed=0).equal(other.reset(seed=0))
    ended = []
    for t in range(401):
        step, same = one.step(torch.ones(2, 1)), other.step(torch.ones(2, 1))
        assert all(a.equal(b) for a, b in zip(step[:5], same[:5]))
        ended += [t] * int(same.truncated.all())
    assert ended == [199, 399]


@pytest.mark.skipif(not NAMED_MODES, reason="gymnasium has one convention")
def test_environments_of_one_class_in_two_conventions() -> None:
    """gymnasium 1 keeps the mode in a dictionary that the class's environments share: the last one made wins."""
    one: Any = SyncVectorEnv([Walk], autoreset_mode="SameStep")  # type: ignore[call-arg]
    two: Any = SyncVectorEnv([Walk], autoreset_mode="NextStep")  # type: ignore[call-arg]
    assert (autoreset_mode(one), autoreset_mode(two)) == ("SameStep", "NextStep")


def test_what_does_not_keep_its_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class ResetsAll(Scripted):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            return super().reset(seed=seed)

    def run(inner: Scripted) -> None:
        env = AutoresetVector(inner)
        env.reset(seed=0)
        for action in actions():
            env.step(action)

    with pytest.raises(UserError, match="reset more than the reset_mask asks for"):
        run(ResetsAll("NextStep"))
    with pytest.raises(UserError, match="without its final observation"):
        run(Scripted("SameStep", final_key="unheard_of"))
    monkeypatch.setattr(gymnasium, "__version__", "1.0.0")
    with pytest.raises(UserError, match="does not say how it resets"):
        AutoresetVector(Scripted(None))
    monkeypatch.setattr(gymnasium, "__version__", "0.28.1")
    run(Scripted(None, final_key="final_observation"))


def test_spaces_and_numbers_that_cannot_be_handled() -> None:
    inner = Scripted("NextStep")
    inner.single_action_space = Text(2)
    with pytest.raises(UserError, match="action space is Text"):
        as_vector(inner)
    env = as_vector(Scripted("NextStep"))
    env.reset(seed=0)
    with pytest.raises(UserError, match="action 1 of environment 0 is NaN"):
        env.step(torch.full((NUM_ENVS, 2), 0.0).index_fill(1, torch.tensor([1]), float("nan")))
    for seed in range(10):  # in some of them an episode ends in the same step
        env.reset(seed=seed)
        env.env.envs[2].total = float("nan")  # type: ignore[attr-defined]
        with pytest.raises(UserError, match="the reward of environment 2 is nan"):
            env.step(torch.zeros(NUM_ENVS, 2))


@pytest.mark.parametrize("mode", MODES)
def test_agents_learn_the_same_from_every_convention(mode: str) -> None:
    """The very weights that a list of environments leads to."""
    sac = SACConfig(hidden=(8,), batch_size=8, learning_starts=20, buffer_size=9_000, update_ratio=0.2)
    ppo = PPOConfig(hidden=(8,), horizon=20, batch_size=20, epochs=1)
    for agent, part in ((lambda env: SAC(env, sac), "actor"), (lambda env: PPO(env, ppo), "policy")):
        expected, found = (agent(env).learn(240) for env in ([Walk] * NUM_ENVS, Scripted(mode)))
        for p, q in zip(getattr(expected, part).parameters(), getattr(found, part).parameters()):
            assert p.equal(q)
