"""Replaying a judged week on the district engine finds next to nothing, and finds what was tampered with."""

from dataclasses import replace

import numpy as np
import pytest

from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.judging.parity import replay
from iquitos_rl.judging.simulate import simulate_year


def test_a_replayed_week_is_the_judged_one(week_38):
    env, rng = CityLearnSite([week_38]), np.random.default_rng(0)
    year = simulate_year(env, lambda obs: rng.uniform(-1, 1, env.task.action_dim).astype(np.float32))
    found = replay(year, TaskSettings())
    assert found["district_largest_net_difference_kwh"] < 1e-4 * np.abs(year.flows.net).max()
    assert found["district_bill_difference_percent"] < 0.01

    net = year.flows.net.copy()
    net[5] += 2.0
    info = {name: values * (1.5 if name == "energy_cost" else 1.0) for name, values in year.info.items()}
    tampered = replay(replace(year, flows=year.flows._replace(net=net), info=info), TaskSettings())
    assert tampered["district_largest_net_difference_kwh"] == pytest.approx(2.0, abs=0.01)
    assert tampered["district_bill_difference_percent"] > 1
    assert replay(replace(year, site=replace(year.site, unsupported=("outages",))), TaskSettings()) == {}
