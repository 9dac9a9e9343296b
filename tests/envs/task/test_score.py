"""Rewards of the challenges' presets: equal in both engines, and adding up to the scores of a finished period."""

import numpy as np
import pytest
import torch
from schemas import Features, write_schema
from short_case import shorten
from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs import CityLearnSite, DistrictSite
from iquitos_rl.envs.task.score import MARGIN, SCORES, Score, ScoreWeights, above
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.judging.kpis import evaluate
from iquitos_rl.judging.series import simulated_series

ROWS = 60


def folder_of(tmp_path, thermal):
    if thermal:
        return shorten(write_thermal_schema(tmp_path / "site", 2), 48)
    return write_schema(tmp_path / "site", 1, Features(rows=ROWS, buildings=(2, 3), sockets=(1, 2), omit=0.0))


@pytest.mark.parametrize(
    ("preset", "thermal"),
    [("comfort", True), ("challenge-2021", False), ("challenge-2022", False), ("challenge-2023", True)],
)
def test_both_engines_reward_the_same(tmp_path, preset, thermal):
    folder = folder_of(tmp_path, thermal)
    settings = TaskSettings.model_validate({"objective": {"preset": preset}})
    reference, engine = CityLearnSite([folder], settings), DistrictSite([folder], 1, settings, exact=True)
    reference.reset(seed=0)
    engine.reset(seed=0)
    rng, rewards, ended = np.random.default_rng(1), [], False
    while not ended:
        action = rng.uniform(-1, 1, engine.action_dim).astype(np.float32)
        _, reward, _, ended, _ = reference.step(action)
        assert reward == pytest.approx(float(engine.step(torch.from_numpy(action)[None]).reward), abs=1e-4)
        rewards.append(reward)
    assert np.std(rewards) > 0


def judged(folder):
    """A score's input over an episode of random actions, and CityLearn's KPIs of it."""
    env = CityLearnSite([folder])
    env.reset(seed=0)
    rng, steps, ended, net = np.random.default_rng(1), [], False, torch.zeros(1, env.task.num_buildings)
    while not ended:
        _, _, _, ended, _ = env.step(rng.uniform(-1, 1, env.task.action_dim).astype(np.float32))
        flows = env.flows
        after = torch.from_numpy(flows.net)[None]
        steps.append((after, net, torch.from_numpy(flows.temperature)[None], torch.tensor([float(flows.unserved)])))
        net = after
    return steps, simulated_series(env.simulator)


def mean_score(site, steps, weights, band=1.0):
    score = Score([site], ScoreWeights(**weights), band, torch.device("cpu"), torch.float64)
    return np.mean([float(score.step(torch.tensor([t]), *step)) for t, step in enumerate(steps)])


@pytest.mark.parametrize("thermal", [False, True])
def test_sums_over_steps_are_the_kpis(tmp_path, thermal):
    """A term's mean is its KPI, whatever was done."""
    folder = folder_of(tmp_path, thermal)
    site = read_site(folder)
    steps, series = judged(folder)
    names = {"cost": "cost_total", "carbon": "carbon_emissions_total", "imported": "electricity_consumption_total"}
    if thermal:
        names = {"discomfort": "discomfort_proportion", "resilience": "one_minus_thermal_resilience_proportion"}
    kpis = evaluate(series, band=1.0)
    for term, name in names.items():
        assert mean_score(site, steps, {term: 1.0}) == pytest.approx(float(kpis.district[name]), rel=1e-5), name


def test_an_even_import_scores_best_in_what_stands_for_load_factors_and_peaks(tmp_path):
    site = read_site(folder_of(tmp_path, False))
    score = Score(
        [site], SCORES["challenge-2022"]._replace(cost=0.0, carbon=0.0), 1.0, torch.device("cpu"), torch.float64
    )
    rng = np.random.default_rng(0)
    buildings = len(site.buildings)
    uneven = torch.from_numpy(rng.uniform(0, 9, (site.rows - 1, buildings)))
    even = uneven.mean(0, keepdim=True).expand_as(uneven)
    row = torch.arange(site.rows - 1)

    def total(net):
        return float(score.step(row, net, torch.cat([net[:1], net[:-1]]), None, None).sum())

    assert total(even) < total(uneven)


def test_weights_add_up_to_one():
    for weights in SCORES.values():
        assert sum(weights) == pytest.approx(1.0)


def test_the_site_itself_has_the_score_of_no_control(tmp_path):
    """Each term is 1 on average where nothing is controlled; the first step's rise apart."""
    site = read_site(folder_of(tmp_path, False))
    for weights in SCORES.values():
        score = Score([site], weights._replace(ramping=0.0), 1.0, torch.device("cpu"), torch.float64)
        expected = 1 - weights.ramping - weights.discomfort - weights.resilience - weights.unserved
        assert score.idle([site])[0][:-1].mean() == pytest.approx(expected)


def test_a_count_has_a_slope_that_points_inside():
    """The same numbers with and without autograd, also where a bound is infinitely far."""
    excess = torch.tensor([-np.inf, -40.0, -2 * MARGIN, -MARGIN / 2, 0.0, 0.3, 40.0], dtype=torch.float64)
    traced = excess.clone().requires_grad_()
    counted = above(traced)
    counted.sum().backward()
    assert above(excess).tolist() == [0, 0, 0, 0, 0, 1, 1]
    torch.testing.assert_close(counted.detach(), above(excess))
    assert traced.grad.tolist() == [0, 0, 0, 1, 1, 1, 1]


def test_discomfort_has_a_gradient_into_the_band(tmp_path):
    site = read_site(folder_of(tmp_path, True))
    score = Score([site], ScoreWeights(discomfort=1.0), 1.0, torch.device("cpu"), torch.float64)
    rows = torch.arange(site.rows)
    middle = np.stack([np.nanmean(building.set_points, axis=1) for building in site.buildings], axis=-1)
    nothing = torch.zeros(site.rows, len(site.buildings), dtype=torch.float64)
    for shift in (-6.0, 6.0):
        inside = torch.from_numpy(middle + shift).requires_grad_()
        score.step(rows, nothing, nothing, inside, None).sum().backward()
        felt = inside.grad[torch.isfinite(inside.grad) & (inside.grad != 0)]
        assert len(felt) > 0
        assert (felt * shift > 0).all()
