"""One tariff, four bills: hour by hour in plain Python, the task's steps, the whole year's, and the optimum's."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sites import objective_of, plain_battery, site_of

from iquitos_rl.baselines.bill import Bill, bill_of
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.cases.tariff import DemandCharge, Tariff, Window
from iquitos_rl.envs.task.objective import idle_bill
from iquitos_rl.envs.task.site_task import SiteTask

RATE = st.just(0.0) | st.floats(0.01, 50)
HOUR, MONTH = st.integers(0, 23), st.integers(1, 12)
WINDOW = st.builds(
    Window,
    hours=st.none() | st.lists(HOUR, min_size=1, max_size=8, unique=True).map(tuple),
    days=st.sampled_from(["all", "workdays", "weekends"]),
    months=st.none() | st.lists(MONTH, min_size=1, max_size=6, unique=True).map(tuple),
)
CHARGE = st.builds(
    DemandCharge,
    price=RATE,
    when=st.lists(WINDOW, min_size=1, max_size=2).map(tuple),
    ratchet=st.sampled_from([0.0, 0.0, 0.5, 0.8, 1.0]),
)
SHORT = st.builds(
    Tariff,
    peak_hours=st.lists(HOUR, max_size=6, unique=True).map(tuple),
    demand_charge_peak=RATE,
    demand_charge_off_peak=RATE,
)
LONG = st.builds(
    Tariff,
    demand=st.lists(CHARGE, min_size=1, max_size=4).map(tuple),
    export_price=st.none() | st.floats(-0.1, 0.4) | st.just(()),
    export_limit_kw=st.none() | st.floats(0, 30),
    standing_per_day=st.floats(0, 5),
)


def year_of(folder, seed, tariff, hours, buildings=2):
    """A site with twelve months of so many hours each, and net consumption (K, B) of it."""
    rng, rows = np.random.default_rng(seed), 12 * hours
    price = rng.uniform(-0.1, 0.6, rows).tolist()
    if tariff.export_price == ():
        tariff = tariff.model_copy(update={"export_price": tuple(rng.uniform(-0.2, 0.4, rows).tolist())})
    site = site_of(folder, rng.uniform(-40, 60, rows).tolist(), price, None, tariff)
    one = site.buildings[0]
    several = tuple(replace(one, name=f"B{b}", load=rng.uniform(-40, 60, rows)) for b in range(buildings))
    day_type = rng.integers(1, 9, rows // 24 + 1).repeat(24)[:rows]
    site = replace(site, buildings=several, month=np.arange(rows) // hours + 1, day_type=day_type)
    return site, rng.uniform(-40, 60, (rows - 1, buildings))


def by_hand(site, tariff, net, carbon_price):
    """The bill hour by hour, as somebody would work it out on paper."""
    energy = carbon = export = fixed = demand = 0.0
    highest, peaks = {}, {}
    for t, row in enumerate(net.tolist()):
        month, day, hour = int(site.month[t]), int(site.day_type[t]), int(site.hour[t])
        for b, kwh in enumerate(row):
            fixed += tariff.standing_per_day / 24
            if kwh >= 0:
                energy += kwh * float(site.buildings[b].price[t])
                carbon += carbon_price * kwh * float(site.buildings[b].carbon[t])
            elif tariff.export_price is not None:
                given_away = min(-kwh, np.inf if tariff.export_limit_kw is None else tariff.export_limit_kw)
                rate = tariff.export_price
                export -= given_away * (rate[t] if isinstance(rate, tuple) else rate)
            charges = tariff.demand or (
                ("peak", tariff.demand_charge_peak),
                ("rest", tariff.demand_charge_off_peak),
            )
            for p, charge in enumerate(charges):
                if tariff.demand:
                    looked_at = any(
                        (w.hours is None or hour in w.hours)
                        and (w.months is None or month in w.months)
                        and (w.days == "all" or (w.days == "weekends") == (day in (6, 7, 8)))
                        for w in charge.when
                    )
                else:
                    looked_at = (hour in tariff.peak_hours) == (charge[0] == "peak")
                key = (month, p, b)
                peaks[key] = max(peaks.get(key, 0.0), max(kwh, 0.0) if looked_at else 0.0)
    for (month, p, b), peak in sorted(peaks.items()):
        highest[p, b] = max(highest.get((p, b), 0.0), peak)
        if tariff.demand:
            charge = tariff.demand[p]
            if all(w.months is not None and month not in w.months for w in charge.when):
                continue
            demand += charge.price * max(peak, charge.ratchet * highest[p, b])
        else:
            demand += (tariff.demand_charge_peak, tariff.demand_charge_off_peak)[p] * peak
    return Bill(*map(np.asarray, (energy, demand, carbon, 0.0, export, fixed)))


def by_steps(site, net):
    """The sums of the task's steps, as both engines take them."""
    task = SiteTask([site])
    total, nothing = np.zeros(len(Bill._fields)), torch.zeros((1, 0), dtype=torch.float64)
    peak = torch.zeros((1, task.num_buildings, task.meters), dtype=torch.float64)
    rewards = 0.0
    before = torch.zeros((1, task.num_buildings), dtype=torch.float64)
    for t, row in enumerate(net):
        now, kwh = task.moment(torch.tensor([t]), nothing), torch.from_numpy(row)[None]
        outcome = task.outcome(now, kwh, nothing, peak, before)
        total += [term.item() for term in outcome.terms[: len(Bill._fields)]]
        rewards += (now.idle.item() - outcome.terms.weighted(task.objective.weights).item()) / task.reward_scale
        peak, before = task.next_peak(torch.tensor([t + 1]), outcome.running_peak), kwh
    return Bill(*map(np.asarray, total)), rewards, task


@settings(max_examples=15, deadline=None)
@given(tariff=SHORT | LONG, seed=st.integers(0, 10**6))
def test_every_way_to_work_out_a_bill_comes_to_the_same(tmp_path_factory, tariff, seed):
    site, net = year_of(tmp_path_factory.mktemp("year"), seed, tariff, 36)
    objective = objective_of(site)
    expected = by_hand(site, objective.tariff, net, objective.settings.carbon_price)
    steps, rewards, task = by_steps(site, net)
    for name, own in (("year", bill_of(site, objective, net)), ("steps", steps)):
        for term, value, wanted in zip(Bill._fields, own, expected, strict=True):
            assert float(value) == pytest.approx(float(wanted), rel=1e-9, abs=1e-9), (name, term)
    idle = np.stack([building.idle_net for building in site.buildings], axis=-1)[:-1]
    alone = float(bill_of(site, objective, idle).weighted(objective.weights))
    assert idle_bill(site, objective)[:-1].sum() == pytest.approx(alone, rel=1e-9, abs=1e-9)
    least = float(expected.weighted(objective.weights))
    assert rewards == pytest.approx((alone - least) / task.reward_scale, rel=1e-6, abs=1e-6)


def test_months_of_hours_have_the_bill_that_is_worked_out_by_hand(tmp_path):
    charges = (
        DemandCharge(price=21.0, when=(Window(hours=(12, 13, 14, 15, 16, 17), days="workdays", months=(6, 7, 8, 9)),)),
        DemandCharge(price=9.0, ratchet=0.8),
    )
    tariff = Tariff(demand=charges, export_price=(), export_limit_kw=25.0, standing_per_day=1.1)
    site, net = year_of(tmp_path, 1, tariff, 300, buildings=1)
    expected = by_hand(site, objective_of(site).tariff, net, 0.1)
    steps, _, _ = by_steps(site, net)
    np.testing.assert_allclose(np.array(steps), np.array(expected), rtol=1e-9)
    np.testing.assert_allclose(np.array(bill_of(site, objective_of(site), net)), np.array(expected), rtol=1e-9)


@settings(max_examples=12, deadline=None)
@given(tariff=SHORT | LONG, seed=st.integers(0, 10**6))
def test_the_optimum_costs_what_the_bill_of_its_plan_says(tmp_path_factory, tariff, seed):
    site, _ = year_of(tmp_path_factory.mktemp("plan"), seed, tariff, 4, buildings=1)
    site = replace(
        site, buildings=(replace(site.buildings[0], battery=plain_battery(60, 30, 0.5), battery_action=True),)
    )
    objective = objective_of(site)
    found = optimum(site, objective)
    expected = by_hand(site, objective.tariff, found.plan.net, objective.settings.carbon_price)
    assert found.plan.cost == pytest.approx(float(expected.weighted(objective.weights)), rel=1e-6, abs=1e-5)
    idle = bill_of(site, objective, site.buildings[0].idle_net[:-1, None])
    assert found.plan.cost <= float(idle.weighted(objective.weights)) + 1e-5


def test_the_gradient_of_a_step_is_what_one_kwh_more_costs(tmp_path):
    tariff = Tariff(demand=(DemandCharge(price=7.0, ratchet=0.9),), export_price=0.08, export_limit_kw=10.0)
    site, _ = year_of(tmp_path, 3, tariff, 24, buildings=1)
    task, nothing = SiteTask([site]), torch.zeros((1, 0), dtype=torch.float64)
    now = task.moment(torch.tensor([30]), nothing)
    peak = torch.tensor([[[20.0, 25.0]]], dtype=torch.float64)

    def cost(net):
        return task.outcome(now, net, nothing, peak, torch.zeros_like(net)).terms.weighted(task.objective.weights)

    for kwh in (-15.0, -5.0, 5.0, 22.0, 23.5, 30.0):
        net = torch.tensor([[kwh]], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(cost(net).sum(), net)
        change = (cost(net + 1e-6) - cost(net - 1e-6)).item() / 2e-6
        assert slope.item() == pytest.approx(change, abs=1e-6)
