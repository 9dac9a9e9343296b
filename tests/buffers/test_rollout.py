"""Rollout storage against keeping everything in lists."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iquitos_rl.buffers.rollout import FINAL_STEPS, Rollout
from iquitos_rl.envs.vector import StepResult


def step(reward: Tensor, terminated: Tensor, truncated: Tensor, next_obs: Tensor) -> StepResult:
    return StepResult(torch.zeros_like(next_obs), reward, terminated, truncated, next_obs, {})


@pytest.mark.parametrize("chance", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_against_lists(chance: float, dtype: torch.dtype) -> None:
    """Including a rollout with far more truncations than the side table had room for."""
    horizon, envs = 40, 3
    assert horizon > 2 * FINAL_STEPS
    rng = torch.Generator().manual_seed(0)
    rollout = Rollout(horizon, envs, 5, 2, masked=True, obs_dtype=dtype)
    for _ in range(2):  # the second pass finds nothing left of the first
        rollout.clear()
        obs, final = torch.randn(2, horizon, envs, 5, generator=rng).to(dtype)
        action = torch.randn(horizon, envs, 2, generator=rng)
        log_prob, reward = torch.randn(2, horizon, envs, generator=rng)
        live = torch.rand(horizon, envs, 2, generator=rng) < 0.5
        terminated = torch.rand(horizon, envs, generator=rng) < 0.2 * chance
        truncated = torch.rand(horizon, envs, generator=rng) < chance
        for t in range(horizon):
            result = step(reward[t], terminated[t], truncated[t], final[t])
            rollout.add(obs[t], action[t], log_prob[t], live[t], result, final[t])
        kept, row = rollout.final_rows()
        for name, expected in (
            ("obs", obs), ("action", action), ("log_prob", log_prob), ("reward", reward),
            ("live", live), ("terminated", terminated), ("truncated", truncated),
        ):  # fmt: skip
            torch.testing.assert_close(getattr(rollout, name), expected, atol=0, rtol=0)
        bootstraps = truncated & ~terminated
        assert (row >= 0).equal(bootstraps)
        assert kept.shape[0] == int(bootstraps.sum())
        torch.testing.assert_close(kept[row[bootstraps]], final[bootstraps], atol=0, rtol=0)


def test_bytes_are_known_before_they_are_taken() -> None:
    planned = Rollout(100, 8, 30, 4, masked=True, obs_dtype=torch.float16, device="meta")
    taken = Rollout(100, 8, 30, 4, masked=True, obs_dtype=torch.float16)
    per_step = 30 * 2 + 4 * 4 + 4 + 4 + 1 + 1 + 4 + 8  # obs, action, log_prob, reward, ends, mask, side table's row
    assert planned.nbytes == taken.nbytes == 800 * per_step + (8 * FINAL_STEPS + 1) * 60 + 8


def test_numbers_that_the_storage_cannot_hold_are_noticed() -> None:
    obs = torch.tensor([[1.0, 60_000.0, 70_000.0, -70_000.0, float("nan")]])
    for dtype, columns in ((torch.float16, [2, 3, 4]), (torch.float32, [4])):
        rollout = Rollout(2, 1, 5, 1, obs_dtype=dtype)
        none = torch.zeros(1, dtype=torch.bool)
        rollout.add(obs, torch.zeros(1, 1), torch.zeros(1), None, step(torch.zeros(1), none, none, obs), obs)
        assert rollout.overflown() == columns
