"""Forecasts have the stated skill, change only by what is new, and know nothing that nobody can know."""

import numpy as np
import pytest

from iquitos_rl.cases.forecasts import LOAD_SKILL, PV_SKILL, error_paths, explained, forecast, site_forecast, usual
from iquitos_rl.cases.schema.reader import read_site

HOURS = np.arange(1.0, 49.0)
ROWS = 24 * 7 * 120
HOUR = np.arange(ROWS) % 24
DAY_TYPE = np.arange(ROWS) // 24 % 7 + 1


@pytest.fixture(scope="module")
def series():
    """A mean day with Gaussian departures that nothing correlates."""
    rng = np.random.default_rng(3)
    return 1000 + 300 * np.sin(HOUR / 24 * 2 * np.pi) + 50 * rng.standard_normal(ROWS)


@pytest.fixture(scope="module")
def made(series):
    return forecast(series, HOUR, DAY_TYPE, PV_SKILL.at(HOURS))


def test_the_stated_share_of_the_variance_is_explained(series, made):
    """At every lead, within four standard errors of a mean of squares."""
    departure = series - usual(series, HOUR, DAY_TYPE, 48)
    for lead, share in enumerate(PV_SKILL.at(HOURS), start=1):
        error = (made[:-48, lead - 1] - series[lead : ROWS - 48 + lead])[500:]
        relative = np.mean(error**2) / np.mean(departure[500:] ** 2)
        # Neighbouring errors are correlated: about (1 + SMOOTH^2) / (1 - SMOOTH^2) rows count as one.
        assert relative == pytest.approx(1 - share, abs=4 * np.sqrt(2 * 9.5 / ROWS) * (1 - share))


def test_what_changes_is_news():
    """The step from one forecast of a row to the next is uncorrelated with the forecast and as large as skill grows."""
    rng = np.random.default_rng(0)
    rows, share = 40_000, LOAD_SKILL.at(HOURS)
    truth = rng.standard_normal(rows)
    about = share * truth[:, None] + error_paths(rows, share, rng)
    for lead in (1, 5, 23):
        before, after = about[:, lead], about[:, lead - 1]
        change = after - before
        assert abs(np.corrcoef(change, before)[0, 1]) < 0.05
        assert np.var(change) == pytest.approx(share[lead - 1] - share[lead], rel=0.15)
    # A forecast drawn anew each hour would change by far more than it learns.
    assert np.var(about[:, 1] - about[:, 0]) < np.var(rng.permutation(about[:, 1]) - about[:, 0]) / 3


def test_one_issue_errs_alike_for_neighbouring_hours():
    error = error_paths(20_000, PV_SKILL.at(HOURS), np.random.default_rng(0))
    issued = error[np.arange(48, 20_000 - 48)[:, None] + np.arange(1, 49), np.arange(48)]
    near, half_a_day = (
        np.mean([np.corrcoef(issued[:, k], issued[:, k + far])[0, 1] for k in (2, 12, 30)]) for far in (1, 12)
    )
    assert near > 0.6
    assert half_a_day < near - 0.2


def test_perfect_is_the_truth_and_usual_the_past(series):
    perfect = forecast(series, HOUR, DAY_TYPE, np.ones(48))
    assert np.allclose(perfect[:100, 4], series[5:105])
    plain = forecast(series, HOUR, DAY_TYPE, np.zeros(48))
    assert np.allclose(plain[:100, 4], usual(series, HOUR, DAY_TYPE, 48)[5:105])


def test_the_usual_value_ends_before_the_forecast_is_made(series):
    row = ROWS // 2
    changed = series.copy()
    changed[row] += 500
    before, after = usual(series, HOUR, DAY_TYPE, 48), usual(changed, HOUR, DAY_TYPE, 48)
    differs = np.flatnonzero((before != after) & (np.arange(ROWS) >= 24 * 14))  # the first days know the mean
    assert differs.min() >= row + 48
    assert (HOUR[differs] == HOUR[row]).all()


def test_workdays_say_nothing_of_sundays():
    closed = np.where(DAY_TYPE == 7, 100.0, 1000.0)
    assert np.allclose(usual(closed, HOUR, DAY_TYPE, 48), closed)


def test_a_site_has_one_forecast_for_all(year_38):
    site = read_site(year_38)
    one, again = site_forecast(site), site_forecast(read_site(year_38))
    assert one.load.shape == one.pv.shape == one.price.shape == (site.rows, 48, 1)
    assert all((a == b).all() for a, b in zip(one, again))
    pv, price = site.buildings[0].pv, site.buildings[0].price
    assert one.pv.min() >= 0
    assert one.pv.max() <= np.float32(pv.max())
    assert (one.price[:100, 23, 0] == price[24:124].astype(np.float32)).all()
    for name, values in (("load", site.buildings[0].load), ("pv", pv)):
        true = values[1 : site.rows - 47]
        known = [getattr(site_forecast(site, kind), name)[: len(true), 0, 0] for kind in ("perfect", "site", "usual")]
        errors = [np.mean((found - true) ** 2) for found in known]
        assert errors[0] < 1e-3 < errors[1] < errors[2]


@pytest.mark.parametrize("skill", [LOAD_SKILL, PV_SKILL])
def test_skill_falls_with_the_lead(skill):
    shares = explained(skill, HOURS, "site")
    assert (np.diff(shares) <= 0).all()
    assert 0 < shares[-1] < shares[0] < 1
