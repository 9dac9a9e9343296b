"""Few trainings, judged on several years: interquartile means and how sure they are.

Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice" (2021), as in their package
rliable: a year is a task, a seed a run of it.

Shapes: S seeds, Y years.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Reduces the last axis."""

RESAMPLES = 20_000
CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean with its bootstrap intervals; the bounds equal it where there is one seed."""

    value: float
    low: float
    high: float
    """Seeds drawn for each year by itself, as rliable draws them for each task."""
    low_whole: float
    high_whole: float
    """Seeds drawn whole, with all their years: one policy is judged in every year, so its years go together. This is
    the interval to believe where the two differ."""


def interquartile_mean(scores: Floats) -> Floats:
    """Mean of the middle half of the last axis: a quarter of the values, rounded down, is dropped at either end."""
    ordered, count = np.sort(scores, axis=-1), scores.shape[-1]
    return np.asarray(ordered[..., count // 4 : count - count // 4].mean(axis=-1))


def resample(scores: Floats, rng: np.random.Generator, resamples: int, whole: bool) -> Floats:
    """Draw seeds with replacement, (S, Y) to (resamples, S, Y): for each year by itself, or whole."""
    seeds, years = scores.shape
    drawn = rng.integers(seeds, size=(resamples, seeds, 1 if whole else years))
    return np.take_along_axis(scores[None], np.broadcast_to(drawn, (resamples, seeds, years)), axis=1)


def mean(scores: Floats) -> Floats:
    """Of the last axis: for sums of money and carbon, whose level is the year's and must not be trimmed."""
    return np.asarray(scores.mean(axis=-1))


def estimate(scores: Floats, centre: Statistic = interquartile_mean, resamples: int = RESAMPLES) -> Estimate:
    """`centre` of all seeds and years (S, Y), with 95 % percentile intervals; equal scores, equal estimate."""
    rng = np.random.default_rng(0)
    tail = 100 * (1 - CONFIDENCE) / 2
    bounds: list[float] = []
    for whole in (False, True):
        means = centre(resample(scores, rng, resamples, whole).reshape(resamples, -1))
        bounds += np.percentile(means, [tail, 100 - tail]).tolist()
    return Estimate(float(centre(scores.ravel())), *bounds)


def percent_below(bills: Floats, reference: Floats) -> Floats:
    """(S, Y) percent by which bills are below a reference (Y,) of the same years; negative where they are above."""
    return 100 * (1 - bills / reference)
