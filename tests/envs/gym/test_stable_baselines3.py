"""The district engine as stable-baselines3's VecEnv: the same steps as the engine's, in that library's words."""

import numpy as np
import pytest
import torch
from schemas import Features, write_schema

from iquitos_rl.envs import DistrictSite

stable_baselines3 = pytest.importorskip("stable_baselines3")
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize  # noqa: E402

from iquitos_rl.envs.gym.stable_baselines3 import SiteVecEnv  # noqa: E402

ENVS, HOURS = 3, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    features = Features(rows=12, buildings=(2, 2), sockets=(3, 3), omit=0)
    return write_schema(tmp_path_factory.mktemp("site"), 5, features)


def site(folder):
    return DistrictSite([folder], ENVS, starts="random", episode_steps=HOURS)


def test_every_step_is_the_engines(folder):
    env, engine = SiteVecEnv(site(folder)), site(folder)
    env.seed(3)
    np.testing.assert_array_equal(env.reset(), engine.reset(3).numpy())
    generator = np.random.default_rng(0)
    returns, lengths, ends = np.zeros(ENVS), np.zeros(ENVS, int), 0
    for _ in range(3 * HOURS):
        actions = generator.uniform(-1, 1, (ENVS, engine.action_dim)).astype(np.float32)
        obs, reward, done, infos = env.step(actions)
        result = engine.step(torch.from_numpy(actions))
        np.testing.assert_array_equal(obs, result.obs.numpy())
        np.testing.assert_array_equal(reward, result.reward.numpy().astype(np.float32))
        np.testing.assert_array_equal(done, result.truncated.numpy())
        returns, lengths = returns + reward, lengths + 1
        for i, info in enumerate(infos):
            assert {name: info[name] for name in result.info} == {
                name: value[i].double().item() for name, value in result.info.items()
            }
            assert ("terminal_observation" in info) == bool(done[i])
            if done[i]:
                np.testing.assert_array_equal(info["terminal_observation"], result.next_obs[i].numpy())
                assert info["TimeLimit.truncated"]
                assert info["episode"] == {"r": pytest.approx(returns[i], rel=1e-6), "l": lengths[i]}
                returns[i], lengths[i], ends = 0, 0, ends + 1
    assert ends >= ENVS * 2


@pytest.mark.parametrize("wrap", [lambda env: env, VecMonitor, VecNormalize])
@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_its_agents_learn_there(folder, name, wrap):
    settings = {"n_steps": 8, "batch_size": 12} if name == "PPO" else {"learning_starts": 10, "batch_size": 8}
    agent = getattr(stable_baselines3, name)("MlpPolicy", wrap(SiteVecEnv(site(folder))), seed=0, **settings)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(48)
    assert agent.num_timesteps >= 48
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.parameters()))
    assert agent.ep_info_buffer
    assert all(0 < episode["l"] <= HOURS for episode in agent.ep_info_buffer)
