"""What the report shows of the inside, against what the agents paid for."""

import numpy as np
import pytest
from thermal_schemas import write_thermal_schema

from iquitos_rl.baselines.controller import uncontrolled
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import simulate_year
from iquitos_rl.judging.timeseries import write_hours
from iquitos_rl.report.indoor_figures import buildings, outside
from iquitos_rl.report.results import read_indoors


@pytest.fixture(scope="module", params=[0, 2])
def year(request, tmp_path_factory):
    """A simulated period with networks and outages, and the folder of its files."""
    folder = tmp_path_factory.mktemp("indoors")
    env = CityLearnSite([write_thermal_schema(folder / "case", seed=request.param)])
    found = simulate_year(env, uncontrolled(env))
    write_hours(folder, "uncontrolled", found, env)
    return found, env, folder / "indoors_uncontrolled.csv"


def test_degrees_outside_of_the_band_are_those_of_the_objective(year):
    found, env, path = year
    settings, inside = env.task.settings.objective, read_indoors(path, found.hours)
    degrees = sum(outside(inside, building, settings.comfort_band) for building in buildings(inside))
    paid = found.info["comfort_cost"] / settings.comfort_price
    assert paid.any()
    np.testing.assert_allclose(degrees * env.task.hours, paid, atol=1e-6)


def test_temperatures_and_tanks_are_those_of_citylearn(year):
    found, env, path = year
    inside = read_indoors(path, found.hours)
    for own, simulated in zip(env.task.sites[0].buildings, env.simulator.buildings):
        if own.dynamics is None:
            continue
        rows = slice(0, found.hours)
        truth = simulated.energy_simulation.indoor_dry_bulb_temperature[rows]
        np.testing.assert_allclose(inside[f"{own.name}/temperature"], truth, rtol=1e-6)
        np.testing.assert_array_equal(inside[f"{own.name}/outage"] > 0, simulated.power_outage_signal[rows] > 0)


def test_a_file_that_lacks_a_column_is_refused(year, tmp_path):
    found, _, path = year
    (tmp_path / "damaged.csv").write_text(path.read_text(encoding="utf-8").replace("occupied", "other"))
    with pytest.raises(UserError, match="occupied"):
        read_indoors(tmp_path / "damaged.csv", found.hours)
