"""What a run survives: a small part of what `benchmarks/faults.py` counts, and faults that need a hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import fault_checkpoints
import fault_inputs
import fault_kills
import fault_readers
import faults

from iquitos_rl import train
from iquitos_rl.agents.policy_file import load_policy
from iquitos_rl.baselines.guided import GuidedSite
from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.checkpoints.slot import Slot
from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.report import metrics

pytestmark = pytest.mark.usefixtures("without_report")


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    return faults.short_case(tmp_path_factory.mktemp("cases") / "days", 40)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills are of forked processes")
def test_killed_runs_end_as_undisturbed_ones(days, tmp_path):
    found = fault_kills.kill_runs(days, tmp_path, kills=2, seed=1)
    assert found["kills"] == found["resumes"] == 2
    assert found["runs equal to an undisturbed one"] == found["runs"]


def test_every_damage_is_noticed_and_no_code_is_executed(tmp_path):
    found = fault_checkpoints.damage_checkpoints(tmp_path, 20, seed=0)
    assert found["noticed, told, and the one before used"] == 20
    assert found["code executed"] == 0


def test_any_setting_is_taken_or_refused_in_one_sentence(tmp_path):
    assert fault_inputs.fuzz_settings(tmp_path, 40)["refused"]


def test_any_command_line_is_taken_or_refused_in_one_sentence(tmp_path):
    assert fault_inputs.fuzz_command_line(tmp_path, 100)["refused"]


def test_any_schema_folder_is_taken_or_refused_in_one_sentence(days, tmp_path):
    assert fault_inputs.fuzz_schema(days, tmp_path, 12)["refused"]


def test_any_metered_file_is_taken_or_refused_in_one_sentence(tmp_path):
    assert fault_inputs.fuzz_meter_files(tmp_path, 8)["refused"]


def test_every_reader_takes_or_refuses_changed_files(tmp_path):
    found = fault_readers.fuzz_readers(tmp_path / "readers", 25)
    assert len(found) > 15
    assert all(count.total() >= 25 for count in found.values())


def test_what_is_changed_differs():
    rng = fault_readers.random.Random(0)
    seeds = [fault_readers.changed(b'{"a": [1, {"b": "text"}]}', rng) for _ in range(50)]
    assert len(set(seeds)) > 30


def test_any_checkpoint_is_read_or_refused_in_one_sentence(tmp_path):
    assert fault_checkpoints.fuzz_checkpoints(tmp_path, 60)["refused"]


def command(days, output, algorithm="a2c"):
    return fault_kills.command(algorithm, days, output)  # with --resume: a stored baseline is taken


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Where runs lie beside each other, so that the baseline is simulated once."""
    return tmp_path_factory.mktemp("outputs")


def last_checkpoint(output):
    return Checkpoints(output / "checkpoints", 0.0).load().step


@pytest.mark.parametrize(("algorithm", "what"), [("sac", "reward"), ("ppo", "observation"), ("a2c", "reward")])
def test_numbers_that_are_not_finite_stop_a_run_and_are_kept_apart(days, outputs, monkeypatch, capsys, algorithm, what):
    """The environment goes wrong after 40 steps."""
    step, count = GuidedSite.step, iter(range(1000))

    def failing(self, action):
        result = step(self, action)
        if next(count) < 40:
            return result
        bad = torch.full_like(result.reward, float("nan"))
        return result._replace(obs=result.obs * bad[:, None]) if what == "observation" else result._replace(reward=bad)

    with monkeypatch.context() as patch:
        patch.setattr(GuidedSite, "step", failing)
        assert train.main(command(days, outputs / f"{algorithm}-{what}", algorithm)) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    stopped, kept = (
        Checkpoints(outputs / f"{algorithm}-{what}" / "inspection", 0.0).load(),
        last_checkpoint(outputs / f"{algorithm}-{what}"),
    )
    assert f"stopped at step {stopped.step}" in error
    assert f"the checkpoint of step {kept} is untouched" in error
    assert kept <= 120
    assert train.main([algorithm, "--resume", str(outputs / f"{algorithm}-{what}")]) == 0


def test_weights_that_are_not_finite_are_named_and_never_saved(days, outputs, monkeypatch, capsys):
    from iquitos_rl.agents import AGENTS

    update, count = AGENTS["a2c"].agent.update, iter(range(1000))

    def failing(self, batch):
        update(self, batch)
        if next(count) == 20:
            self.policy.log_std.data[0] = float("inf")

    monkeypatch.setattr(AGENTS["a2c"].agent, "update", failing)
    assert train.main(command(days, outputs / "weights-that")) == 2
    assert "agent.networks.log_std is not finite at step" in capsys.readouterr().err
    assert last_checkpoint(outputs / "weights-that") <= 126


def test_a_dead_simulator_stops_the_run_with_a_checkpoint(days, outputs, monkeypatch, capsys):
    step, count = GuidedSite.step, iter(range(1000))

    def dying(self, action):
        if next(count) == 40:
            raise WorkerError("simulator 1 died with exit code 9")
        return step(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(GuidedSite, "step", dying)
        assert train.main(command(days, outputs / "a-dead-sim")) == 1
    error = capsys.readouterr().err
    assert "simulator 1 died with exit code 9; saved at step 120 of 300; to resume: " in error
    assert last_checkpoint(outputs / "a-dead-sim") == 120
    assert train.main(["a2c", "--resume", str(outputs / "a-dead-sim")]) == 0


def test_training_goes_on_while_the_disk_is_full(days, outputs, monkeypatch, capsys):
    """Nothing can be written in the middle of the run; afterwards everything is there."""
    put, text, full = Slot.put, metrics.write_text, [False]

    def room():
        if full[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Slot, "put", lambda self, name, *parts: (room(), put(self, name, *parts)))
    monkeypatch.setattr(metrics, "write_text", lambda path, content: (room(), text(path, content)))
    write = metrics.MetricsWriter.write

    def writing(self, step, values):
        full[0] = 60 <= step < 180
        if full[0]:
            self._appendable = False  # what a failed append leaves behind
        write(self, step, values)

    monkeypatch.setattr(metrics.MetricsWriter, "write", writing)
    assert train.main(command(days, outputs / "training-goes-on")) == 0
    error = capsys.readouterr().err
    assert "could not be written (No space left on device)" in error
    assert "metrics cannot be written" in error
    assert last_checkpoint(outputs / "training-goes-on") == fault_kills.STEPS
    assert [row["step"] for row in metrics.read_metrics(outputs / "training-goes-on" / "metrics.csv")] == list(
        range(6, fault_kills.STEPS + 1, 6)
    )


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 1 MiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False
    ) if sys.platform == "linux" else None  # fmt: skip
    if mounted is None or mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_real_disk_that_is_full_keeps_the_last_checkpoint(tiny_disk):
    told = []
    checkpoints = Checkpoints(tiny_disk / "checkpoints", 0.0, told.append)
    for step, size in ((1, 50_000), (2, 50_000), (3, 500_000), (4, 50_000)):
        checkpoints.save({"x": torch.full((size,), float(step))}, step, {}, wait=True)
        newest = Checkpoints(tiny_disk / "checkpoints", 0.0, told.append).load()
        assert newest.step == (step if step != 3 else 2)
        assert newest.state["x"].unique().tolist() == [newest.step]
    assert "No space left on device" in told[0]
    assert "that of step 2 is kept" in told[0]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert train.main(["sac", "--output", str(tmp_path / "file" / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_policy_that_cannot_be_written_is_one_sentence_and_the_training_is_kept(days, outputs, monkeypatch, capsys):
    def full(path, contents):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("iquitos_rl.agents.policy_file._replace", full)
        assert train.main(command(days, outputs / "a-policy-that")) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert last_checkpoint(outputs / "a-policy-that") == fault_kills.STEPS
    assert train.main(["a2c", "--resume", str(outputs / "a-policy-that")]) == 0
    assert load_policy(outputs / "a-policy-that" / "policy")
