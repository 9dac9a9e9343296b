"""Search spaces: all of them settings that the agents take, the shipped ones among them; and what the search does with
the budget, with trials that are worse, fail, or were interrupted."""

import math
from functools import partial

import pytest

from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.agents.search import Between, OneOf
from iquitos_rl.assignments import write_value
from iquitos_rl.config import load_settings
from iquitos_rl.machine.interrupt import Interrupted, Interrupts
from iquitos_rl.runs.executor import InThisProcess, Step
from iquitos_rl.tuning.trial import Rung

pytest.importorskip("optuna", reason="the extra [cluster]")
from iquitos_rl.tuning.study import RUNGS, Budget, distributions, inside, open_study, search_for, values_of

SPACE = {"x": Between(0.0, 1.0), "n": Between(1, 9), "agent.hidden": OneOf(((8,), (8, 8)))}
TUNED = [name for name in AGENTS if AGENTS[name].search]


@pytest.mark.parametrize("name", TUNED)
def test_every_setting_that_is_searched_is_one_and_has_its_shipped_value_inside(name):
    search, start = AGENTS[name].search, load_settings([name]).agents[name].flat()
    assert inside(start, search) is not None
    for key, space in search.items():
        for value in space.values if isinstance(space, OneOf) else (space.low, space.high):
            found = load_settings([name], sets=[f"{key}={write_value(value)}"]).agents[name].flat()[key]
            assert found == (list(value) if isinstance(value, tuple) else value)


def test_all_shipped_agents_can_be_tuned():
    assert {"sac", "ppo", "a2c", "shac"} <= set(TUNED)


def test_values_go_to_optuna_and_back():
    values = {"x": 0.25, "n": 3, "agent.hidden": (8, 8)}
    assert values_of(inside(values, SPACE), SPACE) == values
    assert inside({**values, "x": 1.5}, SPACE) is None
    assert inside({**values, "agent.hidden": (9,)}, SPACE) is None
    kinds = {key: type(found).__name__ for key, found in distributions(SPACE).items()}
    assert kinds == {"x": "FloatDistribution", "n": "IntDistribution", "agent.hidden": "CategoricalDistribution"}


def cost(values, rung):
    """Low near x = 0.3 with wide layers, and lower the longer a trial is trained."""
    return (values["x"] - 0.3) ** 2 + 0.1 * (values["agent.hidden"] == (8,)) - 0.01 * rung


class Search:
    """A search whose trials cost what a formula says; notes every rung."""

    def __init__(self, folder, cost=cost, stop_after=math.inf):
        self.folder, self.cost, self.stop_after, self.rungs = folder, cost, stop_after, []
        self.interrupts = Interrupts()

    def train(self, number, values, rung, interrupts):
        self.rungs.append((number, rung))
        if len(self.rungs) > self.stop_after:
            interrupts.number = 2
            interrupts.check()
        found = self.cost(values, rung)
        return found if isinstance(found, Rung) else Rung(found)

    def run(self, budget, at_once=1, start=None):
        study = open_study(self.folder, "test")
        if start is not None and not study.trials:
            study.enqueue_trial(start)
        step = lambda *own: Step(partial(self.train, *own))  # noqa: E731
        with InThisProcess(self.interrupts, "again") as executor:
            list(search_for(study, SPACE, budget, at_once, 0, executor, step))
        return study


def found(study):
    return [(t.state.name, t.params, t.intermediate_values) for t in study.trials]


def test_a_search_stays_in_its_budget_and_comes_near_the_best(tmp_path):
    search = Search(tmp_path)
    study = search.run(Budget(30))
    assert len(study.trials) == 30
    assert abs(study.best_params["x"] - 0.3) < 0.15
    assert study.best_params["agent.hidden"] == "8 8"
    rungs = [sum(rung == own for _, rung in search.rungs) for own in range(len(RUNGS))]
    assert rungs[0] == 30
    assert 30 > rungs[1] >= rungs[2] >= 1, "fewer and fewer go on"
    ended = [t for t in study.trials if t.state.name == "PRUNED"]
    assert all(RUNGS[-1] not in trial.intermediate_values for trial in ended)
    Search(tmp_path).run(Budget(32))
    assert len(open_study(tmp_path, "test").trials) == 32, "a larger budget goes on"


def test_the_first_trial_has_the_settings_at_the_start(tmp_path):
    study = Search(tmp_path).run(Budget(3), start=inside({"x": 0.9, "n": 2, "agent.hidden": (8,)}, SPACE))
    assert values_of(study.trials[0].params, SPACE) == {"x": 0.9, "n": 2, "agent.hidden": (8,)}


@pytest.mark.parametrize("stop_after", [0, 1, 4, 11])
def test_a_search_that_is_interrupted_anywhere_goes_on_as_if_it_had_not_been(tmp_path, stop_after):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = Search(tmp_path / "whole").run(Budget(12))
    with pytest.raises(Interrupted):
        Search(tmp_path / "parts", stop_after=stop_after).run(Budget(12))
    assert found(Search(tmp_path / "parts").run(Budget(12))) == found(whole)


def test_several_trials_at_once_are_as_many_in_all(tmp_path):
    study = Search(tmp_path).run(Budget(11), at_once=4)
    assert len(study.trials) == 11
    assert {t.state.name for t in study.trials} <= {"COMPLETE", "PRUNED"}


def test_a_trial_that_fails_is_noted_and_the_others_go_on(tmp_path):
    def failing(values, rung):
        return Rung(None, "it broke") if values["x"] > 0.5 else cost(values, rung)

    study = Search(tmp_path, failing).run(Budget(12))
    failed = [t for t in study.trials if t.state.name == "FAIL"]
    assert failed
    assert all(t.params["x"] > 0.5 and t.user_attrs["reason"] == "it broke" for t in failed)
    assert study.best_params["x"] <= 0.5


def test_time_that_is_spent_begins_nothing_more(tmp_path):
    study = Search(tmp_path).run(Budget(12, seconds=1e-9))
    assert study.trials == []
