"""Give SAC networks of your own: any `nn.Module` of the right shapes.

    python examples/own_network.py

The actor maps observations (B, D) to means and log deviations (B, 2A). The critic maps observations (B, D) and actions
(B, A) to N values each (N, B); the least of them counts. Here both use SiLU and a skip connection. On one core this
takes about a minute.
"""

import argparse
from tempfile import TemporaryDirectory

import gymnasium
import torch
from torch import nn

from iquitos_rl import SAC
from iquitos_rl.agents import SACConfig

OBS, ACTIONS, WIDTH = 3, 1, 64


class Residual(nn.Module):
    """Two layers whose input is added to their output."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x):
        return x + self.layers(x)


def network(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, WIDTH), Residual(), nn.SiLU(), nn.Linear(WIDTH, outputs))


class TwinCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.values = nn.ModuleList(network(OBS + ACTIONS, 1) for _ in range(2))

    def forward(self, obs, action):
        both = torch.cat([obs, action], -1)
        return torch.stack([value(both).squeeze(-1) for value in self.values])


def mean_return(agent, episodes=5):
    env, total = gymnasium.make("Pendulum-v1"), 0.0
    for episode in range(episodes):
        obs, _ = env.reset(seed=1_000 + episode)
        ended = False
        while not ended:
            obs, reward, terminated, truncated, _ = env.step(agent.predict(obs))
            total, ended = total + reward, terminated or truncated
    return total / episodes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6_000)
    steps = parser.parse_args().steps
    torch.manual_seed(0)  # your own modules draw their weights from torch's generator
    config = SACConfig(batch_size=128, learning_rate=1e-3, learning_starts=500, buffer_size=20_000)
    agent = SAC(gymnasium.make("Pendulum-v1"), config, actor=network(OBS, 2 * ACTIONS), critic=TwinCritic())
    agent.learn(steps)
    with TemporaryDirectory() as folder:
        agent.save(folder)
        # The weights are saved, the modules are not: loading takes modules of the same shape.
        agent = SAC.load(folder, actor=network(OBS, 2 * ACTIONS), critic=TwinCritic())
    print(
        f"mean return of 5 episodes after {steps:,} steps: {mean_return(agent):.0f} (a random policy has about -1,200)"
    )


if __name__ == "__main__":
    main()
