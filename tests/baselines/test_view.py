"""What rules read out of an observation, against the tariff worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sites import plain_battery
from test_bill import LONG, SHORT, year_of

from iquitos_rl.baselines.view import SiteView
from iquitos_rl.envs.task.site_task import SiteTask


@settings(max_examples=20, deadline=None)
@given(tariff=SHORT | LONG, seed=st.integers(0, 10**6))
def test_the_import_that_costs_nothing_more_is_that_of_the_tariff(tmp_path_factory, tariff, seed):
    site, _ = year_of(tmp_path_factory.mktemp("view"), seed, tariff, 50, buildings=1)
    one = replace(site.buildings[0], battery=plain_battery(60, 30, 0.5), battery_action=True)
    site = replace(site, buildings=(one,))
    task = SiteTask([site])
    view, tariff, rng = SiteView(task), task.objective.tariff, np.random.default_rng(seed)
    rows = torch.from_numpy(rng.integers(0, site.rows, 40))
    running = torch.from_numpy(rng.uniform(0, 60, (40, 1, task.meters)))
    nothing, soc = torch.zeros((40, 0), dtype=torch.float64), torch.full((40, 1), 0.5, dtype=torch.float64)
    now = task.moment(rows, nothing)
    obs = task.observe(now, soc, torch.zeros((40, 1), dtype=torch.float64), running, nothing)
    found = view(obs)
    charges = len(tariff.charges)
    for e, row in enumerate(rows.tolist()):
        month, day, hour = (getattr(site, name)[row : row + 1] for name in ("month", "day_type", "hour"))
        limits = [np.inf]
        for p, charge in enumerate(tariff.charges):
            if charge.price > 0 and charge.counts(month, day, hour)[0]:
                limit = running[e, 0, p].item()
                if charge.ratchet > 0:
                    highest = running[e, 0, charges + tariff.ratcheted.index(p)].item()
                    limit = max(limit, charge.ratchet * highest)
                limits.append(limit)
        assert found.limit_kw[e, 0].item() == pytest.approx(min(limits), rel=1e-4, abs=1e-3)
    np.testing.assert_array_equal(found.hour.numpy(), site.hour[rows.numpy()])
    np.testing.assert_allclose(found.highest_kw.numpy(), running.numpy(), rtol=1e-4, atol=1e-3)
