"""Train SAC on a gymnasium environment of your own, save it, load it and use it.

    python examples/own_environment.py

The environment is a hot-water tank with an electric heater. Power is cheap at night; people shower in the morning and
in the evening. The agent learns to heat at night. On one core this takes about 20 seconds.
"""

import argparse
from tempfile import TemporaryDirectory

import gymnasium
import numpy as np

from iquitos_rl import SAC
from iquitos_rl.agents import SACConfig

HEATER_KWH, TANK_KWH, LOSS = 3.0, 12.0, 0.01
DEMAND_KWH = np.array([0, 0, 0, 0, 0, 0, 2, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 1, 0, 0], dtype=np.float64)
PRICE = np.where(np.arange(24) < 6, 0.1, 0.3)
COLD = 1.0
"""Price of a kWh of hot water that is missing."""


class HotWaterTank(gymnasium.Env):
    """Observation (3,): sine and cosine of the hour, energy in the tank from -1 (cold) to 1 (full).
    Action (1,): heater power, 0 to 1. Reward: minus the cost of the hour. An episode is one day."""

    observation_space = gymnasium.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.hour, self.energy = 0, self.np_random.uniform(0, TANK_KWH)
        return self.observe(), {}

    def step(self, action):
        heat = min(HEATER_KWH * float(action[0]), TANK_KWH - self.energy)
        missing = max(0.0, DEMAND_KWH[self.hour] - self.energy - heat)
        self.energy = (self.energy + heat - DEMAND_KWH[self.hour] + missing) * (1 - LOSS)
        reward = -PRICE[self.hour] * heat - COLD * missing
        self.hour += 1
        # The day's end only cuts the recording: the tank goes on, so this is a truncation.
        return self.observe(), reward, False, self.hour == 24, {}

    def observe(self):
        angle = 2 * np.pi * self.hour / 24
        return np.array([np.sin(angle), np.cos(angle), 2 * self.energy / TANK_KWH - 1], np.float32)


def mean_cost(policy, days=20):
    """Mean cost of a day."""
    env, total = HotWaterTank(), 0.0
    for day in range(days):
        obs, _ = env.reset(seed=1_000 + day)
        ended = False
        while not ended:
            obs, reward, _, ended, _ = env.step(policy(obs))
            total -= reward
    return total / days


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6_000)
    steps = parser.parse_args().steps
    config = SACConfig(
        hidden=(64, 64),
        batch_size=128,
        learning_rate=1e-3,
        learning_starts=500,
        gamma=0.98,
        buffer_size=20_000,
        alpha_init=0.05,  # a day costs about 1, an hour 0.05: a temperature of 1 would drown the rewards
        target_entropy_scale=2.0,
    )
    agent = SAC(HotWaterTank(), config).learn(steps)
    with TemporaryDirectory() as folder:
        agent.save(folder)
        agent = SAC.load(folder)
    print(f"a day costs {mean_cost(lambda obs: np.ones(1)):.2f} with the heater always on")
    print(f"a day costs {mean_cost(agent.predict):.2f} with SAC after {steps:,} steps")


if __name__ == "__main__":
    main()
