"""Columns that compare a series with its own past: against loops, and blind to what is still to come."""

from dataclasses import replace

import numpy as np
import pytest

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.task.objective import read_tariff
from iquitos_rl.envs.task.observation import LATELY_HOURS, RATIO_FLOOR, USUAL_DAYS, exogenous_columns, relative, usual
from iquitos_rl.envs.task.sockets import socket_tables

HOUR = (np.arange(400) + 5) % 24
HISTORY = ("load_now", "load_lately", "pv_now", "pv_lately")


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    return np.clip(np.sin((HOUR - 6) / 12 * np.pi), 0, None) * rng.uniform(0.2, 1, 400)


def test_usual_is_a_moving_average_over_the_same_hour_of_earlier_days(series):
    found, average = usual(series, HOUR), {}
    for value, hour, expected in zip(series, HOUR, found, strict=True):
        assert expected == pytest.approx(average.get(hour, value))
        average[hour] = average.get(hour, value) + (value - average.get(hour, value)) / USUAL_DAYS


@pytest.mark.parametrize("hours_per_step", [1.0, 0.25])
def test_ratios_are_those_of_a_loop(series, hours_per_step):
    now, lately = relative(series, HOUR, hours_per_step)
    expected, keep = usual(series, HOUR), np.exp(-hours_per_step / LATELY_HOURS)
    recent = recent_usual = 0.0
    for t in range(len(series)):
        recent, recent_usual = (keep * a + (1 - keep) * x[t] for a, x in ((recent, series), (recent_usual, expected)))
        least = RATIO_FLOOR * expected[: t + 1].max() + 1e-12
        assert now[t] == pytest.approx((series[t] + least) / (expected[t] + least) - 1, abs=1e-6)
        assert lately[t] == pytest.approx((recent + least) / (recent_usual + least) - 1, abs=1e-6)


def test_a_series_like_yesterdays_is_usual():
    now, lately = relative(np.tile(np.arange(24.0), 5), np.tile(np.arange(24), 5), 1.0)
    np.testing.assert_allclose(np.stack([now, lately]), 0, atol=1e-9)


@pytest.mark.parametrize("row", [30, 31, 100])
def test_the_future_of_load_and_sun_changes_no_earlier_row(week_38, row):
    site = read_site(week_38)
    building = site.buildings[0]
    rng = np.random.default_rng(row)
    later = np.arange(site.rows) > row
    changed = {
        name: np.where(later, rng.uniform(0, 9e3, site.rows), getattr(building, name)) for name in ("load", "pv")
    }
    other = replace(site, buildings=(replace(building, **changed), *site.buildings[1:]))
    tariff, tables = read_tariff(site.path), socket_tables(site)
    before, after = (exogenous_columns(x, tariff, tables, "fleet") for x in (site, other))
    for name in HISTORY:
        ours, theirs = before[f"{building.name}/{name}"], after[f"{building.name}/{name}"]
        np.testing.assert_array_equal(ours[0][: row + 1], theirs[0][: row + 1])
        assert not np.array_equal(ours[0], theirs[0])
        assert ours[1:] == theirs[1:], "bounds must not follow the data"
