"""What training takes, beside what the planner said and what stable-baselines3 takes, each row in a process of its own:

    python benchmarks/vram.py --output FOLDER [--peer-python PATH] [--device cuda --cap 8GiB --cap 4GiB]
    python benchmarks/vram.py --output FOLDER --site FOLDER --site FOLDER    # a few rows of each, in vram_sites.md

On the CPU: peak RSS from the moment that the environments exist. On a GPU: peak of allocated and reserved memory, and
what is in use on the device at the end, under each cap (`torch.cuda.set_per_process_memory_fraction`); nothing else
should use it meanwhile. `--peer-python` is an interpreter that can import this package and stable-baselines3; the peer
trains on the same site through `CityLearnSite`, and its replay buffer is written once, since numpy's zeros are no
memory yet.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.machine.available import MIB, parse_size
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.runs.planning import plan_agent

Job = dict[str, Any]
BUFFERS = (100_000, 300_000, 500_000, 1_000_000)
SAC = {"learning_starts": 1_000, "update_ratio": 0.02, "batch_size": 256}
PPO = {"batch_size": 1_024, "epochs": 2}


def sac(buffer: int, **changes: Any) -> Job:
    return {"algorithm": "sac", "num_envs": 32, "steps": 2_560, "config": {**SAC, "buffer_size": buffer, **changes}}


def on_policy(algorithm: str, num_envs: int, horizon: int, **changes: Any) -> Job:
    base = PPO if algorithm == "ppo" else {}
    config = {**base, "horizon": horizon, **changes}
    return {"algorithm": algorithm, "num_envs": num_envs, "steps": num_envs * horizon, "config": config}


GRID = [
    *(sac(buffer) for buffer in BUFFERS),
    sac(300_000, storage="float16"),
    sac(100_000, storage="float32"),
    sac(300_000, hidden=[1_024, 1_024]),
    sac(100_000, batch_size=4_096, hidden=[512, 512]),
    sac(100_000, batch_size=4_096, hidden=[512, 512], micro_batch=256),
    sac(300_000, placement="disk"),
    on_policy("ppo", 64, 96),
    on_policy("ppo", 256, 256),
    on_policy("ppo", 256, 256, storage="float16", hidden=[256, 256]),
    on_policy("ppo", 64, 96, hidden=[1_024, 1_024], batch_size=6_144),
    on_policy("a2c", 64, 16),
    on_policy("a2c", 512, 64, hidden=[256, 256]),
]
SITE_GRID = [sac(100_000), on_policy("ppo", 256, 64), on_policy("a2c", 512, 16), on_policy("shac", 128, 32)]
"""What is measured of each `--site`."""
PINNED = sac(500_000, placement="pinned")
MILLION = {**sac(1_000_000, update_ratio=0.0002), "num_envs": 500, "steps": 1_010_000}
PEERS = [
    *({"algorithm": "sac", "steps": 300, "config": {"buffer_size": n, "learning_starts": 100}} for n in BUFFERS[:3]),
    {"algorithm": "ppo", "steps": 1_024, "config": {"n_steps": 1_024, "batch_size": 1_024, "n_epochs": 2}},
    {"algorithm": "a2c", "steps": 1_024, "config": {"n_steps": 1_024}},
]


# --- one row, in its own process


def peak_rss(reset: bool = False) -> int:
    """Largest RSS of this process in bytes; `reset` begins anew where the system can."""
    status = Path("/proc/self/status")
    if reset and status.is_file():
        Path("/proc/self/clear_refs").write_text("5")
    if status.is_file():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) * 1024
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))


def shares(agent: Any) -> dict[str, float]:
    """Milliseconds of drawing and fetching a batch, and of the update on it; on the CPU of this process's own time."""
    size, count = agent.config.batch_size, min(8, ceil(agent.config.update_ratio * agent.env.num_envs))
    noise = torch.randn(2, size, agent.spec.action_dim, device=agent.device)

    def synchronise() -> float:
        if agent.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    sampling, updating = [], []
    for _ in range(3):
        start = synchronise()
        batches = list(agent.buffer.batches(size, count))
        middle = synchronise()
        for batch in batches:
            agent.update(batch, noise)
        sampling.append((middle - start) / count)
        updating.append((synchronise() - middle) / count)
    return {"sample_ms": 1e3 * sorted(sampling)[1], "update_ms": 1e3 * sorted(updating)[1]}


def run_ours(job: Job) -> dict[str, Any]:
    device = torch.device(job["device"])
    if job["cap"] is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        # Of the present device: one without an index is refused.
        torch.cuda.set_per_process_memory_fraction(min(1.0, job["cap"] / total))
    env = DistrictSite(
        [job["case"]], job["num_envs"], TaskSettings(sockets=job["sockets"]), device=device, starts="random"
    )
    env.reset(seed=0)
    entry = AGENTS[job["algorithm"]]
    config = entry.config(**job["config"])
    plan = plan_agent(job["algorithm"], config, env, device, device_memory=job["cap"])
    before = int(psutil.Process().memory_info().rss)
    peak_rss(reset=True)
    agent = entry.agent(env, plan.config, device=device, seed=0)
    agent.learn(job["steps"])
    result: dict[str, Any] = {
        "predicted_ram": plan.total("ram"),
        "rss": peak_rss(),
        "before": before,
        "placement": getattr(plan.config, "placement", None),
        "obs_dim": env.obs_dim,
        "action_dim": env.action_dim,
        "updates": agent.updates,
    }
    if job["algorithm"] == "sac":
        result |= {"buffer_bytes": agent.buffer.nbytes, "held": len(agent.buffer), **shares(agent)}
        result["per_transition"] = agent.buffer.nbytes / config.buffer_size
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        result |= {
            "predicted_device": plan.total("device"),
            "context": next(item.nbytes for item in plan.items if item.name.startswith("CUDA context")),
            "allocated": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
            "in_use": total - free,
        }
    return result


def run_peer(job: Job) -> dict[str, Any]:
    import stable_baselines3

    from iquitos_rl.envs.citylearn.env import CityLearnSite

    env = CityLearnSite([job["case"]], TaskSettings(sockets=job["sockets"]))
    before = int(psutil.Process().memory_info().rss)
    peak_rss(reset=True)
    agent = getattr(stable_baselines3, job["algorithm"].upper())(
        "MlpPolicy", env, device=job["device"], **job["config"]
    )
    result: dict[str, Any] = {"before": before}
    if job["algorithm"] == "sac":
        buffer = agent.replay_buffer
        arrays = [buffer.observations, buffer.next_observations, buffer.actions, buffer.rewards, buffer.dones]
        arrays.append(buffer.timeouts)
        arrays = [array for array in arrays if array is not None]
        for array in arrays:
            array[...] = 0
        result["buffer_bytes"] = sum(array.nbytes for array in arrays)
        result["per_transition"] = result["buffer_bytes"] / job["config"]["buffer_size"]
    agent.learn(job["steps"])
    if job["device"] == "cuda":
        result |= {"allocated": torch.cuda.max_memory_allocated(), "reserved": torch.cuda.max_memory_reserved()}
    versions = {"stable_baselines3": stable_baselines3.__version__, "torch": torch.__version__}
    return {**result, "rss": peak_rss(), "versions": versions}


def run_amp(job: Job) -> dict[str, Any]:
    """Milliseconds of a SAC update, with and without bfloat16."""
    env = DistrictSite([job["case"]], 8, TaskSettings(sockets=job["sockets"]), device=job["device"], starts="random")
    times = {}
    for amp in ("off", "bf16"):
        config = {"learning_starts": 100, "buffer_size": 2_000, "amp": amp, "hidden": job["hidden"]}
        agent = AGENTS["sac"].agent(env, AGENTS["sac"].config(**config), device=job["device"])
        agent.learn(120)
        times[amp] = shares(agent)["update_ms"]
    return times


# --- all rows


def in_process(python: str, kind: str, job: Job) -> dict[str, Any]:
    """The result of a row, or the last line of what it died of."""
    command = [python, str(Path(__file__).resolve()), "--row", kind, json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    print(kind, job, done.stdout.strip().splitlines()[-1:] or done.stderr[-300:], flush=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def command_line(arguments: argparse.Namespace) -> str:
    """The command without this machine's paths."""
    words = ["python benchmarks/vram.py --output FOLDER"]
    words += ["--peer-python PATH"] if arguments.peer_python else []
    words += ["--device cuda"] if arguments.device == "cuda" else []
    words += ["--site FOLDER ..."] if arguments.site else []
    words += [f"--cap {cap}" for cap in arguments.cap] + [f"--only {part}" for part in arguments.only or []]
    return " ".join([*words, f"--sockets {arguments.sockets}"])


def mib(number: Any) -> str:
    return "" if number is None else f"{number / MIB:,.0f}"


def label(job: Job) -> str:
    hidden = {"learning_starts", "update_ratio", "epochs", "n_epochs"}
    words = [f"{key} {value}" for key, value in job["config"].items() if key not in hidden]
    envs = [job["site"]] if "site" in job else []
    envs += [f"{job['num_envs']} envs"] if "num_envs" in job else []
    cap = [f"cap {mib(job['cap'])}"] if job["cap"] else []
    return ", ".join([*envs, *words, *cap])


def times_fewer(result: dict[str, Any]) -> list[str]:
    """How many times fewer bytes a transition takes than the peer's, at the storage that is the default."""
    ours = [row["result"] for row in result["rows"] if "storage" not in row["job"]["config"]]
    each, theirs = (
        [found["per_transition"] for found in group if "per_transition" in found]
        for group in (ours, [row["result"] for row in result["peers"]])
    )
    if not each or not theirs:
        return []
    ratio = min(theirs) / max(each)
    return [f"A transition takes {ratio:.1f} times fewer bytes ({max(each):.1f} against {min(theirs):,.0f}).", ""]


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    packages = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    on_gpu = result["machine"]["device"] != "cpu"
    on_host = NOTE_ON_HOST, ON_HOST, "of the processor"
    note, columns, clock = (NOTE_ON_DEVICE, ON_DEVICE, "of the clock") if on_gpu else on_host
    return "\n".join(
        [
            f"# Memory of training{' on a GPU' if on_gpu else ''}",
            "",
            f"`{result['command']}`; {facts}; {packages}.",
            "",
            f"{result['site']}, `task.sockets={result['sockets']}`. MiB unless said otherwise; error is the "
            "prediction's.",
            "",
            *prediction_markdown(result["rows"], note, columns),
            *sampling_markdown(result["rows"], clock),
            *peers_markdown(result["peers"], on_gpu),
            *times_fewer(result),
            *amp_markdown(result["amp"]),
        ]
    )


Columns = dict[str, Callable[[dict[str, Any]], str]]
"""A column's title, and its cell from what was found."""
ON_HOST: Columns = {
    "predicted RSS": lambda found: mib(found["predicted_ram"]),
    "peak RSS": lambda found: mib(found["rss"]),
    "error": lambda found: f"{found['predicted_ram'] / found['rss'] - 1:+.1%}",
    "before the agent": lambda found: mib(found["before"]),
    "replay": lambda found: mib(found.get("buffer_bytes")),
    "bytes/transition": lambda found: f"{found['per_transition']:.1f}" if "per_transition" in found else "",
}
ON_DEVICE: Columns = {
    "predicted": lambda found: mib(found["predicted_device"]),
    "in use": lambda found: mib(found["in_use"]),
    "error": lambda found: f"{found['predicted_device'] / found['in_use'] - 1:+.1%}",
    "of it context": lambda found: mib(found["context"]),
    "allocated": lambda found: mib(found["allocated"]),
    "reserved": lambda found: mib(found["reserved"]),
    "placement": lambda found: found["placement"] or "",
}
NOTE_ON_HOST = "Peak RSS is that of the whole process, interpreter and data of the case included."
NOTE_ON_DEVICE = (
    "In use is what the device no longer has free when training is done, the CUDA context included; allocated and "
    "reserved are the peaks of PyTorch's allocator, which the cap limits."
)


def prediction_markdown(rows: list[dict[str, Any]], note: str, columns: Columns) -> list[str]:
    lines = [note, "", "## Prediction and measurement", "", f"| agent | settings | {' | '.join(columns)} |"]
    lines.append(f"|---|---|{'---:|' * len(columns)}")
    for row in rows:
        job, found = row["job"], row["result"]
        cells = [cell(found) for cell in columns.values()] if "failed" not in found else [f"failed: {found['failed']}"]
        lines.append(f"| {job['algorithm']} | {label(job)} | {' | '.join(cells)} |")
    return [*lines, ""]


def sampling_markdown(rows: list[dict[str, Any]], clock: str) -> list[str]:
    lines = ["## Time of sampling", "", f"Milliseconds {clock}.", "", "| settings | place | sample | update | share |"]
    lines.append("|---|---|---:|---:|---:|")
    for row in rows:
        found = row["result"]
        if "sample_ms" in found:
            share = found["sample_ms"] / found["update_ms"]
            times = f"{found['sample_ms']:.2f} | {found['update_ms']:.2f} | {share:.1%}"
            lines.append(f"| {label(row['job'])} | {found['placement']} | {times} |")
    return [*lines, ""]


def peers_markdown(peers: list[dict[str, Any]], on_gpu: bool) -> list[str]:
    versions = {f"{name} {value}" for row in peers for name, value in row["result"].get("versions", {}).items()}
    lines = ["## stable-baselines3", "", f"{', '.join(sorted(versions)) or 'Not measured'}.", ""]
    if not peers:
        return lines
    more = (" allocated | reserved |", "---:|---:|") if on_gpu else ("", "")
    lines += [f"| agent | settings | peak RSS | before the agent | replay | bytes/transition |{more[0]}"]
    lines += [f"|---|---|---:|---:|---:|---:|{more[1]}"]
    for row in peers:
        found = row["result"]
        each = f"{found['per_transition']:.1f}" if "per_transition" in found else ""
        cells = found.get("failed") or f"{mib(found['rss'])} | {mib(found['before'])}"
        cells += f" | {mib(found.get('buffer_bytes'))} | {each}"
        cells += f" | {mib(found.get('allocated'))} | {mib(found.get('reserved'))}" if on_gpu else ""
        lines.append(f"| {row['job']['algorithm']} | {label(row['job'])} | {cells} |")
    return [*lines, ""]


def amp_markdown(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["## bfloat16", "", "Milliseconds of a SAC update of 256 transitions, timed alike.", ""]
    lines += ["| hidden | off | bf16 |", "|---|---:|---:|"]
    for row in rows:
        width, found = row["job"]["hidden"][0], row["result"]
        cells = found.get("failed") or f"{found['off']:.1f} | {found['bf16']:.1f}"
        lines.append(f"| {width} | {cells} |")
    return [*lines, ""]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--peer-python", help="interpreter with stable-baselines3")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--cap", action="append", default=[], help="GPU memory to pretend, e.g. 8GiB; several allowed")
    parser.add_argument("--sockets", choices=["each", "fleet"], default="each")
    parser.add_argument("--site", type=Path, action="append", default=[], help="measure this folder instead")
    parser.add_argument("--only", choices=["grid", "million", "peers", "amp"], action="append")
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.row is not None:
        kind, job = arguments.row[0], json.loads(arguments.row[1])
        print(json.dumps({"ours": run_ours, "peer": run_peer, "amp": run_amp}[kind](job)))
        return 0
    if arguments.output is None:
        parser.error("--output is required")
    on_gpu = arguments.device == "cuda"
    if arguments.cap and not on_gpu:
        parser.error("--cap is of a GPU: --device cuda")
    parts = arguments.only or ["grid", "million", "peers", "amp"]
    arguments.output.mkdir(parents=True, exist_ok=True)
    name = f"vram{'_sites' if arguments.site else ''}{'_gpu' if on_gpu else ''}"
    result: dict[str, Any] = {
        "command": command_line(arguments),
        "machine": machine(torch.device(arguments.device), 1),
        "versions": versions(),
        "site": "CityLearn's data sets" if arguments.site else "Site: iquitos-128",
        "sockets": arguments.sockets,
        "rows": [],
        "peers": [],
        "amp": [],
    }

    def measure(rows: str, kind: str, job: Job, python: str = sys.executable) -> None:
        """One more row, and the page with those so far."""
        shown = {key: value for key, value in job.items() if key != "case"}
        result[rows].append({"job": shown, "result": in_process(python, kind, job)})
        write_json(arguments.output / f"{name}.json", result)
        write_text(arguments.output / f"{name}.md", as_markdown(result))

    common = {"sockets": arguments.sockets, "cap": None, "device": arguments.device}
    for site in arguments.site:
        for job in SITE_GRID:
            measure("rows", "ours", {**common, "case": str(site.resolve()), "site": site.resolve().name, **job})
    if arguments.site:
        return 0
    with TemporaryDirectory() as temporary:
        common["case"] = str(build_case("iquitos-128", 0, Path(temporary) / "case"))
        jobs = [*GRID, *([PINNED] if on_gpu else [])] if "grid" in parts else []
        jobs += [MILLION] if "million" in parts else []
        caps = [parse_size(text) for text in arguments.cap] or [None]
        widths = (256, 512, 1_024) if "amp" in parts else ()
        for cap in caps:
            for job in jobs:
                measure("rows", "ours", {**common, **job, "cap": cap})
        for job in PEERS if arguments.peer_python and "peers" in parts else []:
            measure("peers", "peer", {**common, **job}, arguments.peer_python)
        for width in widths:
            measure("amp", "amp", {**common, "hidden": [width, width]})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
