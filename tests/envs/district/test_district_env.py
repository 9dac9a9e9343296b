"""The district engine against the CityLearn engine: same observation, reward, money, for the same actions."""

from functools import partial

import numpy as np
import pytest
import torch
from schemas import Features, write_schema

from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import idle_peaks
from iquitos_rl.envs.task.site_task import TaskSettings

ROWS = 168


def some_actions(env, seed=0):
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (ROWS - 1, env.task.action_dim))
    corner = rng.random(action.shape)
    action = np.where(corner < 0.15, 0.0, np.where(corner < 0.4, np.sign(action), action))
    return action.astype(np.float32)


@pytest.mark.parametrize("settings", [{}, {"sockets": "each"}, {"ev_guard": False, "sockets": "each"}])
def test_exact_mode_equals_the_reference_engine(week_38, settings):
    settings = TaskSettings(**settings)
    reference = CityLearnSite([week_38], settings)
    engine = DistrictSite([week_38], num_envs=2, settings=settings, exact=True)
    expected, _ = reference.reset(seed=0)
    obs = engine.reset(seed=0)
    np.testing.assert_array_equal(obs[0].numpy(), expected)
    for t, action in enumerate(some_actions(reference)):
        expected, reward, _, truncated, info = reference.step(action)
        step = engine.step(torch.from_numpy(action).expand(2, -1))
        np.testing.assert_allclose(step.next_obs[1].numpy(), expected, atol=2e-7, err_msg=f"hour {t}")
        assert step.reward[0].item() == pytest.approx(reward, abs=1e-6)
        assert step.truncated[0].item() == truncated
        for name, value in info.items():
            assert step.info[name][1].item() == pytest.approx(value, rel=1e-6, abs=1e-6), (name, t)
    assert truncated


@pytest.mark.gpu
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("sockets", ["each", "fleet"])
def test_a_gpu_steps_as_a_cpu(week_38, sockets, exact):
    settings = TaskSettings(sockets=sockets)
    kind = {"num_envs": 8, "settings": settings, "starts": "random", "episode_steps": 50, "exact": exact}
    here, there = (DistrictSite([week_38], device=device, **kind) for device in ("cpu", "cuda"))
    close = {"rtol": 1e-6, "atol": 1e-6} if exact else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(here.reset(seed=3), there.reset(seed=3).cpu(), **close)
    g = torch.Generator().manual_seed(0)
    for _ in range(167):
        action = torch.rand((8, here.action_dim), generator=g) * 2 - 1
        expected, step = here.step(action), there.step(action.cuda())
        torch.testing.assert_close(step.next_obs.cpu(), expected.next_obs, **close)
        torch.testing.assert_close(step.reward.cpu(), expected.reward, **close)
        assert torch.equal(step.truncated.cpu(), expected.truncated)


@pytest.mark.parametrize("sockets", ["each", "fleet"])
@pytest.mark.parametrize("features", [{"sockets": (0, 0)}, {"buildings": (3, 3), "sockets": (4, 6)}, {"service": 1.0}])
def test_generated_sites_of_every_shape_agree(tmp_path, features, sockets):
    """No socket at all, several buildings with a fleet each, limits on what a building may draw."""
    folder = write_schema(tmp_path / "site", 11, Features(rows=60, omit=0.0, **features))
    settings = TaskSettings(sockets=sockets)
    reference, engine = CityLearnSite([folder], settings), DistrictSite([folder], 1, settings, exact=True)
    expected, _ = reference.reset(seed=0)
    np.testing.assert_allclose(engine.reset(seed=0)[0].numpy(), expected, atol=5e-7)
    for action in some_actions(reference)[:59]:
        expected, reward, *_ = reference.step(action)
        step = engine.step(torch.from_numpy(action).unsqueeze(0))
        np.testing.assert_allclose(step.next_obs[0].numpy(), expected, atol=5e-7)
        assert step.reward.item() == pytest.approx(reward, rel=1e-6, abs=1e-6)


def test_fast_mode_stays_close(week_38):
    reference = CityLearnSite([week_38])
    engine = DistrictSite([week_38], num_envs=1)
    reference.reset(seed=0)
    engine.reset(seed=0)
    peak = reference.task.sites[0].buildings[0].load.max()
    for action in some_actions(reference):
        expected, _, _, _, info = reference.step(action)
        step = engine.step(torch.from_numpy(action).unsqueeze(0))
        np.testing.assert_allclose(step.next_obs[0].numpy(), expected, atol=4e-4)
        assert step.info["import_kwh"].item() == pytest.approx(info["import_kwh"], abs=1e-4 * peak)


def test_a_policy_trained_here_pays_the_same_bill_on_citylearn(week_38):
    """Fast mode, in which agents train, against the judge: within 0.1 %."""
    training = DistrictSite([week_38], num_envs=32, starts="random", episode_steps=24)
    agent = PPO(training, PPOConfig(horizon=32, batch_size=256, epochs=4, learning_rate=1e-3), seed=0)
    before = agent.predict(training.reset(seed=0))
    agent.learn(8 * 32 * 32)
    assert (agent.predict(training.reset(seed=0)) - before).abs().max() > 0.01  # it has learnt something
    spec = agent.spec.environment
    reference, engine = CityLearnSite([week_38], spec=spec), DistrictSite([week_38], spec=spec)
    obs, _ = reference.reset(seed=0)
    own = engine.reset(seed=0)
    terms = ("energy_cost", "demand_cost", "carbon_cost", "shortfall_cost")
    bill = {"citylearn": 0.0, "district": 0.0}
    truncated = False
    while not truncated:
        obs, _, _, truncated, info = reference.step(agent.predict(obs))
        step = engine.step(agent.predict(own))
        own = step.obs
        bill["citylearn"] += sum(info[term] for term in terms)
        bill["district"] += sum(step.info[term].item() for term in terms)
    assert bill["citylearn"] > 0
    assert bill["district"] == pytest.approx(bill["citylearn"], rel=1e-3)


def test_a_policy_spec_of_one_engine_serves_the_other(week_38):
    engine = DistrictSite([week_38])
    reference = CityLearnSite([week_38])
    assert engine.policy_spec == reference.policy_spec
    assert DistrictSite([week_38], spec=reference.policy_spec).policy_spec == reference.policy_spec


def test_the_step_is_one_graph_and_compiled_it_does_the_same(week_38, monkeypatch):
    """Without the code generation, which takes a compiler and half a minute; `benchmarks/speed.py` runs it in full."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    plain, compiled = (DistrictSite([week_38], 3, starts="random", episode_steps=6) for _ in range(2))
    compiled._transition = torch.compile(compiled._transition, fullgraph=True, dynamic=False)
    torch.testing.assert_close(plain.reset(seed=0), compiled.reset(seed=0))
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        action = torch.rand((3, plain.action_dim), generator=generator) * 2 - 1
        for own, other in zip(plain.step(action), compiled.step(action)):
            torch.testing.assert_close(own, other)


def test_episodes_end_truncated_and_begin_anew(week_38):
    engine = DistrictSite([week_38], num_envs=3)
    first = engine.reset(seed=0)
    for _ in range(ROWS - 1):
        step = engine.step(torch.zeros(3, engine.action_dim))
    assert step.truncated.all()
    assert not step.terminated.any()
    torch.testing.assert_close(step.obs, first)
    assert not torch.equal(step.obs, step.next_obs)


def test_random_starts_cover_hours_and_years_and_truncate_in_time(year_38, tmp_path):
    engine = DistrictSite([year_38, year_38], num_envs=200, starts="random", episode_steps=48)
    engine.reset(seed=3)
    rows = engine.physics.state.row
    assert len(set((rows % 24).tolist())) == 24
    assert set(engine.physics.state.scenario.tolist()) == {0, 1}
    ends = torch.zeros(200, dtype=torch.int64)
    for _ in range(96):
        ends += engine.step(torch.zeros(200, engine.action_dim)).truncated
    assert ((ends >= 2) & (ends <= 3)).all()


def test_an_episode_from_the_middle_of_a_month_knows_the_months_peak(year_38):
    engine = DistrictSite([year_38])
    site, tariff = engine.task.sites[0], engine.task.objective.tariff
    peaks = idle_peaks(site, tariff)
    demand = np.maximum(site.buildings[0].load - site.buildings[0].pv, 0)
    for row in (0, 5, 743, 744, 745, 3000):
        month = np.arange(site.rows)
        month = month[(site.month == site.month[row]) & (month < row)]
        peak = np.isin(site.hour[month], tariff.peak_hours)
        assert peaks[row, 0, 0] == pytest.approx(demand[month[peak]].max(initial=0))
        assert peaks[row, 0, 1] == pytest.approx(demand[month[~peak]].max(initial=0))


def test_the_same_seed_gives_the_same_episodes_and_a_saved_state_goes_on(year_38):
    def rollout(engine, steps=60):
        return torch.stack([engine.step(torch.zeros(4, engine.action_dim)).reward for _ in range(steps)])

    a, b = (DistrictSite([year_38], num_envs=4, starts="random", episode_steps=24) for _ in range(2))
    a.reset(seed=5)
    b.reset(seed=5)
    torch.testing.assert_close(rollout(a), rollout(b), rtol=0, atol=0)
    state = a.state_dict()
    expected = rollout(a)
    b.reset(seed=9)
    b.load_state_dict(state)
    torch.testing.assert_close(rollout(b), expected, rtol=0, atol=0)
