"""What the collector stores and estimates, against the script that the environment followed."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from scripted_env import ScriptedEnv
from torch import Tensor, nn

from iquitos_rl.agents import actor_critic
from iquitos_rl.agents.actor_critic import ActorCritic
from iquitos_rl.agents.collector import Batch, Collector
from iquitos_rl.agents.normalisation import CLIP
from iquitos_rl.agents.on_policy import report
from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.errors import UserError

HORIZON, GAMMA, LAM = 30, 0.9, 0.8


def build(
    env: ScriptedEnv, normalise_obs: bool = True, scale_rewards: bool = False, dtype: torch.dtype = torch.float32
) -> Collector:
    generator = torch.Generator().manual_seed(0)
    spec = PolicySpec.of(env)
    policy = ActorCritic(spec, (16,), "tanh", log_std=0.0, normalise_obs=normalise_obs, generator=generator)
    with torch.no_grad():
        policy.actor.weights[-1].mul_(200)  # actions that depend on the observation, and often leave [-1, 1]
    return Collector(
        env, policy, horizon=HORIZON, gamma=GAMMA, gae_lambda=LAM, scale_rewards=scale_rewards,
        storage=dtype, seed=7, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_stored_observations_are_those_the_policy_saw(dtype: torch.dtype) -> None:
    """Normalised by the statistics of that moment, not by later ones."""
    env, tolerance = ScriptedEnv(), {torch.float32: 1e-5, torch.float16: 2e-3}[dtype]
    collector = build(env, dtype=dtype)
    for start in (0, HORIZON):
        stored = collector.collect().obs.view(HORIZON, 3, 4)
        seen: list[np.ndarray] = []
        for t in range(start + HORIZON):
            seen.extend(env.observations[t].double().numpy())
            if t >= start:
                past = np.array(seen)
                deviation = np.where(past.var(0) > 1e-8, past.std(0), 1.0)
                expected = ((env.observations[t].numpy() - past.mean(0)) / deviation).clip(-CLIP, CLIP)
                np.testing.assert_allclose(stored[t - start].double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_log_probs_are_those_of_what_is_stored(masked: bool, dtype: torch.dtype) -> None:
    collector = build(ScriptedEnv(masked=masked), dtype=dtype)
    batch = collector.collect().take(torch.arange(HORIZON * 3))
    policy = collector.policy
    again = actor_critic.log_prob(batch.action, policy.mean(batch.obs), policy.log_std, batch.live)
    torch.testing.assert_close(again, batch.log_prob, atol=2e-6, rtol=1e-6)


def test_the_environment_gets_clipped_actions_and_the_batch_keeps_them_as_drawn() -> None:
    env = ScriptedEnv()
    action = build(env).collect().action.view(HORIZON, 3, 2)
    assert action.abs().max() > 1.0
    assert torch.stack(env.actions).equal(action.clamp(-1, 1))


def test_mask_of_the_raw_observation_is_kept() -> None:
    env = ScriptedEnv(masked=True)
    batch = build(env).collect()
    assert batch.live is not None
    live = torch.stack(env.observations[:HORIZON]).flatten(0, 1)[:, 2:] > 0
    assert batch.live.equal(live)
    assert (batch.action != 0).equal(live)


class Linear(nn.Module):
    """A critic whose value can be worked out by hand."""

    def forward(self, obs: Tensor) -> Tensor:
        return obs @ torch.tensor([[1.0], [-2.0], [0.5], [0.25]])


def test_bootstrap_from_the_true_successor() -> None:
    """The estimates follow from the environment's own records: next_obs behind every step that did not terminate, the
    reset's observation never."""
    env = ScriptedEnv()
    collector = build(env, normalise_obs=False)
    collector.policy.critic = Linear()
    for start in (0, HORIZON):
        batch = collector.collect()
        advantage = torch.zeros(HORIZON + 1, 3, dtype=torch.float64)
        for t in reversed(range(HORIZON)):
            step = env.steps[start + t]
            successor = GAMMA * Linear()(step.next_obs)[:, 0] * ~step.terminated
            delta = step.reward + successor - Linear()(env.observations[start + t])[:, 0]
            advantage[t] = delta + GAMMA * LAM * advantage[t + 1] * ~(step.terminated | step.truncated)
        torch.testing.assert_close(batch.advantage.view(HORIZON, 3).double(), advantage[:-1], atol=1e-3, rtol=1e-5)
        value = Linear()(torch.stack(env.observations[start : start + HORIZON]))[..., 0]
        torch.testing.assert_close((batch.returns - batch.advantage).view(HORIZON, 3), value, atol=1e-4, rtol=1e-4)
    truncated = torch.stack([s.truncated & ~s.terminated for s in env.steps])
    assert truncated.sum() > 5


def test_training_sees_scaled_rewards_and_reports_raw_ones() -> None:
    plain, scaled = ScriptedEnv(), ScriptedEnv()
    raw, small = build(plain), build(scaled, scale_rewards=True)
    for collector in (raw, small):
        collector.policy.critic.weights[-1].data.zero_()
    big, little = raw.collect(), small.collect()
    assert small.scaler is not None
    deviation = float(small.scaler.moments.std())
    torch.testing.assert_close(little.advantage * deviation, big.advantage, rtol=1e-5, atol=1e-4)
    assert deviation > 10
    assert raw.tracker.collect() == small.tracker.collect()


def test_a_step_of_e_environments_is_e_transitions() -> None:
    assert build(ScriptedEnv(num_envs=5)).collect().size == 5 * HORIZON


def test_state_continues_exactly() -> None:
    env = ScriptedEnv()
    collector = build(env, scale_rewards=True)
    collector.collect()
    twin = build(deepcopy(env), scale_rewards=True)
    state = deepcopy((collector.state_dict(), collector.policy.state_dict(), collector.generator.get_state()))
    expected = collector.collect()
    twin.load_state_dict(state[0])
    twin.policy.load_state_dict(state[1])
    twin.generator.set_state(state[2])
    for name, ours, theirs in zip(Batch._fields, expected, twin.collect()):
        assert (ours is None and theirs is None) or ours.equal(theirs), name
    assert collector.tracker.collect() == twin.tracker.collect()


def test_reset_starts_new_episodes() -> None:
    env = ScriptedEnv()
    collector = build(env, scale_rewards=True)
    collector.collect()
    assert collector.tracker.state_dict()["running"].abs().max() > 0.0
    collector.reset()
    assert collector.tracker.state_dict()["running"].abs().max() == 0.0
    assert collector.obs is not None
    assert collector.obs.equal(env.observations[0])
    assert collector.scaler is not None
    assert collector.scaler.discounted.abs().max() == 0.0


def test_observations_that_the_storage_cannot_hold_end_in_one_sentence() -> None:
    env = ScriptedEnv()
    env._obs = lambda: torch.full((3, 4), 1e5)  # type: ignore[method-assign]
    build(env, normalise_obs=False).collect()
    build(env, normalise_obs=True, dtype=torch.float16).collect()
    collector = build(env, normalise_obs=False, dtype=torch.float16)
    with torch.no_grad():
        collector.policy.actor.weights[0].zero_()
    with pytest.raises(UserError, match="column 0 of environment 0 is not a finite number as float16 at step 7"):
        collector.collect(taken=7)


def test_reports_leave_out_what_does_not_exist() -> None:
    policy = build(ScriptedEnv()).policy
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.25)
    value, returns = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])
    metrics = report(value, returns, policy, optimizer)
    assert metrics == {"explained_variance": 1.0, "std": 1.0, "learning_rate": 0.25}
    assert "explained_variance" not in report(value, torch.ones(2), policy, optimizer)
