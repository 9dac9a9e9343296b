"""Months side by side against the years that they are cut from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from iquitos_rl.baselines import months
from iquitos_rl.baselines.bill import run_year, start_years
from iquitos_rl.baselines.months import Month, months_of, run_months, spread_over
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.recording import record_years
from iquitos_rl.baselines.rule import Rule, RuleSettings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.baselines.tune import _bills
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.settings import TaskSettings

STARTS = (0, 60, 110)


@pytest.fixture(scope="module")
def years(site):
    """Two years of a week, with three months of a few days."""
    month = np.searchsorted(STARTS, np.arange(site.rows), side="right").astype(site.month.dtype)
    return [replace(site, month=month), replace(site, month=month)]


@pytest.fixture
def warm(monkeypatch):
    """Every month starts at the year's first row, so nothing is lost by cutting."""
    monkeypatch.setattr(months, "WARM_UP_HOURS", 10_000)


def test_every_step_of_every_year_is_counted_once(years):
    counted = np.zeros((2, years[0].rows), dtype=int)
    env = DistrictSite(years, len(found := months_of(years)))
    for k, hour in enumerate(run_months(env, lambda obs: torch.zeros(env.num_envs, env.action_dim), found)):
        for month, is_counted in zip(found, hour.counted.tolist()):
            counted[month.year, min(month.start + k, years[0].rows - 1)] += is_counted
    assert (counted[:, :-1] == 1).all()
    assert (counted[:, -1] == 0).all()
    assert [month.first for month in found] == [*STARTS, *STARTS]


def test_candidates_cost_what_they_cost_over_whole_years(years, rule, warm):
    rng, ranges = np.random.default_rng(0), RULES["strongest"].ranges
    values = {name: rng.uniform(own.low, own.high, 3) for name, own in ranges.items()}
    found = months_of(years)
    by_month = _bills(DistrictSite(years, 3 * len(found)), rule, values, found)
    env = DistrictSite(years, 6)
    each = {name: torch.from_numpy(np.repeat(column, 2)) for name, column in values.items()}
    bill = run_year(env, Rule(env.task, rule, each), [0, 1] * 3)
    whole = bill.weighted(env.task.objective.weights).reshape(3, 2).sum(-1)
    np.testing.assert_allclose(by_month, whole, rtol=1e-9)
    assert len({*by_month.round(2)}) == 3, "the candidates differ"


def test_what_is_recorded_is_the_year_from_its_first_row_to_its_last(years, rule, warm):
    found = record_years(years, rule, TaskSettings())
    env = DistrictSite(years, 2)
    act, obs, rows = Rule(env.task, rule), start_years(env, [0, 1]), years[0].rows
    for t in range(rows - 1):
        here = torch.tensor([t, rows + t])
        assert torch.equal(found.battery_soc[here], env.physics.state.battery_soc)
        assert torch.equal(found.vehicle_soc[here], env.physics.state.vehicle_soc)
        assert torch.equal(found.running_peak[here], env.state_dict()["running_peak"])
        assert torch.equal(found.net[here], env.state_dict()["net"])
        obs = env.step(act(obs)).obs


def test_a_few_days_are_enough_to_forget_where_a_month_started(years, monkeypatch):
    """Batteries are full or empty once a day under a rule that uses them."""
    settings = RuleSettings("self-consumption", {}, fit_profiles(years))
    monkeypatch.setattr(months, "WARM_UP_HOURS", 48)
    cut = record_years(years, settings, TaskSettings())
    monkeypatch.setattr(months, "WARM_UP_HOURS", 10_000)
    whole = record_years(years, settings, TaskSettings())
    torch.testing.assert_close(cut.battery_soc, whole.battery_soc, atol=2e-3, rtol=0)


@pytest.mark.parametrize("years", [1, 2, 3, 5, 12, 40])
def test_months_that_are_chosen_are_spread_over_the_years(years):
    every = [Month(y, 10 * p, 10 * p, 10 * p + 9) for y in range(years) for p in range(12)]
    found = spread_over(every, 3)
    assert found == [month for month in every if month in found]
    for place in range(12):
        assert len({m.year for m in found if m.first == 10 * place}) == min(3, years)
    each = [sum(m.year == y for m in found) for y in range(years)]
    assert sum(each) == 12 * min(3, years)
    assert max(each) - min(each) <= 3
    assert min(each) > 0 or years > 36
