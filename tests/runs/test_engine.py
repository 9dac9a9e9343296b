"""Which engine a run trains on and around which rule, and what it says about them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from schemas import Features, write_schema

from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import RunSettings, load_settings, shipped_agents, unguided_settings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging import references
from iquitos_rl.runs.engine import choose_guidance, make_engine

CPU = torch.device("cpu")
FEATURE = "buildings.Building_1: noise_std"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_schema(tmp_path / "site", 3, Features(rows=30, buildings=(1, 1), sockets=(1, 1), omit=0))


@pytest.fixture
def noisy(folder: Path) -> Path:
    """The same site with a feature that only CityLearn has."""
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["buildings"]["Building_1"]["noise_std"] = 0.1
    path.write_text(json.dumps(schema), encoding="utf-8")
    return folder


def test_auto_takes_the_district_engine_where_it_can(folder: Path) -> None:
    engine = make_engine(RunSettings(num_envs=3), [read_site(folder)], CPU)
    assert (engine.name, engine.env.num_envs, engine.steps_per_year) == ("district", 3, 29)
    assert isinstance(engine.env, DistrictSite)
    assert "reproduces this site" in engine.reason


def test_auto_falls_back_to_citylearn_and_says_why(noisy: Path) -> None:
    engine = make_engine(RunSettings(), [read_site(noisy)], CPU)
    assert engine.name == "citylearn"
    assert f"the district engine cannot reproduce {FEATURE}" in engine.reason
    engine.env.reset(seed=0)
    engine.env.close()


def test_the_district_engine_asked_for_by_name_is_never_replaced(noisy: Path) -> None:
    with pytest.raises(UserError, match=f"cannot reproduce {FEATURE}.*use the citylearn engine"):
        make_engine(RunSettings(engine="district"), [read_site(noisy)], CPU)


def test_citylearn_asked_for_by_name_is_not_called_a_fallback(folder: Path) -> None:
    engine = make_engine(RunSettings(engine="citylearn"), [read_site(folder)], CPU)
    assert engine.name == "citylearn"
    assert engine.reason.startswith("asked for")
    engine.env.close()


@pytest.fixture
def tuned(monkeypatch):
    """Tuning that takes no time; returns how often it was done."""
    calls = []

    def quick(name, sites, settings, on_share):
        calls.append(name)
        parameters = {"cap": 1.0, "reserve": 0.5, "night_soc": 0.5, "patience": 0.0}
        return RuleSettings(name, parameters, fit_profiles(sites))

    monkeypatch.setattr(references, "tune", quick)
    return calls


def test_the_rule_is_tuned_once_and_then_taken_from_the_cache(week_38, tmp_path, tuned):
    first, again = (choose_guidance(RunSettings(), [read_site(week_38)], tmp_path) for _ in range(2))
    assert tuned == ["strongest"]
    assert first.rule.parameters == again.rule.parameters
    assert "cap 1.00" in first.reason


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (RunSettings(guide="none"), "none was asked for"),
        (RunSettings(engine="citylearn"), "on the district engine only"),
        (RunSettings(task=TaskSettings(sockets="each")), "rules need task.ev_guard: true and task.sockets: fleet"),
        (RunSettings(task=TaskSettings(ev_guard=False)), "rules need task.ev_guard: true and task.sockets: fleet"),
    ],
)
def test_a_run_without_a_guide_says_why(week_38, tmp_path, tuned, settings, reason):
    found = choose_guidance(settings, [read_site(week_38)], tmp_path)
    assert found.rule is None
    assert reason in found.reason
    assert tuned == []


def test_a_guide_that_is_asked_for_and_cannot_act_is_an_error(week_38, tmp_path, tuned):
    with pytest.raises(UserError, match="guide = strongest: rules are followed on the district engine only"):
        choose_guidance(RunSettings(guide="strongest", engine="citylearn"), [read_site(week_38)], tmp_path)


@pytest.mark.parametrize("name", shipped_agents())
def test_the_settings_named_for_runs_without_a_guide_can_be_used(name):
    settings = load_settings([name], unguided_settings(name))
    assert settings.run.guide == "none"
    assert settings != load_settings([name])


def test_a_site_where_nothing_obeys_actions_is_refused(tmp_path: Path) -> None:
    folder = write_schema(tmp_path / "bare", 3, Features(rows=30, buildings=(1, 1), sockets=(0, 0), omit=0))
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    for action in schema["actions"].values():
        action["active"] = False
    path.write_text(json.dumps(schema), encoding="utf-8")
    with pytest.raises(UserError, match="nothing here obeys actions"):
        make_engine(RunSettings(guide="none", num_envs=2), [read_site(folder)], CPU)
