"""Numbers that are not finite: found with name and step, and never trained on, however late the host looks."""

from copy import deepcopy

import pytest
import torch
from scripted_env import ScriptedEnv

from iquitos_rl.agents import A2C, PPO, SAC
from iquitos_rl.agents.a2c import A2CConfig
from iquitos_rl.agents.figures import Figures
from iquitos_rl.agents.ppo import PPOConfig
from iquitos_rl.agents.rmsprop import RMSpropTF
from iquitos_rl.agents.sac import SACConfig
from iquitos_rl.errors import UserError

AGENTS = {
    "sac": lambda: SAC(ScriptedEnv(), SACConfig(hidden=(8,), batch_size=8, learning_starts=9, log_every=60)),
    "ppo": lambda: PPO(ScriptedEnv(), PPOConfig(hidden=(8,), horizon=4, batch_size=4, epochs=3, anneal=False)),
    "a2c": lambda: A2C(ScriptedEnv(), A2CConfig(hidden=(8,), horizon=4, log_every=60, anneal=False)),
}
GRADIENTS = {"critic": "critic_grad_norm", "actor": "policy_grad_norm"}


def learned(name, agent):
    """Everything that updates change, copied; observation statistics are not among it."""
    if name == "sac":
        state = agent.state_dict()
        return deepcopy({key: state[key] for key in ("actor", "critic", "log_alpha", "optimizers")})
    return deepcopy({"policy": dict(agent.policy.named_parameters()), "optimizer": agent.optimizer.state_dict()})


def leaves(value):
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [value]


def assert_same(a, b):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["critic", "actor"])
@pytest.mark.parametrize("name", AGENTS)
def test_a_gradient_that_is_not_finite_changes_nothing(name, part, bad):
    """One backward pass goes wrong; those after it are sound, and change nothing either."""
    agent, seen = AGENTS[name](), []

    def spoil(gradient):
        seen.append(None)
        if len(seen) == 12:
            seen[-1] = (learned(name, agent), agent.steps)
            return gradient * bad
        return gradient

    if name == "sac":
        whole = agent.gradients["critic" if part == "critic" else "policy"]
        evaluate = whole._evaluate

        def spoiled(*fields):
            figures, (first, *others) = evaluate(*fields)
            return figures, [spoil(first), *others]

        whole._evaluate = spoiled
    else:
        next(getattr(agent.policy, part).parameters()).register_hook(spoil)
    with pytest.raises(UserError, match="training diverged") as error:
        agent.learn(600)
    before, step = seen[11]
    figure = GRADIENTS[part] if name == "sac" else "grad_norm"
    assert f"{figure} is" in str(error.value)
    assert f"at step {step};" in str(error.value)
    after = learned(name, agent)
    if name == "sac" and part == "actor":  # the critic's step of that update was sound, and is over
        for state in (before, after):
            del state["critic"], state["optimizers"]["critic"]
    assert_same(after, before)
    assert len(seen) > 12 or name == "ppo"


@pytest.mark.parametrize("name", AGENTS)
def test_a_loss_that_is_not_finite_changes_nothing(name, monkeypatch):
    agent = AGENTS[name]()
    place, count, before = agent.buffer if name == "sac" else agent.collector, iter(range(1000)), []

    def spoiled(batch):
        if next(count) == 5:
            before.append(learned(name, agent))
            if name == "sac":
                batch["reward"][0] = float("nan")
            else:
                batch.returns[0] = float("nan")
        return batch

    if name == "sac":
        monkeypatch.setattr(agent, "update", lambda batch, noise: SAC.update(agent, spoiled(batch), noise))
    else:
        collect = place.collect
        monkeypatch.setattr(place, "collect", lambda *args: spoiled(collect(*args)))
    loss = "critic_loss" if name == "sac" else "value_loss"
    with pytest.raises(UserError, match=f"training diverged: {loss} is nan at step"):
        agent.learn(600)
    if name == "ppo":  # the bad transition may come in any of the update's minibatches
        assert all(leaf.isfinite().all() for leaf in leaves(learned(name, agent)) if isinstance(leaf, torch.Tensor))
    else:
        assert_same(learned(name, agent), before[0])


def test_rmsprop_with_found_inf_changes_nothing():
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = RMSpropTF([parameter], lr=0.1)
    optimizer.found_inf = torch.ones(())
    parameter.grad = torch.tensor([float("nan"), 3.0])
    optimizer.step()
    assert parameter.tolist() == [1.0, 2.0]
    assert optimizer.state[parameter]["square_average"].tolist() == [1.0, 1.0]


def test_means_are_those_since_the_last_call():
    figures = Figures(("a", "b"), [], torch.device("cpu"))
    assert figures.means() == {}
    for x in (1.0, 2.0):
        figures.add(torch.tensor([x]))
        figures.add(torch.tensor([10 * x]), first=1)
    assert figures.means() == {"a": 1.5, "b": 15.0}
    figures.add(torch.tensor([5.0, 7.0]))
    assert figures.means() == {"a": 5.0, "b": 7.0}
    assert figures.found == 0


def test_what_was_found_stays_until_somebody_looks():
    figures = Figures(("a", "b"), [], torch.device("cpu"))
    for step, value in ((3, 1.0), (6, float("-inf")), (9, float("inf")), (12, 1.0)):
        figures.at_step(step)
        figures.add(torch.tensor([1.0, value]))
    for look in (figures.check, figures.means):
        with pytest.raises(UserError, match="b is nan at step 6"):
            look()
