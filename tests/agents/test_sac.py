import copy
import inspect
import math
import statistics
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scripted_env import ScriptedEnv
from tensordict import TensorDict
from toy import HOURS, ToyBattery, optimal_return

from iquitos_rl.agents import layers, sac, squashed_gaussian
from iquitos_rl.agents.networks import MLP, Critics
from iquitos_rl.agents.sac import (
    SAC,
    Networks,
    SACConfig,
    actor_loss,
    alpha_loss,
    critic_loss,
    policy_loss,
    target_entropy,
    td_target,
)
from iquitos_rl.envs.vector import StepResult
from iquitos_rl.errors import UserError

SMALL = {"hidden": (16, 16), "batch_size": 8, "learning_starts": 10, "buffer_size": 500, "log_every": 10}


def small(env=None, seed=0, **changes):
    return SAC(env or ScriptedEnv(), SACConfig(**{**SMALL, **changes}), seed=seed)


def float64_parts(masked=False, rows=32):
    """Networks and a batch in float64; observation columns 2 and 3 say which actions are live."""
    g = torch.Generator().manual_seed(0)
    actor = MLP([4, 16, 4], generator=g).double()
    critic, target_critic = (Critics(4, 2, (16, 16), True, g, count=3).double() for _ in range(2))
    nets = Networks(actor, critic, 1.0).double()
    nets.target_critic = target_critic.requires_grad_(False)
    nets.log_alpha.data = torch.tensor(0.3, dtype=torch.float64).log()
    fields = {"observation": 4, "action": 2, "next_observation": 4, "reward": 0, "discount": 0}
    batch = TensorDict(
        {
            name: torch.randn((rows, width) if width else (rows,), dtype=torch.float64, generator=g)
            for name, width in fields.items()
        },
        batch_size=rows,
    )
    batch["discount"] = 0.97 * (batch["discount"] < 0).double()
    noise = torch.randn(2, rows, 2, dtype=torch.float64, generator=g)
    return nets, batch, noise, torch.tensor([2, 3]) if masked else None


def as_is(obs):
    return obs


@pytest.mark.parametrize("masked", [False, True])
def test_target_by_hand(masked):
    nets, batch, noise, columns = float64_parts(masked)
    target = td_target(nets, columns, batch, noise[0])
    for i in range(len(target)):
        obs = batch["next_observation"][i]
        mean, raw = nets.actor(obs[None])[0].split(2)
        std = torch.exp(-1.5 + 3.5 * torch.tanh(raw))
        action, log_prob = torch.zeros(2, dtype=torch.float64), 0.0
        for a in range(2):
            if not masked or obs[2 + a] > 0:
                u = (mean[a] + std[a] * noise[0, i, a]).item()
                action[a] = math.tanh(u)
                normal = math.exp(-0.5 * noise[0, i, a] ** 2) / (std[a].item() * math.sqrt(2 * math.pi))
                log_prob += math.log(normal * math.cosh(u) ** 2)
        q = nets.target_critic(obs[None], action[None])
        value = min(q[:, 0].tolist()) - 0.3 * log_prob
        expected = batch["reward"][i] + batch["discount"][i] * value
        assert target[i].item() == pytest.approx(expected.item(), rel=1e-9)


class OneStepEnv(ScriptedEnv):
    """Every step ends an episode, in the way asked for; `next_obs` is 7 everywhere, the first observation 1."""

    def __init__(self, terminated, truncated):
        super().__init__(num_envs=2)
        self.ends = torch.tensor([terminated, terminated]), torch.tensor([truncated, truncated])

    def reset(self, seed=None):
        return torch.ones(2, 4)

    def step(self, action):
        return StepResult(torch.ones(2, 4), torch.full((2,), 3.0), *self.ends, torch.full((2, 4), 7.0), {})


def first_column(obs, action):
    return obs[:, 0].expand(2, -1)


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [(True, False, 3), (True, True, 3), (False, True, 3 + 0.9 * 7), (False, False, 3 + 0.9 * 1)],
)
def test_bootstrap_at_episode_ends(terminated, truncated, expected):
    agent = small(OneStepEnv(terminated, truncated), gamma=0.9)
    agent.reset()
    for _ in range(5):
        agent.collect()
    batch = agent.buffer.sample(64)
    if not (terminated or truncated):  # here the successor is what the environment handed out to act on next
        assert (batch["next_observation"] == 1).all()
    nets = SimpleNamespace(actor=agent.actor, target_critic=first_column, log_alpha=torch.tensor(-math.inf), see=as_is)
    target = td_target(nets, None, batch, torch.zeros(64, 2))
    torch.testing.assert_close(target, torch.full((64,), float(expected)))


def assert_all_close(gradients, expected):
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)


def plain(net):
    """The same network as a formula that autograd differentiates operation by operation."""
    norms = list(net.norms) if isinstance(net, Critics) else ()

    def output(*inputs):
        x = layers.forward(torch.cat(inputs, -1), list(net.weights), list(net.biases), norms)[0]
        return x.squeeze(-1) if isinstance(net, Critics) else x

    return output


@pytest.mark.parametrize("masked", [False, True])
def test_critic_loss_is_half_the_squared_error_of_each(masked):
    nets, batch, noise, columns = float64_parts(masked)
    target = td_target(nets, columns, batch, noise[0])
    loss, metrics = critic_loss(nets, columns, batch, noise[0])
    q = plain(nets.critic)(batch["observation"], batch["action"])
    expected = sum(0.5 * (q[i, b] - target[b].detach()) ** 2 for i in range(3) for b in range(32)) / 32
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(metrics["critic_loss"], expected)
    torch.testing.assert_close(metrics["q"], q.mean())
    parameters = list(nets.critic.parameters())
    assert_all_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


@pytest.mark.parametrize("masked", [False, True])
def test_actor_loss_and_gradient_are_those_of_autograd(masked):
    nets, batch, noise, columns = float64_parts(masked)
    loss, metrics = actor_loss(nets, columns, batch, noise[1])
    obs = batch["observation"]
    mask = obs[:, 2:] > 0 if masked else None
    action, log_prob = squashed_gaussian.sample(plain(nets.actor)(obs), noise[1], mask)
    q = plain(nets.critic)(obs, action)
    expected = (0.3 * log_prob - q.min(0).values).mean()
    torch.testing.assert_close(metrics["entropy"], -log_prob.mean())
    torch.testing.assert_close(loss, expected)
    parameters = list(nets.actor.parameters())
    assert_all_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters))


@pytest.mark.parametrize("entropy", [-3.0, 1.0])
def test_temperature_moves_towards_the_target_entropy(entropy):
    log_alpha = torch.tensor(0.2, requires_grad=True)
    loss, metrics = alpha_loss(log_alpha, torch.tensor(entropy), -1.0)
    assert metrics["alpha"].item() == pytest.approx(math.exp(0.2))
    gradient = torch.autograd.grad(loss, log_alpha)[0]
    assert gradient.item() == pytest.approx(entropy - -1.0), "descent raises alpha while the entropy is too low"


@pytest.mark.parametrize("masked", [False, True])
def test_actor_and_temperature_share_no_gradient(masked):
    """Their losses are added: each parameter's gradient is that of its own loss."""
    nets, batch, noise, columns = float64_parts(masked)
    parameters = [*nets.actor.parameters(), nets.log_alpha]
    together = torch.autograd.grad(policy_loss(nets, columns, 0.5, batch, noise[1])[0], parameters)
    alone, metrics = actor_loss(nets, columns, batch, noise[1])
    assert_all_close(together[:-1], torch.autograd.grad(alone, parameters[:-1]))
    live = 2.0 if columns is None else (batch["observation"][:, columns] > 0).sum(1).double().mean()
    torch.testing.assert_close(together[-1], (metrics["entropy"] + 0.5 * live).detach())


def test_temperature_in_a_whole_update():
    for scale, direction in ((0.0, 1), (50.0, -1)):  # entropies far above and far below what a policy starts with
        agent = small(target_entropy_scale=scale, alpha_init=0.5)
        agent.actor.biases[-1].data[..., 2:] = 3.0 if direction < 0 else -3.0
        assert agent.log_alpha.item() == pytest.approx(math.log(0.5))
        agent.learn(40)
        assert direction * (agent.log_alpha.item() - math.log(0.5)) > 0


@pytest.mark.parametrize("part", ["critic", "actor", "alpha"])
@pytest.mark.parametrize("masked", [False, True])
def test_gradient_of_a_batch_is_the_mean_over_its_parts(part, masked):
    nets, batch, noise, columns = float64_parts(masked)

    def gradient(rows):
        if part == "critic":
            loss, parameters = critic_loss(nets, columns, batch[rows], noise[0, rows])[0], nets.critic.parameters()
        else:
            loss = policy_loss(nets, columns, 1.0, batch[rows], noise[1, rows])[0]
            parameters = nets.actor.parameters() if part == "actor" else [nets.log_alpha]
        return torch.autograd.grad(loss, list(parameters))

    whole = gradient(slice(0, 32))
    parts = [(n, gradient(rows)) for n, rows in ((5, slice(0, 5)), (20, slice(5, 25)), (7, slice(25, 32)))]
    for i, expected in enumerate(whole):
        total = sum(n / 32 * gradients[i] for n, gradients in parts)
        torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-14)


def test_actor_step_leaves_the_critics_alone():
    agent = small()
    agent.learn(10)
    batch, noise = agent.buffer.sample(8), torch.randn(2, 8, 2)
    before = copy.deepcopy(agent.networks)
    loss, _ = critic_loss(before, None, batch, noise[0])
    expected = torch.autograd.grad(loss, list(before.critic.parameters()))
    agent.update(batch, noise)
    for parameter, gradient in zip(agent.critic.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)
        assert parameter.requires_grad, "frozen while the actor's loss was computed, and no longer"
    assert all(parameter.grad is None for parameter in agent.target_critic.parameters())


def test_actor_step_computes_no_gradient_of_the_critics(monkeypatch):
    """Of all that a network's backward pass can give, the critics' is asked for the action's columns alone."""
    agent, asked = small(), []
    agent.learn(10)
    backward = layers.backward

    def recording(tape, gradient, columns, slots):
        asked.append((gradient.dim(), columns, len(slots)))
        return backward(tape, gradient, columns, slots)

    monkeypatch.setattr(layers, "backward", recording)
    agent.update(agent.buffer.sample(8), torch.randn(2, 8, 2))
    critics_turn, *actors_turn = asked
    assert critics_turn == (3, 0, len(agent._critic))
    assert actors_turn == [(3, 2, 0), (2, 0, len(list(agent.actor.parameters())))]


def test_four_calls_from_an_update_to_its_first_formula(monkeypatch):
    """An update can be read: nothing but recovery, parts of a batch and autograd is between it and the loss."""
    depths = []

    def counted(*arguments):
        depths.append(len(inspect.stack()))
        return critic_loss(*arguments)

    monkeypatch.setattr(sac, "critic_loss", counted)
    agent = small()
    agent.learn(10)
    depths.clear()
    update = SAC.update

    def watched(self, *arguments):
        depths.append(len(inspect.stack()) + 1)
        update(self, *arguments)

    monkeypatch.setattr(SAC, "update", watched)
    agent.train(1)
    start, formula = depths
    assert formula - start <= 4


def test_target_critics_follow_the_polyak_average():
    agent = small(ScriptedEnv(1), tau=0.1)
    expected = [p.detach().double() for p in agent.critic.parameters()]
    assert all(torch.equal(p, t) for p, t in zip(agent.critic.parameters(), agent.target_critic.parameters()))
    agent.learn(10)
    history = []
    for _ in range(7):
        agent.train(1)
        history.append([p.detach().double() for p in agent.critic.parameters()])
    for i, target in enumerate(agent.target_critic.parameters()):
        closed = 0.9**7 * expected[i] + sum(0.1 * 0.9 ** (6 - k) * p[i] for k, p in enumerate(history))
        torch.testing.assert_close(target.double(), closed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 1.0, 1.5, 4.0])
def test_updates_per_transition(num_envs, ratio):
    agent = small(ScriptedEnv(num_envs), update_ratio=ratio, learning_starts=12)
    while agent.steps < 120:
        agent.learn(agent.env.num_envs)
        assert agent.updates == math.floor(round(ratio * max(0, agent.steps - 12), 9))
    assert agent.steps == 120
    assert len(agent.buffer) == 120


def test_first_actions_are_uniform_whatever_the_policy():
    env = ScriptedEnv(num_envs=50)
    agent = small(env, learning_starts=2000, buffer_size=5000)
    agent.actor.weights[-1].data.zero_()
    agent.actor.biases[-1].data[:] = torch.tensor([9.0, 9.0, -9.0, -9.0])
    agent.learn(2050)
    actions = torch.cat(env.actions[:40])
    assert actions.abs().max() <= 1
    assert abs(actions.mean().item()) < 0.05
    assert actions.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.05)
    assert env.actions[40].mean() > 0.9, "then the policy acts"


def test_persistent_noise_changes_what_follows_and_not_the_single_action():
    """Correlation rho^k over k steps, and the same uniform distribution as without."""
    env = ScriptedEnv(num_envs=200)
    small(env, learning_starts=10**6, buffer_size=90_000, noise_persistence=0.9).learn(8_000)
    actions = torch.stack(env.actions).double()
    for one in (actions[0], actions[-1]):
        assert one.std().item() == pytest.approx(1 / math.sqrt(3), rel=0.1)
        assert abs(one.mean().item()) < 0.1
    noise = torch.erfinv(actions.clamp(-0.999999, 0.999999)) * math.sqrt(2)
    for k in (1, 5, 20):
        product = (noise[k:] * noise[:-k]).mean().item()
        assert product == pytest.approx(0.9**k, abs=0.06)
    env = ScriptedEnv(num_envs=200)
    small(env, learning_starts=10**6, buffer_size=90_000).learn(8_000)
    actions = torch.stack(env.actions)
    assert abs((actions[1:] * actions[:-1]).mean().item()) < 0.02


def test_dead_actions_are_zero_and_do_not_count():
    env = ScriptedEnv(num_envs=4, masked=True)
    agent = small(env)
    agent.learn(80)
    for obs, action in zip(env.observations, env.actions):
        live = obs[:, 2:4] > 0
        assert not action[~live].any()
        assert action[live].all()
    obs = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, -1], [0, 0, -1, 0]])
    assert target_entropy(obs, agent.mask_columns, 2, 1.0).tolist() == [-2, -1, 0]
    predicted = agent.predict(obs)
    assert (predicted != 0).tolist() == [[True, True], [True, False], [False, False]]
    assert target_entropy(obs, None, 2, 1.0) == -2
    assert target_entropy(obs, None, 2, 0.5) == -1


def weights(agent):
    parts = (agent.actor, agent.critic, agent.target_critic)
    parameters = [p for part in parts for p in part.parameters()] + [agent.log_alpha]
    return torch.cat([p.detach().flatten() for p in parameters])


def test_same_seed_same_weights():
    """After 1,000 steps, whatever the process-wide generator does meanwhile."""
    before = torch.get_rng_state()
    one = small(seed=5, update_ratio=0.2, buffer_size=5_000).learn(1_000)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(123)
    same, other = (small(seed=seed, update_ratio=0.2, buffer_size=5_000).learn(1_000) for seed in (5, 6))
    assert torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_predicting_does_not_disturb_training():
    one, two = small(), small()
    for steps in (20, 40, 60):
        one.learn(steps)
        two.learn(steps)
        two.predict(torch.zeros(3, 4), deterministic=False)
    assert torch.equal(weights(one), weights(two))


def test_goes_on_bit_for_bit_from_its_state():
    """The state holds everything but the environment, which is at the start of a day in both runs."""
    config = {"update_ratio": 0.5, "n_step": 3, "buffer_size": 70, "storage": "float16", "log_every": 17}
    config |= {"noise_persistence": 0.5}
    agent, told = small(ToyBattery(), **config), []
    agent.reset()
    for _ in range(4 * HOURS):  # by hand, so that the state is taken between two reports
        agent.collect()
        agent.train(agent.updates_by(agent.steps) - agent.updates)
    state = copy.deepcopy(agent.state_dict())
    agent.learn(until=10 * HOURS, on_log=told.append)
    again, told_again = small(ToyBattery(), seed=9, **config), []
    again.env.reset()
    again.load_state_dict(state)
    again.learn(until=10 * HOURS, on_log=told_again.append)
    assert torch.equal(weights(agent), weights(again))
    assert told == told_again
    assert torch.equal(
        agent.predict(torch.ones(4), deterministic=False), again.predict(torch.ones(4), deterministic=False)
    )


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_saved_policy_predicts_the_same(tmp_path, layer_norm):
    agent = small(gymnasium.make("Pendulum-v1"), layer_norm=layer_norm).learn(60)
    agent.save(tmp_path)
    loaded = SAC.load(tmp_path)
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    action = loaded.predict(obs)
    assert np.array_equal(action, agent.predict(obs))
    assert torch.equal(weights(agent), weights(loaded))
    assert action.shape == (20, 1)
    assert np.abs(action).max() <= 2
    assert np.array_equal(loaded.predict(obs[3]), loaded.predict(obs[3:4])[0])
    with pytest.raises(UserError, match="without an environment"):
        loaded.learn(100)


def test_predictions_are_in_the_range_of_the_environment():
    agent = small(gymnasium.make("Pendulum-v1"))
    agent.actor.biases[-1].data[..., 0] = 30.0
    assert agent.predict(np.zeros(3)).tolist() == [2.0]
    obs = torch.zeros(100, 3)
    assert agent.predict(obs, deterministic=False).max() <= 2
    agent.actor.biases[-1].data.zero_()
    assert len(agent.predict(obs, deterministic=False).unique()) > 50
    assert len(agent.predict(obs).unique()) == 1
    with pytest.raises(UserError, match="must have shape"):
        agent.predict(np.zeros(4))


def test_a_loaded_policy_goes_on_learning(tmp_path):
    small(ToyBattery()).learn(60).save(tmp_path)
    loaded = SAC.load(tmp_path, ToyBattery())
    before = weights(loaded)
    assert not torch.equal(before, weights(loaded.learn(60)))


def test_files_that_do_not_fit_are_refused(tmp_path):
    from safetensors.torch import load_file

    from iquitos_rl.agents.policy_file import save_policy

    agent = small(ToyBattery())
    agent.save(tmp_path / "good")
    with pytest.raises(UserError, match="obs_dim is 3, the saved policy was trained with 4"):
        SAC.load(tmp_path / "good", gymnasium.make("Pendulum-v1"))
    tensors, spec = load_file(tmp_path / "good" / "policy.safetensors"), agent.spec.model_dump()
    kind = {"algorithm": "sac", "config": agent.config, "spec": spec, "tensors": tensors}
    wrong = {
        "trained by 'ppo'": {"algorithm": "ppo"},
        "does not describe": {"spec": {}},
        "do not fit": {"tensors": {name: x for name, x in tensors.items() if name != "log_alpha"}},
        "weights do not fit": {"config": agent.config.model_copy(update={"hidden": (16, 17)})},
    }
    for i, (message, change) in enumerate(wrong.items()):
        save_policy(tmp_path / str(i), **{**kind, **change})
        with pytest.raises(UserError, match=message):
            SAC.load(tmp_path / str(i))


def test_progress_reports():
    env, told = ScriptedEnv(num_envs=3), []
    agent = small(env, update_ratio=0.5, log_every=20)
    assert agent.learn(100, told.append) is agent
    assert [p.steps for p in told] == [21, 42, 60, 81, 102]
    assert [p.updates for p in told] == [5, 16, 25, 35, 46]
    ends = torch.stack([step.terminated | step.truncated for step in env.steps])
    assert told[-1].episodes == ends.sum()
    money = sum(step.info["money"].sum().item() for step in env.steps[7:14])
    assert told[1].metrics["env/money"] == pytest.approx(money, rel=1e-5)
    figures = {"critic_loss", "actor_loss", "alpha_loss", "alpha", "entropy", "q", "episode_return"}
    assert figures <= told[1].metrics.keys()
    assert all(math.isfinite(value) for p in told for value in p.metrics.values())
    agent.learn(until=102, on_log=told.append)
    assert len(told) == 5, "nothing to do, nothing to tell"


def test_nothing_is_reported_that_did_not_happen():
    told = []
    small(ToyBattery(), learning_starts=50).learn(20, told.append)
    assert [p.steps for p in told] == [10, 20]
    assert set(told[0].metrics) == {"env/money"}


def test_divergence_is_an_error():
    agent = small()
    with torch.no_grad():
        agent.critic.weights[0].fill_(1e30)
    with pytest.raises(UserError, match="training diverged"):
        agent.learn(100)


def test_an_environment_that_returns_nan_is_an_error():
    class Broken(ToyBattery):
        def _observe(self):
            return super()._observe() * (np.nan if self._hour == 5 else 1)

    with pytest.raises(UserError, match="observation column 0 of environment 0 is NaN"):
        small(Broken()).learn(100)


def test_new_episodes_from_outside_are_truncations():
    agent = small(ToyBattery()).learn(30)
    agent.reset()
    agent.learn(60)
    batch = agent.buffer.sample(2000)
    cut = (batch["observation"][:, 0] == batch["observation"][29, 0]) & ~batch["terminated"]
    assert (batch["discount"][cut] > 0).all()
    starts = ToyBattery().reset()[0]
    assert not (batch["next_observation"] == torch.from_numpy(starts)).all(1)[~batch["terminated"]].any()


@pytest.mark.parametrize(
    "change", [{"gamma": 1.1}, {"hidden": ()}, {"update_ratio": 0}, {"storage": "int8"}, {"gama": 0.9}, {"n_step": 0}]
)
def test_settings_out_of_range(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        SACConfig(**change)


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_finds_the_best_schedule_of_the_toy_battery(storage):
    config = SACConfig(hidden=(64, 64), learning_rate=1e-3, learning_starts=500, buffer_size=20_000, storage=storage)
    agent = SAC(ToyBattery(), config, seed=0).learn(3_500)
    env = ToyBattery()
    obs, _ = env.reset()
    total, ended = 0.0, False
    while not ended:
        obs, reward, ended, _, _ = env.step(agent.predict(obs))
        total += reward
    assert 0.98 * optimal_return() <= total <= optimal_return() * (1 + 1e-6)


def test_pendulum_in_5_000_steps():
    """Solved; `benchmarks/learning_rows.py` has more seeds and a peer."""
    config = SACConfig(hidden=(64, 64), learning_rate=1e-3, learning_starts=500, buffer_size=5_000)
    agent = SAC(gymnasium.make("Pendulum-v1"), config, seed=1).learn(5_000)
    env, returns = gymnasium.make("Pendulum-v1"), []
    for episode in range(20):
        obs, _ = env.reset(seed=10_000 + episode)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(agent.predict(obs))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    assert statistics.fmean(returns) >= -200
