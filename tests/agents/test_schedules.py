"""Step sizes in the course of a training, and SAC on normalised observations."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import numpy as np
import pytest
import torch
from toy import ToyBattery

from iquitos_rl.agents import AGENTS, A2CConfig, PPOConfig, SACConfig

CONFIGS: dict[str, Any] = {
    "sac": SACConfig(hidden=(8,), batch_size=8, learning_starts=20, buffer_size=400),
    "ppo": PPOConfig(hidden=(8,), horizon=20, batch_size=20, epochs=1),
    "a2c": A2CConfig(hidden=(8,)),
}

LEFT: dict[str, Any] = {"constant": lambda x: 1, "linear": lambda x: 1 - x, "cosine": lambda x: (1 + cos(pi * x)) / 2}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("schedule", LEFT)
def test_the_step_size_is_that_of_the_schedule(name: str, schedule: str) -> None:
    left = LEFT[schedule]
    agent = AGENTS[name].agent(ToyBattery(), CONFIGS[name].model_copy(update={"schedule": schedule}))
    rates: dict[int, set[float]] = {}
    for optimizer in agent.optimizers.values():
        honest = optimizer.step

        def step(closure: Any = None, honest: Any = honest, optimizer: Any = optimizer) -> None:
            before = agent.steps - (1 if name == "sac" else agent.round_steps())
            rates.setdefault(before, set()).add(optimizer.param_groups[0]["lr"])
            honest()

        optimizer.step = step
    agent.learn(200)
    rates.pop(-agent.round_steps(), None)  # the rehearsal
    rates.pop(-1, None)
    assert len(rates) >= 10
    for steps, found in rates.items():
        assert len(found) == 1
        assert found.pop() == pytest.approx(agent.config.learning_rate * left(steps / 200))


def test_files_with_the_older_setting_are_read() -> None:
    assert PPOConfig(**{"anneal": False}).schedule == "constant"
    assert A2CConfig(**{"anneal": True}).schedule == PPOConfig().schedule == "linear"
    with pytest.raises(ValueError, match="anneal"):
        PPOConfig(**{"anneal": "slowly"})


class Scaled(ToyBattery):
    """Observations in other units."""

    def _observe(self) -> Any:
        return super()._observe() * np.array([1e4, 1e-3, 3, 1], np.float32) + np.array([5e4, 0, 0, -7], np.float32)


def test_sac_sees_normalised_observations() -> None:
    config = CONFIGS["sac"].model_copy(update={"normalise_obs": True})
    agent = AGENTS["sac"].agent([Scaled] * 2, config)
    agent.learn(480)
    nets = agent.networks
    seen = agent.buffer.sample(2_000)["observation"]
    assert float(nets.normaliser.count) == 480 + 2
    normal = nets.see(seen)
    assert normal.mean(0).abs().max() < 0.3
    assert (normal.std(0) - 1).abs().max() < 0.3
    before = nets.normaliser.mean.clone()
    agent.predict(np.zeros((5, 4), np.float32))
    agent.train(3)
    assert torch.equal(nets.normaliser.mean, before), "neither acting nor learning counts observations"
    assert torch.equal(agent.act(seen, None), torch.tanh(nets.actor(normal)[:, :1]))
    loaded = AGENTS["sac"].agent([Scaled] * 2, config, seed=1)
    loaded.networks.load_state_dict(nets.state_dict())
    assert torch.equal(loaded.predict(seen), agent.predict(seen))
