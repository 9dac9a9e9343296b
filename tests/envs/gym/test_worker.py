"""Environments in processes of their own behave as here, and their deaths are noticed and named."""

import os
from functools import partial

import gymnasium
import numpy as np
import pytest
import torch

from iquitos_rl.envs.gym import worker
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.worker import WorkerEnv, WorkerError
from iquitos_rl.errors import UserError


class Failing(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        how = round(float(action[0]) * 4)
        if how == 1:
            raise UserError("row 7 is broken")
        if how == 2:
            raise ZeroDivisionError("inside")
        if how == 3:
            os._exit(9)
        if how == 4:
            import threading

            threading.Event().wait()
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.fixture
def failing():
    env = WorkerEnv(Failing, "worker 3")
    env.reset()
    yield env
    env.close()


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (0.25, UserError, "row 7 is broken"),
        (0.5, WorkerError, "ZeroDivisionError: inside"),
        (0.75, WorkerError, "worker 3 died with exit code 9"),
    ],
)
def test_what_goes_wrong_inside_is_told_outside(failing, action, error, message):
    with pytest.raises(error, match=message):
        failing.step(np.array([action]))


def test_a_worker_that_hangs_is_ended_and_named(failing, monkeypatch):
    monkeypatch.setattr(worker, "HANG_SECONDS", 0.5)
    with pytest.raises(WorkerError, match="worker 3 has not answered"):
        failing.step(np.array([1.0]))


def test_workers_step_as_environments_here_do():
    factory = partial(gymnasium.make, "Pendulum-v1", max_episode_steps=7)
    here = as_vector([factory, factory])
    there = as_vector([partial(WorkerEnv, factory, f"worker {i}") for i in range(2)])
    torch.testing.assert_close(here.reset(seed=3), there.reset(seed=3))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        action = torch.rand(2, 1, generator=generator) * 2 - 1
        a, b = here.step(action), there.step(action)
        torch.testing.assert_close(a.next_obs, b.next_obs)
        torch.testing.assert_close(a.reward, b.reward)
        assert torch.equal(a.truncated, b.truncated)
    there.close()
    assert not any(env._process.is_alive() for env in there.envs)
