"""The contract of an environment: what a stranger must write, and what the rest defaults to."""

import pytest
import torch

from iquitos_rl import A2C, PPO, SAC
from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.envs.vector import StepResult, VectorEnv
from iquitos_rl.errors import UserError


class Least(VectorEnv):
    """No more than what is required."""

    num_envs, obs_dim, action_dim, device = 2, 3, 2, torch.device("cpu")

    def reset(self, seed=None):
        return torch.zeros(2, 3)

    def step(self, action):
        ended = torch.zeros(2, dtype=torch.bool)
        return StepResult(torch.zeros(2, 3), action.sum(-1), ended, ended, torch.zeros(2, 3), {})


@pytest.mark.parametrize(("agent", "more"), [(SAC, {"learning_starts": 8}), (PPO, {"horizon": 8}), (A2C, {})])
def test_what_is_required_is_enough_to_train(agent, more):
    env = Least()
    model = type(agent(env).config)(hidden=(8,), **more)
    assert agent(env, model).learn(40).steps >= 40


def test_the_rest_has_defaults():
    env = Least()
    spec = PolicySpec.of(env)
    assert (spec.action_low, spec.action_high) == ([-1, -1], [1, 1])
    assert (spec.action_mask_columns, spec.environment) == (None, {})
    assert (env.action_mask_columns, env.episode_steps, env.exogenous, env.state_bytes) == (None, None, None, 0)
    env.capture()
    env.close()


def test_an_environment_without_a_state_says_so():
    with pytest.raises(UserError, match="the state of a Least cannot be saved"):
        Least().state_dict()
    with pytest.raises(UserError, match="the state of a Least cannot be restored"):
        Least().load_state_dict({})


def test_reset_and_step_are_required():
    class Lacking(VectorEnv):
        def reset(self, seed=None):
            return torch.zeros(1, 1)

    with pytest.raises(TypeError, match="step"):
        Lacking()
