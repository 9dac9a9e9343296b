"""The list of settings: nothing is missing, and every value that it shows can be set."""

import pytest
from setting_fields import MODELS, fields

from iquitos_rl import settings
from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.assignments import read_value
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.config import RunSettings, load_settings, shipped_agents
from iquitos_rl.settings import describe_type, rows


@pytest.mark.parametrize("model", MODELS)
def test_every_field_of_every_model_is_listed_with_type_and_meaning(model):
    found = list(rows(model()))
    assert [row.key for row in found] == [key for _, _, key in fields(model)]
    for row in found:
        assert row.meaning, f"{row.key} has no description"
        assert row.type
        assert "<" not in row.type
        assert "typing" not in row.type


@pytest.mark.parametrize("agent", shipped_agents())
def test_the_command_lists_an_agents_settings_as_a_training_has_them(agent, capsys):
    assert settings.main([agent]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = dict(line.split(" = ", 1) for line in lines if not line.startswith(("#", " ")))
    own = load_settings([agent]).agents[agent]
    expected = [*rows(own.run), *rows(own.agent, "agent.")]
    assert list(shown) == [row.key for row in expected]
    assert [read_value(text) for text in shown.values()] == [row.value for row in expected]


def test_without_an_agent_the_runs_settings_are_listed(capsys):
    assert settings.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n{key} = " in text for _, _, key in fields(RunSettings))
    assert "agent." not in text


@pytest.mark.parametrize("preset", PRESETS)
def test_the_settings_of_a_preset_are_listed(preset, capsys):
    assert settings.main(["--case", preset]) == 0
    text = capsys.readouterr().out
    assert f"\nbess.capacity_kwh = {PRESETS[preset].settings.bess.capacity_kwh}\n" in text


@pytest.mark.parametrize(("words", "message"), [(["dqn"], "there is no agent 'dqn'"), (["--case", "x"], "preset 'x'")])
def test_what_is_unknown_is_one_sentence(words, message, capsys):
    assert settings.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_types_are_words():
    sac, run = AGENTS["sac"].config.model_fields, RunSettings.model_fields
    assert describe_type(sac["hidden"]) == "list of whole numbers, 1 or more of them"
    assert describe_type(sac["gamma"]) == "number, at least 0, at most 1"
    assert describe_type(sac["micro_batch"]) == "whole number or null, at least 1"
    assert describe_type(run["engine"]) == "auto or district or citylearn"
    assert describe_type(run["guide"]) == "auto or strongest or self-consumption or none"
    assert describe_type(run["case_settings"]) == "mapping"
