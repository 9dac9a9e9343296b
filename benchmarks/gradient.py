"""What agents reach in equal processor time, SHAC and the others:

    python benchmarks/gradient.py CASE ... --output benchmarks/results [--seconds 40] [--seeds 3]

A CASE is a preset or a folder. Every agent has its shipped settings and one thread. Its speed is measured first, so
that what falls in the course of a training falls within the time. Policies are kept along the way and their bills
computed on the district engine afterwards, so the curves cost no training time. A preset is trained on around its
strongest rule, and its policies run the months of validation years; a folder is trained on without a guide
(`configs/unguided/`), and its policies run the period that they were trained on. Gap closed is the share of the
distance between the start (the rule, or doing nothing) and the optimum with perfect foresight of the same hours; for a
preset, whose months have no optimum, the bill less the rule's stands instead. Rows that are in the output already are
kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from ablation import Change, Months, settings_of
from torch import Tensor

from iquitos_rl.agents import AGENTS
from iquitos_rl.agents.agent import load_agent
from iquitos_rl.baselines.bill import gap_share, run_year
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.config import AgentSettings, config_folder, load_settings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import Objective, ObjectiveSettings, read_tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import STRONGEST, find_rule
from iquitos_rl.judging.table import listed, markdown_table
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.runs.engine import make_engine
from iquitos_rl.runs.years import preset_year

AGENTS_COMPARED = ("shac", "ppo", "sac", "a2c")
TRIAL = 0.1
"""Share of the time in which an agent's speed is measured."""
MARKS = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
"""Shares of the time at which the policy is kept; the third is the fifth of the time that SHAC is to be level after."""
VALIDATION = (500, 501)
Bills = list[float]


class TimeIsUp(Exception):
    pass


class Place(NamedTuple):
    """Where agents are compared."""

    settings: Callable[[str], AgentSettings]
    """Of an agent by its name."""
    environments: Callable[[AgentSettings], VectorEnv]
    judge: Callable[[Sequence[Any]], Bills]
    """Bill of each agent's policy."""
    start: float
    """Bill before anything is learned: that of the rule, or of doing nothing."""
    optimum: float | None


def preset(case: str, cache: Path) -> Place:
    """Training around the rule on a preset's years."""
    run = settings_of(case, "ppo", Change(), 0).run
    sites = [read_site(preset_year(case, year, {}, cache)) for year in range(run.years)]
    rule = find_rule(STRONGEST, sites, run.task, cache)
    months = Months([preset_year(case, year, {}, cache) for year in VALIDATION], rule, ())

    def environments(settings: AgentSettings) -> VectorEnv:
        return make_engine(settings.run, sites, torch.device("cpu"), rule).env

    def judge(agents: Sequence[Any]) -> Bills:
        return [float(months.agent(agent).total.mean()) for agent in agents]

    settings = lambda name: settings_of(case, name, Change(), 0)  # noqa: E731
    return Place(settings, environments, judge, float(months.rule().total.mean()), None)


def unguided_settings(name: str) -> AgentSettings:
    unguided = config_folder() / "unguided" / f"{name}.yaml"
    return load_settings([name], unguided if unguided.is_file() else None).agents[name]


def data_set(folder: Path) -> Place:
    """Training without a guide on the one period that a folder holds."""
    site = read_site(folder)

    def environments(settings: AgentSettings) -> VectorEnv:
        hours = min(settings.run.episode_hours, site.rows - 2)
        return DistrictSite([site], settings.run.num_envs, TaskSettings(), starts="random", episode_steps=hours)

    def judge(agents: Sequence[Any]) -> Bills:
        env = DistrictSite([site], len(agents), TaskSettings(), agents[0].spec.environment)

        def act(obs: Tensor) -> Tensor:
            return torch.cat([agent.act(own, None) for agent, own in zip(agents, obs.split(1))]).clamp(-1, 1)

        with torch.inference_mode():
            return [float(bill) for bill in run_year(env, act).total]

    return Place(unguided_settings, environments, judge, *bounds(site))


def bounds(site: Site) -> tuple[float, float | None]:
    """Bills of doing nothing and of the optimum, None where none is computed."""
    env = DistrictSite([site], 1, TaskSettings())
    rest = torch.zeros(1, env.action_dim)
    idle = float(run_year(env, lambda obs: rest).total[0])
    try:
        objective = Objective(read_tariff(site.path), ObjectiveSettings())
        return idle, float(optimum(site, objective).bill.total)
    except UserError as error:
        print(str(error).replace(str(site.path), site.name), flush=True)
        return idle, None


def make(place: Place, name: str, seed: int) -> Any:
    settings = place.settings(name)
    return AGENTS[name].agent(place.environments(settings), settings.agent, seed=seed)


def speed(place: Place, name: str, seconds: float) -> float:
    """Transitions per second of processor time, updates included."""
    agent = make(place, name, seed=99)
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


def measure(place: Place, name: str, seed: int, seconds: float, rate: float) -> dict[str, Any]:
    """One training and its curve."""
    agent = make(place, name, seed)
    total = max(int(rate * seconds), agent.round_steps())
    curve: list[dict[str, float]] = []
    with TemporaryDirectory() as temporary:

        def keep(steps: int) -> None:
            if len(curve) < len(MARKS) and steps >= MARKS[len(curve)] * total:
                curve.append({"steps": steps, "cpu_s": time.process_time() - begun})
                agent.save_policy(Path(temporary) / str(len(curve)))

        begun = time.process_time()
        agent.learn(total, on_step=keep)
        taken = time.process_time() - begun
        agents = [load_agent(Path(temporary) / str(i + 1)) for i in range(len(curve))]
        for point, bill in zip(curve, place.judge(agents), strict=True):
            point["bill"] = bill
    return {"seed": seed, "steps": agent.steps, "updates": agent.updates, "cpu_s": taken, "curve": curve}


def reached(own: dict[str, Any], bill: float) -> float:
    """Percent of the gap, or the distance from the start where there is no optimum."""
    best = own["optimum"]
    return bill - own["start"] if best is None else 100 * gap_share(bill, own["start"], best)


def mean_curve(runs: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [float(np.mean([run["curve"][i][key] for run in runs])) for i in range(len(runs[0]["curve"]))]


def as_markdown(result: dict[str, Any]) -> str:
    rows = [["case", "agent", "seeds", "bill", "reached", "after a fifth", "steps", "updates", "processor s"]]
    for case, own in result["cases"].items():
        shown = "{:+,.0f}" if own["optimum"] is None else "{:.1f} %"
        rows.append([case, "start", "", f"{own['start']:,.0f}", *[""] * 5])
        if own["optimum"] is not None:
            rows.append([case, "optimum", "", f"{own['optimum']:,.0f}", "100 %", *[""] * 4])
        for name, runs in own["agents"].items():
            bills = [run["curve"][-1]["bill"] for run in runs]
            each = f"{np.mean(bills):,.0f}" + (f" ({min(bills):,.0f} to {max(bills):,.0f})" if len(bills) > 1 else "")
            fifth = mean_curve(runs, "bill")[min(2, len(runs[0]["curve"]) - 1)]
            ends = (shown.format(reached(own, bill)) for bill in (np.mean(bills), fifth))
            means = (np.mean([run[key] for run in runs]) for key in ("steps", "updates", "cpu_s"))
            rows.append([case, name, str(len(runs)), each, *ends, *(f"{x:,.0f}" for x in means)])
    facts = f"{listed(result['machine'])}; {listed(result['versions'])}"
    text = __doc__.split("\n\n", 2)[2].strip().replace("\n", " ")
    head = f"# SHAC and the other agents in equal processor time\n\n`{result['command']}`; {facts}."
    notes = [result["note"]] if result["note"] else []
    picture = "![Curves over processor seconds and steps](gradient.png)"
    return "\n\n".join([head, text, *notes, markdown_table(rows).rstrip(), picture]) + "\n"


def draw(result: dict[str, Any], path: Path) -> None:
    """A row of panels for each case: what is reached, over processor seconds and over steps."""
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()
    figure = Figure(figsize=(9, 2.6 * len(result["cases"])), layout="constrained")
    panels = figure.subplots(len(result["cases"]), 2, squeeze=False)
    for (case, own), pair in zip(result["cases"].items(), panels):
        for axis, key, label in zip(pair, ("cpu_s", "steps"), ("processor s", "steps")):
            for name, runs in own["agents"].items():
                values = [[reached(own, point["bill"]) for point in run["curve"]] for run in runs]
                count, x = min(map(len, values)), mean_curve(runs, key)
                line = np.array([row[:count] for row in values])
                drawn = axis.plot(x[:count], line.mean(0), marker=".", label=name)
                axis.fill_between(x[:count], line.min(0), line.max(0), color=drawn[0].get_color(), alpha=0.2, lw=0)
            axis.set(xlabel=label, xscale="log")
            axis.grid(alpha=0.3)
        pair[0].set_ylabel("bill less the rule's" if own["optimum"] is None else "gap closed, %")
        pair[0].set_title(case, loc="left", fontsize=9)
    panels[0, 0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", help="presets and folders")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("outputs/cache"), help="years and tuned rules of presets")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--note", default="", help="written next to the facts of the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.output / "gradient.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"cases": {}}
    result["command"] = (
        f"python benchmarks/gradient.py CASE ... --seconds {arguments.seconds:g} --seeds {arguments.seeds}"
    )
    result |= {"machine": machine(torch.device("cpu"), 1), "versions": versions(), "load": os.getloadavg()[0]}
    result["note"] = arguments.note
    for case in arguments.cases:
        place = preset(case, arguments.cache) if case in PRESETS else data_set(Path(case))
        name_of_case = case if case in PRESETS else Path(case).resolve().name
        fresh: dict[str, Any] = {"start": place.start, "optimum": place.optimum, "agents": {}}
        own = result["cases"].setdefault(name_of_case, fresh)
        for name in AGENTS_COMPARED:
            runs = own["agents"].setdefault(name, [])
            rate = speed(place, name, TRIAL * arguments.seconds) if len(runs) < arguments.seeds else 0.0
            for seed in range(len(runs), arguments.seeds):
                runs.append(measure(place, name, seed, arguments.seconds, rate))
                write_json(path, result)
                print(name_of_case, name, runs[-1], flush=True)
            draw(result, arguments.output / "gradient.png")
            write_text(arguments.output / "gradient.md", as_markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
