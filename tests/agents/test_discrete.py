"""Agents that choose: every kind of choice space is learned in, saved and loaded; the losses against brute force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from iquitos_rl.agents import AGENTS, A2CConfig, PPOConfig, SACConfig, discrete_sac, load_agent
from iquitos_rl.agents.networks import MLP, Critics
from iquitos_rl.agents.sac import Networks
from iquitos_rl.errors import UserError

SPACES: dict[str, Any] = {
    "discrete": spaces.Discrete(4),
    "shifted": spaces.Discrete(3, start=-1),
    "multi": spaces.MultiDiscrete([2, 3, 4]),
    "grid": spaces.MultiDiscrete(np.array([[2, 3], [4, 2]])),
    "binary": spaces.MultiBinary(3),
}
CONFIGS: dict[str, Any] = {
    "sac": SACConfig(
        hidden=(32,), batch_size=32, learning_starts=100, learning_rate=3e-3, buffer_size=2_000, gamma=0.0
    ),
    "ppo": PPOConfig(hidden=(32,), horizon=64, batch_size=64, epochs=5, learning_rate=5e-3, gamma=0.0),
    "a2c": A2CConfig(hidden=(32,), learning_rate=5e-3, gamma=0.0),
}


class Guess(gymnasium.Env[Any, Any]):
    """Pays 1 for every number of the action that equals what the observation shows; an episode has 20 guesses."""

    def __init__(self, action_space: Any) -> None:
        self.action_space = action_space
        self.start = np.asarray(getattr(action_space, "start", 0))
        counts = getattr(action_space, "nvec", getattr(action_space, "n", 0))
        self.counts = (
            np.full(action_space.shape, 2) if isinstance(action_space, spaces.MultiBinary) else np.array(counts)
        )
        self.observation_space = spaces.MultiDiscrete(self.counts.ravel())

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._ask(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        assert np.ndim(action) > 0 or hash(action) is not None, "as a key of a table"
        self.t += 1
        right = np.mean(np.ravel(action - self.start) == self.asked)
        return self._ask(), float(right), False, self.t == 20, {}

    def _ask(self) -> Any:
        self.asked = self.np_random.integers(self.counts.ravel())
        return self.asked


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_choice_is_taken_saved_and_loaded(name: str, space: str, tmp_path: Path) -> None:
    several = not isinstance(SPACES[space], spaces.Discrete)
    make = [lambda: Guess(SPACES[space])] * 4
    if name == "sac" and several:
        with pytest.raises(UserError, match="no MultiDiscrete or MultiBinary, as PPO and A2C do"):
            AGENTS[name].agent(make, CONFIGS[name])
        return
    agent = AGENTS[name].agent(make, CONFIGS[name], seed=0).learn(256)
    env = Guess(SPACES[space])
    obs = env.reset(seed=1)[0]
    for deterministic in (True, False) * 10:
        obs, *_ = env.step(agent.predict(obs, deterministic))  # which looks at what it is given
    agent.save(tmp_path, buffer=True)
    twin = load_agent(tmp_path, make, seed=0)
    agent.set_env(make)
    for one in (agent, twin):
        one.learn(256 if name == "ppo" else 20)
    batch = np.stack([env._ask() for _ in range(9)])
    assert np.array_equal(agent.predict(batch, False), twin.predict(batch, False))
    other = Guess(SPACES[space])
    other.action_space = spaces.Discrete(7) if name == "sac" or not several else spaces.MultiDiscrete([7, 7])
    with pytest.raises(UserError, match=r"environment's (action|action_dim) is"):
        load_agent(tmp_path, other)


@pytest.mark.parametrize(
    ("name", "space", "steps"), [("sac", "shifted", 500), ("ppo", "grid", 3_000), ("a2c", "multi", 4_000)]
)
def test_what_is_asked_for_is_learned(name: str, space: str, steps: int) -> None:
    agent = AGENTS[name].agent([lambda: Guess(SPACES[space])] * 8, CONFIGS[name], seed=0).learn(steps)
    env, right = Guess(SPACES[space]), 0.0
    obs = env.reset(seed=1)[0]
    for _ in range(100):
        obs, reward, *_ = env.step(agent.predict(obs))
        right += reward
    assert right > 80, "by chance it is less than 40"


def test_settings_that_choices_have_no_use_for_are_refused() -> None:
    with pytest.raises(UserError, match="no noise_persistence"):
        AGENTS["sac"].agent(Guess(spaces.Discrete(2)), SACConfig(noise_persistence=0.5))


def test_the_losses_are_those_of_the_paper() -> None:
    """Eqs. 10 to 12 written out with loops, in float64."""
    g = torch.Generator().manual_seed(0)
    rows, d, a, share = 7, 3, 4, 0.6
    actor, critic = MLP([d, 8, a], generator=g).double(), Critics(d, 0, (8,), False, g, values=a).double()
    nets = Networks(actor, critic, 0.3).double()
    nets.target_critic = Critics(d, 0, (8,), False, g, values=a).double()
    batch = {
        name: torch.randn(rows, d, dtype=torch.float64, generator=g) for name in ("observation", "next_observation")
    }
    batch |= {name: torch.randn(rows, dtype=torch.float64, generator=g) for name in ("reward", "discount")}
    batch["action"] = torch.randint(a, (rows, 1), generator=g).double()
    alpha = float(nets.log_alpha.exp())
    of_critic = of_actor = entropy = 0.0
    with torch.no_grad():
        for i in range(rows):
            prob, after = (actor(batch[key][i : i + 1])[0].softmax(-1) for key in ("observation", "next_observation"))
            target_q = nets.target_critic(batch["next_observation"][i : i + 1])[:, 0]
            q = critic(batch["observation"][i : i + 1])[:, 0]
            value = sum(after[k] * (min(target_q[:, k]) - alpha * after[k].log()) for k in range(a))
            target = batch["reward"][i] + batch["discount"][i] * value
            taken = int(batch["action"][i])
            of_critic += sum(0.5 * (q[n, taken] - target) ** 2 for n in range(2)) / rows
            of_actor += sum(prob[k] * (alpha * prob[k].log() - min(q[:, k])) for k in range(a)) / rows
            entropy += -sum(prob[k] * prob[k].log() for k in range(a)) / rows
    noise = torch.zeros(rows, 1)
    torch.testing.assert_close(discrete_sac.critic_loss(nets, None, batch, noise)[0], torch.as_tensor(of_critic))
    loss, metrics = discrete_sac.policy_loss(nets, None, share, batch, noise)
    of_alpha = nets.log_alpha.detach() * (entropy - share * np.log(a))
    torch.testing.assert_close(metrics["actor_loss"], torch.as_tensor(of_actor))
    torch.testing.assert_close(metrics["entropy"], torch.as_tensor(entropy))
    torch.testing.assert_close(loss, of_actor + of_alpha)
    torch.testing.assert_close(
        torch.autograd.grad(loss, nets.log_alpha)[0], torch.as_tensor(entropy - share * np.log(a))
    )
