"""Writers of metrics, against fakes of the calls that the three libraries document.

The fakes are ours: they record what they are called with and know nothing else. Where a library is installed, a test
holds each of these calls against the library's own signature.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gymnasium
import pandas as pd
import pytest
import torch

from iquitos_rl.agents import PPO, Evaluate, PPOConfig, Write
from iquitos_rl.config import load_settings
from iquitos_rl.errors import UserError
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.report.metrics import MetricsWriter
from iquitos_rl.runs.timings import Timings
from iquitos_rl.runs.training import Session, Training
from iquitos_rl.runs.years import Years
from iquitos_rl.writers.registry import WRITERS
from iquitos_rl.writers.several import Writers

SETTINGS = {"case": "week", "agent": {"gamma": 0.9, "hidden": [8, 8]}}
Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


class Fake:
    """An object whose methods record their calls and return what they are said to."""

    def __init__(self, calls: Calls, prefix: str, **returned: Any) -> None:
        self._calls, self._prefix, self._returned = calls, prefix, returned

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = self._returned.get(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls.append((self._prefix + name, args, kwargs))
            return found(*args, **kwargs) if callable(found) else found

        return call


def fake_wandb(calls: Calls) -> Any:
    def run(**kwargs: Any) -> Any:
        found = Fake(calls, "Run.")
        found.id = kwargs["id"] or "new"
        return found

    return Fake(calls, "", init=run)


def fake_trackio(calls: Calls) -> Any:
    return Fake(calls, "", init=lambda **kwargs: SimpleNamespace(name=kwargs["name"]))


def fake_mlflow(calls: Calls) -> Any:
    run = SimpleNamespace(info=SimpleNamespace(run_id="new"))
    client = Fake(calls, "MlflowClient.", create_experiment="7", create_run=run, get_experiment_by_name=None)
    found = Fake(calls, "", MlflowClient=client)
    found.entities = SimpleNamespace(Metric=lambda *args: args, Param=lambda *args: args)
    return found


FAKES = {"wandb": fake_wandb, "mlflow": fake_mlflow, "trackio": fake_trackio}
ENTRIES = dict(WRITERS._entries)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Calls]]:
    """What each fake was called with, while the fakes stand for the libraries."""
    found: dict[str, Calls] = {name: [] for name in FAKES}
    monkeypatch.setattr(WRITERS, "_entries", dict(ENTRIES))
    for name, fake in FAKES.items():
        monkeypatch.setitem(sys.modules, name, fake(found[name]))
        monkeypatch.delitem(sys.modules, f"iquitos_rl.writers.{name}", raising=False)  # imported anew, with the fake
    yield found
    for name in FAKES:
        sys.modules.pop(f"iquitos_rl.writers.{name}", None)


@pytest.mark.parametrize("name", FAKES)
def test_every_report_arrives_in_order_in_one_run(calls: dict[str, Calls], name: str) -> None:
    writer = WRITERS[name]("project", "run", SETTINGS, None)
    writer.write(10, {"episode_return": 1.5, "env/import_kwh": 2.0})
    writer.write(20, {"episode_return": 2.5})
    writer.close()
    made = calls[name]
    ends = {"wandb": "Run.finish", "mlflow": "MlflowClient.set_terminated", "trackio": "finish"}
    assert made[-1][0] == ends[name]
    assert [call[0] for call in made].count(made[-1][0]) == 1
    if name == "mlflow":
        batches = [call[2]["metrics"] for call in made if "metrics" in call[2]]
        found = [(batch[0][3], {name: value for name, value, _, _ in batch}) for batch in batches]
        assert {call[1][0] for call in made if call[0] == "MlflowClient.log_batch"} == {"new"}
        assert [call[2]["params"] for call in made if "params" in call[2]] == [
            [("case", "week"), ("agent.gamma", "0.9"), ("agent.hidden", "[8, 8]")]
        ]
    else:
        log = "Run.log" if name == "wandb" else "log"
        found = [(kwargs["step"], args[0]) for call, args, kwargs in made if call == log]
        assert found == [(10, {"episode_return": 1.5, "env/import_kwh": 2.0}), (20, {"episode_return": 2.5})]
        assert made[0][0] == "init"
        assert made[0][2]["config"] == SETTINGS
        assert made[0][2]["project"] == "project"
    assert found == [(10, {"episode_return": 1.5, "env/import_kwh": 2.0}), (20, {"episode_return": 2.5})]


@pytest.mark.parametrize("name", FAKES)
def test_a_run_goes_on_under_its_id(calls: dict[str, Calls], name: str) -> None:
    first = WRITERS[name]("project", "run", SETTINGS, None)
    assert first.run_id == ("run" if name == "trackio" else "new")
    again = WRITERS[name]("project", "another name", SETTINGS, first.run_id)
    assert again.run_id == first.run_id
    if name == "mlflow":
        assert [call[0] for call in calls[name]].count("MlflowClient.create_run") == 1
        assert calls[name][-1] == ("MlflowClient.update_run", ("new",), {"status": "RUNNING"})
    else:
        assert calls[name][-1][2]["resume"] == "allow"
        assert first.run_id in (calls[name][-1][2].get("id"), calls[name][-1][2]["name"])


@pytest.mark.parametrize("name", FAKES)
def test_the_calls_are_those_of_the_library(
    calls: dict[str, Calls], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run_id in (None, "old"):
        writer = WRITERS[name]("project", "run", SETTINGS, run_id)
        writer.write(10, {"episode_return": 1.5})
        writer.close()
    monkeypatch.delitem(sys.modules, name)
    library: Any = pytest.importorskip(name)
    if name == "wandb":
        monkeypatch.setattr(library, "Run", library.sdk.wandb_run.Run, raising=False)
    for call, args, kwargs in calls[name]:
        of, _, method = call.rpartition(".")
        function = getattr(getattr(library, of) if of else library, method)
        inspect.signature(function).bind(*([None] if of else []), *args, **kwargs)


@pytest.mark.parametrize("name", FAKES)
def test_a_library_that_is_missing_is_a_sentence(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(WRITERS, "_entries", {name: f"iquitos_rl.writers.{name}:x"})
    monkeypatch.delitem(sys.modules, f"iquitos_rl.writers.{name}", raising=False)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{name} cannot be imported .*: pip install 'iquitos_rl\[{name}\]'"):
        WRITERS.require(name)


class Broken:
    """A writer whose server is gone after the first report."""

    def __init__(self, *args: Any) -> None:
        self.run_id, self.written = "b", 0

    def write(self, step: int, metrics: Any) -> None:
        self.written += 1
        if self.written > 1:
            raise ConnectionError("no route\nto host")

    def close(self) -> None:
        raise AssertionError("it was left out")


def test_a_training_goes_on_without_a_writer_that_fails(calls: dict[str, Calls], tmp_path: Any, capsys: Any) -> None:
    WRITERS._entries["broken"] = Broken
    writers = Writers(["broken", "wandb"], "project", "run", SETTINGS, tmp_path, fresh=True)
    for step in (1, 2, 3):
        writers.write(step, {"x": 1.0})
    writers.close()
    assert capsys.readouterr().err == (
        "warning: broken: ConnectionError: no route to host; training continues without it\n"
    )
    assert [call[0] for call in calls["wandb"]] == ["init", *["Run.log"] * 3, "Run.finish"]


def test_the_ids_are_kept_in_the_runs_folder(calls: dict[str, Calls], tmp_path: Any) -> None:
    for fresh, expected in ((True, None), (False, "new"), (True, None)):
        calls["wandb"].clear()
        Writers(["wandb"], "project", "run", {}, tmp_path, fresh)
        assert calls["wandb"][0][2]["id"] == expected
    (tmp_path / "writers.json").write_text("[]", encoding="utf-8")
    Writers(["wandb"], "project", "run", {}, tmp_path, fresh=False)
    assert calls["wandb"][-1][2]["id"] is None


def test_a_callback_writes_reports_and_evaluations(tmp_path: Any) -> None:
    """With the writer of CSV and TensorBoard, whose file is read again."""
    env, evaluation = gymnasium.make("CartPole-v1"), gymnasium.make("CartPole-v1")
    agent = PPO(env, PPOConfig(hidden=(8,), horizon=32, batch_size=32, epochs=1))
    writer, reports = MetricsWriter(tmp_path), []
    found = Evaluate(evaluation, every=64, episodes=2)
    agent.learn(96, reports.append, callbacks=[found, Write(writer)])
    writer.close()
    table = pd.read_csv(tmp_path / "metrics.csv").set_index("step")
    for progress in reports:
        rows = table.loc[[progress.steps]]
        assert rows.updates.dropna().tolist() == [progress.updates]
        assert rows.value_loss.dropna().tolist() == pytest.approx([progress.metrics["value_loss"]])
    for steps, episodes in found.results:
        assert table.loc[[steps], "evaluation/return"].dropna().tolist() == pytest.approx([episodes.mean])


def test_the_command_writes_what_its_own_file_has(calls: dict[str, Calls], week_38: Any, tmp_path: Any) -> None:
    sets = ["engine=district", "guide=none", "writers=[trackio,wandb]", "project=mine", "agent.horizon=8"]
    sets += ["agent.batch_size=8", "agent.epochs=1", "agent.hidden=[8]"]
    settings = load_settings(["ppo"], None, {"case": str(week_38), "steps": 48, "num_envs": 2}, sets).agents["ppo"]
    output, years = tmp_path / "run", Years("week", [week_38], week_38, unseen=False)
    output.mkdir()
    for resume, step in ((False, 32), (True, None)):
        session = Session(
            Interrupts(), resume, False, "", tmp_path, torch.device("cpu"), years, "", Timings(), lambda: None
        )
        Training("ppo", settings, output, session).run(pause=step)
    first, *others = [call for call in calls["trackio"] if call[0] == "init"]
    assert first[2]["project"] == "mine"
    assert first[2]["name"] == "run"
    assert first[2]["config"] == settings.dump()
    assert [(other[2]["name"], other[2]["resume"]) for other in others] == [("run", "allow")]
    table = pd.read_csv(output / "metrics.csv").set_index("step")
    written = {kwargs["step"]: args[0] for call, args, kwargs in calls["trackio"] if call == "log"}
    assert list(written) == [16, 32, 48] == table.index.tolist()
    assert all(metrics["policy_loss"] == pytest.approx(table.policy_loss[step]) for step, metrics in written.items())
    assert [call for call, _, _ in calls["wandb"]].count("Run.log") == 3


def test_a_writer_that_does_not_exist_is_a_sentence() -> None:
    with pytest.raises(UserError, match=r"writers.*there are wandb, mlflow, trackio"):
        load_settings(["ppo"], None, {}, ["writers=[comet]"])
