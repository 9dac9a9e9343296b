"""Train another library's PPO on the district engine: stable-baselines3, on 32 environments at once.

    pip install "stable-baselines3<2.4"        # the releases that run on CityLearn's gymnasium 0.28
    python -m iquitos_rl.case build iquitos-38 --output my_case
    python examples/other_library.py my_case

`DistrictVectorEnv` is a `gymnasium.vector.VectorEnv`. stable-baselines3 has a vector interface of its own; the class
below translates. The engine steps all environments together, which is much faster than stepping CityLearn: see
`benchmarks/results/speed-engine.md`.
"""

import argparse

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from iquitos_rl.envs import DistrictSite, DistrictVectorEnv


class StableBaselines(VecEnv):
    """A `DistrictVectorEnv` as stable-baselines3 wants it."""

    def __init__(self, env):
        self.env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self):
        return self.env.reset(seed=self._seeds[0])[0]

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        obs, reward, terminated, truncated, info = self.env.step(self.actions)
        final = info.get("final_observation", info.get("final_obs"))
        infos = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminated | truncated):
            # A year's end is a truncation: the library then adds the value of the state that was reached.
            infos[i] = {"terminal_observation": final[i], "TimeLimit.truncated": bool(truncated[i])}
        return obs, reward, terminated | truncated, infos

    def close(self):
        self.env.close()

    # The library asks every environment for these; the engine has one for all.

    def get_attr(self, attr_name, indices=None):
        return [getattr(self.env, attr_name)] * self.num_envs

    def set_attr(self, attr_name, value, indices=None):
        setattr(self.env, attr_name, value)

    def env_method(self, method_name, *args, indices=None, **kwargs):
        return [getattr(self.env, method_name)(*args, **kwargs)]

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False] * self.num_envs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", help="schema folder")
    parser.add_argument("--steps", type=int, default=200_000)
    arguments = parser.parse_args()
    site = DistrictSite([arguments.case], num_envs=32, starts="random", episode_steps=96)
    env = VecMonitor(StableBaselines(DistrictVectorEnv(site)))
    model = PPO("MlpPolicy", env, n_steps=128, batch_size=1024, gamma=0.98, seed=0, device="cpu")
    model.learn(arguments.steps)
    episodes = [episode["r"] for episode in model.ep_info_buffer]
    print(
        f"{model.num_timesteps:,} site-hours; mean return of the last {len(episodes)} episodes {np.mean(episodes):.2f}"
    )


if __name__ == "__main__":
    main()
