"""Numbers that are not finite: found with name and step, and never trained on, however late the host looks."""

from copy import deepcopy

import pytest
import torch
from scripted_env import ScriptedEnv

from iquitos_rl.agents import A2C, PPO, SAC
from iquitos_rl.agents.a2c import A2CConfig
from iquitos_rl.agents.metrics import Metrics
from iquitos_rl.agents.ppo import PPOConfig
from iquitos_rl.agents.rmsprop import RMSpropTF
from iquitos_rl.agents.sac import SACConfig
from iquitos_rl.errors import UserError

AGENTS = {
    "sac": lambda: SAC(ScriptedEnv(), SACConfig(hidden=(8,), batch_size=8, learning_starts=9, log_every=60)),
    "ppo": lambda: PPO(ScriptedEnv(), PPOConfig(hidden=(8,), horizon=4, batch_size=4, epochs=3, schedule="constant")),
    "a2c": lambda: A2C(ScriptedEnv(), A2CConfig(hidden=(8,), horizon=4, log_every=60, schedule="constant")),
}
GRADIENTS = {"critic": "critic_grad_norm", "actor": "policy_grad_norm"}


def learned(name, agent):
    """Everything that updates change, copied; observation statistics are not among it."""
    state = agent.state_dict()
    if name == "sac":
        nets = {net: getattr(agent, net).state_dict() for net in ("actor", "critic")}
        return deepcopy({**nets, "log_alpha": agent.log_alpha, "optimizers": state["optimizers"]})
    return deepcopy({"policy": dict(agent.policy.named_parameters()), "optimizers": state["optimizers"]})


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
        evaluate = whole.evaluate

        def spoiled(*fields):
            metrics, (first, *others) = evaluate(*fields)
            return metrics, [spoil(first), *others]

        whole.evaluate = spoiled
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


def parameters():
    g = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=g)) for shape in ((7, 5), (1, 5), ())]


def steps(optimizer, params, count, seed):
    g = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for p in params:
            p.grad = torch.randn(p.shape, generator=g)
        optimizer.step()


def test_torchs_adam_with_found_inf_changes_nothing():
    """The guard rests on this: neither weights nor moments nor the count of steps."""
    params = parameters()
    optimizer = torch.optim.Adam(params, lr=1e-3, fused=True)
    optimizer.found_inf = torch.zeros(())
    steps(optimizer, params, 3, 1)
    before, state = deepcopy(params), deepcopy(optimizer.state_dict())
    optimizer.found_inf.fill_(1.0)
    steps(optimizer, params, 2, 2)
    assert all(torch.equal(p, q) for p, q in zip(params, before))
    for one, other in zip(optimizer.state_dict()["state"].values(), state["state"].values()):
        assert all(torch.equal(one[name], other[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


@pytest.mark.parametrize("name", AGENTS)
def test_optimisers_continue_bit_for_bit_from_their_state(name):
    whole, first, second = (AGENTS[name]() for _ in range(3))
    for agent, seeds in ((whole, (1, 2)), (first, (1,))):
        for seed in seeds:
            for optimizer in agent.optimizers.values():
                steps(optimizer, optimizer.param_groups[0]["params"], 5, seed)
    second.load_state_dict(deepcopy(first.state_dict()))
    for optimizer in second.optimizers.values():
        steps(optimizer, optimizer.param_groups[0]["params"], 5, 2)
    for one, other in zip(whole.networks.parameters(), second.networks.parameters(), strict=True):
        assert torch.equal(one, other)


def test_means_are_those_since_the_last_call():
    metrics = Metrics([], torch.device("cpu"))
    assert metrics.means() == {}
    for x in (1.0, 2.0):
        metrics.add({"a": torch.tensor(x)})
        metrics.add({"b": torch.tensor(10 * x), "c": torch.tensor(0.0)})
    assert metrics.means() == {"a": 1.5, "b": 15.0, "c": 0.0}
    metrics.add({"b": torch.tensor(5.0), "c": torch.tensor(7.0)})
    assert metrics.means() == {"b": 5.0, "c": 7.0}
    assert metrics.found == 0


def test_sums_continue_from_their_state():
    metrics, again = (Metrics([], torch.device("cpu")) for _ in range(2))
    metrics.add({"a": torch.tensor(1.0), "b": torch.tensor(2.0)})
    again.load_state_dict(metrics.state_dict())
    for each in (metrics, again):
        each.add({"a": torch.tensor(2.0), "b": torch.tensor(4.0)})
        assert each.means() == {"a": 1.5, "b": 3.0}


def test_what_was_found_stays_until_somebody_looks():
    metrics = Metrics([], torch.device("cpu"))
    for step, value in ((3, 1.0), (6, float("-inf")), (9, float("inf")), (12, 1.0)):
        metrics.at_step(step)
        metrics.add({"a": torch.tensor(1.0), "b": torch.tensor(value)})
    for look in (metrics.check, metrics.means):
        with pytest.raises(UserError, match="b is nan at step 6"):
            look()
