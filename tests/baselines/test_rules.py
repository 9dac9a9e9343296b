"""What rules see, do, and how they are stored and tuned."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from schemas import Features, write_schema
from short_case import shorten
from sites import TARIFF

from iquitos_rl.baselines.bill import run_year, start_years
from iquitos_rl.baselines.controller import uncontrolled
from iquitos_rl.baselines.profiles import arrival_charging, fit_profiles
from iquitos_rl.baselines.rule import Rule, RuleSettings, default_settings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.baselines.tune import tune
from iquitos_rl.baselines.view import SiteView, expensive_hours
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import Tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import simulate_year
from iquitos_rl.judging.summary import figures


@pytest.fixture(scope="module")
def week(week_38):
    return read_site(week_38)


@pytest.fixture(scope="module")
def profiles(week):
    return fit_profiles([week])


@pytest.mark.parametrize("months", [(1, 1, 12), (6, 7, 7)])
def test_seasons_are_each_months_mean_load_against_the_years(week, months):
    third = week.rows // 3
    month = np.repeat(months, [third, third, week.rows - 2 * third])
    season, load = fit_profiles([replace(week, month=month)]).season[:, 0], week.buildings[0].load
    for m in range(1, 13):
        here = load[month == m]
        assert season[m - 1] == pytest.approx(here.mean() / load.mean() if len(here) else 1.0)


def test_december_is_seen_as_december(week):
    for month in range(1, 13):
        env = DistrictSite([replace(week, month=np.full(week.rows, month))], num_envs=1)
        assert SiteView(env.task)(env.reset(seed=0)).month.tolist() == [month]


def total(env, name, profiles, **values):
    settings = default_settings(name, profiles)
    settings = RuleSettings(name, {**settings.parameters, **values}, profiles)
    return float(run_year(env, Rule(env.task, settings)).total[0])


def test_a_rule_sees_the_hour_as_it_is(week):
    env = DistrictSite([week], num_envs=2, exact=True)
    view = SiteView(env.task)
    building, battery = week.buildings[0], week.buildings[0].battery
    root, rng = np.sqrt(battery.efficiency), np.random.default_rng(0)
    obs = env.reset(seed=0)
    for t in range(120):
        now = view(obs)
        soc = env.physics.state.battery_soc[0, 0].item()
        assert now.hour.tolist() == [week.hour[t]] * 2
        assert now.month.tolist() == [week.month[t]] * 2
        assert now.expensive[0].item() == (18 <= week.hour[t] < 23)
        assert now.load_kw[0].item() == pytest.approx(building.load[t], abs=0.01)
        assert now.pv_kw[0].item() == pytest.approx(building.pv[t], abs=0.01)
        assert now.battery_soc[0].item() == pytest.approx(soc, abs=1e-5)
        lowest = 1 - battery.depth_of_discharge
        assert now.stored_kwh[0].item() == pytest.approx((soc - lowest) * battery.capacity * root, abs=0.05)
        assert now.room_kwh[0].item() == pytest.approx((1 - soc) * battery.capacity / root, abs=0.05)
        step = env.step(torch.tensor([[rng.uniform(-1, 1), -1.0], [0.0, 1.0]], dtype=torch.float32))
        # The first environment's vehicles took the least they could, the second's the most.
        assert step.info["ev_kwh"][0].item() == pytest.approx(now.ev_least_kw[0].item(), abs=0.1)
        assert step.info["ev_kwh"][1].item() == pytest.approx(now.ev_most_kw[1].item(), abs=0.1)
        obs = step.obs


def test_every_rule_acts_within_bounds_and_alike_for_any_number_of_environments(week, profiles):
    env = DistrictSite([week], num_envs=3)
    obs = env.reset(seed=0)
    rules = {name: Rule(env.task, default_settings(name, profiles)) for name in RULES}
    rng = np.random.default_rng(1)
    for _ in range(60):
        for rule in rules.values():
            action = rule(obs)
            assert action.shape == (3, env.action_dim)
            assert action.isfinite().all()
            assert (action.abs() <= 1).all()
            np.testing.assert_allclose(rule.predict(obs[1].numpy()), action[1].numpy(), atol=1e-6)
        obs = env.step(torch.from_numpy(rng.uniform(-1, 1, (3, env.action_dim)).astype(np.float32))).obs


@pytest.mark.parametrize("name", ["uncontrolled", "self-consumption", "strongest"])
def test_both_engines_pay_the_same_bill_under_a_rule(week_38, profiles, name):
    reference, engine = CityLearnSite([week_38]), DistrictSite([week_38], exact=True)
    settings = default_settings(name, profiles)
    year = simulate_year(reference, Rule(reference.task, settings).predict)
    bill = run_year(engine, Rule(engine.task, settings))
    for term in bill._fields:
        expected = figures(year).get(f"{term}_cost", 0.0)
        assert float(getattr(bill, term)[0]) == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_the_uncontrolled_rule_is_the_uncontrolled_controller(week_38, week, profiles):
    env = CityLearnSite([week_38])
    year = simulate_year(env, uncontrolled(env))
    assert total(DistrictSite([week]), "uncontrolled", profiles) == pytest.approx(figures(year)["bill"], rel=1e-5)


def test_self_consumption_neither_imports_while_it_holds_energy_nor_exports_while_it_has_room(tmp_path):
    folder = build_case("iquitos-128", 0, tmp_path / "case")
    site = read_site(shorten(folder, 240))
    env = DistrictSite([site], exact=True)
    rule, view = Rule(env.task, default_settings("self-consumption", fit_profiles([site]))), SiteView(env.task)
    power, exported = site.buildings[0].battery.nominal_power, 0.0
    obs = env.reset(seed=0)
    for _ in range(site.rows - 1):
        now = view(obs)
        step = env.step(rule(obs))
        net = (now.load_kw - now.pv_kw + now.ev_most_kw).item()
        imported, export = step.info["import_kwh"].item(), step.info["export_kwh"].item()
        assert imported == pytest.approx(max(net - min(power, now.stored_kwh.item()), 0), abs=0.3)
        assert export == pytest.approx(max(-net - min(power, now.room_kwh.item()), 0), abs=0.3)
        exported += max(-net, 0)
        obs = step.obs
    assert exported > 0  # there was something to store


def test_peak_hold_discharges_in_dear_hours_only_and_keeps_its_reserve(week, profiles):
    env = DistrictSite([week])
    rule = Rule(env.task, RuleSettings("peak-hold", {"reserve": 0.4, "power": 1.0}, profiles))
    view, obs, before = SiteView(env.task), env.reset(seed=0), None
    lowest = []
    for _ in range(week.rows - 1):
        now = view(obs)
        obs = env.step(rule(obs)).obs
        soc = now.battery_soc.item()
        if before is not None and not before.expensive:
            assert soc >= before.battery_soc.item() - 1e-6
        lowest.append(soc)
        before = now
    battery = week.buildings[0].battery
    reserve = 1 - battery.depth_of_discharge + 0.4 * battery.depth_of_discharge
    assert min(lowest) > reserve - 0.03
    assert min(lowest) < reserve + 0.05


def test_dear_hours_follow_the_tariff_or_the_price(week):
    assert np.flatnonzero(expensive_hours(week, Tariff(peak_hours=(3, 4)))).tolist() == [3, 4]
    assert np.flatnonzero(expensive_hours(week, Tariff())).tolist() == [18, 19, 20, 21, 22]


def test_profiles_are_the_mean_day_and_vehicles_get_their_energy(week, profiles):
    hours = week.hour == 12
    assert profiles.load[12, 0] == pytest.approx(week.buildings[0].load[hours].mean())
    assert profiles.pv[12, 0] == pytest.approx(week.buildings[0].pv[hours].mean())
    env = DistrictSite([week])
    obs, charged = env.reset(seed=0), []
    for _ in range(week.rows - 1):
        step = env.step(torch.tensor([[0.0, 1.0]]))
        charged.append(step.info["ev_kwh"].item())
    np.testing.assert_allclose(arrival_charging(week)[:-1, 0], charged, atol=0.05)
    assert obs.shape == (1, env.obs_dim)


def test_years_start_where_they_are_told(week_38, tmp_path):
    other = shorten(build_case("iquitos-38", 1, tmp_path / "other"), 168)
    both = DistrictSite([week_38, other], num_envs=3)
    obs = start_years(both, [1, 0, 1])
    singles = [DistrictSite([folder], spec=both.policy_spec) for folder in (week_38, other)]
    first = [env.reset(seed=0)[0] for env in singles]
    torch.testing.assert_close(obs, torch.stack([first[1], first[0], first[1]]))
    rule = default_settings("self-consumption", fit_profiles(both.task.sites))
    bills = run_year(both, Rule(both.task, rule), [1, 0, 1]).total
    own = [run_year(env, Rule(env.task, rule)).total[0] for env in singles]
    np.testing.assert_allclose(bills, [own[1], own[0], own[1]], rtol=1e-5)


def test_tuning_is_deterministic_and_no_worse_than_the_defaults(week, profiles):
    first, again = (tune("strongest", [week], candidates=12, rounds=2, seed=5) for _ in range(2))
    assert first.parameters == again.parameters
    env = DistrictSite([week])
    tuned = float(run_year(env, Rule(env.task, first)).total[0])
    assert tuned <= total(env, "strongest", profiles) * (1 + 1e-6)
    assert tuned < total(env, "self-consumption", profiles)
    for key, value in first.parameters.items():
        assert RULES["strongest"].ranges[key].low <= value <= RULES["strongest"].ranges[key].high
    assert tune("uncontrolled", [week]).parameters == {}


def test_a_rule_is_stored_as_json_and_read_back(week, profiles):
    settings = default_settings("water-filling", profiles)
    read = RuleSettings.from_json(json.loads(json.dumps(settings.to_json())))
    env = DistrictSite([week])
    assert torch.equal(Rule(env.task, read)(env.reset(seed=0)), Rule(env.task, settings)(env.reset(seed=0)))
    for broken in ({}, {**settings.to_json(), "parameters": {"cap": 1.0}}, {**settings.to_json(), "name": "none"}):
        with pytest.raises(UserError, match="stored rule"):
            RuleSettings.from_json(broken)


@pytest.mark.parametrize("settings", [{"ev_guard": False}, {"sockets": "each"}])
def test_rules_say_what_they_need(week, settings):
    with pytest.raises(UserError, match="ev_guard"):
        SiteView(DistrictSite([week], settings=TaskSettings(**settings)).task)


def test_rules_run_on_sites_with_several_buildings_and_losses(tmp_path):
    from sites import generated_site

    ran = 0
    for seed in range(6):
        site = generated_site(tmp_path / str(seed), seed, sockets=(1, 5), rows=40)
        env = DistrictSite([site], exact=True)
        assert env.task.objective.tariff.peak_hours == tuple(TARIFF["peak_hours"])
        profiles = fit_profiles([site])
        for name in RULES:
            bill = run_year(env, Rule(env.task, default_settings(name, profiles)))
            assert np.isfinite(bill.total).all()
            ran += 1
    assert ran == 6 * len(RULES)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["smart-ev", "strongest"])
def test_rules_discharge_no_vehicle(tmp_path, name, seed):
    """Whatever other vehicles of the fleet must take in the same hour."""
    features = Features(rows=60, sockets=(2, 5), v2g=1.0, roaming=0, service=0, constraints=0)
    site = read_site(write_schema(tmp_path, seed, features))
    env = DistrictSite([site], 1)
    rule, obs, drawn = Rule(env.task, default_settings(name, fit_profiles([site]))), env.reset(), 0.0
    for _ in range(site.rows - 1):
        obs = env.step(rule(obs)).obs
        assert env.last_flows.socket_kwh.min() >= 0
        drawn += env.last_flows.socket_kwh.sum().item()
    assert drawn > 0
