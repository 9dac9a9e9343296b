"""The receding horizon: its forecasts, and where it stands between the uncontrolled site and the optimum."""

import numpy as np
import pytest
import torch
from short_case import shorten
from sites import objective_of

from iquitos_rl.baselines.bill import gap_share, run_year
from iquitos_rl.baselines.mpc import DAYS, Persistence, RecedingHorizon
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, default_settings
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite


def test_a_forecast_knows_the_present_and_expects_the_mean_of_the_same_hours():
    mean_day = np.arange(24.0)[:, None] + 1
    series = Persistence(mean_day, scaled=False)
    for day in range(3):
        for hour in range(24):
            series.observe(hour, np.array([100.0 * day]))
    series.observe(0, np.array([7.0]))
    ahead = series.ahead(np.array([0, 1, 2]))
    # Hour 1 has seen 0, 100 and 200 beside the mean day, 2, in the places of the other days.
    assert ahead[:, 0].tolist() == pytest.approx([7.0, (300 + 2 * (DAYS - 3)) / DAYS, (300 + 3 * (DAYS - 3)) / DAYS])


def test_a_scaled_forecast_raises_the_rest_of_the_day_but_not_the_next():
    series = Persistence(np.full((24, 1), 10.0), scaled=True)
    series.observe(22, np.array([17.0]))
    expected = (10 * (DAYS - 1) + 17) / DAYS
    ahead = series.ahead(np.array([22, 23, 0]))[:, 0]
    assert ahead[0] == 17
    assert ahead[1] == pytest.approx(10 * 17 / expected)
    assert ahead[2] == 10


@pytest.mark.parametrize("preset", ["iquitos-38", "iquitos-128"])
def test_it_lies_between_the_uncontrolled_site_and_the_optimum(tmp_path, preset):
    site = read_site(shorten(build_case(preset, 0, tmp_path / "case"), 10 * 24 + 1))
    profiles = fit_profiles([site])
    env = DistrictSite([site])
    best = float(optimum(site, objective_of(site)).bill.total)
    idle = float(run_year(env, Rule(env.task, default_settings("uncontrolled", profiles))).total[0])
    share = {}
    for forecast in ("persistence", "perfect"):
        controller = RecedingHorizon(env.task, profiles, forecast)
        bill = run_year(env, lambda obs, c=controller: torch.from_numpy(c.predict(obs[0].numpy()))[None])
        share[forecast] = gap_share(float(bill.total[0]), idle, best)
    assert share["persistence"] > 0.3
    assert 0.9 < share["perfect"] < 1
