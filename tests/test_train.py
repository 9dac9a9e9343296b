"""The command from end to end on a short case, and what it says when its input is wrong."""

import json
import shlex
import shutil
import signal
import sys

import numpy as np
import pandas as pd
import pytest
from short_case import shorten

from iquitos_rl import __main__, evaluate, train
from iquitos_rl.agents import AGENTS, load_agent
from iquitos_rl.baselines.guided import controller
from iquitos_rl.envs import CityLearnSite
from iquitos_rl.runs import evaluation, request, session

pytestmark = pytest.mark.usefixtures("without_drawings")

TINY = [
    "--num-envs",
    "1",
    "--set",
    "agent.learning_starts=50",
    "--set",
    "agent.batch_size=32",
    "--set",
    "agent.hidden=[16]",
]


@pytest.fixture(scope="module")
def finished(week_38, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "run"
    status = train.main(["sac", "--case", str(week_38), "--episodes", "1", "--output", str(output), *TINY])
    assert status == 0
    return output


def test_a_run_leaves_everything_it_promises(finished):
    summary = json.loads((finished / "simulation_summary.json").read_text(encoding="utf-8"))
    assert list(summary["controllers"]) == ["grid_only", "uncontrolled", "strongest", "optimum", "sac"]
    assert summary["schema_version"] == 4
    assert summary["left_out"] == {}
    bills = {name: found["bill"] for name, found in summary["controllers"].items()}
    assert bills["optimum"] < bills["strongest"] < bills["uncontrolled"]
    closed = (bills["uncontrolled"] - bills["sac"]) / (bills["uncontrolled"] - bills["optimum"])
    assert summary["gap_closed"]["sac"] == pytest.approx(closed)
    assert summary["audit"]["district_bill_difference_percent"] < 0.01
    assert summary["simulator"] == "citylearn"
    assert summary["evaluated_on"] == "the period trained on"
    assert summary["audit"]["largest_balance_residual_kwh"] <= 1e-3
    assert summary["settings"]["sac"]["agent"]["hidden"] == [16]
    assert {"torch", "citylearn", "numpy"} <= set(summary["versions"])
    for name in ("uncontrolled", "strongest", "sac"):
        hours = pd.read_csv(finished / f"timeseries_{name}.csv")
        assert len(hours) == len(pd.read_csv(finished / f"trace_{name}.csv")) == 167
        assert hours.co2_kg.sum() == pytest.approx(summary["controllers"][name]["co2_kg"], rel=1e-6)
        sockets = pd.read_csv(finished / f"sockets_{name}.csv")
        found = summary["controllers"][name]
        assert (sockets.departures.sum(), sockets.served.sum()) == (found["departures"], found["departures_served"])
        assert sockets.missing_kwh.sum() == pytest.approx(found["ev_missing_kwh"], abs=1e-6)
        assert sockets.energy_kwh.sum() == pytest.approx(found["ev_kwh"], rel=1e-6)
    planned = pd.read_csv(finished / "timeseries_optimum.csv")
    balance = planned.load_kwh - planned.pv_kwh + planned.bess_kwh + planned.ev_kwh
    np.testing.assert_allclose(planned.net_kwh, balance, atol=1e-4)
    assert planned.co2_kg.sum() == pytest.approx(summary["controllers"]["optimum"]["co2_kg"], rel=1e-6)
    metrics = pd.read_csv(finished / "metrics.csv")
    assert metrics.step.iloc[-1] == 167
    assert (finished / "policy" / "policy.safetensors").is_file()
    assert list((finished / "tensorboard").iterdir())


def test_a_policy_with_a_memory_is_judged_as_it_acts(finished, week_38):
    """Trained, evaluated on CityLearn, and stepped by hand: the same hours."""
    output = finished.parent / "recurrent"
    sets = [f"--set=agent.{key}" for key in ("horizon=12", "sequence=6", "batch_size=48", "memory=8", "hidden=[8]")]
    arguments = ["recurrent_ppo", "--case", str(week_38), "--steps", "96", "--num-envs", "4", "--output", str(output)]
    assert train.main([*arguments, "--skip-baseline", *sets]) == 0
    agent = load_agent(output / "policy")
    env = CityLearnSite([week_38], spec=agent.spec.environment)
    act, (obs, _), actions, ended = controller(agent, env.task), env.reset(), [], False
    while not ended:
        actions.append(act(obs))
        obs, _, _, ended, _ = env.step(actions[-1])
    trace = pd.read_csv(output / "trace_recurrent_ppo.csv").filter(like="action/")
    np.testing.assert_allclose(trace.to_numpy(), np.stack(actions), rtol=1e-5, atol=1e-6)
    assert agent.remembered.abs().max() > 0


def test_reductions_follow_from_the_two_columns(finished):
    summary = json.loads((finished / "simulation_summary.json").read_text(encoding="utf-8"))
    sac, idle = summary["controllers"]["sac"], summary["controllers"]["uncontrolled"]
    assert summary["reductions_percent"]["sac"]["vs_uncontrolled"]["bill"] == pytest.approx(
        100 * (idle["bill"] - sac["bill"]) / idle["bill"]
    )


def test_a_saved_policy_is_judged_alike_again(finished, week_38, tmp_path):
    assert evaluate.main([str(finished), "--case", str(week_38), "--output", str(tmp_path / "again")]) == 0
    first = json.loads((finished / "simulation_summary.json").read_text(encoding="utf-8"))
    again = json.loads((tmp_path / "again" / "simulation_summary.json").read_text(encoding="utf-8"))
    for name in ("grid_only", "uncontrolled", "optimum", "sac"):
        assert again["controllers"][name] == first["controllers"][name]


def test_a_stopped_evaluation_leaves_nothing_and_says_how_to_repeat_it(
    finished, week_38, tmp_path, monkeypatch, capsys
):
    words, write = [str(finished), "--case", str(week_38), "--output", str(tmp_path / "again")], evaluation.write_json

    def stopped(*_):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(evaluation, "write_json", stopped)
    assert evaluate.main(words) == 143
    expected = shlex.join(["python", "-m", "iquitos_rl", "evaluate", *words])
    assert capsys.readouterr().err.endswith(f"stopped; to start it again: {expected}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    monkeypatch.setattr(evaluation, "write_json", write)
    assert evaluate.main(words) == 0


def test_a_second_process_finds_the_same_references(finished, week_38, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "LONG_YEAR", 100)
    monkeypatch.setattr(session, "cores", lambda: 2)
    arguments = ["sac", "--case", str(week_38), "--steps", "60", "--output", str(tmp_path / "run"), *TINY]
    assert train.main(arguments) == 0
    first, second = (
        json.loads((run / "simulation_summary.json").read_text("utf-8")) for run in (finished, tmp_path / "run")
    )
    for name in ("grid_only", "uncontrolled", "strongest", "optimum"):
        assert second["controllers"][name] == first["controllers"][name]
    names = ("timeseries_uncontrolled.csv", "trace_strongest.csv", "timeseries_optimum.csv")
    assert all((tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes() for name in names)
    phases = json.loads((tmp_path / "run" / "timings.json").read_text("utf-8"))["phases"]
    assert {"start", "years", "rule", "training", "evaluation", "references", "report"} <= {p["name"] for p in phases}
    assert "updates of sac, too few to learn from" in capsys.readouterr().out


def test_a_stored_baseline_can_be_reused(finished, week_38):
    output = finished.parent / "second"
    arguments = ["sac", "--case", str(week_38), "--steps", "60", "--skip-baseline", "--output", str(output), *TINY]
    assert train.main(arguments) == 0
    names = ("timeseries_uncontrolled.csv", "trace_uncontrolled.csv")
    assert all((output / name).read_bytes() == (finished / name).read_bytes() for name in names)


def test_all_judges_the_three_agents_beside_the_baselines_in_one_summary(week_38, tmp_path, capsys):
    two_days, output = shorten(shutil.copytree(week_38, tmp_path / "case"), 48), tmp_path / "all"
    arguments = ["--case", str(two_days), "--steps", "40", "--num-envs", "1", "--output", str(output)]
    assert train.main(["all", *arguments]) == 0
    summary = json.loads((output / "simulation_summary.json").read_text(encoding="utf-8"))
    assert list(summary["controllers"]) == ["grid_only", "uncontrolled", "strongest", "optimum", "sac", "ppo", "a2c"]
    assert summary["failed"] == {}
    bill = {name: figures["bill"] for name, figures in summary["controllers"].items()}
    assert summary["ranking"] == sorted(("sac", "ppo", "a2c"), key=bill.get)
    assert len({bill[name] for name in summary["ranking"]}) == 3
    assert all(summary["settings"][name]["num_envs"] == 1 for name in summary["ranking"])
    assert all((output / name / "policy" / "policy.safetensors").is_file() for name in summary["ranking"])
    table = capsys.readouterr().out
    assert all(f"{name}" in table for name in summary["controllers"])


def test_all_goes_on_when_one_agent_fails(week_38, tmp_path, monkeypatch, capsys):
    class Broken:
        def __init__(self, *args, **kwargs):
            raise FloatingPointError("the loss is NaN")

    monkeypatch.setitem(AGENTS._entries, "a2c", AGENTS["a2c"]._replace(place=Broken))
    monkeypatch.setattr(request, "shipped_agents", lambda: ["a2c", "sac"])
    judged, judge = [], session.evaluate_policy
    monkeypatch.setattr(session, "evaluate_policy", lambda name, *rest: judged.append(rest[0]) or judge(name, *rest))
    output = tmp_path / "all"
    assert train.main(["all", "--case", str(week_38), "--steps", "60", "--output", str(output)]) == 1
    summary = json.loads((output / "simulation_summary.json").read_text(encoding="utf-8"))
    assert summary["failed"] == {"a2c": "FloatingPointError: the loss is NaN"}
    assert summary["ranking"] == ["sac"]
    assert "a2c" not in summary["controllers"]
    assert "the loss is NaN" in (output / "a2c" / "error.txt").read_text(encoding="utf-8")
    assert "a2c failed" in capsys.readouterr().err
    assert [agent.env for agent in judged] == [None], "what is judged is what was saved"


def edit_csv(folder, name, change):
    path = folder / name
    frame = pd.read_csv(path)
    change(frame).to_csv(path, index=False)


def edit_schema(folder, change):
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    change(schema)
    path.write_text(json.dumps(schema), encoding="utf-8")


def charger(folder):
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    return next(iter(schema["buildings"]["Building_1"]["chargers"].values()))["charger_simulation"]


def set_cell(column, row, value):
    def change(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value
        return frame

    return change


BROKEN_CASES = {
    "short building file": (lambda f: edit_csv(f, "Building_1.csv", lambda d: d.iloc[:100]), "Building_1.csv"),
    "text in the load": (
        lambda f: edit_csv(f, "Building_1.csv", set_cell("non_shiftable_load", 7, "many")),
        "Building_1.csv",
    ),
    "blank load": (
        lambda f: edit_csv(f, "Building_1.csv", set_cell("non_shiftable_load", 7, np.nan)),
        "Building_1.csv",
    ),
    "blank charger state": (
        lambda f: edit_csv(f, charger(f), set_cell("electric_vehicle_charger_state", 9, np.nan)),
        "electric_vehicle_charger_state",
    ),
    "unknown vehicle": (
        lambda f: edit_csv(f, charger(f), lambda d: d.replace({"electric_vehicle_id": r".+"}, "ghost", regex=True)),
        "ghost",
    ),
    "missing charger file": (lambda f: (f / charger(f)).unlink(), "charger"),
    "missing weather file": (lambda f: (f / "weather.csv").unlink(), "weather.csv"),
    "missing weather column": (
        lambda f: edit_csv(f, "weather.csv", lambda d: d.drop(columns="direct_solar_irradiance")),
        "direct_solar_irradiance",
    ),
    "schema is not JSON": (lambda f: (f / "schema.json").write_text("{", encoding="utf-8"), "schema.json"),
    "schema without buildings": (lambda f: edit_schema(f, lambda s: s.pop("buildings")), "buildings"),
    "misspelled charger attribute": (
        lambda f: edit_schema(
            f,
            lambda s: next(iter(s["buildings"]["Building_1"]["chargers"].values())).update(
                attributes={"max_charging_powr": 3}
            ),
        ),
        "max_charging_powr",
    ),
    "broken tariff": (lambda f: (f / "tariff.json").write_text("[]", encoding="utf-8"), "tariff.json"),
}


@pytest.mark.parametrize("name", BROKEN_CASES)
def test_a_broken_case_is_one_sentence_and_status_2(week_38, tmp_path, capsys, name):
    damage, named = BROKEN_CASES[name]
    folder = shutil.copytree(week_38, tmp_path / "case")
    damage(folder)
    assert train.main(["sac", "--case", str(folder), "--steps", "60", "--output", str(tmp_path / "out"), *TINY]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert named in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--case", "no_such_case_anywhere"], "no_such_case_anywhere"),
        (["--config", "missing.yaml"], "missing.yaml cannot be read"),
        (["--set", "agent.gama=0.9"], "agent.gama is not a setting; did you mean agent.gamma?"),
        (["--set", "agent.batch_size=0"], "agent.batch_size = 0"),
        (["--set", "years=5000"], "years = 5000"),
        (["--episodes", "0"], "episodes = 0"),
        (["--seed", "-1"], "seed = -1"),
        (["--set", "case_settings={pv: {modle: x}}"], "modle"),
        (["--set", "task.objective.preset=free"], "task.objective.preset"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("CITYLEARN_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    assert train.main(["sac", "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dqn"], "there is no agent 'dqn'; there are sac, ppo, a2c"),
        (["sac", "--engine", "warp"], "engine = 'warp': there is no such engine; there are auto, district, citylearn"),
        (["sac", "--steps", "1", "--episodes", "1"], "utually exclusive arguments: {--episodes, --steps}"),
        ([], "AGENT requires an argument"),
        (["sac", "--sead", "1"], "unknown option: --sead. Did you mean --seed?"),
        (["sac", "--eng", "district"], "unknown option: --eng. Did you mean --engine?"),
        (["sac", "--steps", "1.5"], "--steps: 1.5 is not a whole number"),
        (["sac", "ppo"], "error: unexpected argument: ppo"),
        (["sac", "--seed", "many"], "--seed: many is not a whole number"),
        (["sac", "--device", "gpu"], 'value "gpu" for --device. Choose from: "auto", "cpu", "cuda"'),
        (["sac", "--set"], "--set requires an argument"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_sentence_and_status_2(arguments, message, tmp_path, capsys):
    assert train.main([*arguments, "--output", str(tmp_path / "out")] if arguments else []) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_relative_paths_mean_what_they_say(week_38, tmp_path, monkeypatch):
    """As on the command line of the README, where nothing is absolute."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(week_38, "my_case")
    assert train.main(["sac", "--case", "my_case", "--steps", "60", *TINY]) == 0
    (run,) = [path for path in (tmp_path / "outputs").iterdir() if path.name.startswith("my_case-sac-")]
    assert (run / "report.html").is_file()


def test_results_are_never_overwritten(tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine", encoding="utf-8")
    assert train.main(["sac", "--output", str(tmp_path)]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("command", ["train", "evaluate", "compare"])
def test_without_citylearn_nothing_is_begun(finished, week_38, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setitem(sys.modules, "citylearn", None)  # importing it fails
    words = {"train": ["sac"], "evaluate": [str(finished)], "compare": ["--agents", "a2c"]}[command]
    assert __main__.main([command, *words, "--case", str(week_38), "--output", str(tmp_path / "out")]) == 2
    assert "pip install --no-deps citylearn" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_gpu_is_said_plainly(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert train.main(["sac", "--device", "cuda", "--output", str(tmp_path / "out")]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_a_policy_that_is_no_policy_is_named(tmp_path, capsys):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "policy.json").write_text("{}", encoding="utf-8")
    status = evaluate.main([str(tmp_path), "--case", "iquitos-38", "--output", str(tmp_path / "out")])
    assert status == 2
    assert "policy" in capsys.readouterr().err
