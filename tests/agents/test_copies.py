"""Copies of an agent, through every usual way, learn and act as the original would have; and agents work the same
whatever PyTorch's defaults are."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle
import gymnasium
import numpy as np
import pytest
import torch
from toy import ToyBattery

from iquitos_rl.agents import AGENTS, A2CConfig, PPOConfig, RecurrentPPOConfig, SACConfig
from iquitos_rl.envs.gym.worker import WorkerEnv
from iquitos_rl.errors import UserError

CONFIGS: dict[str, Any] = {
    "sac": SACConfig(hidden=(8, 8), batch_size=8, learning_starts=10, buffer_size=300, n_step=2, noise_persistence=0.5),
    "ppo": PPOConfig(hidden=(8,), horizon=10, batch_size=8, epochs=2),
    "a2c": A2CConfig(hidden=(8,)),
    "recurrent_ppo": RecurrentPPOConfig(memory=6, hidden=(8,), horizon=10, sequence=5, batch_size=10, epochs=2),
}
every = pytest.mark.parametrize("name", CONFIGS)


def through_torch(agent: Any) -> Any:
    file = io.BytesIO()
    torch.save(agent, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda agent: pickle.loads(pickle.dumps(agent)),
    "cloudpickle": lambda agent: pickle.loads(cloudpickle.dumps(agent)),
    "torch": through_torch,
}


def make(name: str, env: Any = None) -> Any:
    return AGENTS[name].agent([ToyBattery] * 2 if env is None else env, CONFIGS[name], seed=3)


def weights(agent: Any) -> Any:
    return torch.cat([x.double().flatten() for x in agent.networks.state_dict().values()])


@every
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [0, 70])
def test_a_copy_goes_on_learning_the_same_and_apart(name: str, way: str, before: int) -> None:
    agent = make(name)
    if before:
        agent.learn(before)
    twin = WAYS[way](agent)
    kept = weights(twin)
    agent.learn(60)
    assert torch.equal(weights(twin), kept), "the copy is apart"
    twin.learn(60)
    assert torch.equal(weights(agent), weights(twin))
    assert not torch.equal(weights(twin), kept)
    obs = np.zeros((3, 4), np.float32)
    assert np.array_equal(agent.predict(obs, deterministic=False), twin.predict(obs, deterministic=False))
    assert not twin.metrics.found
    with torch.no_grad():
        for p in twin.networks.parameters():
            p.fill_(1e30)
    with pytest.raises(UserError, match=r"training diverged|not a finite"):
        twin.learn(60)  # the guard of the copy is the copy's own
    agent.learn(60)


@every
def test_what_cannot_be_copied_is_one_sentence(name: str) -> None:
    env = WorkerEnv(ToyBattery)
    try:
        agent = make(name, env)
        with pytest.raises(UserError, match="run in processes cannot be copied"):
            copy.deepcopy(agent)
    finally:
        env.close()
    vector = gymnasium.vector.AsyncVectorEnv([ToyBattery])
    try:
        with pytest.raises(UserError, match="run in processes cannot be copied"):
            pickle.dumps(make(name, vector))
    finally:
        vector.close()


def test_a_buffer_in_a_file_is_not_copied(tmp_path: Any) -> None:
    agent = AGENTS["sac"].agent(ToyBattery(), CONFIGS["sac"].model_copy(update={"placement": "disk"}))
    with pytest.raises(UserError, match="replay buffer is disk memory cannot be copied"):
        copy.deepcopy(agent)


def float64() -> Any:
    torch.set_default_dtype(torch.float64)


def meta() -> Any:
    torch.set_default_device("meta")


def no_grad() -> Any:
    torch.set_grad_enabled(False)


STATES: dict[str, Callable[[], Any]] = {"float64": float64, "meta": meta, "no_grad": no_grad}


@every
@pytest.mark.parametrize("state", STATES)
def test_pytorchs_defaults_change_nothing_and_are_left_alone(name: str, state: str, tmp_path: Any) -> None:
    def run() -> Any:
        agent = make(name).learn(60)
        agent.save(tmp_path / "a", buffer=True)
        loaded = type(agent).load(tmp_path / "a", [ToyBattery] * 2).learn(40)
        obs = np.zeros(4, np.float32)
        return weights(agent), weights(loaded), agent.predict(obs), agent.predict(obs, deterministic=False)

    expected = run()
    try:
        STATES[state]()
        before = torch.get_default_dtype(), torch.get_default_device().type, torch.is_grad_enabled()
        found = run()
        assert before == (torch.get_default_dtype(), torch.get_default_device().type, torch.is_grad_enabled())
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
    for one, other in zip(expected, found):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@every
def test_inside_of_other_modes(name: str) -> None:
    expected = weights(make(name).learn(60))
    for mode in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            agent = make(name).learn(60)
            agent.predict(torch.zeros(4))
        assert torch.equal(weights(agent), expected)
