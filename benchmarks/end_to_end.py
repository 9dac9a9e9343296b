"""Training end to end, environment included, on one CPU thread:

    python benchmarks/end_to_end.py --output FOLDER

SAC: five years of `iquitos-128` in transitions, one update each, in single precision, with bfloat16 products, and with
those compiled; all of it is run, nothing is extrapolated. PPO: site-steps per second of this package's PPO on the
district engine, as shipped, beside stable-baselines3's on CityLearn, which is this package's environment over the
simulator (several times faster than CityLearn's own step). The peer has equal networks, its default batch of 64, one
environment and as many epochs; each is a stretch of training in a process of its own, by processor time. And the whole
command, from an empty folder: building the case, tuning the rule, training, judging by CityLearn. The peer needs an
environment in which stable-baselines3 and CityLearn are installed together (stable-baselines3 2.0.0 goes with gymnasium
0.28.1).
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
from iquitos_rl.cases.iquitos import build_case
from iquitos_rl.cases.reader import read_site
from iquitos_rl.config import Algorithm, load_settings
from iquitos_rl.runs.engine import make_engine
from iquitos_rl.runs.files import write_json, write_text
from iquitos_rl.runs.machine import machine, versions
from iquitos_rl.runs.references import STRONGEST

CASE, TRAIN_YEAR = "iquitos-128", 500
YEARS, HOURS = 5, 8_760
SAC_ENVS, SAC_BATCH = 8, 256
PPO_ROLLOUTS, PEER_STEPS, PEER_HORIZON = 4, 512, 256
TIMES_PEER, MINUTES = 50.0, 10
"""Bars: least ratio of site-steps per second for PPO, and longest time to a policy that beats the strongest rule."""


def guided_agent(name: Algorithm, folder: Path, *sets: str) -> Any:
    """An agent as `python -m iquitos_rl.train` makes it, around an untuned rule: tuning is not training."""
    settings = load_settings(name, AGENTS[name].config, sets=[f"case={CASE}", *sets])
    rule = default_settings(STRONGEST, fit_profiles([read_site(folder)]))
    engine = make_engine(settings.run, [folder], torch.device("cpu"), rule)
    return AGENTS[name].agent(engine.env, settings.agent)


def clocked(train: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    train()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def sac(folder: Path, *sets: str) -> dict[str, Any]:
    starts = 1_000
    common = [f"num_envs={SAC_ENVS}", f"agent.batch_size={SAC_BATCH}", "agent.update_ratio=1"]
    agent = guided_agent("sac", folder, *common, f"agent.learning_starts={starts}", *sets)
    result = clocked(lambda: agent.learn(YEARS * HOURS + starts))
    return {**result, "steps": agent.steps, "updates": agent.updates, "hidden": list(agent.config.hidden)}


def ppo(folder: Path) -> dict[str, Any]:
    agent = guided_agent("ppo", folder)
    stretch = agent.env.num_envs * agent.config.horizon
    agent.learn(stretch)  # what is done once is not the rate
    result = clocked(lambda: agent.learn((1 + PPO_ROLLOUTS) * stretch))
    return {**result, "steps": PPO_ROLLOUTS * stretch, "hidden": list(agent.config.hidden)}


def peer(folder: Path) -> dict[str, Any]:
    from stable_baselines3 import PPO

    from iquitos_rl.envs.citylearn import CityLearnSite

    shipped: Any = load_settings("ppo", AGENTS["ppo"].config, sets=[f"case={CASE}"]).agent
    net = {"net_arch": list(shipped.hidden)}
    model = PPO(
        "MlpPolicy",
        CityLearnSite([folder]),
        n_steps=PEER_HORIZON,
        n_epochs=shipped.epochs,
        policy_kwargs=net,
        device="cpu",
    )
    model.learn(PEER_HORIZON)
    result = clocked(lambda: model.learn(PEER_STEPS, reset_num_timesteps=False))
    return {**result, "steps": PEER_STEPS, "hidden": net["net_arch"]}


def command(folder: Path) -> dict[str, Any]:
    """The default run of PPO, as a newcomer starts it; the site that it drives is another one than `folder`."""
    words = [sys.executable, "-m", "iquitos_rl.train", "ppo", "--case", CASE, "--output", str(folder.parent / "run")]
    result = clocked(lambda: subprocess.run(words, stdout=subprocess.DEVNULL, check=True))
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((folder.parent / "run" / "simulation_summary.json").read_text(encoding="utf-8"))
    bills = {name: summary["controllers"][name]["bill"] for name in ("ppo", "strongest")}
    cpu = usage.ru_utime + usage.ru_stime
    return {**result, "cpu_s": cpu, "train_s": summary["timing"]["ppo"]["train_s"], "bills": bills}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "ppo": ppo,
    "stable-baselines3": peer,
    "command": command,
    "sac": sac,
    "sac bf16": lambda folder: sac(folder, "agent.amp=bf16"),
    "sac bf16 compiled": lambda folder: sac(folder, "agent.amp=bf16", "agent.compile=default"),
}


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in (result["machine"] | result["versions"]).items())
    parts = result["parts"]
    hidden = parts["sac"]["hidden"]
    ours, theirs = (parts[name]["steps"] / parts[name]["cpu_s"] for name in ("ppo", "stable-baselines3"))
    lines = ["# Training end to end", "", f"`{result['command']}`; {facts}.", ""]
    lines += [
        f"## SAC, five years of {CASE}: {YEARS * HOURS:,} transitions, one update each",
        "",
        f"Batch {SAC_BATCH}, hidden layers {hidden}, {SAC_ENVS} environments, guided as shipped, one thread; "
        "environment, updates and reports included, after 1,000 transitions without updates.",
        "",
        "| products | processor s | wall s | updates/s of processor time | load |",
        "|---|---:|---:|---:|---:|",
    ]
    words_of = {
        "sac": "float32",
        "sac bf16": "bfloat16 (`agent.amp=bf16`)",
        "sac bf16 compiled": "the same, compiled (`agent.compile=default`), compilation included",
    }
    for name, words in words_of.items():
        part = parts[name]
        rate = part["updates"] / part["cpu_s"]
        lines.append(f"| {words} | {part['cpu_s']:.0f} | {part['wall_s']:.0f} | {rate:.0f} | {part['load']:.1f} |")
    lines += [
        "| any, on a GPU | not measured | | | |",
        "",
        f"## PPO on {CASE}, site-steps per second",
        "",
        "| | engine | site-steps | processor s | site-steps/s of processor time | load |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, engine in (("ppo", "district, 1,024 environments"), ("stable-baselines3", "CityLearn")):
        part = parts[name]
        lines.append(
            f"| {'iquitos_rl' if name == 'ppo' else part['version']} | {engine} | {part['steps']:,} "
            f"| {part['cpu_s']:.1f} | {part['steps'] / part['cpu_s']:,.0f} | {part['load']:.1f} |"
        )
    lines += ["", f"{ours / theirs:,.0f} times; the bar is {TIMES_PEER:g}. On a GPU: not measured.", ""]
    run = parts["command"]
    lines += [
        "## From an empty folder to a policy that beats the strongest rule",
        "",
        f"`python -m iquitos_rl.train ppo --case {CASE}`: {run['wall_s']:.0f} s, {run['cpu_s']:.0f} s of processor "
        f"time, of which training {run['train_s']:.0f} s; the rest builds thirteen years of the case, tunes the rule "
        f"and judges (load {run['load']:.1f}). The bill of the unseen year, by CityLearn: {run['bills']['ppo']:,.0f}, "
        f"the strongest rule's {run['bills']['strongest']:,.0f}. The bar is {MINUTES} minutes on two cores.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    torch.set_num_threads(1)
    if sys.argv[1] == "--work":
        print("=", json.dumps(PARTS[sys.argv[2]](Path(sys.argv[3]))), flush=True)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "command": "python benchmarks/end_to_end.py --output benchmarks/results",
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "parts": {},
    }
    with TemporaryDirectory() as scratch:
        folder = build_case(CASE, TRAIN_YEAR, Path(scratch) / CASE)
        for name in PARTS:
            loads = [os.getloadavg()[0]]
            words = [sys.executable, __file__, "--work", name, str(folder)]
            output = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
            answer = next(line for line in output.splitlines() if line.startswith("= "))
            loads.append(os.getloadavg()[0])
            result["parts"][name] = {**json.loads(answer[2:]), "load": sum(loads) / 2}
            if name == "stable-baselines3":
                from importlib.metadata import version

                result["parts"][name]["version"] = f"stable-baselines3 {version('stable-baselines3')}"
            print(name, result["parts"][name], flush=True)
    write_json(arguments.output / "end_to_end.json", result)
    write_text(arguments.output / "end_to_end.md", as_markdown(result))
    parts = result["parts"]
    ours, theirs = (parts[name]["steps"] / parts[name]["cpu_s"] for name in ("ppo", "stable-baselines3"))
    run = parts["command"]
    beats = run["bills"]["ppo"] < run["bills"]["strongest"] and run["wall_s"] <= 60 * MINUTES
    return 0 if ours >= TIMES_PEER * theirs and beats else 1


if __name__ == "__main__":
    raise SystemExit(main())
