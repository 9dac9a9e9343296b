"""The two-mask recursion, against sums written out in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from iquitos_rl.agents.gae import explained_variance, gae


def written_out(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, lam: float
) -> Tensor:
    """A_t = sum over l of (gamma lam)^l delta_(t+l), up to and including the step that ends t's episode: O(T^2)."""
    steps, envs = reward.shape
    advantage = torch.zeros(steps, envs, dtype=torch.float64)
    for e in range(envs):
        for t in range(steps):
            for s in range(t, steps):
                successor = 0.0 if terminated[s, e] else float(next_value[s, e])
                delta = float(reward[s, e]) + gamma * successor - float(value[s, e])
                advantage[t, e] += (gamma * lam) ** (s - t) * delta
                if terminated[s, e] or truncated[s, e]:
                    break
    return advantage


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_equals_the_sums_written_out(seed: int, gamma: float, lam: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    reward, value, next_value = torch.randn(3, 37, 4, generator=rng)
    terminated, truncated = torch.rand(2, 37, 4, generator=rng) < 0.08  # both at once occurs too
    got = gae(reward, value, next_value, terminated, truncated, gamma, lam)
    expected = written_out(reward, value, next_value, terminated, truncated, gamma, lam)
    torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-5)


def one_step(terminated: bool, truncated: bool, next_value: float) -> float:
    """Advantage of a first step with reward 1 and value 0, whose episode ends so; the next episode is full of 1000s."""
    reward, value = torch.tensor([[1.0], [1000.0]]), torch.zeros(2, 1)
    ends = [torch.tensor([[flag], [False]]) for flag in (terminated, truncated)]
    return float(gae(reward, value, torch.tensor([[next_value], [0.0]]), *ends, 0.5, 0.9)[0])


def test_termination_is_worth_nothing_even_where_the_value_is_garbage() -> None:
    assert one_step(terminated=True, truncated=False, next_value=float("nan")) == 1.0


def test_truncation_bootstraps_and_does_not_run_into_the_next_episode() -> None:
    assert one_step(terminated=False, truncated=True, next_value=8.0) == 1.0 + 0.5 * 8.0


def test_termination_and_truncation_at_once_is_a_termination() -> None:
    assert one_step(terminated=True, truncated=True, next_value=8.0) == 1.0


def test_lambda_one_is_the_discounted_sum_of_rewards() -> None:
    reward, value = torch.ones(3, 1), torch.full((3, 1), 7.0)
    last = torch.tensor([[False], [False], [True]])
    got = gae(reward, value, value, last, torch.zeros_like(last), 0.5, 1.0) + value
    assert got.flatten().tolist() == [1.75, 1.5, 1.0]


def test_explained_variance() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(returns + 5.0, returns) == 1.0
    assert explained_variance(torch.zeros(4), returns) == 0.0
    assert explained_variance(2 * returns - returns * 3, returns) == -3.0
    assert explained_variance(returns, torch.ones(4)).isnan() or explained_variance(returns, torch.ones(4)).isinf()
