"""Layers of settings, and what a mistake in one says."""

import pytest
from pydantic import BaseModel, ConfigDict, Field

from iquitos_rl import config
from iquitos_rl.config import RunSettings, load_settings, merge, parse_assignments, validate
from iquitos_rl.errors import UserError


class AgentModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    gamma: float = Field(0.99, ge=0, lt=1)
    learning_rate: float = 3e-4


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """An own folder of shipped files, so that tuning them breaks no test."""
    monkeypatch.setattr(config, "config_folder", lambda: tmp_path)
    (tmp_path / "default.yaml").write_text("years: 2\nsteps: 100\n", encoding="utf-8")
    (tmp_path / "sac.yaml").write_text("agent: {gamma: 0.9, learning_rate: 0.1}\n", encoding="utf-8")
    (tmp_path / "iquitos-38.yaml").write_text("seed: 5\nsac: {agent: {gamma: 0.8}}\nppo: {seed: 9}\n", encoding="utf-8")
    return tmp_path


def test_later_layers_win(shipped, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("years: 4\nagent: {learning_rate: 0.2}\n", encoding="utf-8")
    settings = load_settings("sac", AgentModel, mine, {"seed": 7, "case": None}, ["task.ev_guard=false"])
    assert (settings.run.years, settings.run.seed, settings.run.steps) == (4, 7, 100)
    assert settings.run.task.ev_guard is False
    assert (settings.agent.gamma, settings.agent.learning_rate) == (0.8, 0.2)


def test_the_effective_settings_can_be_read_back(shipped, tmp_path):
    import yaml

    settings = load_settings("sac", AgentModel, None, {"seed": 3}, ["task.objective.carbon_price=0.2"])
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(settings.dump()), encoding="utf-8")
    assert load_settings("sac", AgentModel, again) == settings


def test_a_budget_given_later_replaces_one_given_earlier(shipped):
    settings = load_settings("sac", AgentModel, None, {"episodes": 2})
    assert (settings.run.steps, settings.run.episodes) == (None, 2)


def test_assignments_nest_and_read_values_as_yaml():
    layer = parse_assignments(["a.b=1", "a.c=[1, 2]", "d=null", "e=x=y"])
    assert layer == {"a": {"b": 1, "c": [1, 2]}, "d": None, "e": "x=y"}


def test_merge_does_not_change_its_arguments():
    base, over = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}
    assert merge(base, over) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["sead=1"], "sead is not a setting; did you mean seed?"),
        (["task.objective.carbon_prize=1"], "carbon_prize is not a setting; did you mean carbon_price?"),
        (["agent.gama=0.5"], "agent.gama is not a setting; did you mean gamma?"),
        (["agent.gamma=1.5"], "agent.gamma = 1.5: input should be less than 1"),
        (["seed=many"], "seed = 'many': input should be a valid integer"),
        (["steps=5", "episodes=1"], "give either steps or episodes, not both"),
        (["years=0"], "years = 0: input should be greater than or equal to 1"),
        (["agent=3"], "agent: expected settings of the algorithm"),
        (["seed"], "--set seed: expected key=value"),
        (["=1"], "--set =1: expected key=value"),
        (["task.x=[1"], "--set task.x=[1: the value is not valid YAML"),
        (["task=1", "task.x=2"], "--set task.x=2: task has been set to a value already"),
        (["task.objective.preset=cheap"], "task.objective.preset = 'cheap': input should be"),
    ],
)
def test_a_wrong_setting_is_one_sentence(shipped, sets, message):
    with pytest.raises(UserError) as error:
        load_settings("sac", AgentModel, None, None, sets)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not valid YAML"),
        (b"- 1\n", "must hold settings"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (None, "cannot be read"),
    ],
)
def test_an_unreadable_config_names_the_file(shipped, tmp_path, content, message):
    path = tmp_path / "user.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"user\.yaml") as error:
        load_settings("sac", AgentModel, path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_layer_leaves_the_defaults():
    assert validate(RunSettings, {}, "") == RunSettings()
