"""Stays against a walk through the rows, and the promise that limits what may be missing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sites import generated_site

from iquitos_rl.baselines.bill import run_year
from iquitos_rl.baselines.stays import best, read_stays
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.task.sockets import socket_tables


def walked(site):
    """Set of (socket, vehicle, first, last, leaves) found row by row."""
    tables, found = socket_tables(site), set()
    for n in range(len(site.sockets)):
        first = None
        for t in range(site.rows - 1):
            vehicle = tables.vehicle[t, n]
            if vehicle < 0:
                first = None
                continue
            first = t if first is None else first
            leaves = tables.steps_left[t, n] == 1
            gone = t == site.rows - 2 or tables.vehicle[t + 1, n] != vehicle
            new = t < site.rows - 2 and not np.isnan(tables.arrival_soc[t + 1, n])
            if leaves or gone or new:
                found.add((n, int(vehicle), first, t, bool(leaves)))
                first = None
    return found


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_stays_are_what_the_rows_say(tmp_path_factory, seed):
    site = generated_site(tmp_path_factory.mktemp("site"), seed)
    stays = read_stays(site, guard=True)
    leaves = stays.most_missing > 0
    required = {(n, t): r for n, t, r in zip(stays.socket.tolist(), stays.last.tolist(), stays.required)}
    own = set(zip(*(field.tolist() for field in (stays.socket, stays.vehicle, stays.first, stays.last))))
    expected = walked(site)
    assert own == {stay[:4] for stay in expected}
    for n, _, _, last, departs in expected:
        assert (required[n, last] > 0) == (departs and socket_tables(site).required_soc[last, n] > 0)
    assert not (leaves & (stays.required == 0) & np.isfinite(stays.most_missing)).any()


@pytest.mark.parametrize("seed", range(8))
def test_what_a_guarded_vehicle_may_lack_is_never_exceeded(tmp_path, seed):
    site = generated_site(tmp_path / "site", seed, sockets=(2, 6), service=0, constraints=0, curves=0)
    stays = read_stays(site, guard=True)
    safe = np.isfinite(stays.most_missing)
    rng = np.random.default_rng(seed)
    env = DistrictSite([site], 64, TaskSettings(sockets="each"), exact=True)
    actions = torch.from_numpy(rng.uniform(-1, 1, (site.rows - 1, 64, env.action_dim)))
    actions[:, 0] = -1.0
    missing = torch.zeros((64,), dtype=torch.float64)
    env.reset(seed=0)
    for t in range(site.rows - 1):
        missing += env.step(actions[t]).info["missing_kwh"]
    if safe.all():
        assert missing.max().item() <= stays.most_missing.sum() + 1e-3
    uncharged = np.nan_to_num(np.maximum(stays.required - stays.arrival, 0) * stays.capacity, nan=np.inf)
    assert (stays.most_missing[safe] <= uncharged[safe] + 1e-9).all()
    assert np.isfinite(run_year(env, lambda obs: actions[0]).total).all()


def test_the_best_of_a_curve_counts_its_ends():
    rising = np.array([[0.2, 0.6], [0.5, 0.7]])
    assert best(rising, beyond=True) == pytest.approx(0.9)
    assert best(rising, beyond=False) == pytest.approx(0.7)
    falling = np.array([[0.2, 0.6], [0.7, 0.5]])
    assert best(falling, beyond=True) == pytest.approx(0.8)
    assert best(np.array([[0.0, 0.4, 1.0], [0.5, 0.95, 0.6]]), beyond=True) == 0.95
