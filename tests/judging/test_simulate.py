"""A simulated year, its audit, and the figures made from it, against a second computation from the CSV."""

import numpy as np
import pandas as pd
import pytest

from iquitos_rl.baselines.controller import uncontrolled
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.booked import Booked
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.task.objective import idle_bill
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.judging.references import Reference, copy_hours, judge, stored
from iquitos_rl.judging.simulate import AuditError, simulate_year
from iquitos_rl.judging.summary import audit_demand, figures, grid_only, reductions
from iquitos_rl.judging.timeseries import timeseries, trace, write_csv


@pytest.fixture(scope="module")
def env(week_38):
    return CityLearnSite([week_38])


@pytest.fixture(scope="module")
def year(env):
    rng = np.random.default_rng(0)
    return simulate_year(env, lambda obs: rng.uniform(-1, 1, env.task.action_dim).astype(np.float32))


def test_the_csv_tells_the_same_story_as_the_summary(env, year, tmp_path):
    """Bill and carbon recomputed from the written hours, tariff applied from its definition."""
    write_csv(tmp_path / "hours.csv", timeseries(year))
    hours = pd.read_csv(tmp_path / "hours.csv")
    assert len(hours) == env.task.rows - 1
    found = figures(year)
    balance = hours.load_kwh - hours.pv_kwh + hours.bess_kwh + hours.ev_kwh
    np.testing.assert_allclose(hours.net_kwh, balance, atol=1e-3)
    assert found["import_kwh"] == pytest.approx(hours.net_kwh.clip(lower=0).sum(), rel=1e-6)
    assert found["export_kwh"] == pytest.approx((-hours.net_kwh).clip(lower=0).sum(), rel=1e-6)
    assert found["co2_kg"] == pytest.approx((hours.import_kwh * hours.carbon_intensity).sum(), rel=1e-6)
    energy = (hours.import_kwh * hours.price).sum()
    tariff = env.task.objective.tariff
    peak = hours.hour.isin(tariff.peak_hours)
    demand = tariff.demand_charge_peak * hours.import_kwh[peak].max()
    demand += tariff.demand_charge_off_peak * hours.import_kwh[~peak].max()
    assert found["energy_cost"] == pytest.approx(energy, rel=1e-6)
    assert found["demand_cost"] == pytest.approx(demand, rel=1e-6)
    carbon = env.task.objective.settings.carbon_price * found["co2_kg"]
    assert found["bill"] == pytest.approx(energy + demand + carbon + found["shortfall_cost"], rel=1e-6)
    assert audit_demand(year, env.task.objective) < 1e-6 * demand


def test_the_rewards_add_up_to_the_bill_less_a_constant(env, year):
    """What an agent maximises and what it is judged by differ by what no action changes."""
    idle = idle_bill(year.site, env.task.objective)[: year.hours].sum()
    assert year.reward.sum() == pytest.approx((idle - figures(year)["bill"]) / env.task.reward_scale, abs=1e-2)


def test_grid_only_has_neither_pv_nor_battery(env):
    year = simulate_year(env, uncontrolled(env))
    alone = grid_only(year, env.task.objective)
    assert alone["load_kwh"] == pytest.approx(year.flows.load.sum())
    assert alone["ev_kwh"] == pytest.approx(year.flows.sockets.sum())
    assert alone["import_kwh"] == pytest.approx(alone["load_kwh"] + alone["ev_kwh"])
    assert alone["bill"] > figures(year)["bill"]
    assert np.abs(year.flows.battery).max() == 0


def test_a_trace_holds_every_action_and_term(env, year):
    frame = trace(year, env)
    assert len(frame) == year.hours
    np.testing.assert_array_equal(frame["action/Building_1/battery"], year.actions[:, 0])
    assert {"energy_cost", "demand_cost", "carbon_cost", "shortfall_cost", "reward"} <= set(frame.columns)
    assert sum(name.startswith("action/") for name in frame.columns) == env.task.action_dim


def test_a_meter_that_does_not_add_up_fails_the_run(env, monkeypatch):
    honest = Booked.flows

    def tampered(booked, t):
        flows = honest(booked, t)
        return flows._replace(net=flows.net + (0.01 if t == 5 else 0.0))

    monkeypatch.setattr(Booked, "flows", tampered)
    with pytest.raises(AuditError, match=r"hour 5, Building_1: the energy balance is off by 0\.01"):
        simulate_year(env, uncontrolled(env))


def test_reductions_are_percent_of_the_reference():
    assert reductions({"bill": 90.0, "co2_kg": 2.0}, {"bill": 100.0, "co2_kg": 0.0}) == {"bill": pytest.approx(10.0)}


def test_a_stored_reference_is_found_for_equal_inputs_only(week_38, tmp_path, capsys):
    cache, first, second = (tmp_path / name for name in ("cache", "a", "b"))
    first.mkdir()
    second.mkdir()
    reference = Reference("uncontrolled", week_38, read_site(week_38).fingerprint, TaskSettings())
    assert stored(reference, cache) is None
    judged = judge(reference, cache)
    assert stored(reference, cache) == judged
    for output in (first, second):
        copy_hours(reference, cache, output)
    name = "timeseries_uncontrolled.csv"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    dearer = TaskSettings.model_validate({"objective": {"carbon_price": 0.5}})
    assert stored(reference._replace(task=dearer), cache) is None
    assert stored(reference._replace(name="optimum"), cache) is None
    path = next(cache.rglob("judged.json"))
    path.write_text("{", encoding="utf-8")
    assert stored(reference, cache) is None
    assert "uncontrolled is evaluated again" in capsys.readouterr().err
