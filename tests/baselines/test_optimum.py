"""The optimum against brute force, against CityLearn's physics, and against everybody who might beat it."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from short_case import shorten
from sites import TARIFF, generated_site, objective_of, plain_battery, site_of, unused_charger
from thermal_schemas import write_thermal_schema

from iquitos_rl.baselines.bill import bill_of, gap_share, run_year
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, default_settings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.tariff import TARIFF_FILE, DemandCharge, Window
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import ObjectiveSettings, Tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.task.thermal import tanks
from iquitos_rl.errors import UserError

LEVELS = np.linspace(-1, 1, 9)


def simulated(site, actions, settings=None):
    """Total bills (E,) of given actions (E, K, A), by CityLearn's physics to the bit."""
    settings = settings or TaskSettings()
    env = DistrictSite([site], len(actions), settings, exact=True)
    steps = iter(range(actions.shape[1]))
    bill = run_year(env, lambda obs: torch.from_numpy(actions[:, next(steps)]))
    return bill.weighted(env.task.objective.weights)


def infos_of(env, action):
    """What a year with one and the same action is told in, step by step."""
    env.reset(seed=0)
    return [env.step(torch.tensor([action])).info for _ in range(env.task.rows - 1)]


@pytest.mark.parametrize("seed", range(6))
def test_no_sequence_of_actions_beats_it_and_its_own_plan_reaches_it(tmp_path, seed):
    rng = np.random.default_rng(seed)
    tariff = Tariff(peak_hours=(2, 3), demand_charge_peak=float(rng.choice([0, 4])), demand_charge_off_peak=1.0)
    battery = plain_battery(40.0, 20.0, float(rng.choice([0.0, 0.5, 1.0])))
    load, price = rng.uniform(-15, 40, 6).tolist(), rng.uniform(0.1, 0.6, 6).tolist()
    site = site_of(tmp_path / "site", load, price, battery, tariff, (unused_charger(6),))
    found = optimum(site, objective_of(site))
    sequences = np.array(list(itertools.product(LEVELS, repeat=5)))[..., None] * [1.0, 0.0]
    bills = simulated(site, sequences)
    assert found.plan.cost <= bills.min() + 1e-4
    assert bills.min() <= found.plan.cost + 0.05 * abs(found.plan.cost)  # the grid of actions is coarse
    own = simulated(site, (found.plan.battery / battery.nominal_power)[None] * [1.0, 0.0])
    assert own[0] == pytest.approx(found.plan.cost, rel=1e-5, abs=1e-4)
    assert float(found.bill.total) == pytest.approx(found.plan.cost, rel=1e-9)


def searched(site, task, seed, rounds=12, count=128):
    """The lowest bill that random search finds: many draws, each round around the best of the last."""
    rng = np.random.default_rng(seed)
    shape = (count, site.rows - 1, DistrictSite([site], 1, task).action_dim)
    actions = np.where(rng.random(shape) < 0.5, rng.choice([-1.0, 0.0, 1.0], shape), rng.uniform(-1, 1, shape))
    actions[0], actions[1], actions[2] = 1.0, -1.0, 0.0
    batteries = sum(b.battery is not None and b.battery_action for b in site.buildings)
    for k, (battery, socket) in enumerate(itertools.product((-1.0, 0.0, 0.3), (-1.0, 1.0))):
        actions[3 + k, :, :batteries], actions[3 + k, :, batteries:] = battery, socket
    best = np.inf
    for _ in range(rounds):
        bills = simulated(site, actions, task)
        elite = actions[np.argsort(bills)[: count // 8]]
        best = min(best, bills.min())
        parents = elite[rng.integers(0, len(elite), (2, count))]
        actions = np.where(rng.random(shape) < 0.5, *parents)
        changed = rng.random(shape) < 0.1
        actions = np.where(changed, rng.uniform(-1.2, 1.2, shape).clip(-1, 1), actions)
        actions[0] = elite[0]
    return best


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from([True, False]), st.sampled_from(["bill", "co2", "balanced"]))
def test_no_controller_beats_it_on_any_site(tmp_path_factory, seed, guard, preset):
    site = generated_site(tmp_path_factory.mktemp("site"), seed, rows=16, sockets=(1, 4), buildings=(1, 2))
    task = TaskSettings(objective=ObjectiveSettings(preset=preset, shortfall_price=0.3), ev_guard=guard, sockets="each")
    bound = optimum(site, objective_of(site, preset, 0.3), guard).plan.cost
    assert bound <= searched(site, task, seed) * (1 + 1e-6) + 1e-3


def tank_site(folder, seed, **limits):
    """A random site with tanks on fixed demands and a demand charge, each building's tanks full to a random level."""
    write_thermal_schema(folder, seed, networks=False, outages=False)
    (folder / TARIFF_FILE).write_text(json.dumps(TARIFF), encoding="utf-8")
    site = read_site(folder)

    def changed(use, n):
        tank = replace(use.tank, initial_soc=(0.0, 0.4, 1.0)[(seed + n) % 3], **limits)
        return replace(use, tank=tank)

    def with_tanks(building):
        return replace(building, end_uses=tuple(changed(use, n) for n, use in enumerate(building.end_uses)))

    return replace(site, drift=None, buildings=tuple(map(with_tanks, site.buildings)))


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10**6))
def test_no_controller_beats_it_on_any_site_with_tanks(tmp_path_factory, seed):
    site = tank_site(tmp_path_factory.mktemp("site"), seed)
    assume(not any(np.isnan(charger.arrival_soc).all() and charger.vehicle.max() >= 0 for _, charger in site.sockets))
    task = TaskSettings(objective=ObjectiveSettings(shortfall_price=0.3), sockets="each")
    bound = optimum(site, objective_of(site, "bill", 0.3)).plan.cost
    assert bound <= searched(site, task, seed, rounds=6, count=64) * (1 + 1e-6) + 1e-3


@pytest.mark.parametrize("limits", [{}, {"max_input_power": 1.5, "max_output_power": 1.0}])
def test_the_plan_for_a_tank_is_reached_by_the_engine_and_pays(tmp_path, limits):
    """One building, no vehicle, no battery: the relaxation leaves nothing out."""
    site = next(s for s in (tank_site(tmp_path / str(n), n, **limits) for n in range(0, 40, 4)) if tanks(s))
    building = next(building for building in site.buildings if any(use.tank_action for use in building.end_uses))
    building = replace(building, battery=None, battery_action=False, chargers=(), service=None)
    site = replace(site, buildings=(building,), vehicles=())
    found = optimum(site, objective_of(site))
    moved = [found.plan.heat.tank[:, t.building, t.use] for t in tanks(site)]
    asked = [t.reach * building.end_uses[t.use].tank.capacity * site.hours_per_step for t in tanks(site)]
    actions = np.stack([energy / max(most, 1e-9) for energy, most in zip(moved, asked)], axis=-1)
    own, idle = simulated(site, np.stack([actions, np.zeros_like(actions)]))
    assert own == pytest.approx(found.plan.cost, rel=1e-5)
    assert own < idle * 0.999
    assert found.plan.cost == pytest.approx(float(found.bill.total), rel=1e-9)


@pytest.fixture(scope="module")
def january(tmp_path_factory):
    folder = build_case("iquitos-128", 1, tmp_path_factory.mktemp("case") / "january")
    return read_site(shorten(folder, 15 * 24 + 1))


def test_no_rule_beats_it_on_the_iquitos_case(january):
    profiles = fit_profiles([january])
    found = optimum(january, objective_of(january))
    env = DistrictSite([january])
    bills = {name: float(run_year(env, Rule(env.task, default_settings(name, profiles))).total[0]) for name in RULES}
    assert min(bills.values()) > found.bill.total
    assert max(bills, key=bills.get) == "uncontrolled"
    assert gap_share(bills["strongest"], bills["uncontrolled"], float(found.bill.total)) > 0.5


def test_a_plan_keeps_every_limit_and_balance(january):
    found = optimum(january, objective_of(january))
    battery = january.buildings[0].battery
    lowest = 1 - battery.depth_of_discharge
    plan = found.plan
    assert (plan.battery_soc >= lowest - 1e-7).all()
    assert (plan.battery_soc <= 1 + 1e-7).all()
    assert (np.abs(plan.battery) <= battery.nominal_power + 1e-6).all()
    load, pv = january.buildings[0].load[:-1, None], january.buildings[0].pv[:-1, None]
    np.testing.assert_allclose(plan.net, load - pv + plan.battery + plan.vehicles, atol=1e-6)
    stays_energy = plan.vehicles.sum()
    env = DistrictSite([january])
    infos = infos_of(env, [0.0, 1.0])
    assert stays_energy == pytest.approx(sum(info["ev_kwh"].item() for info in infos), rel=2e-3)


def test_without_the_guard_vehicles_may_be_left_short_where_that_is_cheaper(january):
    dear = optimum(january, objective_of(january, shortfall_price=1000.0), ev_guard=False)
    guarded = optimum(january, objective_of(january), ev_guard=True)
    cheap = optimum(january, objective_of(january, shortfall_price=0.1), ev_guard=False)
    assert dear.bill.total == pytest.approx(guarded.bill.total, rel=1e-4)
    assert cheap.bill.shortfall > 0
    # What is left is charged from PV that nobody else would take.
    bought = np.minimum(cheap.plan.vehicles, np.maximum(cheap.plan.net, 0))
    assert bought.sum() < 0.01 * guarded.plan.vehicles.sum()


@pytest.mark.parametrize("seed", range(6))
def test_no_sequence_of_actions_beats_it_where_exports_earn_and_prices_fall_below_zero(tmp_path, seed):
    rng = np.random.default_rng(seed)
    earned = tuple(rng.uniform(-0.1, 0.4, 6).tolist()) if seed % 2 else 0.08
    charges = (DemandCharge(price=2.0, when=(Window(hours=(1, 2)),)), DemandCharge(price=1.0, ratchet=0.5))
    limit = 12.0 if seed >= 3 else None
    tariff = Tariff(demand=charges, export_price=earned, export_limit_kw=limit, standing_per_day=3.0)
    battery = plain_battery(40.0, 20.0, float(rng.choice([0.0, 0.5, 1.0])))
    load, price = rng.uniform(-30, 30, 6).tolist(), rng.uniform(-0.2, 0.5, 6).tolist()
    site = site_of(tmp_path / "site", load, price, battery, tariff, (unused_charger(6),))
    site = replace(site, month=np.array([1, 1, 1, 2, 2, 2]))
    found = optimum(site, objective_of(site))
    sequences = np.array(list(itertools.product(LEVELS, repeat=5)))[..., None] * [1.0, 0.0]
    bills = simulated(site, sequences)
    assert found.plan.cost <= bills.min() + 1e-4
    assert bills.min() <= found.plan.cost + 0.05 * np.abs(bills).mean()  # the grid of actions is coarse
    own = simulated(site, (found.plan.battery / battery.nominal_power)[None] * [1.0, 0.0])
    assert own[0] == pytest.approx(found.plan.cost, rel=1e-5, abs=1e-4)
    assert float(found.bill.weighted(objective_of(site).weights)) == pytest.approx(found.plan.cost, abs=1e-6)
    assert float(found.bill.total) == pytest.approx(found.plan.cost + 3.0 * 5 / 24, abs=1e-6)


def test_a_bill_of_net_consumption_is_the_engines_bill(january):
    env = DistrictSite([january], exact=True)
    infos = infos_of(env, [0.3, -0.5])
    net = np.array([[info["import_kwh"].item() - info["export_kwh"].item()] for info in infos])
    own = bill_of(january, env.task.objective, net)
    for term in ("energy", "demand", "carbon"):
        assert float(getattr(own, term)) == pytest.approx(sum(info[f"{term}_cost"].item() for info in infos), rel=1e-9)


def test_what_only_citylearn_simulates_is_refused(january):
    with pytest.raises(UserError, match="thermal storage"):
        optimum(replace(january, unsupported=("thermal storage",)), objective_of(january))


def test_several_buildings_are_billed_each_by_its_own_meter(tmp_path):
    tariff = Tariff(peak_hours=(1,), demand_charge_peak=10.0)
    one = site_of(tmp_path / "one", [5.0, 20.0, 0.0], [0.2, 0.2, 0.2], plain_battery(10.0, 10.0, 1.0), tariff)
    other = site_of(tmp_path / "two", [0.0, 8.0, 0.0], [0.2, 0.2, 0.2], None, tariff)
    buildings = (one.buildings[0], replace(other.buildings[0], name="C"))
    both = replace(one, buildings=buildings)
    total = optimum(both, objective_of(both)).bill.total
    assert total == pytest.approx(
        float(optimum(one, objective_of(one)).bill.total + optimum(other, objective_of(other)).bill.total)
    )


def test_gap_share():
    assert gap_share(75.0, 100.0, 50.0) == 0.5
    assert gap_share(110.0, 100.0, 50.0) == pytest.approx(-0.2)
    assert np.isnan(gap_share(1.0, 1.0, 1.0))
