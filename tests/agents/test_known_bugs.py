"""Bugs that other libraries had, one test each.

Those with a home elsewhere: bootstrap at truncation, one normalisation for acting and learning
(`test_collector.py`); per-column and return statistics (`test_normalisation.py`); advantages of tiny batches, half the
squared error (`test_ppo.py`, `test_a2c.py`); seeds of evaluation episodes (`../test_learning.py`); memory held by a
failed attempt (`../memory/test_recovery.py`); autoreset conventions (`../envs/test_autoreset.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from scripted_env import ScriptedEnv

from iquitos_rl.agents.a2c import A2C, A2CConfig
from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.agents.sac import SAC, SACConfig
from iquitos_rl.buffers.placement import Memory, Transfer
from iquitos_rl.buffers.replay import ReplayBuffer
from iquitos_rl.envs.vector import StepResult

SAC_CONFIG = SACConfig(hidden=(16, 16), batch_size=8, learning_starts=10, buffer_size=2_000)
AGENTS: dict[str, Callable[[Any], Any]] = {
    "sac": lambda env: SAC(env, SAC_CONFIG),
    "ppo": lambda env: PPO(env, PPOConfig(horizon=10, batch_size=15, epochs=1, hidden=(16,))),
    "a2c": lambda env: A2C(env, A2CConfig(horizon=10, hidden=(16,))),
}


@pytest.mark.parametrize("make", [PPO, A2C])
def test_log_std_starts_at_zero_and_is_one_number_per_action(make: Any) -> None:
    """rlox, bug 6: another start than the one that the published settings are tuned for."""
    agent = make(ScriptedEnv(obs_dim=5, action_dim=3))
    assert agent.policy.log_std.tolist() == [0.0] * 3
    assert agent.policy.log_std.requires_grad


@pytest.mark.parametrize("name", AGENTS)
def test_no_parameter_is_left_out_of_the_optimiser(name: str) -> None:
    """Spinning Up: an iterator over both critics' parameters, exhausted by its first use. Here every parameter belongs
    to one optimiser and moves, in the second stretch of training as in the first."""
    agent = AGENTS[name](ScriptedEnv())
    owned = [p for optimizer in agent.optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    modules = [agent.actor, agent.critic] if name == "sac" else [agent.policy]
    expected = [p for module in modules for p in module.parameters()]
    expected += [agent.log_alpha] if name == "sac" else []
    assert sorted(map(id, owned)) == sorted(map(id, expected))
    for steps in (60, 120):
        before = [p.detach().clone() for p in expected]
        agent.learn(steps)
        assert not any(p.equal(q) for p, q in zip(expected, before))


def test_the_temperature_is_saved_with_its_optimiser(tmp_path: Path) -> None:
    """skrl: log alpha and its moments were in no checkpoint."""
    agent = AGENTS["sac"](ScriptedEnv())
    agent.learn(100)
    assert agent.log_alpha.item() != 0.0
    agent.save(tmp_path)
    assert SAC.load(tmp_path).log_alpha.equal(agent.log_alpha)
    twin = SAC(ScriptedEnv(), SAC_CONFIG, seed=5)
    twin.load_state_dict(agent.state_dict())
    for mine, theirs in zip(agent.optimizers["policy"].param_groups, twin.optimizers["policy"].param_groups):
        kept = [opt.state[group["params"][-1]] for opt, group in
                ((agent.optimizers["policy"], mine), (twin.optimizers["policy"], theirs))]  # fmt: skip
        assert kept[0]["exp_avg"].equal(kept[1]["exp_avg"])
        assert kept[0]["exp_avg"] != 0.0


def fill(buffer: ReplayBuffer, ends: dict[int, str], steps: int) -> list[StepResult]:
    """Steps of one environment whose observations count 0, 1, 2, ... and 100 higher behind every reset; reward 1."""
    taken, number = [], 0.0
    buffer.start(torch.tensor([[number]]))
    for t in range(steps):
        next_obs = torch.tensor([[number + 1]])
        number = number + 100 if t in ends else number + 1
        terminated, truncated = (torch.tensor([ends.get(t) == kind]) for kind in ("terminated", "truncated"))
        taken.append(StepResult(torch.tensor([[number]]), torch.ones(1), terminated, truncated, next_obs, {}))
        buffer.add(torch.zeros(1, 1), taken[-1])
    return taken


def drawn(buffer: ReplayBuffer, name: str) -> dict[float, float]:
    """A field of every transition in the buffer, by its observation."""
    batch = buffer.sample(400, 1)[0]
    return dict(zip(batch["observation"][:, 0].tolist(), batch[name].flatten().tolist()))


def test_shared_storage_of_observations_keeps_the_true_successor() -> None:
    """stable-baselines3: with `optimize_memory_usage` the successor of a timeout was the next episode's first
    observation."""
    buffer = ReplayBuffer(50, 1, 1, 1, gamma=0.9, storage="float32", placement="ram", final_rows=5)
    fill(buffer, {4: "truncated", 9: "terminated"}, 12)
    successor, discount = drawn(buffer, "next_observation"), drawn(buffer, "discount")
    assert successor[4.0] == 5.0
    assert discount[4.0] == pytest.approx(0.9)
    assert discount[108.0] == 0.0, "the tenth step, the fifth of the second episode"


def test_n_step_returns_discount_by_the_steps_taken() -> None:
    """FlashSAC: gamma^n for every sample, also where the episode ended before n steps."""
    buffer = ReplayBuffer(50, 1, 1, 1, gamma=0.9, n_step=3, storage="float32", placement="ram", final_rows=5)
    fill(buffer, {4: "truncated"}, 12)
    discount, reward = drawn(buffer, "discount"), drawn(buffer, "reward")
    assert [discount[t] for t in (1.0, 2.0, 3.0, 4.0)] == pytest.approx([0.9**3, 0.9**3, 0.9**2, 0.9])
    assert [reward[t] for t in (2.0, 3.0, 4.0)] == pytest.approx([1 + 0.9 + 0.81, 1.9, 1.0])


class Lopsided(gymnasium.Env[Any, Any]):
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(np.array([0.0, -3.0], np.float32), np.array([10.0, -1.0], np.float32))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("name", AGENTS)
def test_the_action_range_is_saved_with_the_policy(name: str, tmp_path: Path) -> None:
    """CleanRL: scale and bias of the actions lived in the environment's wrapper only, or in no file."""
    agent = AGENTS[name](Lopsided())
    agent.save(tmp_path)
    loaded = type(agent).load(tmp_path)
    obs = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32) * 5
    action = loaded.predict(obs, deterministic=False)
    assert (action >= Lopsided.action_space.low).all()
    assert (action <= Lopsided.action_space.high).all()
    assert action[:, 0].max() > 5.0
    assert action[:, 1].max() > -2.0


def test_pinned_memory_is_not_rounded_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's pinned allocator takes the next power of two. The system is asked to lock the bytes there are."""
    locked: list[tuple[int, int]] = []
    cudart = SimpleNamespace(
        cudaHostRegister=lambda pointer, size, _: locked.append((pointer, size)) or 0,
        cudaHostUnregister=lambda pointer: None,
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: cudart)
    memory = Memory("ram", torch.device("cpu"))
    memory.placement = "pinned"
    data = memory.matrix(1_000, 37)
    assert locked == [(data.data_ptr(), 37_000)]
    memory.close()


def test_rows_are_gathered_into_the_staging_buffers() -> None:
    """Fancy indexing of pinned memory gives pageable memory, whose copy to the GPU waits."""
    transfer = Transfer(torch.device("cpu"), staging_bytes=64)
    data = torch.arange(40, dtype=torch.uint8).view(10, 4)
    transfer.receive(transfer.send((data, torch.tensor([7, 3]))))
    assert transfer._staging[0][:8].equal(data[[7, 3]].flatten())
