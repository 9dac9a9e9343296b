"""A policy judged on a site with other buildings: CityLearn against the district engine, and what is refused."""

import pytest
import torch
from schemas import Features, write_schema

from iquitos_rl.agents import PPO, PPOConfig
from iquitos_rl.baselines.bill import run_year
from iquitos_rl.baselines.guided import GuidedSite
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, default_settings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import at_site, evaluate_policy
from iquitos_rl.runs.evaluation import evaluate_run
from iquitos_rl.runs.folder import SUMMARY


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Schema folders of 2 and of 4 buildings, and one with sockets."""
    home = tmp_path_factory.mktemp("sites")
    plain = {
        "rows": 50,
        "roaming": 0.0,
        "seconds": (3600,),
        "sockets": (0, 0),
        "omit": 0.0,
        "inactive": 0.0,
        "service": 0.0,
    }
    for name, features in {
        "two": {**plain, "buildings": (2, 2)},
        "four": {**plain, "buildings": (4, 4)},
        "sockets": {**plain, "buildings": (3, 3), "sockets": (3, 3)},
    }.items():
        write_schema(home / name, 5, Features(**features))
    return home


@pytest.fixture(scope="module")
def agent(folders):
    env = DistrictSite([folders / "two"], 8, starts="random", episode_steps=24)
    return PPO(env, PPOConfig(hidden=(8, 8), horizon=24, batch_size=96, epochs=2)).learn(192)


def test_citylearn_and_the_engine_see_the_same_policy_on_other_buildings(folders, agent):
    result = evaluate_policy("ppo", agent, folders / "four", TaskSettings(), None)
    year = DistrictSite([folders / "four"], 1, spec=agent.spec.environment)
    there = at_site(agent, year.task)
    with torch.inference_mode():
        bill = run_year(year, lambda obs: there.act(obs, None).clamp(-1, 1))
        idle = run_year(year, lambda obs: torch.zeros(1, year.action_dim))
    assert year.task.num_buildings == 4
    assert result.figures["bill"] == pytest.approx(float(bill.total[0]), rel=1e-4)
    assert abs(float(bill.total[0] - idle.total[0])) > 1e-4 * float(idle.total[0])


def test_a_run_is_evaluated_on_another_number_of_buildings(folders, agent, tmp_path):
    agent.save_policy(tmp_path / "run" / "policy")
    table = evaluate_run(tmp_path / "run", str(folders / "four"), None, tmp_path / "out")
    assert "ppo closes" in table
    assert (tmp_path / "out" / SUMMARY).is_file()


def test_a_device_that_the_policy_cannot_move_is_one_sentence(folders, agent):
    with pytest.raises(UserError, match="this site has the device sockets, and the policy was trained to move battery"):
        evaluate_policy("ppo", agent, folders / "sockets", TaskSettings(), None)


def guided(folders, name):
    site = read_site(folders / "two")
    rule = default_settings(name, fit_profiles([site]))
    env = GuidedSite(DistrictSite([site], 8, starts="random", episode_steps=24), rule, 0.3, 1.0)
    return PPO(env, PPOConfig(hidden=(8, 8), horizon=24, batch_size=96, epochs=2)).learn(192)


def test_around_a_rule_with_nothing_to_tune_a_policy_goes_anywhere(folders):
    """Where the policy departs from the rule by nothing, the site's bill is the rule's."""
    agent, site = guided(folders, "self-consumption"), read_site(folders / "four")
    for weight in (agent.policy.actor.net.weights[-1], agent.policy.actor.net.biases[-1]):
        weight.detach().zero_()
    found = evaluate_policy("ppo", agent, folders / "four", TaskSettings(), None)
    year = DistrictSite([site], 1)
    rule = Rule(year.task, default_settings("self-consumption", fit_profiles([site])))
    with torch.inference_mode():
        bill = run_year(year, rule)
    assert found.figures["bill"] == pytest.approx(float(bill.total[0]), rel=1e-4)


def test_around_a_tuned_rule_it_stays_with_its_buildings(folders):
    agent = guided(folders, "strongest")
    assert evaluate_policy("ppo", agent, folders / "two", TaskSettings(), None).figures["bill"] > 0
    with pytest.raises(UserError, match="steers around the rule strongest, which was tuned to other buildings"):
        evaluate_policy("ppo", agent, folders / "four", TaskSettings(), None)


def test_a_rule_of_other_buildings_is_one_sentence(folders):
    rule = default_settings("strongest", fit_profiles([read_site(folders / "two")]))
    with pytest.raises(UserError, match="the rule strongest is of 2 buildings, and this site has 4"):
        Rule(DistrictSite([folders / "four"]).task, rule)
