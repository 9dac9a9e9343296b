"""A departure is served where the vehicle lacks at most 5 points of the SOC that it wanted."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iquitos_rl.envs.task.site_task import SERVED_TOLERANCE, SiteTask

MARGIN = 1e-6
"""From the tolerance itself, where rounding decides."""


@pytest.fixture(scope="module")
def task(site):
    return SiteTask([site])


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**31), st.sampled_from([0.05, 0.051, 0.06, 0.1, 0.3, 0.5, 1.0]))
def test_departures_are_served_up_to_the_tolerance(task, seed, widest):
    """Against a loop over sockets, in rows in which vehicles leave, with any lack up to `widest`."""
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.integers(0, task.rows - 1, 64))
    lack = torch.from_numpy(rng.uniform(-0.1, widest, (64, task.num_sockets)))
    lack = torch.where((lack - SERVED_TOLERANCE).abs() < MARGIN, 0.0, lack)
    now = task.moment(rows, torch.zeros_like(lack))
    soc = now.required_soc - lack
    nothing = torch.zeros((64, task.num_buildings), dtype=torch.float64)
    peak = torch.zeros((64, task.num_buildings, 2), dtype=torch.float64)
    found = task.outcome(now, nothing, soc, peak, nothing)
    for e in range(64):
        leaving = [n for n in range(task.num_sockets) if now.steps_left[e, n] == 1]
        assert int(found.departures[e]) == len(leaving)
        assert int(found.served[e]) == sum(float(lack[e, n]) <= 0.05 for n in leaving)


def test_the_two_sides_of_the_tolerance(task):
    row = torch.tensor(
        [
            int(
                (task.moment(torch.arange(task.rows), torch.zeros(task.rows, task.num_sockets)).steps_left == 1)
                .any(-1)
                .nonzero()[0]
            )
        ]
    )
    now = task.moment(row, torch.zeros(1, task.num_sockets, dtype=torch.float64))
    nothing = torch.zeros((1, task.num_buildings), dtype=torch.float64)
    peak = torch.zeros((1, task.num_buildings, 2), dtype=torch.float64)
    for lack, share in ((0.0499, 1), (0.0501, 0), (0.4, 0)):
        found = task.outcome(now, nothing, now.required_soc - lack, peak, nothing)
        assert found.departures > 0
        assert found.served == share * found.departures
