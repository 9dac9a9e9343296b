"""What agents reach in equal processor time on sites without a guide, SHAC beside the others:

    python benchmarks/gradient.py FOLDER ... --output benchmarks/results [--seconds 60] [--seeds 2]

Every agent has its shipped settings for runs without a guide (`configs/unguided/`, `configs/shac.yaml`) and one thread.
Its speed is measured first, so that what falls in the course of a training falls within the time. The period that is
trained on is judged, whole, on the district engine: bill, and share of the gap between doing nothing and the optimum
with perfect foresight. Rows that are in the output already are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.baselines.bill import gap_share, run_year
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.config import config_folder, load_settings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import Objective, ObjectiveSettings, read_tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.table import listed, markdown_table
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

AGENTS_COMPARED = ("shac", "ppo", "sac", "a2c")
TRIAL = 0.1
"""Share of the time in which an agent's speed is measured."""


class TimeIsUp(Exception):
    pass


def make(name: str, site: Site, seed: int) -> Any:
    unguided = config_folder() / "unguided" / f"{name}.yaml"
    settings = load_settings([name], unguided if unguided.is_file() else None).agents[name]
    hours = min(settings.run.episode_hours, site.rows - 2)
    env = DistrictSite([site], settings.run.num_envs, TaskSettings(), starts="random", episode_steps=hours)
    return AGENTS[name].agent(env, settings.agent, seed=seed)


def speed(name: str, site: Site, seconds: float) -> float:
    """Transitions per second of processor time, updates included."""
    agent = make(name, site, seed=99)
    first: list[tuple[float, int]] = []

    def watch(steps: int) -> None:
        if agent.updates and not first:  # random steps before it are too fast to count
            first.append((time.process_time(), steps))
        if first and time.process_time() - first[0][0] > seconds:
            raise TimeIsUp

    with suppress(TimeIsUp):
        agent.learn(10**9, on_step=watch)
    begun, before = first[0]
    return float((agent.steps - before) / (time.process_time() - begun))


def bill(site: Site, controller: Any, spec: dict[str, Any] | None = None) -> float:
    with torch.inference_mode():
        return float(run_year(DistrictSite([site], 1, TaskSettings(), spec), controller).total[0])


def measure(name: str, site: Site, seed: int, seconds: float, rate: float) -> dict[str, float]:
    agent = make(name, site, seed)
    steps = max(int(rate * seconds), agent.round_steps())
    begun = time.process_time()
    agent.learn(steps)
    taken = time.process_time() - begun
    found = bill(site, lambda obs: agent.act(obs, None).clamp(-1, 1), agent.spec.environment)
    return {"seed": seed, "bill": found, "steps": agent.steps, "updates": agent.updates, "cpu_s": taken}


def bounds(site: Site) -> dict[str, float]:
    """Bills of doing nothing and of the optimum; the second is missing where none is computed."""
    env = DistrictSite([site], 1, TaskSettings())
    rest = torch.zeros(1, env.action_dim)
    found = {"idle": bill(site, lambda obs: rest)}
    try:
        objective = Objective(read_tariff(site.path), ObjectiveSettings())
        found["optimum"] = float(optimum(site, objective).bill.total)
    except UserError as error:
        print(str(error).replace(str(site.path), site.name), flush=True)
    return found


def as_markdown(result: dict[str, Any]) -> str:
    rows = [["site", "agent", "seeds", "bill", "gap closed", "steps", "updates", "processor s"]]
    for site, own in result["sites"].items():
        idle, best = own["idle"], own.get("optimum")
        rows.append([site, "doing nothing", "", f"{idle:,.0f}", "", "", "", ""])
        if best is not None:
            rows.append([site, "optimum", "", f"{best:,.0f}", "100 %", "", "", ""])
        for name, runs in own["agents"].items():
            bills = [run["bill"] for run in runs]
            share = "" if best is None else f"{100 * np.mean([gap_share(b, idle, best) for b in bills]):.1f} %"
            each = f"{np.mean(bills):,.0f}" + (f" ({min(bills):,.0f} to {max(bills):,.0f})" if len(bills) > 1 else "")
            means = (np.mean([run[key] for run in runs]) for key in ("steps", "updates", "cpu_s"))
            rows.append([site, name, str(len(runs)), each, share, *(f"{x:,.0f}" for x in means)])
    facts = f"{listed(result['machine'])}; {listed(result['versions'])}"
    text = __doc__.split("\n\n", 2)[2].strip().replace("\n", " ")
    head = f"# Equal processor time, without a guide\n\n`{result['command']}`; {facts}."
    notes = [result["note"]] if result["note"] else []
    return "\n\n".join([head, text, *notes, markdown_table(rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--note", default="", help="written next to the facts of the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.output / "gradient.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"sites": {}}
    result["command"] = (
        f"python benchmarks/gradient.py FOLDER ... --seconds {arguments.seconds:g} --seeds {arguments.seeds}"
    )
    result |= {"machine": machine(torch.device("cpu"), 1), "versions": versions(), "load": os.getloadavg()[0]}
    result["note"] = arguments.note
    for folder in arguments.folders:
        site = read_site(folder)
        own = result["sites"].setdefault(folder.name, {**bounds(site), "agents": {}})
        for name in AGENTS_COMPARED:
            runs = own["agents"].setdefault(name, [])
            rate = speed(name, site, TRIAL * arguments.seconds) if len(runs) < arguments.seeds else 0.0
            for seed in range(len(runs), arguments.seeds):
                runs.append(measure(name, site, seed, arguments.seconds, rate))
                write_json(path, result)
                write_text(arguments.output / "gradient.md", as_markdown(result))
                print(folder.name, name, runs[-1], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
