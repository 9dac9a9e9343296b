"""The page for people from other libraries says what is true: its blocks run, side by side."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iquitos_rl.agents import A2CConfig, PPOConfig, SACConfig

PAGE = (Path(__file__).parents[1] / "docs" / "coming_from.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# (.*?)\n(.*?)```", PAGE, re.DOTALL)


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    scope: dict[str, Any] = {}
    exec(dict(BLOCKS)[name], scope)
    return scope


def test_the_same_task_in_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    monkeypatch.setitem(sys.modules, "gym", None)  # it asks for the old gym's version, and finds our folder of tests
    theirs = run("stable-baselines3", tmp_path, monkeypatch)
    ours = run("iquitos_rl", tmp_path, monkeypatch)
    assert theirs["model"].num_timesteps == ours["agent"].steps == 200
    assert ours["action"].shape == theirs["action"].shape
    assert ours["action"].dtype == theirs["action"].dtype
    assert np.isfinite([ours["mean"], ours["std"], theirs["mean"]]).all()
    assert (tmp_path / "best" / "policy.json").is_file()


def test_its_agents_on_the_district_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, week_38: Path) -> None:
    pytest.importorskip("stable_baselines3")
    monkeypatch.setitem(sys.modules, "gym", None)
    (tmp_path / "my_case").symlink_to(week_38)
    model = run("stable-baselines3 on the district engine", tmp_path, monkeypatch)["model"]
    assert model.num_timesteps == 1_024
    assert {episode["l"] for episode in model.ep_info_buffer} <= set(range(1, 25))
    assert len(model.ep_info_buffer) > 16


def test_cleanrls_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    agent = run("CleanRL's environments, iquitos_rl's PPO", tmp_path, monkeypatch)["agent"]
    assert agent.steps == 2_048
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_buildings_as_agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, week_38: Path) -> None:
    pytest.importorskip("pettingzoo")
    (tmp_path / "my_case").symlink_to(week_38)
    found = run("PettingZoo", tmp_path, monkeypatch)
    assert found["actions"]
    assert set(found["truncations"].values()) == {True}


def test_a_recorded_year(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, week_38: Path) -> None:
    pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    (tmp_path / "my_case").symlink_to(week_38)
    dataset = run("Minari", tmp_path, monkeypatch)["dataset"]
    assert (dataset.total_episodes, dataset.total_steps) == (1, 167)


def test_every_setting_that_is_named_exists() -> None:
    named = set(re.findall(r"`([a-z_]+)(?:=[^`]*)?`", "".join(re.findall(r"\|([^|\n]*)\|\n", PAGE))))
    known = {*SACConfig.model_fields, *PPOConfig.model_fields, *A2CConfig.model_fields}
    known |= {"actor", "critic", "features", "on_log", "until", "device", "seed"}
    assert named
    assert named <= known
