"""Videos of a policy: gymnasium's own files, with a frame for each observation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy import ToyBattery

from iquitos_rl.agents import PPO, Callback, PPOConfig, Video
from iquitos_rl.errors import UserError


class Seen(ToyBattery):
    """Six hours; draws its state of charge."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    render_mode = "rgb_array"

    def __init__(self) -> None:
        super().__init__()
        self.drawn = 0

    def step(self, action: Any) -> Any:
        obs, reward, _, _, info = super().step(action)
        return obs, reward, self._hour == 6, False, info

    def render(self) -> Any:
        self.drawn += 1
        frame = np.zeros((64, 64, 3), np.uint8)
        frame[: int(64 * self._soc)] = 255
        return frame


def agent() -> PPO:
    return PPO(ToyBattery(), PPOConfig(hidden=(8,), horizon=20, batch_size=20, epochs=1))


def test_every_recording_is_a_file_for_each_episode(tmp_path: Path) -> None:
    moviepy = pytest.importorskip("moviepy")
    env = Seen()
    made = agent().learn(60, callbacks=Video(env, tmp_path, every=40, episodes=2))
    names = {f"step-{steps}/rl-video-episode-{episode}.mp4" for steps in (40, 60) for episode in (0, 1)}
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4")} == names
    assert env.drawn == 2 * 2 * 7  # an observation before each action, and the last
    assert made.steps == 60
    clip = getattr(moviepy, "VideoFileClip", None)
    if clip is not None:
        with clip(str(tmp_path / "step-40" / "rl-video-episode-1.mp4")) as video:
            assert round(video.duration * video.fps) == 7
            assert video.size == [64, 64]


def test_learning_is_the_same_with_it(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    one, two = agent().learn(60, callbacks=Video(Seen(), tmp_path, every=30)), agent().learn(60, callbacks=Callback())
    assert all((p == q).all() for p, q in zip(one.policy.parameters(), two.policy.parameters()))


def test_what_cannot_be_recorded_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moviepy", None)
    with pytest.raises(UserError, match=r"moviepy cannot be imported .*: pip install 'iquitos_rl\[video\]'"):
        Video(Seen(), tmp_path)
    monkeypatch.setitem(sys.modules, "moviepy", sys)
    for env in (ToyBattery(), [Seen]):
        with pytest.raises(UserError, match='a video needs one environment with render_mode="rgb_array"'):
            Video(env, tmp_path)
