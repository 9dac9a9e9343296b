"""When a run steers around a rule, and what it says where it cannot."""

import pytest

from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.config import RunSettings, load_settings, shipped_agents
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging import references
from iquitos_rl.runs.guidance import choose_guidance, unguided_settings


@pytest.fixture
def tuned(monkeypatch):
    """Tuning that takes no time; returns how often it was done."""
    calls = []

    def quick(name, sites, settings, check):
        calls.append(name)
        parameters = {"cap": 1.0, "reserve": 0.5, "night_soc": 0.5, "patience": 0.0}
        return RuleSettings(name, parameters, references.fit_profiles(sites))

    monkeypatch.setattr(references, "tune", quick)
    return calls


def test_the_rule_is_tuned_once_and_then_taken_from_the_cache(week_38, tmp_path, tuned):
    first, again = (choose_guidance(RunSettings(), [week_38], tmp_path) for _ in range(2))
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
    found = choose_guidance(settings, [week_38], tmp_path)
    assert found.rule is None
    assert reason in found.reason
    assert tuned == []


def test_a_guide_that_is_asked_for_and_cannot_act_is_an_error(week_38, tmp_path, tuned):
    with pytest.raises(UserError, match="guide = strongest: rules are followed on the district engine only"):
        choose_guidance(RunSettings(guide="strongest", engine="citylearn"), [week_38], tmp_path)


@pytest.mark.parametrize("name", shipped_agents())
def test_the_settings_named_for_runs_without_a_guide_can_be_used(name):
    settings = load_settings([name], unguided_settings(name))
    assert settings.run.guide == "none"
    assert settings != load_settings([name])
