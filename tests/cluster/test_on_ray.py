"""Steps and a comparison on a cluster of two nodes: equal to the bit, though a node dies or does not see the disk."""

import json
import os
import select
import shutil
import signal
from functools import partial

import pytest
from short_case import shorten

from iquitos_rl import compare
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cluster import on_ray
from iquitos_rl.cluster.on_ray import RayExecutor
from iquitos_rl.comparison import runner
from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.errors import UserError
from iquitos_rl.judging import references
from iquitos_rl.machine.interrupt import Interrupted, Interrupts
from iquitos_rl.runs.executor import Step, carry_out

pytest.importorskip("ray", reason="the extra [cluster]")
pytestmark = pytest.mark.usefixtures("without_drawings")
TINY = ["--steps", "96", "--seeds", "2", "--set", "num_envs=2", "--set", "agent.hidden=[8]", "--set", "threads=1"]
TINY += ["--set", "agent.horizon=4", "--set", "ppo.agent.batch_size=8", "--set", "episode_hours=20"]


def run(steps, two_nodes, folder, shared=True):
    with Interrupts() as interrupts, RayExecutor(two_nodes[0].address, folder, interrupts, "again") as executor:
        if not shared:
            executor._mark[0].unlink()
        return dict(carry_out(steps, executor))


def square(number, interrupts):
    return number * number, os.getpid()


def refuse(number, interrupts):
    raise UserError(f"{number} is wrong")


def die_at_first(folder, interrupts):
    if len(list(folder.glob("try-*"))) < 1:
        (folder / "try-0").touch()
        os._exit(1)
    return "done"


def die(interrupts):
    os._exit(1)


def copy(source, target, interrupts):
    target.write_bytes(source.read_bytes() * 2)
    return target


def wait_for_the_user(saved, parent, interrupts):
    signals, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    os.kill(parent, signal.SIGINT)
    select.select([signals], [], [], 60)
    saved.write_text("saved", encoding="utf-8")
    interrupts.check()
    return "nobody asked to stop"


def test_nodes_find_what_this_process_finds(two_nodes, tmp_path):
    found = run({str(n): Step(partial(square, n)) for n in range(6)}, two_nodes, tmp_path)
    assert {name: value for name, (value, _) in found.items()} == {str(n): n * n for n in range(6)}
    assert os.getpid() not in {process for _, process in found.values()}
    assert list(tmp_path.iterdir()) == [], "nothing is left but what steps write"


def test_an_error_is_raised_here_in_its_own_words(two_nodes, tmp_path):
    with pytest.raises(UserError, match=r"^3 is wrong$"):
        run({"a": Step(partial(refuse, 3))}, two_nodes, tmp_path)


def test_a_step_whose_process_dies_is_done_again(two_nodes, tmp_path):
    assert run({"a": Step(partial(die_at_first, tmp_path))}, two_nodes, tmp_path) == {"a": "done"}


def test_a_step_that_kills_every_process_is_told(two_nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(on_ray, "TRIES_AGAIN", 1)
    with pytest.raises(WorkerError, match="the process or node of deadly died 2 times"):
        run({"deadly": Step(die)}, two_nodes, tmp_path)


def test_files_travel_where_the_disk_is_not_shared(two_nodes, tmp_path):
    source, target = tmp_path / "source", tmp_path / "out" / "target"
    source.write_bytes(b"xy")
    target.parent.mkdir()
    steps = {"a": Step(partial(copy, source, target), reads=(source,), writes=(target,))}
    assert run(steps, two_nodes, tmp_path, shared=False) == {"a": target}
    assert target.read_bytes() == b"xyxy"


def test_what_no_node_has_is_said_at_once(two_nodes, tmp_path):
    with pytest.raises(UserError, match="no node of the cluster has what a takes: 1 CPU, 3 GPU"):
        run({"a": Step(partial(square, 1), gpus=3)}, two_nodes, tmp_path)


@pytest.mark.parametrize("shared", [True, False])
def test_an_interruption_lets_steps_save_and_come_home(two_nodes, tmp_path, shared):
    saved = tmp_path / "saved"
    task = partial(wait_for_the_user, saved, os.getpid())
    with pytest.raises(Interrupted, match="again"):
        run({"a": Step(task, writes=(saved,))}, two_nodes, tmp_path, shared)
    assert saved.read_text(encoding="utf-8") == "saved"


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """One site on two pairs of days: to train on, and to be judged on."""
    root = tmp_path_factory.mktemp("days")
    site = build_case("iquitos-128", 0, root / "site", {"sockets.moto_count": 2, "sockets.mototaxi_count": 1})
    return [shorten(shutil.copytree(site, root / f"days-{first}"), 40, first) for first in (24, 64, 104)]


def arguments(days, output, *more):
    cases = ["--case", str(days[0]), "--eval-cases", *map(str, days[1:])]
    return [*cases, "--agents", "a2c", "ppo", *TINY, "--output", str(output / "comparison"), *more]


def results(output):
    """All that a comparison finds: its tables, and the weights of each policy."""
    root = output / "comparison"
    summary = json.loads((root / "simulation_summary.json").read_text(encoding="utf-8"))
    policies = {path.parts[-3]: path.read_bytes() for path in root.glob("*/policy/policy.safetensors")}
    tables = {path.name: path.read_bytes() for path in root.glob("*.csv")}
    return summary["records"], summary["standings"], summary["left_out"], summary["failed"], policies, tables


@pytest.fixture(scope="module")
def alone(days, tmp_path_factory):
    """The comparison on one machine."""
    output = tmp_path_factory.mktemp("alone")
    tune = partial(references.tune, candidates=4, rounds=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "tune", tune)
        assert compare.main(arguments(days, output)) == 0
    return output


def test_a_comparison_on_a_cluster_is_that_of_one_machine_though_a_node_dies(
    days, alone, two_nodes, tmp_path, monkeypatch
):
    """Nodes see no disk but their own. What one machine found is taken over but for three kinds of references, as
    tuning and simulating all takes longer than the rest."""
    cluster, found = two_nodes
    shutil.copytree(alone / "cache", tmp_path / "cache")
    for name in ("uncontrolled", "mpc", "optimum"):
        for folder in (tmp_path / "cache" / "references").glob(f"{name}-*"):
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
    killed = []

    def and_kill(steps, executor):
        executor._mark[0].unlink(missing_ok=True)
        for done in carry_out(steps, executor):
            if "seed" in done[0] and not killed:
                killed.append(found.pop())
                cluster.remove_node(killed[0], allow_graceful=False)
                found.append(cluster.add_node(num_cpus=1, object_store_memory=80 << 20))
            yield done

    monkeypatch.setattr(runner, "carry_out", and_kill)
    assert compare.main(arguments(days, tmp_path, "--cluster", cluster.address)) == 0
    assert killed
    assert results(tmp_path) == results(alone)
