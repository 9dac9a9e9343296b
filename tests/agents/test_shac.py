"""SHAC against gradients worked out by hand, whole against in parts, and resumed against not interrupted."""

import copy

import numpy as np
import pytest
import torch
from sites import plain_battery, site_of
from street import street
from toy import ToyBattery

from iquitos_rl.agents import SHAC, SHACConfig
from iquitos_rl.baselines.bill import run_year
from iquitos_rl.baselines.guided import GuidedSite
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.recording import record_years
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import Objective, ObjectiveSettings, Tariff, read_tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.memory import recovery
from iquitos_rl.memory.planner import HOLES, Limits, fit
from iquitos_rl.memory.rehearsal import TensorPeak

TINY = {"hidden": (8,), "horizon": 6, "batch_size": 32}


class Drift(VectorEnv):
    """A point x is pushed by actions, x' = x + a, and pays x'^2; an environment ends after its own number of steps."""

    differentiable = True

    def __init__(self, lengths, terminates):
        self.num_envs, self.obs_dim, self.action_dim = len(lengths), 1, 1
        self.device, self.lengths, self.terminates = torch.device("cpu"), torch.tensor(lengths), terminates

    def reset(self, seed=None):
        self.x, self.t = torch.linspace(0.5, 1.0, self.num_envs)[:, None], torch.zeros(self.num_envs, dtype=torch.int64)
        return self.x

    def step(self, action):
        x, self.t = self.x + action, self.t + 1
        ended, never = self.t >= self.lengths, torch.zeros(self.num_envs, dtype=torch.bool)
        self.t = torch.where(ended, 0, self.t)
        self.x = torch.where(ended[:, None], 1.0, x)
        ends = (ended, never) if self.terminates else (never, ended)
        return StepResult(self.x, -x[:, 0].square(), *ends, x, {})

    def detach(self):
        self.x = self.x.detach()

    def state_dict(self):
        return {"x": self.x, "t": self.t}

    def load_state_dict(self, state):
        self.x, self.t = state["x"], state["t"]


@pytest.mark.parametrize("terminates", [False, True])
def test_the_gradient_is_that_of_what_a_window_earns(terminates):
    """An actor that is one weight: every reward, discount, end and bootstrap written out."""
    env, h, gamma = Drift([2, 3, 9], terminates), 4, 0.9
    actor, critic = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1)
    config = SHACConfig(**{**TINY, "horizon": h}, gamma=gamma, noise=0.0, normalise_obs=False, scale_rewards=False)
    config = config.model_copy(update={"max_grad_norm": 1e6})
    agent = SHAC(env, config, actor=actor, critic=critic)
    agent.reset()
    noise = torch.zeros(h, 3, 1)
    agent.roll_out(noise, env.state_dict(), 3)
    (found,) = (p.grad.clone() for p in agent.trained["policy"])

    def earned(w):
        total = 0.0
        for start, length in zip(np.linspace(0.5, 1.0, 3), (2, 3, 9)):
            x, t, discount = torch.tensor(start, dtype=torch.float64), 0, 1.0
            for k in range(h):
                x = x + torch.tanh(w * x)
                total, t, discount = total - discount * x.square(), t + 1, discount * gamma
                ended = t >= length
                if (k == h - 1 or ended) and not (ended and terminates):
                    total = total + discount * (critic.weight.double()[0, 0] * x + critic.bias.double()[0])
                if ended:
                    x, t, discount = torch.tensor(1.0, dtype=torch.float64), 0, 1.0
        return total / (3 * h)

    w = actor.weight.detach().double()[0, 0].requires_grad_()
    (expected,) = torch.autograd.grad(-earned(w), w)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """A battery, two days, and a price that is low at night."""
    price = ([0.1] * 8 + [0.5] * 16) * 2 + [0.1]
    return site_of(tmp_path_factory.mktemp("site") / "s", [20.0] * 49, price, plain_battery(60.0, 30.0, 0.5), Tariff())


def engine(site, envs=16, **more):
    return DistrictSite([site], envs, TaskSettings(), starts="random", episode_steps=24, **more)


def agent_on(site, envs=16, seed=0, **changes):
    return SHAC(engine(site, envs), SHACConfig(**{**TINY, **changes}), seed=seed)


def numbers(agent):
    return torch.cat([p.detach().flatten() for p in agent.networks.state_dict().values()])


@pytest.mark.parametrize("size", [1, 5, 8])
def test_a_window_in_parts_is_the_window(market, size):
    whole, parts = (agent_on(market) for _ in range(2))
    for agent in (whole, parts):
        agent.reset()
        agent.environment().steps_left[:] = 1000  # the order of draws at ends of episodes is not part of the rule
    noise = whole.draw_noise()
    found = [agent.roll_out(noise, agent.environment().state_dict(), n) for agent, n in ((whole, 16), (parts, size))]
    for a, b in zip(found[0][:5], found[1][:5]):
        torch.testing.assert_close(a, b)
    for p, q in zip(whole.trained["policy"], parts.trained["policy"]):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-6)
    states = [agent.environment().state_dict()["physics"] for agent in (whole, parts)]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name])


def test_out_of_memory_takes_fewer_environments_at_a_time(market, monkeypatch):
    agent, calm = agent_on(market), agent_on(market)
    for own in (agent, calm):
        own.reset()
        own.environment().steps_left[:] = 1000
    failing = iter([False] * 3 + [True])

    def taking_memory(what):
        if what == "window" and next(failing, False):
            raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr("iquitos_rl.agents.shac.taking_memory", taking_memory)
    agent.learn(96)
    calm.learn(96)
    assert agent.windows.size == 8
    torch.testing.assert_close(numbers(agent), numbers(calm), rtol=1e-3, atol=1e-4)
    assert recovery.shortage(torch.cuda.OutOfMemoryError("out of memory")) is not None


def test_it_learns_to_shift_load_to_cheap_hours(market):
    env = engine(market, 16)
    agent = SHAC(env, SHACConfig(hidden=(32,), horizon=24, learning_rate=2e-2)).learn(15_000)
    judge = DistrictSite([market], 1, TaskSettings(), spec=agent.spec.environment)
    with torch.no_grad():
        mine = float(run_year(judge, lambda obs: agent.act(obs, None)).total[0])
        idle = float(run_year(judge, lambda obs: torch.zeros(1, 1)).total[0])
    best = float(optimum(market, Objective(read_tariff(market.path), ObjectiveSettings())).bill.total)
    assert (idle - mine) / (idle - best) > 0.8


def test_a_training_resumes_to_the_bit(market):
    straight = agent_on(market)
    straight.learn(until=96 * 4)
    first = agent_on(market)
    env = first.environment()
    saved = {}

    def stop(steps):
        if steps == 96 * 2:
            saved.update(agent=copy.deepcopy(first.state_dict()), env=copy.deepcopy(env.state_dict()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.learn(until=96 * 4, on_step=stop)
    second = agent_on(market, seed=5)
    second.load_state_dict(saved["agent"])
    second.environment().load_state_dict(saved["env"])
    second.learn(until=96 * 4)
    assert torch.equal(numbers(straight), numbers(second))
    assert straight.updates == second.updates == 4


def test_environments_without_a_gradient_are_refused(market):
    for env in (ToyBattery(), engine(market, exact=True)):
        with pytest.raises(UserError, match="follows the gradient of the simulation"):
            SHAC(env)


def test_a_policy_is_deterministic_inside_the_space_and_found_again(market, tmp_path):
    agent = agent_on(market).learn(96)
    obs = np.random.default_rng(0).uniform(-1, 1, (7, agent.spec.obs_dim)).astype(np.float32)
    action = agent.predict(obs)
    assert np.array_equal(action, agent.predict(obs))
    assert (np.abs(action) <= 1).all()
    assert not np.array_equal(action, agent.predict(obs, deterministic=False))
    agent.save(tmp_path / "policy")
    assert np.array_equal(SHAC.load(tmp_path / "policy").predict(obs), action)


@pytest.mark.parametrize("buildings", [1, 8])
def test_the_plan_is_the_peak(week_38, tmp_path, buildings):
    site = read_site(week_38) if buildings == 1 else street(tmp_path / "street", buildings)
    env = DistrictSite([site], 64, TaskSettings(), starts="random", episode_steps=24)
    env.reset(seed=0)
    config = SHACConfig(hidden=(64, 64), horizon=12)
    plan = fit(SHAC, env, config, Limits(None, 1 << 34, 1 << 34), 0)
    with TensorPeak() as taken:
        SHAC(env, plan.config).learn(64 * 12 * 2)
    tensors = sum(item.nbytes for item in plan.items if item.name != HOLES)
    assert tensors + env.num_envs * env.state_bytes == pytest.approx(taken.peak, rel=0.1)


def test_it_learns_around_a_guide_and_counts_rewards_from_its_own(week_38):
    """Through expected demand charges, a fleet's bounds and the rule's own slopes."""
    site = read_site(week_38)
    rule, task = default_settings("strongest", fit_profiles([site])), TaskSettings()
    trajectory = record_years([site], rule, task)
    env = DistrictSite([site], 8, task, starts="random", episode_steps=48, trajectory=trajectory)
    agent = SHAC(GuidedSite(env, rule, reach=0.1, beyond=0.5), SHACConfig(**TINY))
    before = numbers(agent)
    agent.learn(2 * 8 * 6)
    assert agent.updates == 2
    assert torch.isfinite(numbers(agent)).all()
    assert not torch.equal(before, numbers(agent))
