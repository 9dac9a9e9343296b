"""Speed of the district engine beside CityLearn's, in one run: `python benchmarks/speed.py engine --output FOLDER`.

Every figure includes action mapping, physics, objective and observation. CityLearn is measured as it comes (its own
step, reward and observation) and through this package's environment, on one core each. GPU rows appear where there is
a CUDA device.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from iquitos_rl.cases.iquitos import build_case
from iquitos_rl.cases.reader import read_site
from iquitos_rl.envs.citylearn import CityLearnSite, load_citylearn
from iquitos_rl.envs.district import DistrictSite
from iquitos_rl.runs.files import write_json, write_text
from iquitos_rl.runs.summary import machine, versions

PRESETS = ("iquitos-38", "iquitos-128")
CPU_ENVS, GPU_ENVS = (1, 16, 64, 256, 1024), (64, 256, 1024, 4096, 16384, 65536)
REPEATS = 5


def rate(step: Callable[[], object], transitions: int, seconds: float, device: torch.device) -> float:
    """Median transitions per second over several stretches of about `seconds` each, after a warm-up."""

    def stretch(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    stretch(3)
    calls = max(3, int(seconds / max(stretch(3) / 3, 1e-9)))
    return statistics.median(calls * transitions / stretch(calls) for _ in range(REPEATS))


def citylearn_rates(folder: Path, seconds: float) -> dict[str, float]:
    """Steps per second of CityLearn's own step, and of this package's environment over it."""
    cpu = torch.device("cpu")
    rng = np.random.default_rng(0)
    stock = load_citylearn(folder, fast=False)
    stock.reset()
    low, high = stock.action_space[0].low, stock.action_space[0].high

    def stock_step() -> None:
        if stock.terminated:
            stock.reset()
        stock.step([rng.uniform(low, high).tolist()])

    env = CityLearnSite([folder])
    env.reset(seed=0)

    def our_step() -> None:
        if env.step(rng.uniform(-1, 1, env.task.action_dim).astype(np.float32))[3]:
            env.reset()

    return {"citylearn": rate(stock_step, 1, seconds, cpu), "citylearn_site": rate(our_step, 1, seconds, cpu)}


def bytes_per_step(env: DistrictSite) -> int:
    """Bytes that an environment moves in a step at least: state twice, actions, table rows, observation."""
    state = sum(tensor.element_size() * tensor[0].numel() for tensor in env.physics.state)
    rows = 4 * (env.task.table.shape[1] + 3 * env.task.num_sockets + 4 * env.task.num_buildings)
    return 2 * state + rows + 4 * (env.action_dim + env.obs_dim)


def district_rate(folder: Path, num_envs: int, device: torch.device, seconds: float, compiled: bool) -> dict[str, Any]:
    env = DistrictSite([folder], num_envs, device=device, starts="random")
    env.reset(seed=0)
    if compiled:
        env.compile()
    action = torch.rand((num_envs, env.action_dim), device=device) * 2 - 1
    per_second = rate(lambda: env.step(action), num_envs, seconds, device)
    return {
        "device": device.type,
        "compiled": compiled,
        "num_envs": num_envs,
        "steps_per_s": per_second,
        "bytes_per_step": bytes_per_step(env),
        "gigabytes_per_s": per_second * bytes_per_step(env) / 1e9,
    }


def loading_seconds(folder: Path) -> dict[str, float]:
    """From nothing to the first step taken."""
    start = time.perf_counter()
    env = DistrictSite([read_site(folder)], 1)
    env.reset(seed=0)
    env.step(torch.zeros(1, env.action_dim))
    district = time.perf_counter() - start
    start = time.perf_counter()
    stock = load_citylearn(folder, fast=False)
    stock.reset()
    stock.step([[0.0] * len(stock.action_space[0].low)])
    return {"district": district, "citylearn": time.perf_counter() - start}


def engine(seconds: float, compiled: list[bool]) -> dict[str, Any]:
    torch.set_num_threads(1)
    presets: dict[str, Any] = {}
    with TemporaryDirectory() as temporary:
        for preset in PRESETS:
            folder = build_case(preset, 0, Path(temporary) / preset)
            reference = citylearn_rates(folder, seconds)
            devices = [(torch.device("cpu"), CPU_ENVS)]
            if torch.cuda.is_available():
                devices.append((torch.device("cuda"), GPU_ENVS))
            rows = []
            for device, counts in devices:
                for flag in compiled:
                    for count in counts:
                        row = district_rate(folder, count, device, seconds, flag)
                        row["times_citylearn"] = row["steps_per_s"] / reference["citylearn"]
                        rows.append(row)
                        print(preset, row, flush=True)
            presets[preset] = {"reference": reference, "district": rows, "loading_s": loading_seconds(folder)}
    cuda = torch.cuda.is_available()
    return {
        "command": "python benchmarks/speed.py engine",
        "machine": machine(torch.device("cuda" if cuda else "cpu"), 1),
        "versions": versions(),
        "presets": presets,
    }


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    packages = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    lines = ["# Speed of the engines", "", f"`{result['command']}`; {facts}; {packages}.", ""]
    lines += ["Steps of one environment per second, action mapping, objective and observation included; medians.", ""]
    for preset, found in result["presets"].items():
        reference, loading = found["reference"], found["loading_s"]
        lines += [
            f"## {preset}",
            "",
            f"CityLearn as it comes: {reference['citylearn']:.1f} steps/s; this package's environment over CityLearn: "
            f"{reference['citylearn_site']:.1f} steps/s. From nothing to the first step: district "
            f"{loading['district']:.2f} s, CityLearn {loading['citylearn']:.1f} s.",
            "",
            "| device | compiled | environments | steps/s | times CityLearn | bytes/step | GB/s |",
            "|---|---|---:|---:|---:|---:|---:|",
        ]
        for row in found["district"]:
            lines.append(
                f"| {row['device']} | {'yes' if row['compiled'] else 'no'} | {row['num_envs']} "
                f"| {row['steps_per_s']:,.0f} | {row['times_citylearn']:,.0f} | {row['bytes_per_step']:,} "
                f"| {row['gigabytes_per_s']:.2f} |"
            )
        if not any(row["device"] == "cuda" for row in found["district"]):
            lines.append("| cuda | | | not measured | | | |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["engine"])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one timed stretch")
    parser.add_argument("--compile", choices=["no", "yes", "both"], default="no")
    arguments = parser.parse_args()
    compiled = {"no": [False], "yes": [True], "both": [False, True]}[arguments.compile]
    arguments.output.mkdir(parents=True, exist_ok=True)
    result = engine(arguments.seconds, compiled)
    result["command"] = "python " + " ".join(["benchmarks/speed.py", *sys.argv[1:]])
    write_json(arguments.output / "speed_engine.json", json.loads(json.dumps(result)))
    write_text(arguments.output / "speed_engine.md", as_markdown(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
