"""Whether compressed replay storage learns as well as float32: `python benchmarks/storage.py --output FOLDER`.

SAC on Pendulum-v1 (float16 against float32) and on a year of iquitos-38 with an action for every socket (uint8 and
float16 against float32), the same seeds for both. The return is that of the deterministic policy after training, on
the same episodes for every storage.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import torch

from iquitos_rl.agents.sac import SAC, SACConfig
from iquitos_rl.cases.iquitos import build_case
from iquitos_rl.envs.district import DistrictSite
from iquitos_rl.envs.gymnasium import as_vector
from iquitos_rl.envs.task import TaskSettings
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.runs.files import write_json, write_text
from iquitos_rl.runs.machine import machine, versions


def mean_return(agent: SAC, env: VectorEnv, steps: int) -> float:
    """Mean over environments of the sum of rewards over the first steps."""
    obs, total = env.reset(seed=1_000), torch.zeros(env.num_envs)
    for _ in range(steps):
        action = agent.predict(obs)
        low, high = torch.tensor(agent.spec.action_low), torch.tensor(agent.spec.action_high)
        step = env.step((action - low) / (high - low) * 2 - 1)  # predict speaks the environment's own units
        obs, total = step.obs, total + step.reward
    return float(total.mean())


def pendulum(storage: str, seed: int, steps: int) -> float:
    config = SACConfig(storage=storage, hidden=(64, 64), learning_rate=1e-3, learning_starts=500, batch_size=128)
    agent = SAC(gymnasium.make("Pendulum-v1"), config, seed=seed).learn(steps)
    return mean_return(agent, as_vector([lambda: gymnasium.make("Pendulum-v1")] * 20), 200)


def site(case: Path, storage: str, seed: int, steps: int) -> float:
    settings = TaskSettings(sockets="each")
    env = DistrictSite([case], 16, settings, starts="random", episode_steps=168)
    config = SACConfig(
        storage=storage, update_ratio=0.1, learning_starts=2_000, n_step=3, alpha_init=0.02, target_entropy_scale=0.5
    )
    agent = SAC(env, config, seed=seed).learn(steps)
    judged = DistrictSite([case], 32, settings, starts="random", episode_steps=168)
    return mean_return(agent, judged, 168)


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in (result["machine"] | result["versions"]).items())
    lines = ["# Returns by storage of the replay buffer", "", f"`{result['command']}`; {facts}.", ""]
    lines += ["| task | steps | storage | mean | deviation | returns by seed |", "|---|---:|---|---:|---:|---|"]
    for row in result["rows"]:
        returns = row["returns"]
        spread = statistics.stdev(returns) if len(returns) > 1 else float("nan")
        each = ", ".join(f"{value:.2f}" for value in returns)
        figures = f"{statistics.mean(returns):.2f} | {spread:.2f} | {each}"
        lines.append(f"| {row['task']} | {row['steps']:,} | {row['storage']} | {figures} |")
    return "\n".join([*lines, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pendulum-steps", type=int, default=10_000)
    parser.add_argument("--site-steps", type=int, default=40_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "command": "python " + " ".join(["benchmarks/storage.py", *sys.argv[1:]]),
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "rows": [],
    }
    with TemporaryDirectory() as temporary:
        case = build_case("iquitos-38", 0, Path(temporary) / "case")
        plans = [("Pendulum-v1", arguments.pendulum_steps, name) for name in ("float32", "float16")]
        plans += [("iquitos-38", arguments.site_steps, name) for name in ("float32", "float16", "uint8")]
        for task, steps, storage in plans:
            returns = []
            for seed in range(arguments.seeds):
                on_site = task == "iquitos-38"
                returns.append(site(case, storage, seed, steps) if on_site else pendulum(storage, seed, steps))
                print(task, storage, seed, returns[-1], flush=True)
            result["rows"].append({"task": task, "steps": steps, "storage": storage, "returns": returns})
            write_json(arguments.output / "storage.json", result)
            write_text(arguments.output / "storage.md", as_markdown(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
