"""Train another library's PPO on the district engine: stable-baselines3, on 32 environments at once.

    pip install "stable-baselines3<2.4"        # the releases that run on CityLearn's gymnasium 0.28
    python -m iquitos_rl.case build iquitos-38 --output my_case
    python examples/other_library.py my_case

`SiteVecEnv` is that library's vector environment. The engine steps all environments together, which is much faster than
stepping CityLearn: see `benchmarks/results/speed-engine.md`.
"""

import argparse

import numpy as np
from stable_baselines3 import PPO

from iquitos_rl.envs import DistrictSite
from iquitos_rl.envs.gym.stable_baselines3 import SiteVecEnv


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", help="schema folder")
    parser.add_argument("--steps", type=int, default=200_000)
    arguments = parser.parse_args()
    site = DistrictSite([arguments.case], num_envs=32, starts="random", episode_steps=96)
    model = PPO("MlpPolicy", SiteVecEnv(site), n_steps=128, batch_size=1024, gamma=0.98, seed=0, device="cpu")
    model.learn(arguments.steps)
    episodes = [episode["r"] for episode in model.ep_info_buffer]
    print(
        f"{model.num_timesteps:,} site-hours; mean return of the last {len(episodes)} episodes {np.mean(episodes):.2f}"
    )


if __name__ == "__main__":
    main()
