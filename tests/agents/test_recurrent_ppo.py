"""PPO with a memory: sequences against a step-by-step loop, what it remembers as it acts, and a task that needs it."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scripted_env import ScriptedEnv
from torch import Tensor, nn

from iquitos_rl.agents import PPO, PPOConfig, RecurrentPPO, RecurrentPPOConfig, load_agent, run_episodes
from iquitos_rl.agents.features import Perceptron
from iquitos_rl.agents.gae import gae
from iquitos_rl.agents.recurrent import Recurrent
from iquitos_rl.agents.recurrent_ppo import loss
from iquitos_rl.envs.gym.spaces import action_of
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.memory import recovery

HORIZON, SEQUENCE, ENVS = 24, 6, 3
SMALL = RecurrentPPOConfig(memory=5, hidden=(4,), horizon=HORIZON, sequence=SEQUENCE, batch_size=36, epochs=2)


class Recall(VectorEnv):
    """A cue of -1 or 1 in the first observation; `delay` steps later the action must name it. Else nothing is shown or
    paid."""

    def __init__(self, num_envs: int = 16, delay: int = 4) -> None:
        self.num_envs, self.obs_dim, self.action_dim, self.choices, self.delay = num_envs, 2, 1, (2,), delay
        self.action_space = action_of(gymnasium.spaces.Discrete(2))
        self.device = torch.device("cpu")

    def reset(self, seed: int | None = None) -> Tensor:
        self.generator = torch.Generator().manual_seed(seed or 0)
        self.age = torch.randint(self.delay + 1, (self.num_envs,), generator=self.generator)  # not all in step
        self.cue = self.drawn()
        return self.seen()

    def drawn(self) -> Tensor:
        return torch.randint(2, (self.num_envs,), generator=self.generator)

    def seen(self) -> Tensor:
        return torch.stack([(2 * self.cue - 1) * (self.age == 0), self.age == self.delay], 1).float()

    def step(self, action: Tensor) -> StepResult:
        last = self.age == self.delay
        reward = (last & (action[:, 0] == self.cue)).float()
        self.age = torch.where(last, 0, self.age + 1)
        self.cue = torch.where(last, self.drawn(), self.cue)
        next_obs = torch.where(last[:, None], torch.zeros(self.num_envs, 2), self.seen())
        return StepResult(self.seen(), reward, last, torch.zeros_like(last), next_obs, {})

    def state_dict(self) -> dict[str, Any]:
        return {"age": self.age, "cue": self.cue, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.age, self.cue = state["age"].clone(), state["cue"].clone()
        self.generator = torch.Generator()
        self.generator.set_state(state["generator"])


def recall_return(kind: type[PPO], config: PPOConfig, steps: int) -> float:
    """Share of cues that are named right; a first episode may begin after its cue, and does not count."""
    agent = kind(Recall(), config, seed=0).learn(steps)
    return float(np.reshape(run_episodes(agent, Recall(), 16 * 20).returns, (16, 20))[:, 1:].mean())


def test_it_learns_what_needs_a_memory_and_plain_ppo_does_not() -> None:
    common: dict[str, Any] = {"horizon": 32, "batch_size": 256, "epochs": 6, "learning_rate": 3e-3, "hidden": (32,)}
    memory = RecurrentPPOConfig(memory=16, sequence=16, **common)
    assert recall_return(RecurrentPPO, memory, 5_000) > 0.97
    assert recall_return(PPO, PPOConfig(**common), 5_000) < 0.65


# --- sequences


def naive(net: Recurrent, rows: Tensor, state: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """One sequence, step by step, by the formulas of the GRU (Cho et al. 2014, as PyTorch writes them)."""
    cell, outputs = net.cell, []
    for row, starts_here in zip(rows, starts):
        state = state * 0 if starts_here else state
        (ir, iz, i_n), (hr, hz, hn) = (
            (w @ x + b).chunk(3)
            for w, x, b in ((cell.weight_ih, row, cell.bias_ih), (cell.weight_hh, state, cell.bias_hh))
        )
        r, z = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
        n = torch.tanh(i_n + r * hn)
        state = (1 - z) * n + z * state
        x = state
        weights = list(zip(net.layers.weights, net.layers.biases))
        for k, (w, b) in enumerate(weights):
            x = w @ x + b
            x = torch.tanh(x) if k < len(weights) - 1 else x
        outputs.append(x)
    return torch.stack(outputs), state


def test_gradients_are_those_of_a_loop_in_float64() -> None:
    agent = RecurrentPPO(ScriptedEnv(), SMALL)
    policy = agent.policy.double()
    generator = torch.Generator().manual_seed(0)
    batch = agent.collector.stored()
    index = torch.tensor([1, 4, 7, 10])
    args = agent.arguments(batch, index)
    n, length = len(index), SEQUENCE
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    part = args[0]._replace(
        obs=draw(n, length, 4), action=draw(n, length, 2), log_prob=draw(n, length) - 3, live=None,
        advantage=draw(n, length), returns=draw(n, length),
    )  # fmt: skip
    state, starts = draw(n, 10), torch.rand(n, length, generator=generator) < 0.3
    assert starts[:, 1:].any()
    for bias in (b for net in (policy.actor, policy.critic) for b in (net.cell.bias_ih, net.cell.bias_hh)):
        bias.data.normal_(generator=generator)
    total, _ = loss(policy, 0.2, 0.5, 0.01, part, state, starts)
    parameters = list(policy.parameters())
    found = torch.autograd.grad(total, parameters)

    terms = []
    deviation = policy.log_std.exp()
    for s in range(n):
        mean, _ = naive(policy.actor, part.obs[s], state[s, :5], starts[s])
        value, _ = naive(policy.critic, part.obs[s], state[s, 5:], starts[s])
        normal = torch.distributions.Normal(mean, deviation)
        ratio = (normal.log_prob(part.action[s]).sum(-1) - part.log_prob[s]).exp()
        gain = torch.minimum(ratio * part.advantage[s], ratio.clamp(0.8, 1.2) * part.advantage[s])
        terms.append(-gain + 0.25 * (value[:, 0] - part.returns[s]) ** 2 - 0.01 * normal.entropy().sum(-1))
    expected = torch.autograd.grad(torch.cat(terms).mean(), parameters)
    assert float(total.detach()) == pytest.approx(float(torch.cat(terms).mean().detach()), rel=1e-12)
    for p, q in zip(found, expected, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12)


def test_a_rollout_is_what_each_environment_lived_through() -> None:
    """States, values and log-probabilities are recomputed for each environment alone from its episodes' first steps."""
    env = ScriptedEnv(ENVS)
    config = SMALL.model_copy(update={"normalise_obs": False, "scale_rewards": False})
    agent = RecurrentPPO(env, config)
    collector, policy = agent.collector, agent.policy
    policy.actor.layers.weights[-1].data.mul_(100)
    state = [torch.zeros(1, 10) for _ in range(ENVS)]
    for rollout in range(3):
        batch = collector.collect()
        value, next_value = torch.zeros(HORIZON, ENVS), torch.zeros(HORIZON, ENVS)
        for e in range(ENVS):
            for t in range(HORIZON):
                k = rollout * HORIZON + t
                if t % SEQUENCE == 0:
                    torch.testing.assert_close(collector.states[t // SEQUENCE, e], state[e][0])
                step, obs = env.steps[k], env.observations[k][e : e + 1]
                with torch.no_grad():
                    output, value[t, e], state[e] = policy.both(obs, state[e])
                    next_value[t, e] = policy.value_of(step.next_obs[e : e + 1], state[e])
                place = t * ENVS + e
                found = policy.log_prob(batch.action[place : place + 1], output, None)
                torch.testing.assert_close(found[0], batch.log_prob[place], atol=1e-5, rtol=1e-5)
                if step.terminated[e] or step.truncated[e]:
                    state[e] = torch.zeros(1, 10)
        torch.testing.assert_close(batch.value.view(HORIZON, ENVS), value, atol=1e-5, rtol=1e-5)
        steps = env.steps[rollout * HORIZON :]
        reward, terminated, truncated = (
            torch.stack([getattr(step, name) for step in steps]) for name in ("reward", "terminated", "truncated")
        )
        expected = gae(reward, value, next_value, terminated, truncated, config.gamma, config.gae_lambda)
        torch.testing.assert_close(batch.advantage.view(HORIZON, ENVS), expected, atol=1e-3, rtol=1e-4)
        assert truncated.sum() > 3


@pytest.mark.parametrize("masked", [False, True])
def test_the_ratio_starts_at_one_in_every_sequence(masked: bool) -> None:
    agent = RecurrentPPO(ScriptedEnv(masked=masked), SMALL)
    for _ in range(3):
        batch = agent.collector.collect()
        rows, size = agent.rows(batch.size)
        assert (rows, size) == (HORIZON // SEQUENCE * ENVS, 36 // SEQUENCE)
        part, state, starts = agent.arguments(batch, torch.arange(rows))
        metrics = agent.gradient(part, state, starts)
        assert abs(float(metrics["kl"])) < 1e-5
        assert float(metrics["clip_fraction"]) == 0.0
        assert float(metrics["value_loss"]) == pytest.approx(float(0.5 * batch.advantage.square().mean()), rel=1e-4)


def test_sequences_are_cut_from_single_environments() -> None:
    agent = RecurrentPPO(ScriptedEnv(), SMALL)
    places = agent.collector.places(torch.arange(HORIZON // SEQUENCE * ENVS))
    assert sorted(places.flatten().tolist()) == list(range(HORIZON * ENVS))
    for s, row in enumerate(places.tolist()):
        assert {place % ENVS for place in row} == {s % ENVS}
        assert [place // ENVS for place in row] == list(range(s // ENVS * SEQUENCE, (s // ENVS + 1) * SEQUENCE))


def test_parts_of_a_minibatch_give_the_same_gradient() -> None:
    agent = RecurrentPPO(ScriptedEnv(), SMALL)
    batch = agent.collector.collect()
    arguments = agent.arguments(batch, torch.arange(12))
    found = []
    for size in (12, 5):
        agent.gradients["policy"].set(arguments, size)
        found.append([p.grad.clone() for p in agent.policy.parameters()])
    for p, q in zip(*found, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_captured_as_graphs_it_learns_the_same(graph_device: str) -> None:
    whole, other = (
        RecurrentPPO(ScriptedEnv(), RecurrentPPOConfig(**{**SMALL.model_dump(), "compile": mode}), graph_device)
        for mode in ("off", "graphs")
    )
    for agent in (whole, other):
        agent.learn(3 * HORIZON * ENVS)
    for p, q in zip(whole.policy.parameters(), other.policy.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_it_learns_the_same_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the first two attempts at every gradient."""
    calm, agent = (RecurrentPPO(ScriptedEnv(), SMALL.model_copy(update={"batch_size": 72})) for _ in range(2))
    agent.micro_batch.floor = 3
    calm.learn(3 * HORIZON * ENVS)
    tried: list[int | None] = []

    def fail(what: str) -> None:
        if what == "gradient" and agent.micro_batch.size != 3:
            tried.append(agent.micro_batch.size)
            raise torch.OutOfMemoryError

    monkeypatch.setattr(recovery, "failure", fail)
    agent.learn(3 * HORIZON * ENVS)
    assert tried == [None, 6]
    assert (agent.steps, agent.updates) == (calm.steps, calm.updates)
    for p, q in zip(calm.policy.parameters(), agent.policy.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_a_horizon_that_is_no_number_of_sequences_is_refused() -> None:
    assert RecurrentPPOConfig(horizon=37, sequence=None).length == 37
    with pytest.raises(ValidationError, match="horizon 37 is not a multiple of sequence 32"):
        RecurrentPPOConfig(horizon=37)
    with pytest.raises(ValidationError):
        RecurrentPPOConfig(shared=True)


# --- acting, keeping


def trained(env: Any = None, **changes: Any) -> RecurrentPPO:
    agent = RecurrentPPO(ScriptedEnv() if env is None else env, SMALL.model_copy(update=changes)).learn(150)
    agent.policy.actor.layers.weights[-1].data.mul_(100)  # so that what it remembers shows in its actions
    return agent


def test_predict_remembers_each_row_until_it_is_told_to_forget() -> None:
    agent = trained()
    series = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    together = np.stack([agent.predict(rows) for rows in series])
    for e in range(3):
        agent.forget()
        alone = [agent.predict(rows[e]) for rows in series]
        np.testing.assert_allclose(np.stack(alone), together[:, e], rtol=1e-4, atol=1e-5)
    agent.forget()
    again = [agent.predict(rows) for rows in series[:3]]
    agent.forget(torch.tensor([True, False, True]))
    ended = agent.predict(series[3])
    np.testing.assert_array_equal(ended[1], together[3, 1])
    agent.forget()
    np.testing.assert_allclose(ended[[0, 2]], agent.predict(series[3])[[0, 2]], rtol=1e-4, atol=1e-5)
    assert np.abs(ended[0] - together[3, 0]).max() > 1e-3
    np.testing.assert_array_equal(again, together[:3])


def test_a_saved_policy_acts_alike_and_training_leaves_what_it_remembers_alone(tmp_path: Path) -> None:
    agent = trained(normalise_obs=False)
    series = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    assert isinstance(loaded, RecurrentPPO)
    first = [agent.predict(row) for row in series[:2]]
    agent.collector.collect()
    found = [*first, *(agent.predict(row) for row in series[2:])]
    np.testing.assert_array_equal(found, [loaded.predict(row) for row in series])


class Walk(gymnasium.Env[Any, Any]):
    """Episodes of different lengths, in which the past matters to a policy that has one."""

    observation_space = gymnasium.spaces.Box(-5.0, 5.0, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(3, 9))
        return self.np_random.normal(size=4).astype(np.float32).clip(-5, 5), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        obs = self.np_random.normal(size=4).astype(np.float32).clip(-5, 5)
        return obs, float(action.sum()), False, self.left == 0, {}


def test_an_evaluation_remembers_each_environments_own_episode() -> None:
    agent = trained([Walk] * 3)
    agent.predict(np.ones(4, np.float32))
    together = run_episodes(agent, [Walk] * 3, 9, seed=5)
    alone = [run_episodes(agent, Walk(), 3, seed=5 + i) for i in range(3)]
    np.testing.assert_allclose(together.returns, [x for one in alone for x in one.returns], rtol=1e-4)
    env, returns = Walk(), []
    for episode in range(3):
        obs, _ = env.reset(seed=5 if episode == 0 else None)
        agent.forget()
        total, ended = 0.0, False
        while not ended:
            obs, reward, _, ended, _ = env.step(agent.predict(obs))
            total += reward
        returns.append(total)
    np.testing.assert_allclose(returns, together.returns[:3], rtol=1e-4)


@pytest.mark.parametrize("stop", [5 * 16, 32 * 16, 37 * 16])
def test_it_goes_on_to_the_bit_from_any_step(stop: int) -> None:
    config = RecurrentPPOConfig(memory=5, hidden=(4,), horizon=16, sequence=8, batch_size=64, epochs=2)
    whole = RecurrentPPO(Recall(delay=6), config, seed=3)
    whole.learn(until=48 * 16)

    class Stop(Exception):
        pass

    def at(steps: int) -> None:
        if steps == stop:
            raise Stop

    first = RecurrentPPO(Recall(delay=6), config, seed=3)
    with pytest.raises(Stop):
        first.learn(until=48 * 16, on_step=at)
    state, world = deepcopy((first.state_dict(), first.env.state_dict()))
    second = RecurrentPPO(Recall(delay=6), config, seed=8)
    second.load_state_dict(state)
    second.env.load_state_dict(world)
    second.learn(until=48 * 16)
    for p, q in zip(second.policy.parameters(), whole.policy.parameters(), strict=True):
        assert torch.equal(p, q)


def test_save_and_load_go_on_in_new_episodes(tmp_path: Path) -> None:
    agent = RecurrentPPO(Recall(), SMALL.model_copy(update={"batch_size": 96}), seed=1).learn(400)
    agent.save(tmp_path)
    loaded = RecurrentPPO.load(tmp_path, Recall(num_envs=8))
    assert not loaded.collector.state.any()
    assert loaded.learn(200).steps > 500


# --- spaces and networks


@pytest.mark.parametrize(
    "space",
    [
        gymnasium.spaces.Box(-2.0, 3.0, (2, 2), np.float32),
        gymnasium.spaces.Discrete(3),
        gymnasium.spaces.MultiDiscrete([2, 3]),
        gymnasium.spaces.MultiBinary(2),
    ],
)
def test_every_kind_of_action(space: Any) -> None:
    class Any_(Walk):
        action_space = space

        def step(self, action: Any) -> Any:
            assert space.contains(action)
            return super().step(np.asarray(action, np.float32))

    agent = RecurrentPPO([Any_] * 2, SMALL).learn(100)
    assert agent.updates > 0
    assert space.contains(agent.predict(np.zeros(4, np.float32)))


def test_features_lie_before_the_memory() -> None:
    made = []

    def features(space: Any) -> nn.Module:
        made.append(Perceptron(space.width, 7))
        return made[-1]

    agent = RecurrentPPO(ScriptedEnv(), SMALL, features=features).learn(100)
    assert len(made) == 2  # of actor and critic
    assert agent.policy.actor.net.cell.input_size == 7
    assert all(p.grad is not None for module in made for p in module.parameters())


@pytest.mark.parametrize("which", ["actor", "critic"])
def test_other_networks_are_refused(which: str) -> None:
    with pytest.raises(UserError, match="recurrent_ppo makes actor and critic itself"):
        RecurrentPPO(ScriptedEnv(), SMALL, **{which: nn.Linear(4, 2)})


def test_the_same_seed_makes_the_same_policy_and_leaves_pytorchs_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    one, two = (RecurrentPPO(ScriptedEnv(), SMALL, seed=4).learn(100) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(p, q) for p, q in zip(one.policy.parameters(), two.policy.parameters()))
