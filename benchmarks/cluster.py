"""Comparisons on a Ray cluster of this machine: nodes killed at random moments, and what a step costs there.

    python benchmarks/cluster.py [--kills 20] [--output benchmarks/results]

Two nodes of one core each, and a head without any. A tiny comparison (2 agents, 2 years of 40 hours) is run on one
machine first, then on the cluster again and again. Each time, at a random moment, one of the nodes is killed (SIGKILL
to its raylet), and the other one goes on alone. Every second time no node sees the driver's disk. References are taken
over from the first run. Rates are of steps that do nothing, and of a year of the Iquitos case that travels to a node
without the disk.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ray
import torch
from ray.cluster_utils import Cluster

from iquitos_rl import compare
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cluster.on_ray import RayExecutor
from iquitos_rl.comparison import runner
from iquitos_rl.judging import references
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.report import markup
from iquitos_rl.runs.executor import Executor, Step, carry_out
from iquitos_rl.runs.jobs import Pool

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
TINY = ["--steps", "144", "--seeds", "1", "--set", "num_envs=2", "--set", "agent.hidden=[8]", "--set", "threads=1"]
TINY += ["--set", "agent.horizon=4", "--set", "ppo.agent.batch_size=8", "--set", "episode_hours=20"]
TINY += ["--set", "checkpoint_minutes=0.02"]
STEPS, ROUNDS = 40, 3


def build_days(root: Path) -> list[Path]:
    """One site on three pairs of days."""
    site = build_case("iquitos-128", 0, root / "site", {"sockets.moto_count": 2, "sockets.mototaxi_count": 1})
    days = []
    for first in (24, 64, 104):
        folder = shutil.copytree(site, root / f"days-{first}")
        schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
        schema["simulation_start_time_step"], schema["simulation_end_time_step"] = first, first + 39
        (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
        days.append(folder)
    return days


def arguments(days: list[Path], output: Path, *more: str) -> list[str]:
    cases = ["--case", str(days[0]), "--eval-cases", *map(str, days[1:]), "--agents", "a2c", "ppo"]
    return [*cases, *TINY, "--output", str(output / "comparison"), *more]


def results(output: Path) -> Any:
    """All that a comparison finds: its tables, and the weights of each policy."""
    root = output / "comparison"
    summary = json.loads((root / "simulation_summary.json").read_text(encoding="utf-8"))
    policies = {path.parts[-3]: path.read_bytes() for path in root.glob("*/policy/policy.safetensors")}
    tables = {path.name: path.read_bytes() for path in root.glob("*.csv")}
    return summary["records"], summary["standings"], summary["failed"], policies, tables


@contextlib.contextmanager
def killing(cluster: Cluster, nodes: list[Any], after_s: float) -> Iterator[None]:
    """Kill a node so long after the block begins; another joins when the block has ended. If it ends before, nothing
    dies."""
    ended, count = threading.Event(), len(nodes)

    def kill() -> None:
        if not ended.wait(after_s):
            cluster.remove_node(nodes.pop(random.randrange(count)), allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if len(nodes) < count:
            nodes.append(cluster.add_node(**NODE))  # in the main thread, as Ray sets handlers of signals


def without_disk(steps: Any, executor: Any) -> Any:
    """`carry_out` for nodes that do not see the driver's disk."""
    executor._mark[0].unlink(missing_ok=True)
    return carry_out(steps, executor)


def kills(cluster: Cluster, nodes: list[Any], root: Path, count: int) -> Iterator[dict[str, Any]]:
    """So many comparisons with a node killed in each; yields what is known so far after each."""
    days = build_days(root)
    with patch.object(references, "tune", partial(references.tune, candidates=4, rounds=1)):
        assert compare.main(arguments(days, root / "alone")) == 0
    wanted, rows, shortest, n = results(root / "alone"), [], 1e6, -1  # the first, undisturbed, tells how long it takes
    while sum(row["killed_s"] is not None for row in rows) < count:
        output, shared = root / f"run-{n}", n % 2 == 0
        shutil.copytree(root / "alone" / "cache", output / "cache")
        moment = random.uniform(0.0, shortest)
        began, before = time.monotonic(), set(map(id, nodes))
        carry = carry_out if shared else without_disk
        with patch.object(runner, "carry_out", carry), killing(cluster, nodes, moment if n >= 0 else 1e6):
            status = compare.main(arguments(days, output, "--cluster", cluster.address))
        seconds = time.monotonic() - began
        killed = set(map(id, nodes)) != before
        row = {"shared": shared, "killed_s": round(moment, 1) if killed else None, "took_s": round(seconds, 1)}
        rows.append({**row, "status": status, "equal": status == 0 and results(output) == wanted})
        print(f"run {n}: {rows[-1]}", file=sys.stderr, flush=True)
        shortest, n = min(shortest, seconds), n + 1
        shutil.rmtree(output)
        yield {"undisturbed": rows[0], "runs": rows[1:]}


def seconds_of(executor: Executor, steps: dict[str, Step[Any]]) -> float:
    began = time.perf_counter()
    assert len(list(carry_out(steps, executor))) == len(steps)
    return time.perf_counter() - began


def rates(cluster: Cluster, root: Path) -> dict[str, float]:
    """Medians over rounds, pool and cluster in turn."""
    year = build_case("iquitos-38", 0, root / "year")
    size = sum(path.stat().st_size for path in year.rglob("*") if path.is_file())
    found: dict[str, list[float]] = {"pool": [], "cluster": []}
    with (
        Interrupts() as interrupts,
        Pool(2, interrupts, "again") as pool,
        RayExecutor(cluster.address, root / "rates", interrupts, "again") as on_ray,
    ):
        steps = {str(n): Step[Any](id) for n in range(STEPS)}
        for executor in (pool, on_ray):
            seconds_of(executor, steps)  # processes start
        for _ in range(ROUNDS):
            for name, executor in (("pool", pool), ("cluster", on_ray)):
                found[name].append(seconds_of(executor, steps) / STEPS)
        on_ray._mark[0].unlink()
        travel = []
        for n in range(ROUNDS):
            copy = shutil.copytree(year, root / f"copy-{n}")
            on_ray._send_files = True
            travel.append(seconds_of(on_ray, {"a": Step(id, reads=(copy,))}))
    middle = {name: sorted(own)[len(own) // 2] for name, own in [*found.items(), ("travel", travel)]}
    return {
        "pool_step_s": round(middle["pool"], 5),
        "cluster_step_s": round(middle["cluster"], 5),
        "year_mib": round(size / 2**20, 2),
        "year_travels_s": round(middle["travel"], 3),
    }


def table(found: dict[str, Any]) -> str:
    runs, rates = found["kills"]["runs"], found["rates"]
    lines = [
        "# Comparisons on a cluster",
        "",
        f"`{found['command']}`; {found['where']}.",
        "",
        (__doc__ or "").split("\n\n")[2],
    ]
    lines += ["", "| disk | runs | with a node killed | ended by themselves | equal to one machine to the bit |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for shared, name in ((True, "shared"), (False, "not shared")):
        own = [run for run in runs if run["shared"] == shared]
        killed = sum(run["killed_s"] is not None for run in own)
        done, equal = sum(run["status"] == 0 for run in own), sum(run["equal"] for run in own)
        lines.append(f"| {name} | {len(own)} | {killed} | {done} | {equal} |")
    more = 100 * (rates["cluster_step_s"] - rates["pool_step_s"]) / 60
    longest = max((run["took_s"] for run in runs), default=0)
    pool, cluster = (f"{1e3 * rates[f'{name}_step_s']:.1f} ms" for name in ("pool", "cluster"))
    year, travels = rates["year_mib"], rates["year_travels_s"]
    lines += [
        "",
        f"A run that nobody disturbed took {found['kills']['undisturbed']['took_s']} s, the others up to {longest} s.",
        "",
        f"A step that does nothing took {pool} on the pool of processes and {cluster} on the cluster (2 cores each): "
        f"{more:.3f} % of a minute more. A year of {year} MiB was packed, sent and unpacked in {travels} s.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    random.seed(0)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    facts = {**machine(torch.device("cpu"), 1), **versions(), "ray": ray.__version__}
    found: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "where": ", ".join(f"{key} {value}" for key, value in facts.items()) + "; the machine was shared",
    }
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0})
        try:
            nodes = [cluster.add_node(**NODE) for _ in range(2)]
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            with patch.object(markup, "save", lambda draw, folder, name: "<svg></svg>"):
                found["rates"] = rates(cluster, Path(folder))
                for found["kills"] in kills(cluster, nodes, Path(folder), asked.kills):
                    write_json(asked.output / "cluster.json", found)
                    write_text(asked.output / "cluster.md", table(found))
            ray.shutdown()
        finally:
            cluster.shutdown()


if __name__ == "__main__":
    main()
