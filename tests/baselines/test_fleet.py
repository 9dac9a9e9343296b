"""Aggregated stays against one variable for each stay and step."""

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from iquitos_rl.baselines.fleet import add_fleet, make_blocks
from iquitos_rl.baselines.programme import Programme, SolverError
from iquitos_rl.baselines.stays import Stays

ROWS, BUILDINGS = 6, 2


def random_stays(rng, count, discharging=False):
    first = rng.integers(0, ROWS, count)
    last = np.minimum(first + rng.integers(0, 4, count), ROWS - 1)
    ones = np.ones(count)
    firm = rng.random(count) < 0.5
    # Few different limits and needs, so that stays share blocks and needs are often whole steps.
    limit = rng.choice([1.0, 2.0, 3.5], count)
    capacity, arrival, gain = (
        rng.choice([4.0, 10.0], count),
        rng.choice([0.1, 0.5], count),
        rng.choice([0.9, 1.0], count),
    )
    required = rng.choice([0.3, 0.6, 1.0], count)
    reach = arrival + (last - first + 1) * limit * gain / capacity
    missing = np.maximum(required - reach, 0) * capacity
    return Stays(
        building=rng.integers(0, BUILDINGS, count),
        socket=np.arange(count),
        vehicle=np.arange(count),
        first=first,
        last=last,
        arrival=arrival,
        required=required,
        capacity=capacity,
        lowest=0 * ones,
        kept=ones,
        charge_limit=limit,
        gain=gain,
        discharge_limit=1e-9 * ones if discharging else 0 * ones,
        drop=ones,
        most_missing=np.where(firm, missing, np.inf),
    )


def one_by_one(stays, price, peak_price, missing_price):
    """The same programme, written down directly: energies e, missing m, and each building's highest import."""
    count = len(stays.first)
    n = count * ROWS + count + BUILDINGS
    cost, upper = np.zeros(n), np.full(n, np.inf)
    rows, right = [], []
    for i in range(count):
        most = np.zeros(ROWS)
        most[stays.first[i] : stays.last[i] + 1] = stays.charge_limit[i]
        upper[i * ROWS : (i + 1) * ROWS] = most
        cost[i * ROWS : (i + 1) * ROWS] = price[:, stays.building[i]]
        cost[count * ROWS + i] = missing_price
        upper[count * ROWS + i] = stays.most_missing[i]
        row = np.zeros(n)
        row[i * ROWS : (i + 1) * ROWS] = -stays.gain[i]
        row[count * ROWS + i] = -1
        rows.append(row)
        right.append(-max(stays.required[i] - stays.arrival[i], 0) * stays.capacity[i])
    cost[-BUILDINGS:] = peak_price
    for b in range(BUILDINGS):
        for t in range(ROWS):
            row = np.zeros(n)
            row[t + ROWS * np.flatnonzero(stays.building == b)] = 1
            row[n - BUILDINGS + b] = -1
            rows.append(row)
            right.append(0.0)
    result = linprog(cost, sparse.csr_matrix(np.array(rows)), right, bounds=np.stack([np.zeros(n), upper], -1))
    assert result.status == 0
    return result.fun


def aggregated(stays, price, peak_price, missing_price):
    programme = Programme()
    imported = programme.variables(ROWS * BUILDINGS, price.ravel()).reshape(ROWS, BUILDINGS)
    net_rows = programme.rows(np.zeros(ROWS * BUILDINGS)).reshape(ROWS, BUILDINGS)
    programme.put(net_rows, imported, -1.0)
    highest = programme.variables(BUILDINGS, peak_price)
    limit = programme.rows(np.zeros(ROWS * BUILDINGS)).reshape(ROWS, BUILDINGS)
    programme.put(limit, imported, 1.0)
    programme.put(limit, highest, -1.0)
    energy_of = add_fleet(programme, stays, net_rows, missing_price)
    x, cost = programme.solve()
    energy = energy_of(x)
    assert cost >= (energy * price).sum() + peak_price * energy.max(0).sum() - 1e-6
    return cost


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 25), st.booleans())
def test_aggregating_loses_nothing_and_gains_nothing(seed, count, discharging):
    rng = np.random.default_rng(seed)
    stays = random_stays(rng, count, discharging)
    price = rng.choice([0.1, 0.3, 0.5], (ROWS, BUILDINGS))
    peak_price, missing_price = rng.choice([0.0, 1.0, 5.0]), rng.choice([0.2, 1.0, 3.0])
    expected = one_by_one(stays, price, peak_price, missing_price)
    assert aggregated(stays, price, peak_price, missing_price) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_many_stays_of_the_same_hours_become_a_few_blocks():
    rng = np.random.default_rng(0)
    stays = random_stays(rng, 5000)
    blocks, _ = make_blocks(stays)
    assert len(blocks.first) < 500
    need = np.minimum((stays.required - stays.arrival).clip(0) * stays.capacity, 1e9)
    most = (stays.last - stays.first + 1) * stays.charge_limit * stays.gain
    assert (blocks.total * blocks.gain).sum() == pytest.approx(np.minimum(need, most).sum())


def test_an_impossible_programme_says_so():
    programme = Programme()
    x = programme.variables(1, 1.0, upper=1.0)
    programme.put(programme.rows(-2.0), x, -1.0)
    with pytest.raises(SolverError, match="HiGHS"):
        programme.solve()
