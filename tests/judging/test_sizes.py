"""Sizes against the bills of cases that have these sizes, and what more of something can never cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stories import STORIES

from iquitos_rl import case, size
from iquitos_rl.baselines.bill import run_year
from iquitos_rl.baselines.months import months_bill
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, default_settings
from iquitos_rl.baselines.tune import tune
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.tariff import read_tariff
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import Objective, ObjectiveSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging import sizes
from iquitos_rl.judging.sizes import Size, size_up, with_size
from iquitos_rl.size import sizes_of


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Load, PV of 4 kW at most, a battery of 10 kWh and 5 kW, feed-in tariff, no demand charge."""
    folder = tmp_path_factory.mktemp("home")
    story = STORIES["net_meter"](folder)
    assert case.main(["import", *story.words, "--output", str(folder / "site")]) == 0
    return folder / "site"


def test_bills_of_sizes(home, monkeypatch):
    untuned = lambda name, own, settings: default_settings(name, fit_profiles(own))  # noqa: E731
    monkeypatch.setattr(sizes, "tune", untuned)
    site, tariff = read_site(home), read_tariff(home)
    grid = [Size(b, p) for p in (0.0, 4.0) for b in (0.0, 5.0, 10.0)]
    found = {own.size: own for own in size_up(site, grid, pv_kw=4.0)}
    as_is = found[Size(10.0, 4.0)]
    objective = Objective(tariff, ObjectiveSettings())
    assert as_is.optimum == pytest.approx(float(optimum(site, objective).bill.total), rel=1e-9)
    env = DistrictSite([site])
    year = run_year(env, Rule(env.task, default_settings("strongest", fit_profiles([site]))))
    assert as_is.rule == pytest.approx(float(year.total[0]), rel=1e-4)
    load = site.buildings[0].load[:-1]
    assert found[Size(0.0, 0.0)].uncontrolled == pytest.approx(float(load.sum() * 0.34))
    assert found[Size(0.0, 0.0)].optimum == pytest.approx(float(load.sum() * 0.34))
    for pv in (0.0, 4.0):
        best = [found[Size(b, pv)].optimum for b in (0.0, 5.0, 10.0)]
        assert best == sorted(best, reverse=True)
    for own in found.values():
        assert own.optimum <= own.rule + 1e-6


def test_a_tuned_rule_is_as_good_as_self_consumption_where_nothing_is_charged_by_the_kw(home):
    site = read_site(home)
    own = tune("strongest", [site], candidates=24, rounds=2)
    plain = float(months_bill(site, default_settings("self-consumption", fit_profiles([site]))).total)
    assert float(months_bill(site, own).total) <= plain + 0.02 * abs(plain)


def test_a_size_changes_the_battery_and_the_pv_alone(home):
    site = read_site(home)
    other = with_size(site, Size(20.0, 2.0), None, 4.0)
    battery = other.buildings[0].battery
    assert (battery.capacity, battery.nominal_power) == (20.0, 10.0)
    assert with_size(site, Size(20.0, 2.0), 4.0, 4.0).buildings[0].battery.nominal_power == 5.0
    np.testing.assert_allclose(other.buildings[0].pv, site.buildings[0].pv / 2)
    assert other.buildings[0].load is site.buildings[0].load
    assert with_size(site, Size(0.0, 4.0), None, 4.0).buildings[0].battery is None


def test_the_command_writes_a_table_and_a_drawing(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sizes, "tune", lambda name, own, settings: default_settings(name, fit_profiles(own)))
    words = ["--case", str(home), "--battery", "0,5", "--output", str(tmp_path / "out")]
    assert size.main(words) == 0
    assert "EUR in 3 days" in capsys.readouterr().out
    assert (tmp_path / "out" / "size.png").stat().st_size > 1000
    assert len((tmp_path / "out" / "size.csv").read_text().splitlines()) == 3


def test_sizes_as_they_are_written():
    assert sizes_of("0:20:5", "--pv") == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert sizes_of("0.5,7", "--pv") == [0.5, 7.0]
    for text in ("", "a", "0:5", "5:0:1", "0:5:0", "-1,2", "0:1e9:1"):
        with pytest.raises(UserError, match="--pv"):
            sizes_of(text, "--pv")
