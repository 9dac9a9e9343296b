"""What is expected of the hours ahead, and that it is known in the hour that it is expected in."""

from dataclasses import replace

import numpy as np
import pytest

from iquitos_rl.baselines.outlook import OUTLOOKS
from iquitos_rl.baselines.profiles import arrival_charging, fit_profiles, series
from iquitos_rl.cases.forecasts import site_forecast
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    settings = {"sockets.moto_count": 3, "sockets.mototaxi_count": 1}
    return read_site(build_case("iquitos-38", 0, tmp_path_factory.mktemp("years") / "case", settings))


@pytest.fixture(scope="module")
def profiles(site):
    return fit_profiles([site])


@pytest.mark.parametrize("name", OUTLOOKS)
def test_the_present_hour_is_known(site, profiles, name):
    outlook = OUTLOOKS[name](site, profiles)
    for row in (0, 700, site.rows - 2):
        count = min(36, site.rows - row)
        expected = outlook(row, count)
        assert [own.shape for own in expected] == [(count, 1)] * 3
        np.testing.assert_allclose(expected.load[0], series(site, "load")[row], rtol=1e-6)
        np.testing.assert_allclose(expected.pv[0], series(site, "pv")[row], rtol=1e-6, atol=1e-3)


def test_persistence_knows_nothing_of_later_rows(site, profiles):
    row = 1_000
    building = site.buildings[0]
    changed = [np.where(np.arange(site.rows) > row, 0.3 * own, own) for own in (building.load, building.pv)]
    other = replace(site, buildings=(replace(building, load=changed[0], pv=changed[1]),))
    ours, theirs = (OUTLOOKS["persistence"](own, profiles)(row, 48) for own in (site, other))
    for mine, its in zip(ours, theirs):
        np.testing.assert_array_equal(mine, its)


def test_persistence_scales_the_rest_of_the_day_and_not_the_next(site, profiles):
    row = 24 * 60 + 12
    building = site.buildings[0]
    load = building.load.copy()
    load[row] *= 1.5
    other = replace(site, buildings=(replace(building, load=load),))
    before, after = (OUTLOOKS["persistence"](own, profiles)(row, 36).load[:, 0] for own in (site, other))
    np.testing.assert_allclose(after[1:12], 1.5 * before[1:12])
    np.testing.assert_allclose(after[12:], before[12:])


def test_perfect_knows_everything_and_forecasts_are_the_sites(site, profiles):
    rows = slice(500, 536)
    known = OUTLOOKS["perfect"](site, profiles)(500, 36)
    for own, wanted in zip(known, (series(site, "load"), series(site, "pv"), arrival_charging(site))):
        np.testing.assert_allclose(own, wanted[rows], rtol=1e-6, atol=1e-3)
    issued = OUTLOOKS["forecasts"](site, profiles)(500, 36)
    np.testing.assert_array_equal(issued.load[1:], site_forecast(site, "site").load[500, :35])
    np.testing.assert_allclose(issued.vehicles, profiles.vehicles[site.hour[rows]])
