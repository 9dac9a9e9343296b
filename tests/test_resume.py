"""Runs that are interrupted and resumed end as if nothing had happened."""

import copy
import json
import os
import random
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from short_case import shorten

from iquitos_rl import train
from iquitos_rl.agents import AGENTS
from iquitos_rl.baselines.guided import GuidedSite
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.config import load_settings
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.worker import WorkerEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.interrupt import Interrupted, Interrupts
from iquitos_rl.report import metrics
from iquitos_rl.runs import folder as run_folder
from iquitos_rl.runs import session, training
from iquitos_rl.runs.timings import Timings
from iquitos_rl.runs.training import Session, Training
from iquitos_rl.runs.years import Years

pytestmark = pytest.mark.usefixtures("without_report")

SETTINGS = {
    "sac": {"hidden": [8], "learning_starts": 30, "batch_size": 16, "n_step": 3, "log_every": 3, "buffer_size": 90},
    "ppo": {"hidden": [8], "horizon": 4, "batch_size": 6, "epochs": 2},
    "a2c": {"hidden": [8], "horizon": 2, "log_every": 6, "learning_rate": 0.0007},
}
ENVS, TOTAL = 3, 180


def options(algorithm):
    return [f"agent={json.dumps(SETTINGS[algorithm])}"]


def flat(value, path=""):
    """Every leaf of a nested state by its path."""
    if isinstance(value, dict):
        return {k: v for key in value for k, v in flat(value[key], f"{path}.{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f"{path}.{i}").items()}
    return {path: value}


def assert_same_state(a, b):
    a, b = flat(a), flat(b)
    assert a.keys() == b.keys()
    for name in a:
        same = torch.equal(a[name], b[name]) if isinstance(a[name], torch.Tensor) else a[name] == b[name]
        assert same, name


@pytest.fixture(scope="module")
def week(tmp_path_factory):
    """The first 168 hours of a site with three sockets."""
    sockets = {"sockets.moto_count": 2, "sockets.mototaxi_count": 1}
    return shorten(build_case("iquitos-38", 0, tmp_path_factory.mktemp("cases") / "week", sockets), 168)


@pytest.fixture(scope="module")
def sites(week):
    return [read_site(week)]


def make(algorithm, sites, device="cpu", **changes):
    """An agent on short episodes from random hours."""
    env = DistrictSite(sites, ENVS, device=device, starts="random", episode_steps=17)
    entry = AGENTS[algorithm]
    return entry.agent(env, entry.config(**SETTINGS[algorithm], **changes), device=device, seed=3), env


ON_GPU = [pytest.param("cuda", mode, marks=pytest.mark.gpu) for mode in ("off", "graphs")]


@pytest.mark.parametrize(("device", "mode"), [("cpu", "auto"), *ON_GPU])
@pytest.mark.parametrize("algorithm", SETTINGS)
def test_from_any_step_the_district_engine_goes_on_to_the_same_bits(algorithm, device, mode, sites, tmp_path):
    """In the middle of a rollout and of a report's interval too."""
    agent, env = make(algorithm, sites, device, compile=mode)
    rows, reported = [], dict.fromkeys(random.Random(0).sample(range(ENVS, TOTAL, ENVS), 6))

    def save(step):
        if step in reported:
            reported[step] = len(rows)
            folder = Checkpoints(tmp_path / str(step), 0.0)
            folder.save({"agent": agent.state_dict(), "env": env.state_dict()}, step, {}, wait=True)

    agent.learn(until=TOTAL, on_log=lambda progress: rows.append((progress.steps, progress.metrics)), on_step=save)
    assert len(rows) > 10
    final = {"agent": agent.state_dict(), "env": env.state_dict()}
    for step in reported:
        again, other = make(algorithm, sites, device, compile=mode)
        loaded = Checkpoints(tmp_path / str(step), 0.0).load({"agent": again.state_dict()})
        other.load_state_dict(loaded.state["env"])
        again.load_state_dict(loaded.state["agent"])
        later = []
        again.learn(until=TOTAL, on_log=lambda progress, later=later: later.append((progress.steps, progress.metrics)))
        assert later == rows[reported[step] :]
        assert_same_state({"agent": again.state_dict(), "env": other.state_dict()}, final)


def test_the_citylearn_engine_goes_on_from_any_step(week, tmp_path, monkeypatch):
    """In the middle of an episode and just after its end: the open episode is simulated again up to where it was."""
    sets = [*options("sac"), "engine=citylearn", "agent.log_every=1"]
    settings = load_settings(["sac"], None, {"case": str(week), "steps": 190, "num_envs": 1}, sets).agents["sac"]
    final = {}
    keep = Training._save

    def train_through(output, save_at, resume):
        def save(self, wait=False):
            if self.step == save_at:
                keep(self, wait=True)
            if self.step == 190:
                final[resume] = self.agent.state_dict()

        monkeypatch.setattr(Training, "_save", save)
        output.mkdir(exist_ok=True)
        device, years = torch.device("cpu"), Years("week", [week, week], week, unseen=False)
        session = Session(
            Interrupts(), resume, False, "", output.parent / "cache", device, years, "", Timings(), lambda: None
        )
        run = Training("sac", settings, output, session)
        first = run.agent.steps
        run.checkpoints.due = lambda: True
        run.run()
        return first

    for step in (100, 167):
        assert train_through(tmp_path / str(step), step, resume=False) == 0
        assert train_through(tmp_path / str(step), 0, resume=True) == step
        assert_same_state(final[True], final[False])


def test_simulators_here_and_in_workers_are_brought_back_to_where_they_were(week):
    factory = partial(CityLearnSite, [week, week])
    env = as_vector([factory, partial(WorkerEnv, factory, "simulator 1")])
    try:
        generator = torch.Generator().manual_seed(0)
        actions = torch.rand(30, 2, env.action_dim, generator=generator) * 2 - 1
        env.reset(seed=5)
        for action in actions[:20]:
            env.step(action)
        saved = copy.deepcopy(env.state_dict())
        steps = [env.step(action) for action in actions[20:]]
        env.load_state_dict(saved)
        for action, expected in zip(actions[20:], steps):
            found = env.step(action)
            assert all(torch.equal(a, b) for a, b in zip(found[:5], expected[:5]))
        saved["obs"][1, 0] += 1
        with pytest.raises(UserError, match="led to other observations"):
            env.load_state_dict(saved)
    finally:
        env.close()


def arguments(algorithm, week, output, *more):
    sets = [part for text in options(algorithm) for part in ("--set", text)]
    budget = ["--case", str(week), "--steps", str(TOTAL), "--num-envs", str(ENVS), "--set", "checkpoint_minutes=0"]
    return [algorithm, *budget, *sets, "--output", str(output), *more]


def signal_at(monkeypatch, step, number=signal.SIGINT):
    """Send this process a signal inside one of its environments' steps."""
    count, original = iter(range(1, 1000)), GuidedSite.step

    def signalling(self, action):
        if next(count) == step:
            os.kill(os.getpid(), number)
        return original(self, action)

    monkeypatch.setattr(GuidedSite, "step", signalling)


@pytest.fixture(scope="module")
def undisturbed(week, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    for algorithm in SETTINGS:
        assert train.main(arguments(algorithm, week, folder / algorithm)) == 0
    return folder


def board(folder):
    """TensorBoard's points as it would show them, by name: (step, value)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def assert_same_results(folder, expected, files=6):
    """Policy, hours and training figures, all but memory, which is the machine's."""
    names = ["policy/policy.safetensors", "policy/policy.json"]
    names += [path.name for path in expected.glob("*.csv") if path.name != "metrics.csv"]
    assert len(names) >= files
    for name in names:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    rows, other = (pd.read_csv(path / "metrics.csv").drop(columns="ram_mib") for path in (folder, expected))
    pd.testing.assert_frame_equal(rows, other, check_exact=True)
    points, others = board(folder), board(expected)
    assert points.keys() == others.keys()
    assert all(points[name] == others[name] for name in points if name != "ram_mib")


@pytest.mark.parametrize("algorithm", SETTINGS)
def test_an_interrupted_command_ends_as_an_undisturbed_one(algorithm, undisturbed, week, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        signal_at(patch, step=7, number=signal.SIGTERM)
        assert train.main(arguments(algorithm, week, tmp_path / "run")) == 143
    error = capsys.readouterr().err
    assert f"saved at step {7 * ENVS} of {TOTAL}; to resume: " in error  # the step in flight was finished, and no other
    assert f"python -m iquitos_rl train {algorithm} --resume {tmp_path / 'run'}" in error
    with monkeypatch.context() as patch:
        signal_at(patch, step=15)
        assert train.main([algorithm, "--resume", str(tmp_path / "run")]) == 130
    assert train.main([algorithm, "--resume", str(tmp_path / "run")]) == 0
    assert_same_results(tmp_path / "run", undisturbed / algorithm)


def test_three_agents_go_on_where_the_second_was_interrupted(week, tmp_path, monkeypatch, capsys):
    sets = [part for name, own in SETTINGS.items() for part in ("--set", f"{name}.agent={json.dumps(own)}")]
    budget = ["--steps", "60", "--num-envs", str(ENVS), "--set", "checkpoint_minutes=0", "--case", str(week)]
    assert train.main(["all", *budget, *sets, "--output", str(tmp_path / "undisturbed")]) == 0
    with monkeypatch.context() as patch:
        signal_at(patch, step=60 // ENVS + 7)
        assert train.main(["all", *budget, *sets, "--output", str(tmp_path / "run")]) == 130
    hint = f"saved at step {7 * ENVS} of 60; to resume: python -m iquitos_rl train all --resume {tmp_path / 'run'}"
    assert hint in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(AGENTS["sac"].agent, "collect", None)  # whoever trains SAC again fails
        assert train.main(["all", "--resume", str(tmp_path / "run")]) == 0
    for name in SETTINGS:
        assert_same_results(tmp_path / "run" / name, tmp_path / "undisturbed" / name, files=4)
    summaries = [json.loads((tmp_path / run / "simulation_summary.json").read_text()) for run in ("run", "undisturbed")]
    assert summaries[0]["controllers"] == summaries[1]["controllers"]


def test_a_run_interrupted_while_it_is_judged_is_judged_again(undisturbed, week, tmp_path, monkeypatch):
    class Late(Interrupts):
        """A signal in the tenth hour of the evaluation."""

        hours = 0

        def check(self, message=None):
            if "not evaluated" in self.message:
                self.hours += 1
                if self.hours == 10:
                    os.kill(os.getpid(), signal.SIGINT)
            super().check(message)

    with monkeypatch.context() as patch:
        patch.setattr(session, "Interrupts", Late)
        assert train.main(arguments("a2c", week, tmp_path / "run")) == 130
    assert not (tmp_path / "run" / "timeseries_a2c.csv").exists()
    monkeypatch.setattr(AGENTS["a2c"].agent, "update", None)  # whoever trains now fails
    assert train.main(["a2c", "--resume", str(tmp_path / "run")]) == 0
    assert_same_results(tmp_path / "run", undisturbed / "a2c")


def test_a_larger_budget_goes_on_and_keeps_the_results_so_far(undisturbed, week, tmp_path, capsys):
    """SAC has no schedule, so N steps and then 2N in all are 2N steps."""
    output = tmp_path / "run"
    assert train.main([*arguments("sac", week, output), "--steps", "90"]) == 0
    first = (output / "simulation_summary.json").read_bytes()
    assert train.main(["sac", "--resume", str(output)]) == 0
    assert "this run is complete" in capsys.readouterr().out
    assert train.main(["sac", "--resume", str(output), "--steps", str(TOTAL)]) == 0
    assert (output / "results-1" / "simulation_summary.json").read_bytes() == first
    assert (output / "results-1" / "policy" / "policy.json").is_file()
    assert_same_results(output, undisturbed / "sac")


@pytest.fixture
def stopped(week, tmp_path, monkeypatch):
    """A run of A2C that was interrupted, in the folder `outputs` where runs are by default."""
    monkeypatch.chdir(tmp_path)
    output = Path("outputs") / "week-38-a2c-20260101-000000"
    with monkeypatch.context() as patch:
        signal_at(patch, step=17)
        assert train.main(arguments("a2c", week, output)) == 130
    return output


def test_the_latest_run_of_a_case_is_found(stopped, week, capsys):
    assert train.main(["a2c", "--case", str(week), "--resume"]) == 0
    assert (stopped / "simulation_summary.json").is_file()
    assert train.main(["ppo", "--case", str(week), "--resume"]) == 2
    assert "holds no run of ppo" in capsys.readouterr().err


def test_what_has_changed_is_named_and_refused_unless_allowed(stopped, week, capsys):
    again = ["a2c", "--resume", str(stopped)]
    assert train.main([*again, "--set", "agent.learning_rate=0.5", "--seed", "4"]) == 2
    error = capsys.readouterr().err
    assert re.search(r"agent\.learning_rate was \S+ and is 0\.5", error)
    assert "seed was 0 and is 4" in error
    assert train.main(["sac", "--resume", str(stopped)]) == 2
    assert "is a run of a2c, not of sac" in capsys.readouterr().err
    building = week / "Building_1.csv"
    text = building.read_text(encoding="utf-8")
    try:
        frame = pd.read_csv(building)
        frame.loc[3, "non_shiftable_load"] += 1
        frame.to_csv(building, index=False)
        assert train.main(again) == 2
        assert "the files of the training years have changed" in capsys.readouterr().err
    finally:
        building.write_text(text, encoding="utf-8")
    assert train.main([*again, "--set", "agent.hidden=[9]", "--allow-changes"]) == 2
    assert "the checkpoint does not fit this agent" in capsys.readouterr().err
    assert train.main([*again, "--set", "agent.hidden=[8]", "--set", "agent.entropy_coef=0.1", "--allow-changes"]) == 0
    summary = json.loads((stopped / "simulation_summary.json").read_text(encoding="utf-8"))
    assert summary["settings"]["a2c"]["agent"]["entropy_coef"] == 0.1


def test_a_changed_learning_rate_is_that_of_the_optimiser(sites):
    agent, _ = make("sac", sites)
    agent.learn(60)
    state = agent.state_dict()
    _, env = make("sac", sites)
    other = AGENTS["sac"].agent(env, AGENTS["sac"].config(**{**SETTINGS["sac"], "learning_rate": 0.5}), seed=3)
    training.keep_learning_rates(state, other.state_dict())
    other.load_state_dict(state)
    assert {group["lr"] for optimizer in other.optimizers.values() for group in optimizer.param_groups} == {0.5}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--resume", "nowhere"], "nowhere holds no run"),
        (["--resume"], "outputs holds no run of sac on iquitos-38"),
        (["--resume", "a", "--output", "b"], "leave out --output"),
    ],
)
def test_a_run_that_is_not_there_is_said(tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    assert train.main(["sac", *more]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_description_that_is_none_is_named(tmp_path, capsys):
    (tmp_path / "run.json").write_text("[]", encoding="utf-8")
    assert train.main(["sac", "--resume", str(tmp_path)]) == 2
    assert "run.json does not describe a run" in capsys.readouterr().err


def test_a_folder_that_never_got_beyond_its_first_second_starts(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / "settings.yaml.tmp").write_text("ca", encoding="utf-8")
    started = []
    monkeypatch.setattr(session, "train_in", lambda run, *_: started.append(run.folder) or 0)
    assert train.main(["sac", "--resume", "--output", str(tmp_path / "run")]) == 0
    assert started == [tmp_path / "run"]
    (tmp_path / "run" / "thesis.txt").touch()
    (tmp_path / "run" / "run.json").unlink()
    assert train.main(["sac", "--resume", "--output", str(tmp_path / "run")]) == 2


def test_a_second_process_is_refused_until_the_first_ends(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(session, "train_in", None)
    code = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / run_folder.LOCK)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline()
    (tmp_path / "settings.yaml").touch()
    assert train.main(["sac", "--resume", "--output", str(tmp_path)]) == 2
    assert "another process is training there" in capsys.readouterr().err
    other.kill()  # as a crash: nobody removes the file
    other.wait()
    with run_folder.lock_output(tmp_path):
        pass


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal\nfrom iquitos_rl.machine.interrupt import Interrupts\n"
        "with Interrupts():\n"
        "    try:\n"
        "        for _ in range(2):\n            os.kill(os.getpid(), signal.SIGTERM)\n"
        "    except BaseException:\n        print('swallowed')\n"
        "    print('went on')\n"
    )
    root = Path(train.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.returncode, done.stdout) == (143, "")
    assert "interrupt again to stop at once" in done.stderr


def test_one_signal_is_never_an_exception_inside_the_simulator():
    before = signal.getsignal(signal.SIGINT)
    with Interrupts() as interrupts:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            pytest.fail("raised where a simulator could swallow it")
        with pytest.raises(Interrupted) as error:
            interrupts.check()
    assert error.value.status == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_metrics_keep_whole_rows_up_to_the_checkpoint(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 0.1 * step, **({"extra": 1 / 3} if step > 1 else {})})
    writer.close()
    with (tmp_path / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write("4,0.1")  # cut off
    writer = metrics.MetricsWriter(tmp_path, keep_until=2)
    writer.write(3, {"loss": 7.0})
    writer.close()
    assert metrics.read_metrics(tmp_path / "metrics.csv") == [
        {"step": 1.0, "loss": 0.1},
        {"step": 2.0, "loss": 0.2, "extra": 1 / 3},
        {"step": 3.0, "loss": 7.0},
    ]
    assert [step for step, _ in board(tmp_path)["loss"]] == [1, 2, 3]


def test_differences_leave_out_what_may_change():
    before = {"steps": 5, "task": {"ev_guard": True}, "seed": 1}
    now = {"steps": 9, "task": {"ev_guard": False}, "seed": 1, "new": None}
    assert run_folder.differences(before, now) == ["task.ev_guard was true and is false"]
    with pytest.raises(UserError, match="allow-changes"):
        run_folder.refuse_changes(Path("run"), ["x"], allowed=False)
