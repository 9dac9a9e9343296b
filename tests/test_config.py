"""Layers of settings, and what a mistake in one says."""

import pytest
from pydantic import BaseModel, ConfigDict, Field

from iquitos_rl import config
from iquitos_rl.agents.registry import AGENTS, AgentEntry
from iquitos_rl.assignments import validate, write_layer
from iquitos_rl.config import RunSettings, load_settings, shipped_agents
from iquitos_rl.errors import UserError


class AgentModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    gamma: float = Field(0.99, ge=0, lt=1)
    learning_rate: float = 3e-4


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """An own folder of shipped files and own agents, so that tuning them breaks no test; `toy` has no file."""
    monkeypatch.setattr(config, "config_folder", lambda: tmp_path)
    for name in ("sac", "toy"):
        monkeypatch.setitem(AGENTS._entries, name, AgentEntry(None, AgentModel, name, "#000000"))
    (tmp_path / "default.yaml").write_text("years: 2\nsteps: 100\n", encoding="utf-8")
    (tmp_path / "sac.yaml").write_text("agent: {gamma: 0.9, learning_rate: 0.1}\n", encoding="utf-8")
    (tmp_path / "iquitos-38.yaml").write_text("seed: 5\nsac: {agent: {gamma: 0.8}}\nppo: {seed: 9}\n", encoding="utf-8")
    return tmp_path


def test_later_layers_win(shipped, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("years: 4\nagent: {learning_rate: 0.2}\n", encoding="utf-8")
    settings = load_settings(["sac"], mine, {"seed": 7, "case": None}, ["task.ev_guard=false"]).agents["sac"]
    assert (settings.run.years, settings.run.seed, settings.run.steps) == (4, 7, 100)
    assert settings.run.task.ev_guard is False
    assert (settings.agent.gamma, settings.agent.learning_rate) == (0.8, 0.2)


def test_the_effective_settings_can_be_read_back(shipped, tmp_path):
    settings = load_settings(["sac"], None, {"seed": 3, "case": "1e3"}, ["task.objective.carbon_price=0.2"])
    again = tmp_path / "again.yaml"
    again.write_text(write_layer(settings.dump()["sac"]), encoding="utf-8")
    assert load_settings(["sac"], again) == settings


def test_a_budget_given_later_replaces_one_given_earlier(shipped):
    settings = load_settings(["sac"], None, {"episodes": 2})
    assert (settings.run.steps, settings.run.episodes) == (None, 2)


def test_settings_of_a_first_look_come_over_the_agents_and_under_the_users(shipped):
    (shipped / "quick.yaml").write_text("steps: 10\nsac: {agent: {learning_rate: 0.5}}\n", encoding="utf-8")
    quick = load_settings(["sac"], quick=True, sets=["seed=3"]).agents["sac"]
    assert (quick.run.steps, quick.agent.gamma, quick.agent.learning_rate, quick.run.seed) == (10, 0.8, 0.5, 3)
    assert load_settings(["sac"], quick=True, sets=["steps=7"]).run.steps == 7


def test_an_agent_without_a_shipped_file_has_its_own_defaults_and_is_not_one_of_all(shipped):
    settings = load_settings(["toy"])
    assert settings.agents["toy"].agent == AgentModel()
    assert settings.run.years == 2
    assert shipped_agents() == ["sac"]


def test_the_shipped_agents_are_the_built_in_ones():
    assert shipped_agents() == ["sac", "ppo", "a2c"]


def test_agents_that_are_trained_together_may_differ_in_what_is_their_own(shipped):
    settings = load_settings(["sac", "toy"], sets=["toy.num_envs=3", "sac.agent.gamma=0.5", "agent.learning_rate=1"])
    assert [own.run.num_envs for own in settings.agents.values()] == [1, 3]
    assert [own.agent.gamma for own in settings.agents.values()] == [0.5, 0.99]
    assert {own.agent.learning_rate for own in settings.agents.values()} == {1}


@pytest.mark.parametrize("key", ["case", "eval_case", "years", "task.ev_guard", "task.objective.preset"])
def test_agents_that_are_trained_together_have_one_case_and_one_objective(shipped, key):
    value = {"years": 9, "task.ev_guard": "off", "task.objective.preset": "co2"}.get(key, "elsewhere")
    name = "task.objective" if "objective" in key else key
    with pytest.raises(UserError, match=f"toy has another {name} than sac"):
        load_settings(["sac", "toy"], sets=[f"toy.{key}={value}"])


def test_a_budget_for_all_replaces_that_of_each(shipped):
    (shipped / "all.yaml").write_text("steps: 7\n", encoding="utf-8")
    assert load_settings(["sac"], together=True).run.steps == 7
    assert load_settings(["sac"]).run.steps == 100


def test_an_unknown_agent_is_named(shipped):
    with pytest.raises(UserError, match="there is no agent 'dqn'"):
        load_settings(["dqn"])


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["sead=1"], "sead is not a setting; did you mean seed?"),
        (
            ["task.objective.carbon_prize=1"],
            "task.objective.carbon_prize is not a setting; did you mean task.objective.carbon_price?",
        ),
        (["agent.gama=0.5"], "agent.gama is not a setting; did you mean agent.gamma?"),
        (["agent.gamma=1.5"], "agent.gamma = 1.5: input should be less than 1"),
        (["seed=many"], "seed = 'many': input should be a valid integer"),
        (["steps=5", "episodes=1"], "give either steps or episodes, not both"),
        (["engine=warp"], "engine = 'warp': there is no such engine; there are auto, district, citylearn"),
        (["seed=1.5"], "seed = 1.5: input should be a valid integer"),
        (["task.sockets.x=1"], "task.sockets = {'x': 1}: input should be 'each' or 'fleet'"),
        (["years=0"], "years = 0: input should be greater than or equal to 1"),
        (["agent=3"], "agent: expected settings of the agent"),
        (["seed"], "--set seed: expected key=value"),
        (["=1"], "--set =1: expected key=value"),
        (["task.x=[1"], "--set task.x=[1: the value is not valid YAML"),
        (["task=1", "task.x=2"], "--set task.x=2: task has been set to a value already"),
        (["task.objective.preset=cheap"], "task.objective.preset = 'cheap': input should be"),
    ],
)
def test_a_wrong_setting_is_one_sentence(shipped, sets, message):
    with pytest.raises(UserError) as error:
        load_settings(["sac"], sets=sets)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not valid YAML"),
        (b"- 1\n", "must hold settings"),
        (b"\xff\xfe\x00", "is not text in UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_an_unreadable_config_names_the_file(shipped, tmp_path, content, message):
    path = tmp_path / "user.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"user\.yaml") as error:
        load_settings(["sac"], path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_empty_layer_leaves_the_defaults():
    assert validate(RunSettings, {}, "") == RunSettings()
