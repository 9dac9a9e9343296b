"""The rolling programme against the horizon's own plan, brute force, and itself started afresh."""

import itertools

import numpy as np
import pytest

from iquitos_rl.baselines.horizon import Horizon, solve
from iquitos_rl.baselines.rolling import MONTHS, Ahead, RollingPlan
from iquitos_rl.baselines.stays import Stays
from iquitos_rl.cases.site import Battery
from iquitos_rl.cases.tariff import DemandCharge, Window
from iquitos_rl.envs.task.objective import Objective, ObjectiveSettings, Tariff

HOURS, CHARGES, QUANTILES = 8, 2, 3
PRICES = (4.0, 1.5)


def battery(capacity=40.0, power=12.0, efficiency=0.81):
    return Battery(
        capacity=capacity,
        nominal_power=power,
        initial_soc=0.5,
        depth_of_discharge=0.8,
        efficiency=efficiency,
        loss_coefficient=0.0,
        capacity_loss_coefficient=0.0,
        power_efficiency_curve=np.array([[0.0, 1.0], [efficiency, efficiency]]),
        capacity_power_curve=np.array([[0.0, 1.0], [1.0, 1.0]]),
    )


def plan(scenarios=1, together=1, buildings=1, export_most=None, hours=HOURS):
    return RollingPlan(
        [battery()] * buildings, scenarios, hours, 1.0, together, 1, CHARGES, QUANTILES, export_most=export_most
    )


def figures(rng, scenarios=1, buildings=1, hours=HOURS, next_month=None):
    """Random hours; the second charge counts what the first does not."""
    net = rng.uniform(-15, 40, (scenarios, buildings, hours))
    net[:, :, 0] = net[0, :, 0]
    month = np.arange(hours) >= (hours if next_month is None else next_month)
    within = month == np.arange(MONTHS)[:, None]
    so_far = np.zeros((buildings, CHARGES, MONTHS))
    so_far[..., 0] = rng.uniform(0, 20, (buildings, CHARGES))
    expensive = rng.random(hours) < 0.5
    probability = rng.uniform(0.1, 1, scenarios)
    return Ahead(
        probability=probability / probability.sum(),
        net=net,
        cost=rng.uniform(0.1, 0.6, (buildings, hours)),
        earned=np.zeros((buildings, hours)),
        counts=np.stack([expensive, ~expensive])[:, None] & within,
        rate=np.array(PRICES)[:, None] * within.any(axis=-1),
        so_far=so_far,
        later=np.repeat(so_far[..., None], QUANTILES, axis=-1),
        active=np.ones(hours, dtype=bool),
        stored=np.full(buildings, 20.0),
        keep=np.zeros(buildings),
        movable=np.zeros(buildings),
        stored_price=0.0,
        ready_price=0.01,
    )


def by_horizon(ahead):
    """The cost of the same plan by `horizon.py`, which the optimum is from."""
    month = ahead.counts[:, 1].any(axis=0).astype(np.int64)
    charges = tuple(DemandCharge(price=price, when=(Window(hours=(hour,)),)) for hour, price in enumerate(PRICES))
    counts = ahead.counts.any(axis=1).T
    horizon = Horizon(
        surplus_load=ahead.net[0].T,
        price=ahead.cost.T,
        carbon=np.zeros_like(ahead.cost.T),
        month=month,
        counts=counts,
        due=np.ones_like(counts),
        running_peak=ahead.so_far[..., 0],
        battery_soc=ahead.stored / 40.0,
        hours_per_step=1.0,
        readiness=ahead.ready_price,
    )
    nothing = np.zeros(0)
    stays = Stays(*(nothing.astype(np.int64) if i in (0, 1, 2, 3, 4) else nothing for i in range(len(Stays._fields))))
    objective = Objective(Tariff(demand=charges), ObjectiveSettings())
    return solve(horizon, [battery()] * len(ahead.stored), stays, objective).cost - float(
        (np.array(PRICES) * ahead.so_far[..., 0]).sum()
    )


@pytest.mark.parametrize("seed", range(6))
def test_one_scenario_is_planned_as_the_horizon_plans_it(seed):
    rng = np.random.default_rng(seed)
    buildings = 1 + seed % 2
    ahead = figures(rng, buildings=buildings, next_month=5 if seed > 2 else None)
    step = plan(buildings=buildings).solve(ahead)
    assert step.cost == pytest.approx(by_horizon(ahead), abs=1e-6)


def test_a_plan_from_the_hour_before_costs_what_a_new_one_costs():
    rng = np.random.default_rng(0)
    warm = plan(scenarios=3, together=2, buildings=2)
    for _ in range(20):
        ahead = figures(rng, scenarios=3, buildings=2)
        assert warm.solve(ahead).cost == pytest.approx(plan(3, 2, 2).solve(ahead).cost, abs=1e-6)


def test_equal_scenarios_cost_what_one_does_and_others_no_less_than_their_mean():
    rng = np.random.default_rng(1)
    ahead = figures(rng, scenarios=3)._replace(stored_price=0.2)
    alone = [plan().solve(ahead._replace(net=ahead.net[k : k + 1], probability=np.ones(1))).cost for k in range(3)]
    equal = ahead._replace(net=np.repeat(ahead.net[:1], 3, axis=0))
    for together in (1, 4, HOURS):
        found = plan(scenarios=3, together=together)
        assert found.solve(equal).cost == pytest.approx(alone[0], abs=1e-6)
        assert found.solve(ahead).cost >= ahead.probability @ alone - 1e-6
    costs = [plan(scenarios=3, together=n).solve(ahead).cost for n in (1, 4, HOURS)]
    assert costs == sorted(costs), "who knows less pays more"


def test_a_peak_is_charged_by_what_it_adds_to_those_that_are_expected_later():
    """One hour of 30 kW without a battery: the mean over what may come later of what it adds."""
    rng = np.random.default_rng(2)
    later = np.array([5.0, 25.0, 60.0])
    ahead = figures(rng, hours=1)._replace(
        net=np.full((1, 1, 1), 30.0),
        cost=np.zeros((1, 1)),
        counts=np.array([[[True], [False]], [[False], [False]]]),
        so_far=np.full((1, CHARGES, MONTHS), 10.0),
        later=np.tile(later, (1, CHARGES, MONTHS, 1)),
        stored=np.zeros(1),
    )
    found = RollingPlan([None], 1, 1, 1.0, 1, 0, CHARGES, QUANTILES).solve(ahead)
    added = [max(30.0, other, 10.0) - max(other, 10.0) for other in later]
    assert found.cost == pytest.approx(PRICES[0] * np.mean(added))


def test_vehicles_take_now_or_leave_for_the_next_hour():
    """Two hours, no battery: the cheaper of now and next for a kWh, against every split."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        ahead = figures(rng, hours=2)._replace(movable=np.array([10.0]), stored=np.zeros(1))
        found = RollingPlan([None], 1, 2, 1.0, 1, 1, CHARGES, QUANTILES).solve(ahead)
        splits = np.linspace(0, 10, 401)
        imports = np.maximum(np.stack([ahead.net[0, 0, 0] + splits, ahead.net[0, 0, 1] + 10 - splits]), 0)
        cost = ahead.cost[0] @ imports
        for p, m in itertools.product(range(CHARGES), range(MONTHS)):
            highest = (imports * ahead.counts[p, m][:, None]).max(axis=0)
            cost = cost + ahead.rate[p, m] * np.maximum(highest - ahead.so_far[0, p, m], 0)
        assert found.cost == pytest.approx(cost.min(), abs=0.05)
        assert found.cost <= cost.min() + 1e-6


def test_a_battery_ends_with_what_is_to_be_kept_where_it_can_get_there():
    ahead = figures(np.random.default_rng(4))
    for keep in (0.0, 30.0, 1e3):
        stored = plan().solve(ahead._replace(keep=np.array([keep]))).stored[0]
        assert stored[-1] >= min(keep, 40.0) - 1e-6
        assert (stored >= 8.0 - 1e-6).all()
    short = ahead._replace(active=np.arange(HOURS) < 1, keep=np.array([40.0]))
    stored = plan().solve(short).stored[0]
    assert 20.0 + 0.998 * 0.9 * 12 <= stored[-1] <= 20.0 + 0.9 * 12 + 1e-6, "as far as an hour's power goes"


def test_what_is_exported_earns_up_to_its_limit():
    ahead = figures(np.random.default_rng(5), hours=1)._replace(
        net=np.full((1, 1, 1), -30.0), earned=np.full((1, 1), 0.05), stored=np.array([8.0]), ready_price=0.0
    )
    found = plan(export_most=7.0, hours=1)
    assert found.solve(ahead).cost == pytest.approx(-0.05 * 7.0)
