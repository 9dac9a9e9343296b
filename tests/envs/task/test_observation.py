"""Columns that compare a series with its own past: against loops, and blind to what is still to come."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from iquitos_rl.cases.forecasts import site_forecast
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import read_tariff
from iquitos_rl.envs.task.observation import (
    LATELY_HOURS,
    RATIO_FLOOR,
    USUAL_DAYS,
    exogenous_columns,
    is_weather_forecast,
    relative,
    usual,
)
from iquitos_rl.envs.task.settings import TaskSettings
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


@pytest.mark.parametrize("kind", ["weather", "none", "site", "perfect"])
def test_an_agent_sees_the_forecasts_that_it_is_to_see(week_38, kind):
    site = read_site(week_38)
    name = site.buildings[0].name
    columns = exogenous_columns(site, read_tariff(site.path), socket_tables(site), "fleet", kind)
    weather = [own for own in columns if is_weather_forecast(own)]
    ahead = [own for own in columns if "_ahead_" in own]
    assert len(weather) == (12 if kind == "weather" else 0)
    assert len(ahead) == (12 if kind in ("site", "perfect") else 0)
    assert "price_predicted_1" in columns
    if ahead:
        planned = site_forecast(site, kind)
        for what in ("load", "pv"):
            for hours in (1, 24):
                seen, low, high = columns[f"{name}/{what}_ahead_{hours}"]
                np.testing.assert_array_equal(seen, getattr(planned, what)[:, hours - 1, 0])
                assert (low, high) == columns[f"{name}/{what}"][1:]
                true = getattr(site.buildings[0], what)[hours : 100 + hours].astype(np.float32)
                assert (seen[:100] == true).all() == (kind == "perfect")


KNOWN = ("hour_", "weekday_", "month_", "holiday", "demand_", "price", "carbon")
"""Columns that are published, or follow from the calendar."""


def test_before_an_hour_is_known_the_last_one_is_seen(week_38):
    """Every column of load, PV and weather is a row late, whatever it is computed from; nothing else is."""
    site = read_site(week_38)
    tables = socket_tables(site), "fleet", "site"
    known, late = (exogenous_columns(site, read_tariff(site.path), *tables, when) for when in ("known", "last"))
    assert known.keys() == late.keys()
    for name, (values, *bounds) in known.items():
        assert bounds == list(late[name][1:])
        if name.startswith(KNOWN) or name.endswith("connected"):
            np.testing.assert_array_equal(late[name][0], values)
        else:
            np.testing.assert_array_equal(late[name][0], np.concatenate([values[:1], values[:-1]]))


def test_a_rule_sees_and_nobody_is_told_the_present(week_38):
    """The observation of a row does not depend on that row's load and PV, the bill does."""
    site, row = read_site(week_38), 40
    building = site.buildings[0]
    changed = {
        name: np.where(np.arange(site.rows) == row, getattr(building, name) * 0.5, getattr(building, name))
        for name in ("load", "pv")
    }
    other = replace(site, buildings=(replace(building, **changed),))
    for present, same in (("last", True), ("known", False)):
        settings = TaskSettings(present=present, forecasts="none")
        one = DistrictSite([site], 1, settings, exact=True)
        two = DistrictSite([other], 1, settings, spec=one.policy_spec, exact=True)
        action = torch.zeros((1, one.task.action_dim))
        ours, theirs = one.reset(), two.reset()
        for _ in range(row):
            ours, theirs = one.step(action).obs, two.step(action).obs
        assert torch.equal(ours, theirs) == same
        found, wanted = one.step(action), two.step(action)
        assert not torch.equal(found.next_obs, wanted.next_obs)
        assert not torch.equal(found.reward, wanted.reward)


@pytest.mark.parametrize(("kind", "present"), [("none", "known"), ("site", "known"), ("site", "last")])
def test_both_engines_show_the_same_forecasts(week_38, kind, present):
    settings = TaskSettings(forecasts=kind, present=present)
    reference, fast = CityLearnSite([week_38], settings), DistrictSite([week_38], 1, settings, exact=True)
    assert reference.task.encoding == fast.task.encoding
    action = np.zeros(reference.task.action_dim, dtype=np.float32)
    ours, theirs = fast.reset(), reference.reset()[0]
    for _ in range(5):
        np.testing.assert_allclose(ours[0].numpy(), theirs, atol=1e-6)
        ours, theirs = fast.step(torch.from_numpy(action)[None]).obs, reference.step(action)[0]


def test_a_map_of_buildings_holds_without_weather_forecasts(week_38):
    for kind in ("none", "site"):
        task = DistrictSite([week_38], 1, TaskSettings(forecasts=kind)).task
        assert task.buildings is not None
        assert ("load_ahead_3" in task.buildings.features) == (kind == "site")
