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
    for dtype, column in ((torch.float16, 2), (torch.float32, 4)):
        rollout = Rollout(2, 1, 5, 1, obs_dtype=dtype)
        none = torch.zeros(1, dtype=torch.bool)
        rollout.add(obs, torch.zeros(1, 1), torch.zeros(1), None, step(torch.zeros(1), none, none, obs), obs)
        found = f"observation column {column} of environment 0 is not a finite number as {str(dtype)[6:]}"
        assert rollout.not_finite(torch.zeros(1, 5, dtype=dtype)) == (0, found)


@pytest.mark.parametrize(
    ("first", "name"), [(2, "observation column 3 of environment 1"), (4, "the reward of environment 0")]
)
def test_the_first_number_in_time_is_named(first, name) -> None:  # type: ignore[no-untyped-def]
    rollout = Rollout(6, 2, 5, 1)
    none = torch.zeros(2, dtype=torch.bool)
    for t in range(6):
        obs, reward = torch.ones(2, 5), torch.ones(2)
        if t >= first and "reward" in name:
            reward[0] = float("inf")
        if t == first and "observation" in name:
            obs[1, 3] = float("nan")
        if t > first:
            obs[:] = float("nan")  # what a network makes of it
        rollout.add(obs, torch.zeros(2, 1), torch.zeros(2), None, step(reward, none, none, obs), obs)
    t, text = rollout.not_finite(torch.ones(2, 5)) or (None, "")
    assert (t, text.startswith(name)) == (first + ("reward" in name), True)


def test_a_rollout_goes_on_in_the_middle() -> None:
    """Also where the side table had to grow."""
    rng = torch.Generator().manual_seed(0)
    whole, parts = Rollout(40, 3, 5, 2, masked=True), Rollout(40, 3, 5, 2, masked=True)
    for t in range(40):
        obs, final = torch.randn(2, 3, 5, generator=rng)
        action, log_prob = torch.randn(3, 2, generator=rng), torch.randn(3, generator=rng)
        cut, none = torch.rand(3, generator=rng) < 0.6, torch.zeros(3, dtype=torch.bool)
        for rollout in (whole, parts):
            rollout.add(obs, action, log_prob, action > 0, step(log_prob, none, cut, final), final)
        if t % 7 == 3:
            state, parts = parts.state_dict(), Rollout(40, 3, 5, 2, masked=True)
            parts.load_state_dict(state)
    torch.testing.assert_close(parts.state_dict()["rows"]["obs"], whole.obs, atol=0, rtol=0)
    for a, b in zip(parts.final_rows(), whole.final_rows()):
        torch.testing.assert_close(a, b, atol=0, rtol=0)
