"""Speed and memory of the district engine beside CityLearn: `python benchmarks/speed.py engine --output FOLDER`, on a
GPU with `--device cuda`.

Every figure includes action mapping, physics, objective and observation. CityLearn is measured as it comes (its own
step, reward and observation) and through this package's environment, before and after the district engine; the faster
of the two counts. On the CPU one thread, and seconds of that thread's processor time: other work on the machine then
takes nothing from either side; CityLearn always runs on the CPU. Exit status 1 where the engine falls short of a bar.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import psutil
import torch

from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.envs.citylearn.env import CityLearnSite, load_citylearn
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.district.footprint import footprint, storages, tensors
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

TIMES_CITYLEARN = {"iquitos-38": 3000, "iquitos-128": 2000}
"""Least ratio of steps per second, by preset."""
FIRST_STEP_S = 2.0
"""Longest processor time from process start to the first step of iquitos-128."""
ENVS = {"cpu": (1, 16, 64, 256, 1024, 4096), "cuda": (64, 1024, 16384, 65536)}
COMPILED_ENVS = {"cpu": (64, 256, 1024), "cuda": (1024, 16384)}
"""Where compiling pays for the seconds that it takes."""
How = Literal["plain", "compiled", "graphs"]
REPEATS = 5
MORE_STEPS = 200
"""Steps after which memory is counted again."""
FIRST_STEP = {
    "district": """
from iquitos_rl.envs.district.env import DistrictSite
import torch
imported()
env = DistrictSite([folder])
env.reset(seed=0)
env.step(torch.zeros(1, env.action_dim))
""",
    "citylearn": """
from iquitos_rl.envs.citylearn.env import load_citylearn
from pathlib import Path
import citylearn.citylearn
imported()
env = load_citylearn(Path(folder), fast=False)
env.reset()
env.step([[0.0] * len(env.action_space[0].low)])
""",
}


def rate(step: Callable[[], object], transitions: int, seconds: float, device: torch.device) -> float:
    """Median transitions per second over several stretches of about `seconds` each, after a warm-up."""

    clock = time.process_time if device.type == "cpu" else time.perf_counter

    def stretch(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    stretch(3)
    calls = max(3, int(seconds / max(stretch(3) / 3, 1e-9)))
    return statistics.median(calls * transitions / stretch(calls) for _ in range(REPEATS))


class CityLearnRates:
    """Steps per second of CityLearn's own step, and of this package's environment over it."""

    def __init__(self, folder: Path) -> None:
        self.rng = np.random.default_rng(0)
        self.stock = load_citylearn(folder, fast=False)
        self.stock.reset()
        self.low, self.high = self.stock.action_space[0].low, self.stock.action_space[0].high
        self.env = CityLearnSite([folder])
        self.env.reset(seed=0)

    def stock_step(self) -> None:
        if self.stock.terminated:
            self.stock.reset()
        self.stock.step([self.rng.uniform(self.low, self.high).tolist()])

    def our_step(self) -> None:
        if self.env.step(self.rng.uniform(-1, 1, self.env.task.action_dim).astype(np.float32))[3]:
            self.env.reset()

    def measure(self, seconds: float) -> dict[str, float]:
        cpu = torch.device("cpu")
        return {
            "citylearn": rate(self.stock_step, 1, seconds, cpu),
            "citylearn_site": rate(self.our_step, 1, seconds, cpu),
        }


def bytes_per_step(env: DistrictSite) -> float:
    """Bytes that one environment reads and writes in a step if nothing in between touches memory.

    What it stood before and its actions, one row of every table, what it stands before afterwards, and the result.
    """
    action = torch.zeros((env.num_envs, env.action_dim), device=env.device)
    state, now, _, *moving = env.live
    read = storages((state, now, moving, action))
    result = env.step(action)
    written = storages((env.live, tuple(result)))
    constants = storages(vars(env.task))
    moved = sum(size for group in (read, written) for place, size in group.items() if place not in constants)
    tables = [t for t in tensors((vars(env.physics), vars(env.task))) if t.dim() == 2 and len(t) == env.physics.rows]
    return moved / env.num_envs + sum(t[0].nbytes for t in tables)


def bandwidth(device: torch.device) -> float | None:
    """Bytes per second that a copy within the device's memory moves, read and written; None on a CPU."""
    if device.type != "cuda":
        return None
    source = torch.empty(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return rate(lambda: target.copy_(source), 2 * source.nbytes, 0.2, device)


def district_rate(folder: Path, num_envs: int, device: torch.device, seconds: float, how: How) -> dict[str, Any]:
    env = DistrictSite([folder], num_envs, device=device, starts="random")
    env.reset(seed=0)
    action = torch.rand((num_envs, env.action_dim), device=device) * 2 - 1
    compile_s = 0.0
    if how != "plain":
        plain = env.step(action)
        env.reset(seed=0)
        if how == "compiled":
            env._transition = torch.compile(env._transition, fullgraph=True, dynamic=False)
        else:
            env.capture()
        start = time.perf_counter()
        result = env.step(action)
        compile_s = time.perf_counter() - start
        torch.testing.assert_close(result.next_obs, plain.next_obs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(result.reward, plain.reward, rtol=1e-4, atol=1e-4)
    per_second = rate(lambda: env.step(action), num_envs, seconds, device)
    moved, held, ram = bytes_per_step(env), footprint(env), psutil.Process().memory_info().rss
    for _ in range(MORE_STEPS):
        env.step(action)
    return {
        "device": device.type,
        "how": how,
        "compile_s": compile_s,
        "num_envs": num_envs,
        "steps_per_s": per_second,
        "bytes_per_step": moved,
        "gigabytes_per_s": per_second * moved / 1e9,
        "bytes_per_env": held.per_env,
        "bytes_shared": held.shared,
        "bytes_per_env_later": footprint(env).per_env,
        "process_growth": psutil.Process().memory_info().rss - ram,
    }


def first_step(folder: Path, engine: str) -> dict[str, float]:
    """Seconds from the start of a fresh Python process to the end of its first step."""
    head = f"import time; folder = {str(folder)!r}\ndef imported(): print(time.time(), time.process_time())\n"
    code = f"{head}{FIRST_STEP[engine]}\nprint('done', time.time(), time.process_time())"
    start = time.time()
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    last = next(line for line in lines if line.startswith("done")).split()
    imported = next(line for line in lines if line[:1].isdigit()).split()
    return {
        "from_process_start": float(last[1]) - start,
        "processor_s": float(last[2]),
        "processor_s_after_imports": float(last[2]) - float(imported[1]),
    }


def measure_preset(
    folder: Path, device: torch.device, seconds: float, compiled: Literal["no", "yes", "both"]
) -> dict[str, Any]:
    loading = {name: first_step(folder, name) for name in FIRST_STEP}
    reference = CityLearnRates(folder)
    before = reference.measure(seconds)
    rows, peak, counts = [], bandwidth(device), ENVS[device.type]
    ways: list[How] = {"no": ["plain"], "yes": ["compiled"], "both": ["plain", "compiled"]}[compiled]
    for how in [*ways, "graphs"] if device.type == "cuda" else ways:
        for count in COMPILED_ENVS[device.type] if how == "compiled" else counts:
            row = district_rate(folder, count, device, seconds, how)
            row["share_of_bandwidth"] = None if peak is None else row["gigabytes_per_s"] * 1e9 / peak
            rows.append(row)
            print(folder.name, row, flush=True)
    after = reference.measure(seconds)
    fastest = {name: max(before[name], after[name]) for name in before}
    for row in rows:
        row["times_citylearn"] = row["steps_per_s"] / fastest["citylearn"]
    return {"reference": fastest, "reference_runs": [before, after], "district": rows, "first_step_s": loading}


def engine(device: torch.device, seconds: float, compiled: Literal["no", "yes", "both"]) -> dict[str, Any]:
    torch.set_num_threads(1)
    load_before = psutil.getloadavg()
    with TemporaryDirectory() as temporary:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{temporary}/compiled"  # or an earlier run's would be taken
        folders = {preset: build_case(preset, 0, Path(temporary) / preset) for preset in TIMES_CITYLEARN}
        presets = {preset: measure_preset(folder, device, seconds, compiled) for preset, folder in folders.items()}
    return {
        "machine": machine(device, 1),
        "versions": versions(),
        "load_average": {"before": load_before[0], "after": psutil.getloadavg()[0]},
        "presets": presets,
        "short_of_a_bar": shortfalls(presets),
    }


def shortfalls(presets: dict[str, Any]) -> list[str]:
    found = []
    for preset, bar in TIMES_CITYLEARN.items():
        best = max(row["times_citylearn"] for row in presets[preset]["district"])
        if best < bar:
            found.append(f"{preset}: {best:,.0f} times CityLearn, at least {bar:,} wanted")
    first = presets["iquitos-128"]["first_step_s"]["district"]
    if first["processor_s"] > FIRST_STEP_S:
        found.append(
            f"iquitos-128: first step {first['processor_s']:.1f} s after process start, of which "
            f"{first['processor_s_after_imports']:.1f} s after Python's imports; at most {FIRST_STEP_S} s wanted"
        )
    return found


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    packages = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    load = result["load_average"]
    lines = [
        "# Speed and memory of the engines",
        "",
        f"`{result['command']}`; {facts}; {packages}. Load average {load['before']:.1f} before, {load['after']:.1f} "
        "after.",
        "",
        "Steps of one environment per second, action mapping, objective and observation included, one thread; on the "
        "CPU per second of that thread's processor time, since the machine is shared; medians. "
        "Bytes per step: what an environment reads and writes if nothing in between touches memory. Bytes per "
        f"environment: tensors held between steps; the same after {MORE_STEPS} further steps.",
        "",
    ]
    for preset, found in result["presets"].items():
        lines += preset_markdown(preset, found)
    short = result["short_of_a_bar"]
    lines += [f"Short of a bar: {'; '.join(short)}." if short else "No bar was missed.", ""]
    return "\n".join(lines)


def preset_markdown(preset: str, found: dict[str, Any]) -> list[str]:
    reference, loading = found["reference"], found["first_step_s"]
    lines = [
        f"## {preset}",
        "",
        f"CityLearn as it comes: {reference['citylearn']:.1f} steps/s; this package's environment over CityLearn: "
        f"{reference['citylearn_site']:.1f} steps/s. At least {TIMES_CITYLEARN[preset]:,} times CityLearn is wanted.",
        "",
        "| first step, processor time | from process start, s | after imports, s |",
        "|---|---:|---:|",
        *(
            f"| {name} | {row['processor_s']:.2f} | {row['processor_s_after_imports']:.2f} |"
            for name, row in loading.items()
        ),
        "",
        "| device | compiled in | environments | steps/s | times CityLearn | bytes/step | GB/s | of memory bandwidth "
        f"| bytes/environment | growth of the process in {MORE_STEPS} steps, KiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["district"]:
        share = row["share_of_bandwidth"]
        lines.append(
            f"| {row['device']} | {compile_time(row)} | {row['num_envs']} "
            f"| {row['steps_per_s']:,.0f} | {row['times_citylearn']:,.0f} | {row['bytes_per_step']:,.0f} "
            f"| {row['gigabytes_per_s']:.2f} | {'' if share is None else f'{share:.1%}'} "
            f"| {row['bytes_per_env']:,.0f} | {row['process_growth'] / 1024:,.0f} |"
        )
    constant = all(row["bytes_per_env"] == row["bytes_per_env_later"] for row in found["district"])
    assert constant, "the engine's memory grew while it stepped"
    return [*lines, "", f"Tables shared by all environments: {found['district'][0]['bytes_shared']:,} bytes.", ""]


def compile_time(row: dict[str, Any]) -> str:
    return {"plain": "not", "compiled": f"{row['compile_s']:.0f} s", "graphs": "as CUDA graphs"}[row["how"]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["engine"])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one timed stretch")
    parser.add_argument("--compile", choices=["no", "yes", "both"], default="both")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    result = engine(torch.device(arguments.device), arguments.seconds, arguments.compile)
    on_gpu = arguments.device == "cuda"
    result["command"] = f"python benchmarks/speed.py engine --output FOLDER{' --device cuda' if on_gpu else ''}"
    if arguments.compile != "both":
        result["command"] += f" --compile {arguments.compile}"
    name = f"speed-engine{'_gpu' if on_gpu else ''}"
    write_json(arguments.output / f"{name}.json", json.loads(json.dumps(result)))
    write_text(arguments.output / f"{name}.md", as_markdown(result))
    for line in result["short_of_a_bar"]:
        print("short of a bar:", line, file=sys.stderr)
    return 1 if result["short_of_a_bar"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
