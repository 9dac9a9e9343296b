"""The comparison from end to end on a short site, what it reuses, and what it says when its input is wrong."""

import json
import shutil

import pandas as pd
import pytest
from short_case import shorten

from iquitos_rl import compare
from iquitos_rl.baselines.planner import fit_planner
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.comparison import runner
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.judging import references

pytestmark = pytest.mark.usefixtures("without_drawings")

TINY = ["--steps", "96", "--set", "num_envs=2", "--set", "agent.hidden=[8]"]
TINY += ["--set", "agent.horizon=4", "--set", "ppo.agent.batch_size=8", "--set", "episode_hours=20"]


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """One site on three pairs of days: to train on, and two to be judged on."""
    root = tmp_path_factory.mktemp("days")
    site = build_case("iquitos-128", 0, root / "site", {"sockets.moto_count": 2, "sockets.mototaxi_count": 1})
    return [shorten(shutil.copytree(site, root / f"days-{first}"), 40, first) for first in (24, 64, 104)]


def arguments(days, output, *more, agents=("a2c", "ppo")):
    cases = ["--case", str(days[0]), "--eval-cases", *map(str, days[1:])]
    return [*cases, "--agents", *agents, *TINY, "--output", str(output), *more]


@pytest.fixture(scope="module")
def finished(days, tmp_path_factory):
    output = tmp_path_factory.mktemp("outputs") / "comparison"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "tune", quick_tune)
        patch.setattr(references, "tune_planner", quick_planner)
        assert compare.main(arguments(days, output, "--seeds", "2")) == 0
    return output


def quick_tune(name, sites, settings, on_share):
    return tune(name, sites, settings, candidates=4, rounds=1, on_share=on_share)


def quick_planner(name, sites, settings, on_share):
    return fit_planner(name, sites, Objective(read_tariff(sites[0].path), settings.objective))


tune, train_task = references.tune, runner.train_task


def read(output):
    return json.loads((output / "simulation_summary.json").read_text(encoding="utf-8"))


def test_a_comparison_leaves_everything_it_promises(finished):
    summary = read(finished)
    assert summary["years"] == ["days-64", "days-104"]
    assert {"grid_only", "uncontrolled", "strongest", "mpc", "RBCSmartPolicy", "optimum", "a2c", "ppo"} <= set(
        summary["controllers"]
    )
    assert summary["left_out"] == {}
    assert summary["failed"] == {}
    assert summary["audit"]["largest_balance_residual_kwh"] < 1e-3
    assert summary["audit"]["district_largest_net_difference_kwh"] < 1e-2
    assert summary["memory"]["ram_peak_mib"] > 0
    table = pd.read_csv(finished / "comparison.csv")
    assert (table[table.controller == "ppo"].groupby("seed").size() == 2).all()
    assert len(table[table.controller == "strongest"]) == 2
    best = table[table.controller == "optimum"].set_index("year").bill
    assert (table.bill >= table.year.map(best) * (1 - 1e-6)).all()
    text = (finished / "comparison.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in summary["controllers"])
    assert "python -m iquitos_rl compare" in text
    assert "| a2c |" in (finished / "co2_comparison.md").read_text(encoding="utf-8")
    for name in ("uncontrolled", "strongest", "optimum", "a2c", "ppo"):
        assert len(pd.read_csv(finished / f"timeseries_{name}.csv")) == 39
    assert len(pd.read_csv(finished / "trace_ppo.csv")) == 39
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "days-24: " in page
    assert "compared</h1>" in page


def test_every_run_is_an_ordinary_one(finished):
    for name in ("a2c", "ppo"):
        for seed in (0, 1):
            run = finished / f"{name}-seed-{seed}"
            summary = read(run)
            assert summary["settings"][name]["seed"] == seed
            assert {"uncontrolled", "strongest", "optimum", name} <= set(summary["controllers"])
            assert (run / "report.html").is_file()
    seeds = [(finished / f"ppo-seed-{seed}" / "policy" / "policy.safetensors").read_bytes() for seed in (0, 1)]
    assert seeds[0] != seeds[1]


def test_what_is_finished_is_reused_and_more_seeds_are_added(finished, days, monkeypatch):
    before = read(finished)
    monkeypatch.setattr(runner, "reference_task", None)  # whoever works one out now fails
    trained, judged = [], []
    train_task, judge_task = runner.train_task, runner.judge_task
    monkeypatch.setattr(runner, "train_task", lambda *a: trained.append(a) or train_task(*a))
    monkeypatch.setattr(runner, "judge_task", lambda *a: judged.append(a) or judge_task(*a))
    assert compare.main(arguments(days, finished, "--seeds", "2")) == 0
    assert trained == judged == []
    again = read(finished)
    assert again["records"] == before["records"]
    assert again["standings"] == before["standings"]
    (finished / "ppo-seed-1" / "years" / "days-104.json").write_text("{", encoding="utf-8")
    assert compare.main(arguments(days, finished, "--seeds", "2")) == 0
    assert len(judged) == 1, "a damaged result is made again"
    assert read(finished)["records"] == before["records"]


def failing(seed):
    """Training that fails with one seed."""

    def task(request, log, interrupts):
        log.write_text("...\nerror: it broke\n", encoding="utf-8")
        return 1 if request.flags["seed"] == seed else train_task(request, log, interrupts)

    return task


def test_a_training_that_fails_is_reported_and_the_others_stand(finished, days, tmp_path, monkeypatch):
    output = tmp_path / "comparison"
    shutil.copytree(finished.parent / "cache", tmp_path / "cache")
    shutil.copytree(finished, output)
    shutil.rmtree(output / "a2c-seed-1")
    monkeypatch.setattr(runner, "train_task", failing(1))
    assert compare.main(arguments(days, output, "--seeds", "2", agents=["a2c"])) == 1
    summary = read(output)
    assert summary["failed"] == {"a2c-seed-1": "error: it broke (status 1, a2c-seed-1.log)"}
    assert summary["standings"]["a2c"]["seeds"] == 1
    assert "ppo" not in summary["standings"]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--agents", "dqn"], "--agents dqn: there are sac, ppo, a2c"),
        (["--seeds", "0"], "--seeds 0: at least 1"),
        (["--jobs", "0"], "--jobs 0: at least 1"),
        (["--eval-years", "-1"], "--eval-years -1: at least 1"),
        (["--steps", "97"], "steps was 96 and is 97): choose another --output"),
        (["--set", "agent.hidden=[9]"], "choose another --output"),
        (["--set", "ppo.task.objective.carbon_price=1"], "a2c has another task.objective than ppo"),
        (["--set", "nonsense=1"], "nonsense is not a setting"),
    ],
)
def test_wrong_input_ends_in_one_sentence(finished, days, capsys, more, complaint):
    before = (finished / "simulation_summary.json").read_bytes()
    assert compare.main(arguments(days, finished, *more)) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert (finished / "simulation_summary.json").read_bytes() == before


def test_a_folder_without_another_year_is_judged_on_itself_and_the_summary_says_so(days, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(references, "tune", quick_tune)
    monkeypatch.setattr(references, "tune_planner", quick_planner)
    tables = ["--case", str(days[0]), "--agents", "a2c", "--seeds", "1", *TINY]
    assert compare.main([*tables, "--output", str(tmp_path / "new")]) == 0
    assert "warning: agents are judged on the data that they were trained on" in capsys.readouterr().out
    summary = json.loads((tmp_path / "new" / "simulation_summary.json").read_text(encoding="utf-8"))
    assert summary["evaluated_on"] == "the period trained on"
    assert any("trained on" in warning for warning in summary["audit"]["warnings"])


def test_years_trained_on_and_foreign_folders_are_refused(days, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    assert compare.main(arguments(days, tmp_path)) == 2
    assert "holds something, but no comparison" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    cases = ["--case", str(days[0]), "--eval-cases", str(days[0])]
    assert compare.main([*cases, "--agents", "a2c", *TINY, "--output", str(tmp_path / "new")]) == 2
    assert "a year that is trained on cannot judge" in capsys.readouterr().err
