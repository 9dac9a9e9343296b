"""Planning controllers: where they stand between the uncontrolled site and the optimum, and what they never do."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from short_case import shorten
from sites import generated_site, objective_of

from iquitos_rl.baselines.bill import gap_share, run_year, start_at
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.baselines.planner import fit_planner
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, default_settings
from iquitos_rl.baselines.tune_planner import planning
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings


def bill_of(env, controller):
    return run_year(env, lambda obs: torch.from_numpy(controller.predict(obs[0].numpy()))[None])


@pytest.mark.parametrize("preset", ["iquitos-38", "iquitos-128"])
def test_they_lie_between_the_uncontrolled_site_and_the_optimum(tmp_path, preset):
    site = read_site(shorten(build_case(preset, 0, tmp_path / "case"), 5 * 24 + 1))
    env = DistrictSite([site])
    best = float(optimum(site, objective_of(site)).bill.total)
    idle = float(run_year(env, Rule(env.task, default_settings("uncontrolled", fit_profiles([site])))).total[0])
    share = {}
    for name in ("mpc", "mpc-perfect", "day-ahead"):
        planner = fit_planner(name, [site], env.task.objective)
        share[name] = gap_share(float(bill_of(env, planning(env.task, planner)).total[0]), idle, best)
    assert share["mpc"] > 0.5
    assert share["day-ahead"] > 0.4
    assert max(share["mpc"], share["day-ahead"]) < share["mpc-perfect"] < 1
    assert share["mpc-perfect"] > 0.9


def test_before_the_hour_is_known_its_load_changes_nothing(tmp_path):
    small = {"sockets.moto_count": 2, "sockets.mototaxi_count": 1}
    site = read_site(shorten(build_case("iquitos-38", 0, tmp_path / "case", small), 13 * 24))
    start, row, building = 24 * 10, 24 * 10 + 3, site.buildings[0]
    load = np.where(np.arange(site.rows) == row, 2 * building.load, building.load)
    other = replace(site, buildings=(replace(building, load=load),))
    planner, acted = None, {}
    for present in ("known", "last"):
        for which, own in (("as it is", site), ("doubled", other)):
            env = DistrictSite([own], 1, TaskSettings(present=present))
            planner = planner or fit_planner("mpc", [site], env.task.objective)
            controller = planning(env.task, planner, row=start)
            obs = start_at(env, torch.tensor([start]), torch.tensor([0]))
            for _ in range(start, row):
                obs = env.step(torch.from_numpy(controller.predict(obs[0].numpy()))[None]).obs
            acted[present, which] = controller.predict(obs[0].numpy())
    assert (acted["last", "as it is"] == acted["last", "doubled"]).all()
    assert (acted["known", "as it is"] != acted["known", "doubled"]).any()


def test_on_several_buildings_each_has_its_own_plan(tmp_path):
    site = generated_site(tmp_path / "site", 3)
    env = DistrictSite([site])
    planner = fit_planner("mpc", [site], env.task.objective)
    controller = planning(env.task, planner)
    bill = bill_of(env, controller).weighted(env.task.objective.weights)
    idle = run_year(env, Rule(env.task, default_settings("uncontrolled", planner.profiles)))
    assert np.isfinite(bill).all()
    assert bill[0] < idle.weighted(env.task.objective.weights)[0]
