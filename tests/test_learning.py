"""The learning benchmark's arithmetic; its training runs are for `benchmarks/learning.py` itself."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import trim_mean

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import learning
import learning_table
from learning_rows import ROWS, Row
from learning_table import Interval, difference, interquartile_mean, interval, table, verdict

from iquitos_rl.agents import AGENTS


def test_the_interquartile_mean_is_that_of_the_middle_half() -> None:
    rng = np.random.default_rng(0)
    for count in range(3, 12):
        scores = rng.normal(size=(4, count))
        np.testing.assert_allclose(interquartile_mean(scores), trim_mean(scores, 0.25, axis=-1))


def test_the_interval_covers_the_mean_as_often_as_it_says(monkeypatch: Any) -> None:
    """Of 200 samples of 30 normal scores, about 95 % of the intervals contain the true mean."""
    monkeypatch.setattr(learning_table, "RESAMPLES", 1_000)
    rng = np.random.default_rng(0)
    found = [interval(scores) for scores in rng.normal(5.0, 2.0, size=(200, 30))]
    assert 0.88 <= np.mean([one.low <= 5.0 <= one.high for one in found]) <= 0.99
    assert interval([3.0] * 5) == (3.0, 3.0, 3.0)


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says(monkeypatch: Any) -> None:
    monkeypatch.setattr(learning_table, "RESAMPLES", 1_000)
    rng = np.random.default_rng(1)
    samples = zip(rng.normal(5.0, 2.0, size=(200, 30)), rng.normal(4.0, 1.0, size=(200, 20)))
    found = [difference(ours, theirs) for ours, theirs in samples]
    assert 0.88 <= np.mean([one.low <= 1.0 <= one.high for one in found]) <= 0.99
    assert difference([3.0] * 5, [1.0] * 3) == (2.0, 2.0, 2.0)


def test_verdicts() -> None:
    """Small differences are level though they are certain, and large intervals say nothing."""
    found = {(-1, 4): "level", (1, 4): "level", (-4, -1): "level", (1, 6): "above", (-9, -1): "below", (-9, 1): "open"}
    assert {bounds: verdict(Interval(0, *bounds), 5.0) for bounds in found} == found


def test_every_evaluation_episode_starts_elsewhere_and_alike_for_both_libraries() -> None:
    """Seeds are base + episode: with one seed for all, twenty episodes would be one episode."""
    starts: list[tuple[float, ...]] = []
    time = 0

    def policy(obs: Any) -> Any:
        nonlocal time
        if time % 200 == 0:
            starts.append(tuple(obs.tolist()))
        time += 1
        return np.zeros(1, np.float32)

    returns = learning.evaluate(policy, "Pendulum-v1")
    assert learning.evaluate(policy, "Pendulum-v1") == returns
    assert len(returns) == learning.EPISODES
    assert len(set(starts)) == learning.EPISODES
    assert len(starts) == 2 * learning.EPISODES


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rows_are_settings_that_exist(row: Row) -> None:
    AGENTS[row.algorithm].config(**{key: value for key, value in row.ours.items() if key != "num_envs"})
    for settings in (row.ours, row.sb3):
        assert json.loads(json.dumps(settings)) == settings, "as it is compared with a stored run"


TINY = Row("a2c", "Pendulum-v1", 20, {"horizon": 5}, {}, "none", 7.5, "-1.0 ± 2.0 (3k)")


def test_a_finished_run_is_not_repeated_until_its_settings_change(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(learning, "EPISODES", 1)
    trained: list[int] = []
    honest = learning.train

    def train(row: Row, seed: int) -> Any:
        trained.append(seed)
        return honest(row, seed)

    monkeypatch.setattr(learning, "train", train)
    arguments = ["--rows", TINY.name, "--libraries", "ours", "--seeds", "3", "--output", str(tmp_path)]
    for rows in ((TINY,), (TINY,), (TINY._replace(ours={"horizon": 10}),)):
        monkeypatch.setattr(learning, "ROWS", rows)
        assert learning.main(arguments) == 0
    assert trained == [0, 1, 2] * 2
    page = (tmp_path / "learning.md").read_text(encoding="utf-8")
    assert "| A2C | Pendulum-v1 | 20 | -" in page
    assert "(3) | not measured |" in page


def test_a_row_with_few_seeds_is_not_measured() -> None:
    run = {"returns": [1.0, 2.0], "wall_seconds": 4.0, "cpu_seconds": 3.0}
    runs = {(TINY.name, "ours"): [run] * 5, (TINY.name, "sb3"): [run] * 2}
    assert table([TINY], runs).splitlines()[2] == (
        "| A2C | Pendulum-v1 | 20 | 1.5 [1.5, 1.5] (5) | not measured |  | 7.5 |  | -1.0 ± 2.0 (3k) | 4 (3) |  |"
    )


def test_an_environment_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(learning, "ROWS", (TINY._replace(env="Nowhere-v0"),))
    assert learning.main(["--seeds", "1", "--output", str(tmp_path)]) == 2
    assert "Nowhere-v0 cannot be made here" in capsys.readouterr().err
    assert not (tmp_path / "learning.md").exists()
