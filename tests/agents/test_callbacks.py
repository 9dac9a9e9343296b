"""What can be done in the course of a `learn`, and the evaluation of policies, counted by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from hypothesis import given
from hypothesis import strategies as st
from toy import HOURS, ToyBattery

from iquitos_rl import evaluate_policy
from iquitos_rl.agents import AGENTS, A2CConfig, PPOConfig, RecurrentPPOConfig, SACConfig, load_agent
from iquitos_rl.agents.callbacks import Callback, Evaluate, SaveEvery, StopEarly
from iquitos_rl.agents.evaluating import Episodes, run_episodes
from iquitos_rl.errors import UserError

CONFIGS: dict[str, Any] = {
    "sac": SACConfig(hidden=(8,), batch_size=8, learning_starts=20, buffer_size=400, log_every=40),
    "ppo": PPOConfig(hidden=(8,), horizon=20, batch_size=20, epochs=1),
    "a2c": A2CConfig(hidden=(8,), log_every=40),
    "recurrent_ppo": RecurrentPPOConfig(memory=6, hidden=(8,), horizon=10, sequence=5, batch_size=10, epochs=2),
}
every = pytest.mark.parametrize("name", CONFIGS)


def make(name: str, seed: int = 0) -> Any:
    return AGENTS[name].agent([ToyBattery] * 2, CONFIGS[name], seed=seed)


def weights(agent: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in agent.networks.parameters()])


class Diary(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.told: list[Any] = []
        self.found: list[int] = []
        self.ends = 0

    def on_step(self, agent: Any, steps: int) -> None:
        self.steps.append(steps)

    def on_log(self, agent: Any, progress: Any) -> None:
        self.told.append(progress)

    def on_evaluation(self, agent: Any, steps: int, episodes: Episodes) -> None:
        self.found.append(steps)

    def on_end(self, agent: Any) -> None:
        self.ends += 1


@every
def test_callbacks_are_called_and_change_nothing(name: str) -> None:
    diary, reports = Diary(), list[Any]()
    agent = make(name).learn(160, reports.append, callbacks=[Evaluate(ToyBattery(), every=60, episodes=1), diary])
    assert diary.steps == list(range(2, 161, 2))
    assert diary.told == reports
    assert diary.found == [60, 120, 160], "and at the end"
    assert diary.ends == 1
    assert torch.equal(weights(agent), weights(make(name).learn(160)))
    agent.learn(40, callbacks=diary)
    assert diary.ends == 2


@every
def test_a_callback_ends_learning(name: str) -> None:
    class Until(Callback):
        def on_step(self, agent: Any, steps: int) -> None:
            if steps >= 90:
                agent.stop()

    diary, reports = Diary(), list[Any]()
    agent = make(name).learn(1_000, reports.append, callbacks=[Until(), diary])
    assert 90 <= agent.steps <= 120
    assert reports[-1].steps == agent.steps
    assert diary.ends == 1
    assert agent.learn(40).steps <= 160, "the next learn is not stopped"


@every
def test_the_best_policy_is_kept(name: str, tmp_path: Path) -> None:
    evaluate = Evaluate([ToyBattery], every=40, episodes=1, best=tmp_path / "best")
    make(name).learn(400, callbacks=evaluate)
    returns = [found.mean for _, found in evaluate.results]
    assert [steps for steps, _ in evaluate.results] == list(range(40, 401, 40))
    assert evaluate.best == max(returns)
    best = load_agent(tmp_path / "best")
    assert run_episodes(best, ToyBattery(), 1).mean == max(returns)
    stop = StopEarly(at_return=-1e9)
    assert make(name).learn(2_000, callbacks=[Evaluate(ToyBattery(), every=40, episodes=1), stop]).steps <= 80


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 4), st.integers(3, 7))
def test_learning_stops_when_it_is_good_enough_or_nothing_gets_better(
    returns: list[int], patience: int, at_return: int
) -> None:
    class Stopped:
        at: int | None = None

        def stop(self) -> None:
            self.at = n if self.at is None else self.at

    agent: Any = Stopped()
    callback = StopEarly(at_return, patience)
    for n, value in enumerate(returns):
        callback.on_evaluation(agent, n, Episodes([float(value)], [1]))

    def enough(n: int) -> bool:
        best = returns.index(max(returns[: n + 1]))
        return returns[n] >= at_return or n - best >= patience

    assert agent.at == next((n for n in range(len(returns)) if enough(n)), None)


@every
def test_saves_are_what_load_goes_on_from(name: str, tmp_path: Path) -> None:
    saves = SaveEvery(tmp_path, every=80, buffer=True, keep=2)
    agent = make(name).learn(400, callbacks=saves)
    assert [path.name for path in saves.saved] == ["320", "400"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["320", "400"]
    loaded = load_agent(tmp_path / "400", [ToyBattery] * 2)
    assert (loaded.steps, loaded.updates) == (agent.steps, agent.updates)
    assert load_agent(tmp_path / "320", [ToyBattery] * 2).steps == 320


def test_wrong_callbacks_are_one_sentence() -> None:
    for wrong in (Diary, [lambda p: None], ["print"]):
        with pytest.raises(UserError, match="callbacks must have on_step, on_log, on_evaluation, on_end"):
            make("a2c").learn(40, callbacks=wrong)
    with pytest.raises(UserError, match="needs at_return or patience"):
        StopEarly()
    with pytest.raises(UserError, match="every must be a whole number"):
        Evaluate(ToyBattery(), every=0)


class Lengths(gymnasium.Env[Any, Any]):
    """Episodes of 1, 2, 3, ... steps; each step pays what the action says, and the start pays the episode's number."""

    observation_space = Box(-np.inf, np.inf, (1,))
    action_space = Box(-1, 1, (1,))

    def __init__(self) -> None:
        self.episode = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode, self.t = (1 if seed is not None else self.episode + 1), 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(1, np.float32), float(self.episode), self.t == self.episode, False, {}


@every
def test_every_environment_runs_its_share_of_episodes(name: str) -> None:
    agent = AGENTS[name].agent(Lengths(), CONFIGS[name])
    assert run_episodes(agent, Lengths(), 4) == Episodes([1.0, 4.0, 9.0, 16.0], [1, 2, 3, 4])
    assert run_episodes(agent, [Lengths] * 3, 5).lengths == [1, 2, 1, 2, 1]
    mean, std = evaluate_policy(agent, Lengths(), episodes=2)
    assert (mean, std) == (2.5, 1.5)
    for wrong in (0, 1.5, None):
        with pytest.raises(UserError, match="episodes must be a whole number"):
            evaluate_policy(agent, Lengths(), wrong)
    with pytest.raises(UserError, match="obs_dim is 4"):
        evaluate_policy(agent, ToyBattery())
    with pytest.raises(UserError, match="an agent of iquitos_rl can be evaluated, not a str"):
        evaluate_policy("agent", Lengths())  # type: ignore[arg-type]


@every
def test_an_evaluation_is_that_by_hand(name: str) -> None:
    agent = make(name).learn(80)
    env, total = ToyBattery(), 0.0
    obs, _ = env.reset(seed=10_000)
    for _ in range(HOURS):
        obs, reward, *_ = env.step(agent.predict(obs))
        total += np.float32(reward)
    assert evaluate_policy(agent, ToyBattery(), 1)[0] == pytest.approx(total, abs=1e-6)
