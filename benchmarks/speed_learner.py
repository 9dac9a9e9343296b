"""Speed of the agents' updates beside their peers', in one run:

    python benchmarks/speed_learner.py --output FOLDER --sb3 PYTHON --sbx PYTHON --cleanrl PYTHON [--device cuda]

Each contestant is a process of its own with one thread (`learner_worker.py`); a peer is run by the Python of an
environment in which it is installed. They take turns, a fraction of a second each, so that whatever else the machine
does hits all alike. What is compared is the median over the turns: of the time that the processor worked for each, or
on a GPU of the wall's, until the GPU is done. Networks, batches and updates per step are equal; what compiles in the
first call is given apart.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, NamedTuple

import torch
from learner_worker import A2C_ENVS, A2C_HORIZON, Null
from torch.utils.flop_counter import FlopCounterMode

from iquitos_rl.agents import SAC
from iquitos_rl.agents.sac import SACConfig
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.config import RunSettings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

WORKER = Path(__file__).with_name("learner_worker.py")
BASELINE = "stable-baselines3"
OURS = ("iquitos_rl", "iquitos_rl amp=bf16")
ON_GPU = ("iquitos_rl compile=off",)
"""There the default is CUDA graphs."""
COMPILED = ("iquitos_rl compile=default", "iquitos_rl amp=bf16 compile=default")
CPU_ONLY = ("sbx",)
NOT_MEASURED = {"LeanRL": "there is no package of it to install; the one of that name is another project"}
WIDTH = 256
BATCHES = (128, 1_024, 8_192)
SITE_BATCHES = (256, 2_048)


class Row(NamedTuple):
    """What is measured."""

    algorithm: str
    dims: str
    obs_dim: int
    action_dim: int
    batch: int
    width: int = WIDTH


class Contestant:
    """A worker process that makes updates when told to."""

    def __init__(self, python: str, name: str, row: Row, device: str) -> None:
        numbers = map(str, (row.obs_dim, row.action_dim, row.batch, row.width, device))
        self.log = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(WORKER), name, row.algorithm, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
        )
        self.turns: list[dict[str, Any]] = []
        self.first = self.receive()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("= "):
                answer: dict[str, Any] = json.loads(line[2:])
                return answer
        self.log.seek(0)
        raise RuntimeError(f"a contestant ended: {self.process.args}\n{self.log.read()[-2000:]}")

    def run(self, updates: int) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{updates}\n")
        self.process.stdin.flush()
        return self.receive()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


def speeds(device: str) -> dict[str, float]:
    """What the device does at best just now: multiply-adds of a large product (FLOP/s), and bytes copied per second."""
    on_gpu = device == "cuda"
    clock, wait = (time.perf_counter, torch.cuda.synchronize) if on_gpu else (time.thread_time, lambda: None)

    def best(function: Any, amount: float) -> float:
        function()
        wait()
        found = []
        for _ in range(5):
            start = clock()
            function()
            wait()
            found.append(amount / (clock() - start))
        return max(found)

    side, numbers = (8192, 1 << 28) if on_gpu else (1024, 1 << 24)  # a GPU has to be busy for a while
    a, b = torch.randn(2, side, side, device=device)
    half, other = a.bfloat16(), b.bfloat16()
    source, target = torch.zeros(2, numbers, device=device)
    return {
        "float32": best(lambda: a @ b, 2 * side**3),
        "bf16": best(lambda: half @ other, 2 * side**3),
        "bytes": best(lambda: target.copy_(source), 2 * source.nbytes),
    }


def floor(row: Row) -> dict[str, float]:
    """Arithmetic of one SAC update, counted operation by operation as PyTorch runs it, and the bytes that it moves at
    least: Adam reads weight, gradient and two moments and writes three of them, the average of the targets reads two
    and writes one, the batch is read once."""
    config = SACConfig(hidden=(row.width, row.width), batch_size=row.batch, learning_starts=10, buffer_size=100)
    agent = SAC(Null(row.obs_dim, row.action_dim), config)
    agent.learn(10)
    with FlopCounterMode(display=False) as counter:
        agent.train(1)
    critic, actor = (sum(p.numel() for p in net.parameters()) for net in (agent.critic, agent.actor))
    moved = 4 * (7 * (critic + actor) + 3 * critic + row.batch * (2 * row.obs_dim + row.action_dim + 2))
    return {"flop": float(counter.get_total_flops()), "bytes": float(moved)}


def measure(
    row: Row, pythons: dict[str, str], device: str, compiled: bool, rounds: int, seconds: float
) -> dict[str, Any]:
    clock = "cpu_s" if device == "cpu" else "wall_s"
    names = [*OURS, *(ON_GPU if device == "cuda" else ()), *(COMPILED if compiled else ())]
    names += [name for name in pythons if row.algorithm == "sac" or name == BASELINE]
    players = {name: Contestant(pythons.get(name, sys.executable), name, row, device) for name in names}
    best: dict[str, float] = {}
    counts = {}
    for name, player in players.items():
        trial = player.run(2)
        counts[name] = max(2, int(seconds * trial["updates"] / max(trial[clock], 1e-6)))
    loads = []
    for _ in range(rounds):
        loads.append(os.getloadavg()[0])
        best = {key: max(value, best.get(key, 0.0)) for key, value in speeds(device).items()}
        for name, player in players.items():
            player.turns.append(player.run(counts[name]))
    counted = floor(row) if row.algorithm == "sac" else None
    result = []
    for name, player in players.items():
        player.close()
        rates = [turn["updates"] / turn[clock] for turn in player.turns]
        entry = {
            "contestant": name,
            "version": player.first["version"],
            "first_call_s": player.first["wall_s"],
            "updates_per_s": statistics.median(rates),
            "slowest": min(rates),
            "fastest": max(rates),
        }
        entry["transitions_per_s"] = entry["updates_per_s"] * row.batch
        if counted is not None:
            rate = best["bf16" if "bf16" in name else "float32"]
            entry["floor_s"] = max(counted["flop"] / rate, counted["bytes"] / best["bytes"])
            entry["times_floor"] = 1 / entry["updates_per_s"] / entry["floor_s"]
        result.append(entry)
    peer = next((entry["updates_per_s"] for entry in result if entry["contestant"] == BASELINE), None)
    for entry in result:
        entry["times_sb3"] = None if peer is None else entry["updates_per_s"] / peer
    return {**row._asdict(), "load": statistics.fmean(loads), "core": best, "counted": counted, "contestants": result}


def site_dims() -> list[tuple[str, int, int]]:
    """Widths of the observation and of the action of the shipped sites, sockets as a fleet and one by one."""
    found = []
    default = RunSettings().task
    with TemporaryDirectory() as folder:
        for preset in ("iquitos-38", "iquitos-128"):
            case = build_case(preset, 0, Path(folder) / preset)
            each = TaskSettings(**{**default.model_dump(), "sockets": "each"})
            for kind, task in (("fleet", default), ("each socket", each)):
                env = DistrictSite([case], 1, task)
                if all(dims[1:] != (env.obs_dim, env.action_dim) for dims in found):  # a fleet's do not grow
                    found.append((f"{preset}, {kind}", env.obs_dim, env.action_dim))
    return found


def rows(which: str) -> list[Row]:
    pendulum, wide = ("Pendulum", 3, 1), ("wide", 1_052, 129)
    if which == "standard":
        return [Row("sac", *pendulum, 256), Row("sac", *wide, 256)]
    if which == "sites":
        return [Row("sac", *dims, batch) for dims in site_dims() for batch in SITE_BATCHES]
    if which == "on-policy":
        return [Row("ppo", *pendulum, 64, 64), Row("a2c", *pendulum, A2C_HORIZON * A2C_ENVS, 64)]
    return [Row("sac", *dims, batch) for dims in (pendulum, wide) for batch in BATCHES]


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    packages = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    on_gpu = result["machine"]["device"] != "cpu"
    place, clock = ("A GPU", "wall") if on_gpu else ("One thread", "processor")
    lines = ["# Speed of the learners", "", f"`{result['command']}`; {facts}; {packages}.", ""]
    lines += [
        f"{place}, two hidden layers of {WIDTH} (64 for PPO and A2C). Updates per second of {clock} time, medians over "
        "turns that the contestants took in turn, with the slowest and the fastest; the machine was shared, its load "
        "is given. The floor is the arithmetic of this package's update at the best rate of matrix products in the "
        "same run (float32, or bfloat16 with amp), or its least traffic of memory. "
        "CleanRL's figure includes acting for one row and storing it. First call: wall time of making the agent and "
        "one update, with everything that is compiled; for CleanRL its script's start.",
        "",
    ]
    for row in result["rows"]:
        core, counted = row["core"], row["counted"]
        title = (
            f"## {row['algorithm'].upper()}, {row['dims']} ({row['obs_dim']}/{row['action_dim']}), batch {row['batch']}"
        )
        lines += [title, "", f"Load {row['load']:.1f}; {core['float32'] / 1e9:.0f} GFLOP/s in float32, "]
        lines[-1] += f"{core['bf16'] / 1e9:.0f} in bfloat16, {core['bytes'] / 1e9:.1f} GB/s copied."
        if counted is not None:
            lines[-1] += f" An update: {counted['flop'] / 1e9:.2f} GFLOP, {counted['bytes'] / 1e6:.1f} MB."
        lines += ["", "| contestant | version | updates/s | slowest-fastest | times SB3 | transitions/s | times floor "]
        lines[-1] += "| first call s |"
        lines.append("|---|---|---:|---:|---:|---:|---:|---:|")
        for entry in row["contestants"]:
            ratio = "" if entry["times_sb3"] is None else f"{entry['times_sb3']:.2f}"
            over = f"{entry['times_floor']:.1f}" if "times_floor" in entry else ""
            lines.append(
                f"| {entry['contestant']} | {entry['version']} | {entry['updates_per_s']:.1f} "
                f"| {entry['slowest']:.1f}-{entry['fastest']:.1f} | {ratio} | {entry['transitions_per_s']:,.0f} "
                f"| {over} | {entry['first_call_s']:.2f} |"
            )
        if row["algorithm"] == "sac":
            missing = NOT_MEASURED | ({"sbx": "its JAX runs on the CPU here"} if on_gpu else {})
            lines += [f"| {name} | | not measured: {why} | | | | | |" for name, why in missing.items()]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    for name in ("sb3", "sbx", "cleanrl"):
        parser.add_argument(f"--{name}", metavar="PYTHON", help="of an environment that has it; without, not measured")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--compile", action="store_true", help="measure agent.compile default too: a minute a row")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a turn, by the same clock as the figures")
    parser.add_argument("--rows", choices=["standard", "sites", "on-policy", "batches"], default="standard")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = {BASELINE: arguments.sb3, "sbx": arguments.sbx, "cleanrl": arguments.cleanrl}
    left_out = CPU_ONLY if arguments.device == "cuda" else ()
    pythons = {name: python for name, python in given.items() if python and name not in left_out}
    arguments.output.mkdir(parents=True, exist_ok=True)
    peers = " ".join(f"--{name} PYTHON" for name in ("sb3", "sbx", "cleanrl") if getattr(arguments, name))
    on_gpu = ["--device", "cuda"] if arguments.device == "cuda" else []
    compile_too = ["--compile"] if arguments.compile else []
    turns = [
        "--rows",
        arguments.rows,
        *on_gpu,
        *compile_too,
        f"--rounds {arguments.rounds} --seconds {arguments.seconds}",
    ]
    result: dict[str, Any] = {
        "command": f"python benchmarks/speed_learner.py --output benchmarks/results {peers} {' '.join(turns)}",
        "machine": machine(torch.device(arguments.device), 1),
        "versions": versions(),
        "rows": [],
    }
    name = f"speed_learner_{arguments.rows}{'_gpu' if on_gpu else ''}"
    for row in rows(arguments.rows):
        result["rows"].append(
            measure(row, pythons, arguments.device, arguments.compile, arguments.rounds, arguments.seconds)
        )
        rates = {each["contestant"]: round(each["updates_per_s"], 1) for each in result["rows"][-1]["contestants"]}
        print(*row, rates, flush=True)
        write_json(arguments.output / f"{name}.json", result)
        write_text(arguments.output / f"{name}.md", as_markdown(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
