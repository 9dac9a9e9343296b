"""Interquartile means and intervals against brute force."""

import itertools

import numpy as np
import pytest
from scipy.stats import trim_mean

from iquitos_rl.judging.statistics import estimate, interquartile_mean, mean, percent_below, resample


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 15, 16])
def test_the_interquartile_mean_is_scipys_trimmed_mean(count):
    """rliable takes `scipy.stats.trim_mean(scores, proportiontocut=0.25)`."""
    scores = np.random.default_rng(count).normal(size=(7, count))
    np.testing.assert_allclose(interquartile_mean(scores), trim_mean(scores, 0.25, axis=-1))


def every_resample(scores, whole):
    """Interquartile mean of each equally likely draw."""
    seeds, years = scores.shape
    draws = itertools.product(range(seeds), repeat=seeds if whole else seeds * years)
    for draw in draws:
        rows = np.array(draw).reshape(seeds, -1)
        picked = [[scores[rows[s, 0 if whole else y], y] for y in range(years)] for s in range(seeds)]
        yield trim_mean(np.ravel(picked), 0.25)


@pytest.mark.parametrize("whole", [False, True])
def test_intervals_are_those_of_every_possible_draw(whole):
    scores = np.random.default_rng(1).normal(size=(3, 2)) + np.array([0.0, 5.0])
    exact = np.percentile(list(every_resample(scores, whole)), [2.5, 97.5])
    found = estimate(scores, resamples=200_000)
    bounds = (found.low_whole, found.high_whole) if whole else (found.low, found.high)
    np.testing.assert_allclose(bounds, exact, atol=0.02)
    assert found.value == pytest.approx(trim_mean(scores.ravel(), 0.25))


def test_draws_keep_years_apart_and_whole_ones_keep_seeds_together():
    scores = np.arange(12.0).reshape(4, 3)  # seed * 3 + year
    rng = np.random.default_rng(0)
    for whole in (False, True):
        drawn = resample(scores, rng, 50, whole)
        assert drawn.shape == (50, 4, 3)
        assert (drawn % 3 == np.arange(3)).all()
        same_seed = (drawn // 3 == drawn[..., :1] // 3).all()
        assert same_seed == whole


def test_one_seed_has_no_interval_and_wholly_drawn_policies_a_wider_one():
    one = estimate(np.array([[3.0, 4.0]]))
    assert one == (3.5, 3.5, 3.5, 3.5, 3.5)
    policy = np.random.default_rng(2).normal(size=(6, 1))
    found = estimate(np.repeat(policy, 3, axis=1))
    assert found.high_whole - found.low_whole > 1.3 * (found.high - found.low)


def test_means_are_not_trimmed():
    scores = np.random.default_rng(3).normal(size=(5, 2)) + np.array([0.0, 100.0])
    found = estimate(scores, mean, resamples=100_000)
    assert found.value == pytest.approx(scores.mean())
    exact = np.percentile([scores[list(rows)].mean() for rows in itertools.product(range(5), repeat=5)], [2.5, 97.5])
    np.testing.assert_allclose([found.low_whole, found.high_whole], exact, atol=0.02)


def test_percent_below_compares_within_a_year():
    bills = np.array([[90.0, 220.0], [110.0, 150.0]])
    np.testing.assert_allclose(percent_below(bills, np.array([100.0, 200.0])), [[10, -10], [-10, 25]])
