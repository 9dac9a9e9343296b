"""How long SAC trains until Pendulum swings up, beside stable-baselines3 with the same settings:

    python benchmarks/time_to_return.py --output FOLDER --sb3 PYTHON

Every 500 transitions the deterministic policy is judged on 10 episodes from starts that training did not see; the clock
stands still meanwhile. It stops at the first mean return of at least -200. Each agent and seed is a process of its own
with one thread, and the two take turns seed by seed. What is compared is processor time, environment included.
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
from typing import Any

import gymnasium

ENV, BAR, STEPS, EVERY, EPISODES, FIRST_SEED = "Pendulum-v1", -200.0, 20_000, 500, 10, 10_000
SETTINGS = {"learning_rate": 1e-3, "batch_size": 256, "gamma": 0.99, "tau": 0.005, "learning_starts": 500}
HIDDEN = (64, 64)


def ours(seed: int, **more: Any) -> tuple[Any, Any]:
    """Functions: train until so many transitions; the policy."""
    from iquitos_rl import SAC
    from iquitos_rl.agents.sac import SACConfig

    config = SACConfig(hidden=HIDDEN, buffer_size=STEPS, **SETTINGS, **more)  # type: ignore[arg-type]
    agent = SAC(gymnasium.make(ENV), config, seed=seed)
    return lambda steps: agent.learn(until=steps), agent.predict


def sb3(seed: int) -> tuple[Any, Any]:
    from stable_baselines3 import SAC

    settings: Any = {**SETTINGS, "buffer_size": STEPS, "policy_kwargs": {"net_arch": list(HIDDEN)}}
    model = SAC("MlpPolicy", ENV, seed=seed, device="cpu", **settings)
    return (
        lambda steps: model.learn(steps - model.num_timesteps, reset_num_timesteps=False),
        lambda obs: model.predict(obs, deterministic=True)[0],
    )


def judge(policy: Any) -> float:
    world, returns = gymnasium.make(ENV), []
    for episode in range(EPISODES):
        obs, _ = world.reset(seed=FIRST_SEED + episode)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = world.step(policy(obs))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return statistics.fmean(returns)


def work(name: str, seed: int) -> dict[str, Any]:
    """Train one agent until it is good enough."""
    import torch

    torch.set_num_threads(1)
    more = dict(word.split("=") for word in name.split()[1:])
    train, policy = sb3(seed) if name == "stable-baselines3" else ours(seed, **more)
    cpu = wall = 0.0
    for steps in range(EVERY, STEPS + 1, EVERY):
        begun = time.process_time(), time.perf_counter()
        train(steps)
        cpu, wall = cpu + time.process_time() - begun[0], wall + time.perf_counter() - begun[1]
        mean = judge(policy)
        if mean >= BAR:
            break
    reached = mean >= BAR
    return {"seed": seed, "reached": reached, "return": mean, "steps": steps, "cpu_s": cpu, "wall_s": wall}


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in (result["machine"] | result["versions"]).items())
    lines = [
        f"# Time to a mean return of {BAR:g} on {ENV}",
        "",
        f"`{result['command']}`; {facts}; load average {result['load']:.1f} of {os.cpu_count()} cores.",
        "",
        f"SAC, hidden layers {HIDDEN}, {SETTINGS}, one update per transition; judged every {EVERY} transitions. "
        "Seconds of processor time, environment included, judging not.",
        "",
        "| contestant | seed | transitions | return | processor s | wall s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in result["runs"]:
        reached = f"{row['return']:.0f}" if row["reached"] else f"{row['return']:.0f}, not reached"
        lines.append(
            f"| {row['contestant']} | {row['seed']} | {row['steps']:,} | {reached} | {row['cpu_s']:.1f} "
            f"| {row['wall_s']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    if sys.argv[1] == "--work":
        print("=", json.dumps(work(sys.argv[2], int(sys.argv[3]))), flush=True)
        return 0
    import torch

    from iquitos_rl.machine.facts import machine, versions
    from iquitos_rl.machine.files import write_json, write_text

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sb3", metavar="PYTHON", required=True, help="of an environment with stable-baselines3")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    pythons = {"iquitos_rl": sys.executable, "iquitos_rl amp=bf16": sys.executable, "stable-baselines3": arguments.sb3}
    runs, loads = [], []
    for seed in range(arguments.seeds):
        for name, python in pythons.items():
            words = [python, __file__, "--work", name, str(seed)]
            output = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout
            answer = next(line for line in output.splitlines() if line.startswith("= "))
            runs.append({"contestant": name, **json.loads(answer[2:])})
            loads.append(os.getloadavg()[0])
            print(runs[-1], flush=True)
    command = "python benchmarks/time_to_return.py --output benchmarks/results --sb3 PYTHON"
    result = {
        "command": f"{command} --seeds {arguments.seeds}",
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "load": statistics.fmean(loads),
        "runs": runs,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output / "time_to_return.json", result)
    write_text(arguments.output / "time_to_return.md", as_markdown(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
