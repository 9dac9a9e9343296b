"""CityLearn's own agents act here as they do in CityLearn, and one that fails on a site says so."""

import numpy as np
import pytest
from schemas import Features, write_schema
from short_case import shorten
from thermal_schemas import write_thermal_schema

from iquitos_rl.baselines.citylearn_agents import DeviceSite, citylearn_agent
from iquitos_rl.envs.citylearn.env import load_citylearn
from iquitos_rl.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    site = tmp_path_factory.mktemp("site") / "site"
    return shorten(write_schema(site, 1, Features(rows=60, sockets=(1, 2), omit=0.0)), 30)


@pytest.mark.parametrize("name", ["BasicRBC", "OptimizedRBC", "BasicBatteryRBC"])
def test_an_agent_of_the_clock_acts_as_in_citylearn(folder, name):
    """With all observations and in the loop of CityLearn's own documentation."""
    from citylearn.agents import rbc

    stock = load_citylearn(folder, fast=False)
    agent = getattr(rbc, name)(stock)
    observations, _ = stock.reset()
    env = DeviceSite([folder])
    act = citylearn_agent(env, name)
    obs, _ = env.reset(options={"year": 0})
    ended = False
    while not ended:
        theirs, ours = agent.predict(observations), act(obs)
        np.testing.assert_allclose(ours, theirs[0], rtol=1e-6)
        observations, _, ended, *_ = stock.step(theirs)
        obs, *_ = env.step(ours)
    np.testing.assert_allclose(env.simulator.net_electricity_consumption, stock.net_electricity_consumption, rtol=1e-6)


def test_an_agent_that_fails_is_left_out_in_a_sentence(tmp_path):
    """CityLearn's agent for vehicles knows no cold water tank."""
    env = DeviceSite([write_thermal_schema(tmp_path / "site", 1, networks=False, outages=False)])
    with pytest.raises(UserError, match=r"CityLearn's own BasicElectric\w* fails on this site .*Unknown action name"):
        citylearn_agent(env, "BasicElectricVehicleRBC")
