import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Text
from gymnasium.wrappers import TimeLimit

from iquitos_rl.envs.described import DescribedEnv, Description
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.vector import VectorEnv, action_mask
from iquitos_rl.errors import UserError


class Counter(DescribedEnv):
    """Observation (episode, step), written into the same array every time; terminates after `length` steps."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
    description = Description(torch.tensor([1, -1]), {"observation_names": ["episode", "step"]})

    def __init__(self, length=3):
        self.length, self.array, self.seeds, self.actions = length, np.array([-1.0, 0.0], np.float32), [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.array[:] = self.array[0] + 1, 0
        return self.array, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.actions.append(action)
        self.array[1] += 1
        info = {"cost": 0.5 * self.array[1], "label": "x", "flag": True}
        return self.array, 10 * float(self.array[1]), bool(self.array[1] == self.length), False, info


def test_satisfies_the_interface():
    env = as_vector(Counter())
    assert isinstance(env, VectorEnv)
    assert as_vector(env) is env
    assert (env.num_envs, env.obs_dim, env.action_dim) == (1, 2, 2)
    assert env.device == torch.device("cpu")


def test_both_observations_of_a_step():
    env = as_vector([lambda: Counter(2), lambda: Counter(3)])
    assert env.reset().tolist() == [[0, 0], [0, 0]]
    first = env.step(torch.zeros(2, 2))
    assert first.obs.tolist() == first.next_obs.tolist() == [[0, 1], [0, 1]]
    assert first.reward.tolist() == [10, 10]
    second = env.step(torch.zeros(2, 2))
    assert second.next_obs.tolist() == [[0, 2], [0, 2]], "the true successor"
    assert second.obs.tolist() == [[1, 0], [0, 2]], "the observation to act on"
    assert second.terminated.tolist() == [True, False]
    assert second.truncated.tolist() == [False, False]
    third = env.step(torch.zeros(2, 2))
    assert third.next_obs.tolist() == [[1, 1], [0, 3]]
    assert third.obs.tolist() == [[1, 1], [1, 0]]
    assert first.obs.tolist() == [[0, 1], [0, 1]], "a later step does not change an earlier result"
    for result in (first, second, third):
        assert (result.obs.dtype, result.reward.dtype, result.terminated.dtype) == (
            torch.float32,
            torch.float32,
            torch.bool,
        )


def test_time_limit_is_a_truncation():
    env = as_vector(TimeLimit(Counter(100), 2))
    env.reset()
    env.step(torch.zeros(1, 2))
    step = env.step(torch.zeros(1, 2))
    assert (step.terminated.item(), step.truncated.item()) == (False, True)
    assert (step.next_obs.tolist(), step.obs.tolist()) == ([[0, 2]], [[1, 0]])


def test_actions_are_stretched_to_the_bounds_and_never_beyond():
    inner = Counter(100)
    env = as_vector(inner)
    env.reset()
    for action in ([-1, -1], [0, 0], [1, 1], [0.5, -0.5], [3, -3]):
        env.step(torch.tensor([action], dtype=torch.float32))
    assert np.array(inner.actions).tolist() == [[-2, 0], [0, 5], [2, 10], [1, 2.5], [2, 0]]
    assert env.action_low.tolist() == [-2, 0]
    assert env.action_high.tolist() == [2, 10]


def test_a_description_is_found_through_wrappers():
    env = as_vector(TimeLimit(Counter(), 5))
    assert env.policy_spec == Counter.description.policy_spec
    assert action_mask(torch.tensor([[9.0, 0.0], [9.0, 1.0]]), env.action_mask_columns).tolist() == [
        [False, True],
        [True, True],
    ]
    plain = as_vector(gymnasium.make("Pendulum-v1"))
    assert plain.action_mask_columns is None
    assert plain.policy_spec == {}


def test_float_entries_of_info_become_tensors():
    env = as_vector([lambda: Counter(), lambda: Counter()])
    env.reset()
    info = env.step(torch.zeros(2, 2)).info
    assert {name: values.tolist() for name, values in info.items()} == {"cost": [0.5, 0.5]}


def test_seeds_differ_between_environments():
    envs = [Counter(1), Counter(1)]
    env = as_vector([lambda: envs[0], lambda: envs[1]])
    env.reset(seed=7)
    env.step(torch.zeros(2, 2))
    assert [inner.seeds for inner in envs] == [[7, None], [8, None]]


def test_is_the_environment_stepped_by_hand():
    env, plain = as_vector(gymnasium.make("Pendulum-v1")), gymnasium.make("Pendulum-v1")
    rng = np.random.default_rng(0)
    obs, (expected, _) = env.reset(seed=3), plain.reset(seed=3)
    for t in range(450):
        assert np.array_equal(obs[0].numpy(), expected)
        action = rng.uniform(-1, 1, (1, 1)).astype(np.float32)
        step = env.step(torch.from_numpy(action))
        expected, reward, terminated, truncated, _ = plain.step(2 * action[0])
        assert step.reward.item() == pytest.approx(float(reward), rel=1e-6)
        assert (step.terminated.item(), step.truncated.item()) == (terminated, truncated)
        assert truncated == (t % 200 == 199)
        assert np.array_equal(step.next_obs[0].numpy(), expected)
        if truncated:
            expected, _ = plain.reset()
        obs = step.obs


@pytest.mark.parametrize(
    ("space", "action_space", "message"),
    [
        (Text(3), Box(-1, 1, (1,)), "observation space is Text: only Box"),
        (Dict({"a": Dict({"b": Text(3)})}), Box(-1, 1, (1,)), "a Dict or Tuple whose a.b is Text"),
        (Box(-1, 1, (0,)), Box(-1, 1, (1,)), "has no numbers in it"),
        (Box(-1, 1, (1,)), Dict({"a": Discrete(2)}), "action space is Dict"),
        (Box(-1, 1, (1,)), Box(-1, 1, (0,)), "has no numbers in it"),
        (Box(-1, 1, (1,)), Box(-np.inf, np.inf, (1,)), "no finite bounds"),
    ],
)
def test_refuses_spaces_it_cannot_handle(space, action_space, message):
    env = Counter()
    env.observation_space, env.action_space = space, action_space
    with pytest.raises(UserError, match=message):
        as_vector(env)


def test_refuses_what_is_not_an_environment():
    with pytest.raises(UserError, match="cannot train on a str"):
        as_vector("Pendulum-v1")
    with pytest.raises(UserError, match="cannot train on a list"):
        as_vector([])
    with pytest.raises(UserError, match="spaces differ"):
        as_vector([Counter, lambda: gymnasium.make("Pendulum-v1")])


def test_nan_is_named():
    env = as_vector([Counter, Counter])
    env.reset()
    with pytest.raises(UserError, match="action 1 of environment 0 is NaN"):
        env.step(torch.tensor([[0.0, float("nan")], [0.0, 0.0]]))
    env.envs[1].array[1] = np.nan
    with pytest.raises(UserError, match=r"observation column 1 \(step\) of environment 1 is NaN"):
        env.step(torch.zeros(2, 2))


def test_reward_that_is_not_finite_is_refused():
    env = as_vector(Counter())
    env.reset()
    env.envs[0].array = np.array([0.0, -1e38], np.float32)
    with pytest.raises(UserError, match=r"reward of environment 0 is -9\.9+\d*e\+38, not a finite float32 number"):
        env.step(torch.zeros(1, 2))


class Grid(gymnasium.Env):
    observation_space = Box(-9, 9, (2, 3), np.int64)
    action_space = Box(0, 4, (2, 2), np.float64)

    def reset(self, *, seed=None, options=None):
        return np.arange(6).reshape(2, 3), {}

    def step(self, action):
        assert action.dtype == np.float64
        return np.arange(6).reshape(2, 3), float(action[1, 0]), False, False, {}


def test_boxes_of_other_shapes_and_types_are_flattened():
    env = as_vector(Grid())
    assert (env.obs_dim, env.action_dim) == (6, 4)
    assert env.reset().tolist() == [[0, 1, 2, 3, 4, 5]]
    step = env.step(torch.tensor([[0.0, 0.0, 0.5, 0.0]]))
    assert step.reward.tolist() == [3]
    assert step.obs.dtype == torch.float32
