"""Episode figures against adding them up one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iquitos_rl.agents.progress import EpisodeTracker
from iquitos_rl.envs.vector import StepResult


def step(reward: list[float], terminated: list[bool], truncated: list[bool], **info: list[float]) -> StepResult:
    obs = torch.zeros(len(reward), 1)
    tensors = {name: torch.tensor(figures) for name, figures in info.items()}
    return StepResult(obs, torch.tensor(reward), torch.tensor(terminated), torch.tensor(truncated), obs, tensors)


def test_against_adding_up_one_by_one() -> None:
    rng = np.random.default_rng(0)
    tracker, running, lengths = EpisodeTracker(3, "cpu"), np.zeros(3), np.zeros(3)
    for _ in range(4):
        finished, money = [], 0.0
        for _ in range(25):
            reward, ends = rng.normal(size=3).round(2), rng.random((2, 3)) < 0.1
            tracker.update(step(reward.tolist(), ends[0].tolist(), ends[1].tolist(), money=(2 * reward).tolist()))
            running, lengths, money = running + reward, lengths + 1, money + 2 * reward.sum()
            finished += [(running[e], lengths[e]) for e in range(3) if ends[:, e].any()]
            running[ends.any(0)] = lengths[ends.any(0)] = 0.0
        returns, steps = np.mean(finished, axis=0)
        expected = {"episode_return": returns, "episode_length": steps, "env/money": money}
        assert tracker.collect() == pytest.approx(expected, rel=1e-5)


def test_no_finished_episode_no_figure() -> None:
    tracker = EpisodeTracker(2, "cpu")
    tracker.update(step([1.0, 1.0], [False, False], [False, False]))
    assert tracker.collect() == {}
    tracker.update(step([1.0, 1.0], [True, False], [False, True]))
    assert tracker.collect() == {"episode_return": 2.0, "episode_length": 2.0}
    assert tracker.episodes == 2


def test_figures_that_only_some_steps_have() -> None:
    tracker = EpisodeTracker(1, "cpu")
    tracker.update(step([0.0], [False], [False], kwh=[1.0]))
    tracker.update(step([0.0], [False], [False], kwh=[2.0], late=[5.0]))
    assert tracker.collect() == {"env/kwh": 3.0, "env/late": 5.0}
    assert tracker.collect() == {}


def test_state_goes_on_where_it_was() -> None:
    tracker, copy = EpisodeTracker(1, "cpu"), EpisodeTracker(1, "cpu")
    tracker.update(step([1.0], [True], [False], kwh=[1.0], cost=[3.0]))
    tracker.update(step([1.5], [False], [False], kwh=[1.0], cost=[4.0]))
    copy.load_state_dict(tracker.state_dict())
    for each in (tracker, copy):
        each.update(step([2.0], [True], [False], kwh=[1.0], cost=[5.0]))
    assert copy.collect() == tracker.collect()
    assert copy.episodes == 2


def test_abandoned_episodes_do_not_count() -> None:
    tracker = EpisodeTracker(1, "cpu")
    tracker.update(step([100.0], [False], [False]))
    tracker.abandon_episodes()
    tracker.update(step([1.0], [False], [True]))
    assert tracker.collect() == {"episode_return": 1.0, "episode_length": 1.0}
