"""`tune` from end to end on a short site: the files it leaves, resuming, the years it may not use, what it refuses."""

import json
import re
import shutil
from functools import partial

import pytest
from short_case import shorten

from iquitos_rl import tune
from iquitos_rl.assignments import read_yaml
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.config import load_settings
from iquitos_rl.judging import references
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.report import style
from iquitos_rl.tuning.trial import rung_task

pytest.importorskip("optuna", reason="the extra [cluster]")
TINY = ["--steps", "180", "--num-envs", "2", "--set", "agent.hidden=[8]", "--set", "episode_hours=20"]
TINY += ["--set", "agent.horizon=4", "--set", "agent.batch_size=8"]


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """One site on two pairs of days: to train on and to validate on."""
    root = tmp_path_factory.mktemp("days")
    site = build_case("iquitos-128", 0, root / "site", {"sockets.moto_count": 2, "sockets.mototaxi_count": 1})
    return [shorten(shutil.copytree(site, root / f"days-{first}"), 40, first) for first in (24, 64)]


def arguments(days, output, *more):
    return ["ppo", "--case", str(days[0]), "--validation-cases", str(days[1]), *TINY, "--output", str(output), *more]


@pytest.fixture(scope="module")
def tuned(days, tmp_path_factory):
    output = tmp_path_factory.mktemp("outputs") / "tuning"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "tune", partial(references.tune, candidates=4, rounds=1))
        patch.setattr(style, "save", lambda draw, folder, name: "<svg></svg>")
        assert tune.main(arguments(days, output, "--trials", "3")) == 0
    return output


def read(output):
    return json.loads((output / "trials.json").read_text(encoding="utf-8"))


def test_what_it_found_is_what_train_takes(tuned):
    summary = read(tuned)
    best = summary["trials"][summary["best"]]
    assert best["rungs"]["9"] == min(t["rungs"]["9"] for t in summary["trials"] if t["state"] == "complete")
    settings = load_settings(["ppo"], tuned / "best.yaml").agents["ppo"]
    assert settings.dump() == read_yaml(tuned / "best.yaml")
    assert {key: settings.flat()[key] for key in best["settings"]} == best["settings"]
    assert settings.run.steps == 180
    assert settings.flat()["agent.hidden"] == [8], "what the user set is not tuned"
    assert "agent.hidden" not in best["settings"]


def test_trials_are_validated_on_the_validation_years_alone(tuned, days):
    assert read(tuned)["validated_on"] == [days[1].name]
    assert not (tuned.parent / "cache" / "references").exists()


def test_the_page_stands_alone(tuned):
    page = (tuned / "report.html").read_text(encoding="utf-8")
    assert f"Trial {read(tuned)['best']} of 3" in page
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert page.count("<svg") == 2


def test_more_trials_go_on_and_other_settings_are_refused(tuned, days, capsys, monkeypatch):
    before = read(tuned)["trials"]
    monkeypatch.setattr(style, "save", lambda draw, folder, name: "<svg></svg>")
    assert tune.main(arguments(days, tuned, "--trials", "4")) == 0
    after = read(tuned)["trials"]
    assert after[:3] == before
    assert len(after) == 4
    assert tune.main(arguments(days, tuned, "--trials", "4", "--set", "agent.gamma=0.9")) == 2
    assert "is a tuning with other settings" in capsys.readouterr().err


def test_a_training_in_rungs_is_one_training(days, tmp_path):
    sets = ["num_envs=2", "agent.hidden=[8]", "agent.horizon=4", "agent.batch_size=8", "steps=96", "guide=none"]
    settings = load_settings(["ppo"], flags={"case": str(days[0]), "threads": 1}, sets=sets).agents["ppo"]
    for name, pauses in (("parts", (16, 48, 96)), ("whole", (96,))):
        for pause in pauses:
            rung = rung_task("ppo", settings, pause, days[:1], days[1:], tmp_path / name, tmp_path, Interrupts())
            assert rung.reason == ""
    policies = [(tmp_path / name / "policy" / "policy.safetensors").read_bytes() for name in ("parts", "whole")]
    assert policies[0] == policies[1]
    rungs = [json.loads((tmp_path / name / "rung-96.json").read_text(encoding="utf-8")) for name in ("parts", "whole")]
    assert rungs[0] == rungs[1]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--trials", "0"], "--trials 0: at least 1"),
        (["--hours", "0"], "--hours 0.0: above 0"),
        (["--jobs", "2", "--cluster", "auto"], "give one of them"),
        (["--validation-years", "0"], "--validation-years 0: at least 1"),
        (["--set", "years=901"], "later seeds are for validation"),
    ],
)
def test_wrong_input_ends_in_one_sentence(days, tmp_path, capsys, more, complaint):
    assert tune.main(arguments(days, tmp_path / "new", *more)) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1


def test_years_trained_on_and_foreign_folders_are_refused(days, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert tune.main(arguments(days, tmp_path)) == 2
    assert "holds something, but no tuning" in capsys.readouterr().err
    kept = arguments(days, tmp_path / "new", "--set", f"eval_case={days[1]}")
    assert tune.main(kept) == 2
    assert "is trained on or kept for evaluation" in capsys.readouterr().err
