"""Means, intervals and differences against brute force, known answers, and how often intervals hold the truth."""

import itertools

import numpy as np
import pytest
from scipy import stats

from iquitos_rl.judging.statistics import (
    detectable,
    difference,
    estimate,
    improvement,
    interquartile_mean,
    mean,
    percent_below,
)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 15, 16])
def test_the_interquartile_mean_is_scipys_trimmed_mean(count):
    """rliable takes `scipy.stats.trim_mean(scores, proportiontocut=0.25)`."""
    scores = np.random.default_rng(count).normal(size=(7, count))
    np.testing.assert_allclose(interquartile_mean(scores), stats.trim_mean(scores, 0.25, axis=-1))


def draws(count):
    return itertools.product(range(count), repeat=count)


def expanded(values, parts):
    """The percentiles of equally likely values, outwards by Student's distribution (Hesterberg 2015)."""
    variances = [np.var(own, ddof=1) / len(own) for own in parts if len(own) > 1]
    freedoms = [len(own) - 1 for own in parts if len(own) > 1]
    freedom = sum(variances) ** 2 / sum(v**2 / f for v, f in zip(variances, freedoms))
    tail = stats.norm.cdf(np.sqrt((freedom + 1) / freedom) * stats.t.ppf(0.025, freedom))
    return np.quantile(values, [tail, 1 - tail])


@pytest.mark.parametrize("shape", [(3, 3), (4, 1), (1, 4)])
def test_intervals_are_those_of_every_draw_of_seeds_and_years(shape):
    scores = np.random.default_rng(1).normal(size=shape)
    every = [scores[np.ix_(rows, years)].mean() for rows in draws(shape[0]) for years in draws(shape[1])]
    found = estimate(scores, mean, resamples=200_000)
    np.testing.assert_allclose(found[1:], expanded(every, (scores.mean(axis=1), scores.mean(axis=0))), atol=0.03)
    assert found.value == pytest.approx(scores.mean())


def test_differences_draw_years_once_for_both_and_seeds_apart():
    rng = np.random.default_rng(2)
    mine, theirs = rng.normal(size=(3, 3)), rng.normal(size=(2, 3)) + 0.5
    every = [
        mine[np.ix_(rows, years)].mean() - theirs[np.ix_(others, years)].mean()
        for rows in draws(3)
        for others in draws(2)
        for years in draws(3)
    ]
    parts = mine.mean(axis=1), theirs.mean(axis=1), mine.mean(axis=0) - theirs.mean(axis=0)
    found = difference(mine, theirs, resamples=200_000)
    np.testing.assert_allclose(found[1:], expanded(every, parts), atol=0.03)
    assert found.value == pytest.approx(mine.mean() - theirs.mean())


def test_pairing_takes_the_level_of_a_year_out():
    rng = np.random.default_rng(3)
    level = rng.normal(scale=100.0, size=(1, 10))
    mine, theirs = level - 1 + rng.normal(scale=0.1, size=(5, 10)), level + 0.0
    found = difference(mine, theirs)
    assert -1.2 < found.low < found.value < found.high < -0.8
    assert estimate(mine, mean).high - estimate(mine, mean).low > 50


@pytest.mark.parametrize("spread", [(0.0, 1.0, 0.3), (1.0, 0.0, 0.3), (1.0, 1.0, 1.0), (0.0, 0.0, 1.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(spread):
    """5 seeds on 10 years, whose effects and their rest vary so: of 200 samples, about 95 % or more."""
    rng = np.random.default_rng(4)
    of_seed, of_year, rest = spread
    held = 0
    for _ in range(200):
        effects = of_seed * rng.normal(size=(5, 1)) + of_year * rng.normal(size=(1, 10))
        found = estimate(effects + rest * rng.normal(size=(5, 10)), mean, resamples=600)
        held += found.low <= 0 <= found.high
    assert held >= 180


def test_one_seed_and_one_year_have_no_interval():
    assert estimate(np.array([[3.0]])) == (3.0, 3.0, 3.0)
    assert np.isnan(detectable(np.ones((1, 1)), np.zeros((1, 1))))


def test_improvement_is_the_share_of_pairs_in_the_same_year():
    rng = np.random.default_rng(5)
    mine, theirs = rng.integers(0, 4, (3, 4)).astype(float), rng.integers(0, 4, (2, 4)).astype(float)
    pairs = [(mine[s, y], theirs[z, y]) for s in range(3) for z in range(2) for y in range(4)]
    found = improvement(mine, theirs, resamples=2_000)
    assert found.value == pytest.approx(np.mean([(a < b) + 0.5 * (a == b) for a, b in pairs]))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert improvement(mine, mine + 10, resamples=100) == (1, 1, 1)
    assert improvement(mine[:1], mine[:1], resamples=100) == (0.5, 0.5, 0.5)


def test_the_detectable_difference_is_seen_in_four_of_five():
    """Of simulated comparisons with that very difference, about 80 % have a t-test below 5 %."""
    rng = np.random.default_rng(6)
    years, spread = 10, 2.0
    sample = rng.normal(scale=spread, size=(1, years))
    sample = spread * (sample - sample.mean()) / sample.std(ddof=1)
    true = detectable(sample, np.zeros((1, years)))
    seen = stats.ttest_1samp(true + rng.normal(scale=spread, size=(4_000, years)), 0, axis=1).pvalue < 0.05
    assert seen.mean() == pytest.approx(0.8, abs=0.03)


def test_percent_below_compares_within_a_year():
    bills = np.array([[90.0, 220.0], [110.0, 150.0]])
    np.testing.assert_allclose(percent_below(bills, np.array([100.0, 200.0])), [[10, -10], [-10, 25]])
