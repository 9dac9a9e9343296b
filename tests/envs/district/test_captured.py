"""The engine as CUDA graphs steps as it does as written, through ends and beginnings of episodes."""

from collections import Counter

import pytest
import torch
from model_free import MODEL_FREE

from iquitos_rl.agents import AGENTS
from iquitos_rl.baselines.guided import GuidedSite
from iquitos_rl.baselines.recording import record_years
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.machine.graphs import Graphed

ENVS = 6
SETTINGS = {
    "sac": {"hidden": (8, 8), "batch_size": 16, "learning_starts": 60, "update_ratio": 0.1, "buffer_size": 300},
    "ppo": {"hidden": (8, 8), "batch_size": 32, "horizon": 8, "epochs": 1},
    "a2c": {"hidden": (8, 8), "horizon": 8},
}


@pytest.fixture
def make(site, rule, graph_device):
    trajectory = record_years([site, site], rule, TaskSettings(), graph_device)

    def engine(guided=True):
        env = DistrictSite(
            [site, site], ENVS, device=graph_device, starts="random", episode_steps=9, trajectory=trajectory
        )
        return GuidedSite(env, rule, 0.07, 0.1) if guided else env

    return engine


@pytest.fixture
def replayed(monkeypatch):
    """How often each function was called as a graph."""
    found, call = Counter(), Graphed.__call__

    def counted(graphed, *arguments):
        found[getattr(graphed.function, "__name__", "evaluate")] += 1
        return call(graphed, *arguments)

    monkeypatch.setattr(Graphed, "__call__", counted)
    return found


def check(own, other):
    torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("guided", [True, False])
def test_captured_and_plain_steps_are_equal(make, guided, replayed):
    plain, captured = make(guided), make(guided)
    captured.capture()
    g, begun, seen, copies = torch.Generator().manual_seed(0), 0, [], []
    check(plain.reset(seed=0), captured.reset(seed=0))
    for _ in range(30):
        action = (2 * torch.rand((ENVS, plain.action_dim), generator=g) - 1).to(plain.device)
        expected, step = plain.step(action), captured.step(action)
        check(expected._asdict(), step._asdict())
        check(plain.exogenous[1:3], captured.exogenous[1:3])
        seen += [step.obs, step.next_obs]
        copies += [step.obs.clone(), step.next_obs.clone()]
        begun += int(step.truncated.sum())
    assert begun > 2 * ENVS
    check(seen, copies)
    assert replayed["_advance"] == 30
    assert replayed["_begin"] > 10
    assert replayed["act"] == 30 * guided
    assert replayed["see"] == (1 + 30 + replayed["_begin"]) * guided


def test_captured_steps_go_on_from_a_state(make):
    whole, part = make(), make()
    whole.capture()
    part.capture()
    actions = torch.rand((20, ENVS, whole.action_dim), generator=torch.Generator().manual_seed(1)).to(whole.device)
    whole.reset(seed=0)
    part.reset(seed=5)
    part.step(actions[0])
    for action in actions[:7]:
        whole.step(action)
    state = whole.state_dict()
    rewards = [whole.step(action).reward.clone() for action in actions[7:]]
    part.load_state_dict(state)
    check(rewards, [part.step(action).reward.clone() for action in actions[7:]])


@pytest.mark.parametrize("name", MODEL_FREE)
def test_agents_learn_the_same_with_graphs(name, make, graph_device, replayed):
    entry = AGENTS[name]
    agents = [
        entry.agent(make(), entry.config(**SETTINGS[name], compile=mode), device=graph_device, seed=1).learn(300)
        for mode in ("off", "graphs")
    ]
    assert replayed["_advance"] == replayed["act"] >= 300 / ENVS
    plain, captured = (agent.state_dict() for agent in agents)
    check(plain["networks"], captured["networks"])
    assert agents[0].updates == agents[1].updates > 3
