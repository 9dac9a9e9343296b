"""Typical errors of a forecast: against brute force, and none where everything is known."""

import itertools

import numpy as np
from short_case import shorten

from iquitos_rl.baselines.outlook import OUTLOOKS
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.scenarios import _typical, fit_scenarios
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site


def missed(paths, chosen):
    """Mean distance of all paths from the nearest of those chosen."""
    flat = paths.reshape(len(paths), -1)
    return np.linalg.norm(flat[:, None] - flat[list(chosen)], axis=-1).min(axis=1).mean()


def test_the_first_is_the_best_alone_and_more_are_near_the_best_set():
    rng = np.random.default_rng(0)
    paths = rng.normal(size=(9, 4, 2))
    for count in (1, 3):
        error, probability = _typical(paths, count)
        chosen = [next(i for i in range(9) if np.array_equal(paths[i], own)) for own in error]
        best = min(missed(paths, some) for some in itertools.combinations(range(9), count))
        assert missed(paths, chosen) <= best * (1.0 + 1e-12 if count == 1 else 1.15)
        assert probability.sum() == 1
        nearest = np.linalg.norm(paths.reshape(9, -1)[:, None] - error.reshape(count, -1), axis=-1).argmin(axis=1)
        np.testing.assert_allclose(probability, np.bincount(nearest, minlength=count) / 9)


def test_with_few_paths_the_others_have_no_probability():
    error, probability = _typical(np.ones((2, 3, 1)) * np.array([1.0, 5.0])[:, None, None], 4)
    assert error.shape == (4, 3, 1)
    assert sorted(probability) == [0, 0, 0.5, 0.5]


def test_errors_are_those_of_training_years(tmp_path):
    settings = {"sockets.moto_count": 3, "sockets.mototaxi_count": 1}
    site = read_site(shorten(build_case("iquitos-38", 0, tmp_path / "case", settings), 20 * 24 + 1))
    profiles = fit_profiles([site])
    known = fit_scenarios([site], OUTLOOKS["perfect"], profiles, 2, 24)
    assert known.error.shape == (24, 2, 24, 1)
    assert np.abs(known.error).max() < 1e-3
    guessed = fit_scenarios([site], OUTLOOKS["persistence"], profiles, 4, 24)
    assert (guessed.error[:, :, 0] == 0).all(), "the present hour is known"
    assert np.abs(guessed.error[:, :, 1:]).max() > 50
    np.testing.assert_allclose(guessed.probability.sum(axis=1), 1)
