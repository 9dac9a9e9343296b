"""Training end to end, environment included, on one CPU thread or on a GPU:

    python benchmarks/end_to_end.py --output FOLDER [--device cuda]

SAC: five years of `iquitos-128` in transitions, one update each, in single precision and with bfloat16 products, as
written and compiled; all of it is run, nothing is extrapolated. PPO: site-steps per second of this package's PPO on the
district engine, as shipped, beside stable-baselines3's on CityLearn, which is this package's environment over the
simulator (several times faster than CityLearn's own step). The peer runs on the CPU with equal networks, its default
batch of 64, one environment and as many epochs. And the whole command, from an empty folder: building the case, tuning
the rule, training, judging by CityLearn. Each is a process of its own. The peer needs an environment in which
stable-baselines3 and CityLearn are installed together (stable-baselines3 2.0.0 goes with gymnasium 0.28.1):
`--peer-python` names its Python.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import load_settings
from iquitos_rl.judging.references import STRONGEST
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.runs.engine import make_engine

CASE, TRAIN_YEAR = "iquitos-128", 500
PEER = "stable-baselines3"
YEARS, HOURS = 5, 8_760
SAC_ENVS, SAC_BATCH = 8, 256
PPO_ROLLOUTS, PEER_STEPS, PEER_HORIZON = 4, 512, 256
SETTINGS = {"bf16": "agent.amp=bf16", "default": "agent.compile=default", "off": "agent.compile=off"}
SAC_WAYS = {"cpu": ("", "bf16", "bf16 default"), "cuda": ("", "bf16", "off")}
PPO_WAYS = {"cpu": ("",), "cuda": ("", "off")}
TIMES_PEER, MINUTES = 50.0, 10
"""Bars: least ratio of site-steps per second for PPO, and longest time to a policy that beats the strongest rule."""


def guided_agent(name: str, folder: Path, device: torch.device, *sets: str) -> Any:
    """An agent as `python -m iquitos_rl.train` makes it, around an untuned rule: tuning is not training."""
    settings = load_settings([name], sets=[f"case={CASE}", *sets]).agents[name]
    sites = [read_site(folder)]
    engine = make_engine(settings.run, sites, device, default_settings(STRONGEST, fit_profiles(sites)))
    return AGENTS[name].agent(engine.env, settings.agent, device=device)


def clocked(train: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    train()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def sac(folder: Path, device: torch.device, *sets: str) -> dict[str, Any]:
    starts = 1_000
    common = [f"num_envs={SAC_ENVS}", f"agent.batch_size={SAC_BATCH}", "agent.update_ratio=1"]
    agent = guided_agent("sac", folder, device, *common, f"agent.learning_starts={starts}", *sets)
    result = clocked(lambda: agent.learn(YEARS * HOURS + starts))
    about = agent.config.model_dump(include={"hidden", "critics", "n_step"})
    return {**result, "steps": agent.steps, "updates": agent.updates, **about}


def ppo(folder: Path, device: torch.device, *sets: str) -> dict[str, Any]:
    agent = guided_agent("ppo", folder, device, *sets)
    stretch = agent.env.num_envs * agent.config.horizon
    agent.learn(stretch)  # what is done once is not the rate
    result = clocked(lambda: agent.learn(PPO_ROLLOUTS * stretch))
    return {**result, "steps": PPO_ROLLOUTS * stretch, "hidden": list(agent.config.hidden)}


def peer(folder: Path) -> dict[str, Any]:
    import stable_baselines3
    from stable_baselines3 import PPO

    from iquitos_rl.envs.citylearn.env import CityLearnSite

    shipped: Any = load_settings(["ppo"], sets=[f"case={CASE}"]).agents["ppo"].agent
    net = {"net_arch": list(shipped.hidden)}
    model = PPO(
        "MlpPolicy",
        CityLearnSite([folder]),
        n_steps=PEER_HORIZON,
        n_epochs=shipped.epochs,
        policy_kwargs=net,
        device="cpu",  # where it is faster
    )
    model.learn(PEER_HORIZON)
    result = clocked(lambda: model.learn(PEER_STEPS, reset_num_timesteps=False))
    peer_version = f"stable-baselines3 {stable_baselines3.__version__}"
    return {**result, "steps": PEER_STEPS, "hidden": net["net_arch"], "version": peer_version}


def command(folder: Path, device: torch.device) -> dict[str, Any]:
    """The default run of PPO, as a newcomer starts it; the site that it drives is another one than `folder`."""
    words = [sys.executable, "-m", "iquitos_rl.train", "ppo", "--case", CASE, "--device", device.type]
    words += ["--output", str(folder.parent / "run")]
    result = clocked(lambda: subprocess.run(words, stdout=subprocess.DEVNULL, check=True))
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((folder.parent / "run" / "simulation_summary.json").read_text(encoding="utf-8"))
    bills = {name: summary["controllers"][name]["bill"] for name in ("ppo", "strongest")}
    cpu = usage.ru_utime + usage.ru_stime
    return {**result, "cpu_s": cpu, "train_s": summary["timing"]["ppo"]["train_s"], "bills": bills}


def parts_for(device: torch.device) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """What is measured, by name; each in a process of its own."""

    def variants(train: Callable[..., dict[str, Any]], ways: tuple[str, ...]) -> dict[str, Any]:
        named = {f"{train.__name__} {way}".strip(): [SETTINGS[word] for word in way.split()] for way in ways}
        return {name: lambda folder, sets=sets: train(folder, device, *sets) for name, sets in named.items()}

    return {
        **variants(ppo, PPO_WAYS[device.type]),
        "command": lambda folder: command(folder, device),
        **variants(sac, SAC_WAYS[device.type]),
        PEER: peer,
    }


def ratio(result: dict[str, Any], name: str = "ppo") -> float:
    """Site-steps per second of PPO, ours over theirs."""
    ours, theirs = (result["parts"][part] for part in (name, PEER))
    clock = result["clock"]
    return float(ours["steps"] / ours[clock] / (theirs["steps"] / theirs[clock]))


def settings_of(name: str) -> str:
    """What distinguishes a part of that name, for people."""
    return ", ".join(f"`{SETTINGS[word]}`" for word in name.split()[1:]) or "nothing else set"


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in (result["machine"] | result["versions"]).items())
    lines = ["# Training end to end", "", f"`{result['command']}`; {facts}.", ""]
    sections = (sac_markdown, ppo_markdown, command_markdown)
    return "\n".join([*lines, *(line for section in sections for line in section(result))])


def time_of(result: dict[str, Any]) -> str:
    return "of wall time" if result["clock"] == "wall_s" else "of processor time"


def sac_markdown(result: dict[str, Any]) -> list[str]:
    parts = {name: part for name, part in result["parts"].items() if name.startswith("sac")}
    if not parts:
        return []
    about = next(iter(parts.values()))
    lines = [
        f"## SAC, five years of {CASE}: {YEARS * HOURS:,} transitions, one update each",
        "",
        f"Batch {SAC_BATCH}, hidden layers {about['hidden']}, {about['critics']} critics, {about['n_step']}-step "
        f"returns, {SAC_ENVS} environments, guided as shipped; environment, updates, reports and compilation included, "
        "after 1,000 transitions without updates.",
        "",
        f"| settings | processor s | wall s | updates/s {time_of(result)} | load |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, part in parts.items():
        times = f"{part['cpu_s']:.0f} | {part['wall_s']:.0f} | {part['updates'] / part[result['clock']]:.0f}"
        lines.append(f"| {settings_of(name)} | {times} | {part['load']:.1f} |")
    return [*lines, ""]


def ppo_markdown(result: dict[str, Any]) -> list[str]:
    parts = {name: part for name, part in result["parts"].items() if name.startswith("ppo") or name == PEER}
    if not parts:
        return []
    lines = [
        f"## PPO on {CASE}, site-steps per second",
        "",
        f"| | engine | site-steps | seconds | site-steps/s {time_of(result)} | load |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, part in parts.items():
        who = part["version"] if name == PEER else f"iquitos_rl, {settings_of(name)}"
        engine = "CityLearn, on the CPU" if name == PEER else "district, 1,024 environments"
        seconds = part[result["clock"]]
        lines.append(
            f"| {who} | {engine} | {part['steps']:,} | {seconds:.1f} | {part['steps'] / seconds:,.0f} "
            f"| {part['load']:.1f} |"
        )
    if PEER in parts:
        times = [f"{ratio(result, name):,.0f} ({settings_of(name)})" for name in parts if name != PEER]
        lines += ["", f"Times the peer: {', '.join(times)}; the bar is {TIMES_PEER:g}."]
    return [*lines, ""]


def command_markdown(result: dict[str, Any]) -> list[str]:
    run = result["parts"].get("command")
    if run is None:
        return []
    device = "" if result["machine"]["device"] == "cpu" else " --device cuda"
    return [
        "## From an empty folder to a policy that beats the strongest rule",
        "",
        f"`python -m iquitos_rl.train ppo --case {CASE}{device}`: {run['wall_s']:.0f} s, "
        f"{run['cpu_s']:.0f} s of processor "
        f"time, of which training {run['train_s']:.0f} s; the rest builds thirteen years of the case, tunes the rule "
        f"and judges (load {run['load']:.1f}). The bill of the unseen year, by CityLearn: {run['bills']['ppo']:,.0f}, "
        f"the strongest rule's {run['bills']['strongest']:,.0f}. The bar is {MINUTES} minutes on two cores.",
        "",
    ]


def main() -> int:
    torch.set_num_threads(1)
    if sys.argv[1] == "--work":
        name, kind, path = sys.argv[2:]
        print("=", json.dumps(parts_for(torch.device(kind))[name](Path(path))), flush=True)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with stable-baselines3")
    parser.add_argument("--parts", nargs="+", metavar="PART", help="only these, quoted where they have spaces")
    arguments = parser.parse_args()
    parts = parts_for(torch.device(arguments.device))
    chosen = arguments.parts or list(parts)
    if unknown := set(chosen) - set(parts):
        parser.error(f"--parts: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    arguments.output.mkdir(parents=True, exist_ok=True)
    on_gpu = arguments.device == "cuda"
    options = ["--device cuda"] * on_gpu + ["--peer-python PYTHON"] * (arguments.peer_python != sys.executable)
    options += [f"--parts {' '.join(map(repr, chosen))}"] * (arguments.parts is not None)
    stem = f"end_to_end{'_gpu' if on_gpu else ''}"
    result: dict[str, Any] = {
        "command": " ".join(["python benchmarks/end_to_end.py --output benchmarks/results", *options]),
        "machine": machine(torch.device(arguments.device), 1),
        "versions": versions(),
        "clock": "wall_s" if on_gpu else "cpu_s",
        "parts": {},
    }
    with TemporaryDirectory() as scratch:
        folder = build_case(CASE, TRAIN_YEAR, Path(scratch) / CASE)
        for name in chosen:
            loads = [os.getloadavg()[0]]
            python = arguments.peer_python if name == PEER else sys.executable
            words = [python, __file__, "--work", name, arguments.device, str(folder)]
            output = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
            answer = next(line for line in output.splitlines() if line.startswith("= "))
            loads.append(os.getloadavg()[0])
            result["parts"][name] = {**json.loads(answer[2:]), "load": sum(loads) / 2}
            write_json(arguments.output / f"{stem}.json", result)
            print(name, result["parts"][name], flush=True)
    write_text(arguments.output / f"{stem}.md", as_markdown(result))
    return 0 if all(bars(result)) else 1


def bars(result: dict[str, Any]) -> list[bool]:
    """Which of the bars that were measured are met."""
    met, parts = [], result["parts"]
    if "ppo" in parts and PEER in parts:
        met.append(ratio(result) >= TIMES_PEER)
    if (run := parts.get("command")) is not None:
        met += [run["bills"]["ppo"] < run["bills"]["strongest"], run["wall_s"] <= 60 * MINUTES]
    return met


if __name__ == "__main__":
    raise SystemExit(main())
