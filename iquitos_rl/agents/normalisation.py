"""Running normalisation of observations and scaling of rewards.

Statistics change only in `update`, which training calls and evaluation does not: there is no mode to forget.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from iquitos_rl.agents import parallel
from iquitos_rl.envs.spaces import ObservationSpace

CLIP = 10.0
"""Normalised observations and scaled rewards stay within +-CLIP."""

MIN_VARIANCE = 1e-8
"""A quantity that varies less than this has not varied: it is centred, and not magnified."""


class RunningMoments(nn.Module):
    """Exact mean and variance, elementwise, of everything given to `update` (Chan et al. 1979), in float64; of all that
    the processes of a training are given."""

    count: Tensor
    mean: Tensor
    squares: Tensor
    """Sum of squared deviations from the mean."""

    def __init__(self, shape: tuple[int, ...], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64, device=device))
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64, device=device))
        self.register_buffer("squares", torch.zeros(shape, dtype=torch.float64, device=device))

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Take in samples (N, *shape)."""
        samples = samples.to(torch.float64)
        mean = samples.mean(dim=0)
        self._add(samples.shape[0], mean, (samples - mean).square().sum(dim=0))

    def _add(self, n: int, mean: Tensor, squares: Tensor) -> None:
        """Take in n samples of this process, by their mean and sum of squared deviations, and those of the others."""
        count, mean, squares = parallel.moments(n, mean, squares)
        total, delta = self.count + count, mean - self.mean
        self.squares += squares + delta.square() * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count.copy_(total)

    def std(self) -> Tensor:
        """Population standard deviation (*shape); 1 where nothing has varied yet."""
        variance = self.squares / self.count.clamp(min=1.0)
        return torch.where(variance > MIN_VARIANCE, variance.sqrt(), 1.0)


class ObservationNormaliser(RunningMoments):
    """Each observation column minus its running mean, over its running standard deviation, clipped.

    The statistics are per column. One scalar for all columns would let the largest unit (a price in thousands, a grid
    load in watts) flatten the rest.

    Args:
        columns: those that are normalised, where it is not all; the others are passed on as they are.
    """

    columns: Tensor | None

    def __init__(self, width: int, columns: Sequence[int] | None = None) -> None:
        super().__init__((width if columns is None else len(columns),))
        self.register_buffer("columns", None if columns is None else torch.tensor(columns), persistent=False)

    @classmethod
    def of(cls, space: ObservationSpace) -> ObservationNormaliser | None:
        """One that leaves bytes and choices as they are, whose range is known; None where there is nothing else."""
        parts = [(place, part.choices is None and not part.is_bytes) for part, place in space.columns()]
        columns = [column for place, plain in parts if plain for column in range(place.start, place.stop)]
        return cls(space.width, None if len(columns) == space.width else columns) if columns else None

    @torch.no_grad()
    def update(self, samples: Tensor) -> None:
        """Take in observations (N, D)."""
        super().update(samples if self.columns is None else samples[:, self.columns])

    def forward(self, obs: Tensor) -> Tensor:
        """Observations (..., D) to normalised float32 (..., D). Changes no statistics."""
        if self.columns is None:
            return self._scaled(obs)
        return obs.index_copy(-1, self.columns, self._scaled(obs[..., self.columns]))

    def _scaled(self, obs: Tensor) -> Tensor:
        # float64 until the mean is gone: a large offset would take the small differences with it.
        return ((obs - self.mean) / self.std()).clamp(-CLIP, CLIP).to(torch.float32)


class RewardScaler(nn.Module):
    """Rewards over the standard deviation of the running discounted return.

    The statistic is that of the return because this is what the critic predicts; the reward's own deviation would be
    smaller by up to 1 / (1 - gamma). The mean is not subtracted: this would change which policy is best where episodes
    can end early.
    """

    discounted: Tensor

    def __init__(self, num_envs: int, gamma: float, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.gamma = gamma
        self.moments = RunningMoments((), device)
        self.register_buffer("discounted", torch.zeros(num_envs, dtype=torch.float64, device=device))

    @torch.no_grad()
    def update(self, reward: Tensor, ended: Tensor) -> None:
        """Take in the raw rewards (T, E) of T steps, and where (T, E) an episode ended."""
        returns = reward.to(torch.float64)  # a copy: rewards are float32
        carry = self.gamma * (~ended).to(torch.float64)
        returns[0] += self.discounted
        for t in range(1, returns.shape[0]):
            returns[t].addcmul_(carry[t - 1], returns[t - 1])
        self.discounted.copy_(carry[-1] * returns[-1])
        self.moments.update(returns.flatten())

    def forward(self, reward: Tensor) -> Tensor:
        """Raw rewards, any shape, to scaled float32 ones. Changes no statistics."""
        return (reward / self.moments.std()).clamp(-CLIP, CLIP).to(torch.float32)
