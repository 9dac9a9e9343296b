"""What planners learn: kept as it was, refused where it is not, and never tuned to something worse."""

import json

import numpy as np
import pytest
from short_case import shorten

from iquitos_rl.baselines.planner import KINDS, RANGES, Planner, fit_planner
from iquitos_rl.baselines.tune_planner import months_in_turn, planned_bill, tune_planner
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.errors import UserError


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    settings = {"sockets.moto_count": 2, "sockets.mototaxi_count": 1}
    case = build_case("iquitos-38", 0, tmp_path_factory.mktemp("years") / "case", settings)
    return read_site(shorten(case, 4 * 24, 29 * 24))


@pytest.fixture(scope="module")
def planner(site):
    return fit_planner("mpc", [site], DistrictSite([site]).task.objective)


def test_it_is_the_same_after_it_was_stored(planner):
    found = Planner.from_json(json.loads(json.dumps(planner.to_json())), 1)
    assert (found.name, found.steps, found.parameters) == (planner.name, planner.steps, planner.parameters)
    for own, other in zip(
        (*found.profiles, *found.scenarios, found.later), (*planner.profiles, *planner.scenarios, planner.later)
    ):
        np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "no such"),
        ("parameters", {"spread": 1.0}),
        ("parameters", dict.fromkeys(RANGES, float("inf"))),
        ("later", [[1.0]]),
        ("scenarios", {"error": [1.0], "probability": [1.0]}),
        ("profiles", None),
        ("steps", "many"),
    ],
)
def test_anything_else_is_refused(planner, key, value):
    with pytest.raises(UserError, match="the stored plan"):
        Planner.from_json({**planner.to_json(), key: value}, 1)
    with pytest.raises(UserError, match="the stored plan"):
        Planner.from_json(planner.to_json(), 2)


@pytest.mark.parametrize("name", ["mpc-perfect", "day-ahead"])
def test_tuning_ends_no_worse_than_it_began(site, name):
    shares = []
    tuned = tune_planner(name, [site], on_share=shares.append)
    months = months_in_turn([site])
    env = DistrictSite([site], len(months))
    start = fit_planner(name, [site], env.task.objective)
    assert planned_bill(env, tuned, months) <= planned_bill(env, start, months)
    assert shares == sorted(shares)
    assert 0 <= shares[0] < shares[-1] <= 1
    changed = {key for key in RANGES if tuned.parameters[key] != start.parameters[key]}
    assert changed <= set(KINDS[name].tuned)
    assert all(own.low <= tuned.parameters[key] <= own.high for key, own in RANGES.items())


def test_months_are_taken_from_one_year_after_the_other(site):
    assert [month.year for month in months_in_turn([site] * 3)] == [0]
    months = months_in_turn([read_site(site.path)])
    assert months[0].first == 0
