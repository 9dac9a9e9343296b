"""Dict and image observations: extractors see the parts as the environment made them, agents learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from iquitos_rl.agents import AGENTS, A2CConfig, PPOConfig, SACConfig, load_agent
from iquitos_rl.agents.features import CNN, ByPart, by_part
from iquitos_rl.agents.normalisation import ObservationNormaliser
from iquitos_rl.buffers.codecs import CODECS
from iquitos_rl.buffers.placement import free_ram
from iquitos_rl.buffers.replay import ReplayBuffer
from iquitos_rl.envs.gym.spaces import observation_of
from iquitos_rl.errors import UserError

CONFIGS: dict[str, Any] = {
    "sac": SACConfig(
        hidden=(32,), batch_size=32, learning_starts=100, learning_rate=1e-3, buffer_size=1_500, gamma=0.0
    ),
    "ppo": PPOConfig(hidden=(32,), horizon=64, batch_size=64, epochs=5, learning_rate=2e-3, gamma=0.0),
    "a2c": A2CConfig(hidden=(32,), learning_rate=2e-3, gamma=0.0),
}
SIZE = 16


class Lamp(gymnasium.Env[Any, Any]):
    """A picture with a bright half, left or right, and a number that says whether to point at it or away.
    Reward 1 for the right side. With `picture`, the picture is all that there is, and pointing at it is right."""

    def __init__(self, picture: bool = False) -> None:
        image = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        sign = spaces.Box(-np.inf, np.inf, (1,))
        self.picture = picture
        self.observation_space = image if picture else spaces.Dict({"image": image, "sign": sign})
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        reward = float(action == self.right)
        return self._show(), reward, False, self.t == 20, {}

    def _show(self) -> Any:
        side, away = self.np_random.integers(2), 0 if self.picture else self.np_random.integers(2)
        self.right = side ^ away
        image = self.np_random.integers(0, 40, (SIZE, SIZE, 3)).astype(np.uint8)
        image[:, side * SIZE // 2 : (side + 1) * SIZE // 2] += 180
        return image if self.picture else {"image": image, "sign": np.array([1000.0 + away], np.float32)}


def score(agent: Any, env: Any) -> float:
    obs, right = env.reset(seed=1)[0], 0.0
    for _ in range(100):
        obs, reward, *_ = env.step(agent.predict(obs))
        right += reward
    return right


@pytest.mark.parametrize(
    ("name", "picture", "steps"),
    [("sac", True, 200), ("sac", False, 120), ("ppo", True, 640), ("ppo", False, 256), ("a2c", False, 40)],
)
def test_agents_learn_from_pictures_and_numbers(name: str, picture: bool, steps: int, tmp_path: Path) -> None:
    config = CONFIGS[name].model_copy(update={"normalise_obs": True})
    agent = AGENTS[name].agent([lambda: Lamp(picture)] * 4, config, seed=0).learn(steps)
    assert not picture or score(agent, Lamp(picture)) > 90
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    shown = [Lamp(picture).reset(seed=s)[0] for s in range(5)]
    assert [agent.predict(x) for x in shown] == [loaded.predict(x) for x in shown]
    kept = agent.buffer.state_dict()["observation"] if name == "sac" else agent.collector.rollout.obs
    if name == "sac":
        assert kept.shape[1] <= SIZE * SIZE * 3 + 4 + 3, "a byte for a byte"
    elif picture:
        assert kept.dtype is torch.uint8


def test_bytes_come_back_from_the_buffer_as_they_were() -> None:
    agent = AGENTS["sac"].agent(Lamp(), CONFIGS["sac"])
    seen = []
    inner = agent.env.envs[0]
    honest = inner._show
    inner._show = lambda: seen.append(honest()) or seen[-1]
    agent.learn(60)
    rows = agent.spec.way_in.rows({k: np.stack([x[k] for x in seen]) for k in seen[0]}, len(seen))
    drawn = agent.buffer.sample(200)
    for key in ("observation", "next_observation"):
        for row in drawn[key].numpy():
            assert (rows == row).all(1).any()
    assert "bytes" not in CODECS


@pytest.mark.parametrize("shape", [(16, 16), (20, 30, 1), (3, 17, 40), (96, 96, 3), (4, 84, 84)])
def test_a_picture_is_seen_as_one(shape: tuple[int, ...]) -> None:
    """Moving the content by a convolution's stride moves the first layer's output: pixels are neighbours, channels are
    channels."""
    part = observation_of(spaces.Box(0, 255, shape, np.uint8)).parts[0]
    assert part.is_image
    net = CNN(shape, 9)
    image = torch.randint(256, (2, *shape))
    assert net(image.flatten(1).float()).shape == (2, 9)
    channels = 1 if len(shape) == 2 else shape[2] if net.last else shape[0]
    assert channels == min(*shape[:1], *shape[2:], 4) or channels == 1
    first = net.net[0]
    assert isinstance(first, nn.Conv2d)
    assert first.in_channels == channels


def test_an_extractor_of_ones_own(tmp_path: Path) -> None:
    def own(space: Any) -> nn.Module:
        return ByPart(space, lambda part: CNN(part.shape, 8) if part.is_image else nn.Linear(part.width, 5))

    for name, config in CONFIGS.items():
        one, two = (AGENTS[name].agent(Lamp(), config, seed=4, features=own).learn(96) for _ in range(2))
        for p, q in zip(one.networks.parameters(), two.networks.parameters(), strict=True):
            assert torch.equal(p, q), "a seed means the same weights"
        one.save(tmp_path / name)
        with pytest.raises(UserError, match="made with features of its own"):
            load_agent(tmp_path / name)
        loaded = load_agent(tmp_path / name, features=own)
        obs = Lamp().reset(seed=2)[0]
        assert loaded.predict(obs) == one.predict(obs)
    mixed = AGENTS["ppo"].agent(Lamp(), CONFIGS["ppo"], features=lambda space: by_part(space, 16, numbers=8))
    assert mixed.policy.actor.net.weights[0].shape[1] == 24
    for wrong, message in ((lambda s: 3, "must make a torch.nn.Module"), (lambda s: nn.Flatten(0), "must map rows")):
        with pytest.raises(UserError, match=message):
            AGENTS["sac"].agent(Lamp(), CONFIGS["sac"], features=wrong)
    with pytest.raises(UserError, match="features must be a function"):
        AGENTS["sac"].agent(Lamp(), CONFIGS["sac"], features="cnn")


def test_only_numbers_are_normalised() -> None:
    space = observation_of(
        spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3), "c": Lamp(True).observation_space})
    )
    normaliser = ObservationNormaliser.of(space)
    assert normaliser is not None
    rows = torch.rand(50, space.width) * 100
    normaliser.update(rows)
    found = normaliser(rows)
    assert torch.equal(found[:, 2:], rows[:, 2:])
    torch.testing.assert_close(found[:, :2], (rows[:, :2] - rows[:, :2].mean(0)) / rows[:, :2].std(0, correction=0))
    assert ObservationNormaliser.of(observation_of(Lamp(True).observation_space)) is None


def test_a_buffer_of_more_than_half_of_the_free_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The capacity that the sentence names fits; nothing was allocated before."""
    from iquitos_rl.buffers import placement

    monkeypatch.setattr(placement, "free_ram", lambda: 400 << 20)
    for capacity, width in ((300_000, 27_648), (10_000, 27_648), (4_000_000, 96)):
        kind: dict[str, Any] = {"byte_columns": tuple(range(width)), "choices": True}
        with pytest.raises(
            UserError, match=r"more than half of the free 400.0 MiB: set buffer_size to [\d,]+"
        ) as error:
            ReplayBuffer(capacity, 1, width, 1, **kind)
        fits = int(str(error.value).split("buffer_size to ")[1].split(", or")[0].replace(",", ""))
        assert 0 < fits < capacity
        assert ReplayBuffer(fits, 1, width, 1, **kind).nbytes <= 200 << 20
        with pytest.raises(UserError, match="half of the free"):
            ReplayBuffer(int(fits * 1.2), 1, width, 1, **kind)
    assert free_ram() > 0
