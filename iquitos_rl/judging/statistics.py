"""Few trainings, judged on a few years: how sure their figures are.

A figure has two causes of chance, the seed of the training and the year it is judged on, and each policy is judged on
each year. So intervals draw both: seeds with replacement, years with replacement, and take the cells where they cross
(pigeonhole bootstrap, Owen 2007). What is compared in the same years is paired by them.

Shapes: S seeds (1 for what is not trained), Y years.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Reduces the last axis."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
POWER = 0.8


class Estimate(NamedTuple):
    """A figure with its 95 % interval; the bounds equal it where there is one seed and one year."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: Floats) -> Floats:
    """Mean of the middle half of the last axis: a quarter of the values, rounded down, is dropped at either end."""
    ordered, count = np.sort(scores, axis=-1), scores.shape[-1]
    return np.asarray(ordered[..., count // 4 : count - count // 4].mean(axis=-1))


def mean(scores: Floats) -> Floats:
    """Of the last axis: for sums of money and carbon, whose level is the year's and must not be trimmed."""
    return np.asarray(scores.mean(axis=-1))


def estimate(scores: Floats, centre: Statistic = interquartile_mean, resamples: int = RESAMPLES) -> Estimate:
    """`centre` of all seeds and years (S, Y) with its interval; equal scores, equal estimate."""
    rng = np.random.default_rng(0)
    rows, columns = (_draw(rng, resamples, count) for count in scores.shape)
    drawn = scores[rows[:, :, None], columns[:, None]]
    return _estimate(float(centre(scores.ravel())), centre(drawn.reshape(resamples, -1)), *_spread(scores))


def difference(mine: Floats, theirs: Floats, resamples: int = RESAMPLES) -> Estimate:
    """Mean of `mine` (S, Y) less mean of `theirs` (Z, Y), of the same years: years are drawn once for both."""
    rng = np.random.default_rng(0)
    rows, columns = _draw(rng, resamples, len(mine)), _draw(rng, resamples, mine.shape[1])
    others = _draw(rng, resamples, len(theirs))
    by_year = (own[drawn].mean(axis=1) for own, drawn in ((mine, rows), (theirs, others)))
    mean_of, mean_of_others = (np.take_along_axis(own, columns, axis=-1).mean(axis=-1) for own in by_year)
    return _estimate(float(mine.mean() - theirs.mean()), mean_of - mean_of_others, *_paired_spread(mine, theirs))


def improvement(mine: Floats, theirs: Floats, resamples: int = RESAMPLES) -> Estimate:
    """Probability that a bill of `mine` (S, Y) is below one of `theirs` (Z, Y) in the same year; equal ones count half.

    Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice".
    """
    below = (mine[:, None] < theirs) + 0.5 * (mine[:, None] == theirs)  # (S, Z, Y)
    rng = np.random.default_rng(0)
    rows, others, columns = (_draw(rng, resamples, count) for count in below.shape)
    shares = np.array([below[np.ix_(*own)].mean() for own in zip(rows, others, columns)])
    low, high = np.percentile(shares, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    return Estimate(float(below.mean()), float(low), float(high))


def detectable(mine: Floats, theirs: Floats) -> float:
    """The smallest true difference of `mine` (S, Y) to `theirs` (Z, Y) that so many seeds and years, which vary as
    these do, show with a probability of 80 % in a test at 5 %; NaN where nothing says how they vary."""
    error, freedom = _paired_spread(mine, theirs)
    if not freedom:
        return float("nan")
    return float(error * (stats.t.ppf((1 + CONFIDENCE) / 2, freedom) + stats.t.ppf(POWER, freedom)))


def percent_below(bills: Floats, reference: Floats) -> Floats:
    """(S, Y) percent by which bills are below a reference (Y,) of the same years; negative where they are above."""
    return 100 * (1 - bills / reference)


def _draw(rng: np.random.Generator, resamples: int, count: int) -> NDArray[np.int64]:
    return rng.integers(count, size=(resamples, count))


def _spread(scores: Floats) -> tuple[float, float]:
    """Standard error of the mean of (S, Y), and its degrees of freedom (Satterthwaite 1946)."""
    return _combined([scores.mean(axis=1), scores.mean(axis=0)])


def _paired_spread(mine: Floats, theirs: Floats) -> tuple[float, float]:
    """The same of a difference of means."""
    return _combined([mine.mean(axis=1), theirs.mean(axis=1), mine.mean(axis=0) - theirs.mean(axis=0)])


def _combined(parts: list[Floats]) -> tuple[float, float]:
    """Standard error and degrees of freedom of a sum of independent means."""
    known = [(own.var(ddof=1) / len(own), len(own) - 1) for own in parts if len(own) > 1]
    total = sum(variance for variance, _ in known)
    if not total > 0:
        return 0.0, 0.0
    return float(np.sqrt(total)), float(total**2 / sum(variance**2 / freedom for variance, freedom in known))


def _estimate(value: float, drawn: Floats, error: float, freedom: float) -> Estimate:
    """Percentile interval, moved outwards as Student's interval of few values is beyond the normal one (expanded
    percentile interval, Hesterberg 2015): a bootstrap of five values is too narrow by a third."""
    tail = (1 - CONFIDENCE) / 2
    if freedom:
        tail = float(stats.norm.cdf(np.sqrt((freedom + 1) / freedom) * stats.t.ppf(tail, freedom)))
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))
