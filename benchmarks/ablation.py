"""What each part of the default agents is worth on the bill, one change at a time:

    python benchmarks/ablation.py --output benchmarks/results [--rows NAME ...]

Trains on the preset's training years and judges on validation years (year seeds 500 to 505, neither trained on nor
those that judge runs) on the district engine, beside the strongest rule in the same hours. Months are judged side by
side, each from where the rule stood at its first hour. Rows that are in the output already are kept while their
settings stay the same: what was stopped goes on, and `--rows` measures some again. Seconds are processor time of
training alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.agents import AGENTS
from iquitos_rl.baselines.bill import Bill, booked_terms, start_at
from iquitos_rl.baselines.guided import Guide, GuidedSite
from iquitos_rl.baselines.recording import record_years
from iquitos_rl.baselines.rule import Rule, RuleSettings
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import AgentSettings, load_settings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.objective import is_month_start
from iquitos_rl.envs.task.trajectory import Trajectory
from iquitos_rl.judging.references import STRONGEST, find_rule
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.runs.years import preset_year

VALIDATION, SEEDS = range(500, 506), (0, 1)
HISTORY = ("load_now", "load_lately", "pv_now", "pv_lately")


class Change(NamedTuple):
    """One difference from the defaults."""

    sets: tuple[str, ...] = ()
    trajectory: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory
    blind_to: tuple[str, ...] = ()
    """Endings of columns that are held at zero."""


def billed_as_they_fall_due(trajectory: Trajectory) -> Trajectory:
    """Demand charges in the hour that raises the month's peak, not as they are expected."""
    row = torch.arange(len(trajectory.reward))
    after = trajectory.running_peak.roll(-1, 0)  # a month's last row leaves nothing to come, whatever follows
    nothing = torch.zeros_like(trajectory.reward)
    shift = trajectory.expected(nothing, row, trajectory.running_peak, after)
    zeros = torch.zeros_like(trajectory.peak_ahead)
    return trajectory._replace(reward=trajectory.reward - shift, peak_ahead=zeros, peak_beyond=zeros)


def not_counted(trajectory: Trajectory) -> Trajectory:
    """Rewards as they are, without the rule's taken off."""
    return trajectory._replace(reward=torch.zeros_like(trajectory.reward))


CHANGES: dict[str, dict[str, Change]] = {
    "ppo": {
        "defaults": Change(),
        "demand charges as they fall due, gamma 0.999": Change(
            ("agent.gamma=0.999",), trajectory=billed_as_they_fall_due
        ),
        "rewards not counted from the rule's": Change(trajectory=not_counted),
        "no history of load and PV": Change(blind_to=HISTORY),
        "3 training years": Change(("years=3",)),
        "reach 0.1": Change(("reach=0.1",)),
        "nothing beyond the month's highest import": Change(("beyond=0",)),
        "departures beyond it in full": Change(("beyond=1",)),
        "noise 2.7 times as narrow": Change(("agent.log_std_init=-3",)),
    },
    "sac": {
        "defaults": Change(),
        "demand charges as they fall due, gamma 0.99": Change(
            ("agent.gamma=0.99",), trajectory=billed_as_they_fall_due
        ),
        "a tenth of departures beyond the month's highest import": Change(("beyond=0.1",)),
        "two critics": Change(("agent.critics=2",)),
        "three-step returns from a replay of 200,000": Change(("agent.n_step=3", "agent.buffer_size=200000")),
        "one-step returns": Change(("agent.n_step=1",)),
        "no layer normalisation": Change(("agent.layer_norm=false",)),
        "as many samples from 8 environments in batches of 256, tau to match": Change(
            ("num_envs=8", "agent.batch_size=256", "agent.update_ratio=0.16", "agent.tau=0.000625")
        ),
    },
    "a2c": {"defaults": Change()},
}


class Months:
    """All months of some years side by side, each from where the rule stood at its first hour."""

    def __init__(self, years: list[Path], rule: RuleSettings, blind_to: tuple[str, ...]) -> None:
        sites = [read_site(year) for year in years]
        self._start = record_years(sites, rule, load_settings(["ppo"]).run.task)
        first = np.flatnonzero(is_month_start(sites[0]))
        length = np.diff([*first, sites[0].rows - 1])
        self.years, months = len(sites), len(first)
        self.env = DistrictSite(sites, self.years * months, trajectory=self._start)
        self._row = torch.from_numpy(np.tile(first, self.years))
        self._year = torch.arange(self.years).repeat_interleave(months)
        self._length = torch.from_numpy(np.tile(length, self.years))
        self._guide_rule = Rule(self.env.task, rule)
        blind(self.env, blind_to)

    def run(self, controller: Callable[[Tensor], Tensor]) -> Bill:
        """Bills (years,) of a controller's months."""
        env, at = self.env, self._year * self.env.task.rows + self._row
        obs = start_at(env, self._row, self._year, self._start.net[at])
        total = torch.zeros((len(Bill._fields), len(at)), dtype=torch.float64)
        for t in range(int(self._length.max())):
            step = env.step(controller(obs))
            obs, cost = step.obs, booked_terms(step.info)
            total += torch.where(t < self._length, cost, 0.0)
        return Bill(*total.reshape(len(total), self.years, -1).sum(-1).numpy())

    def rule(self) -> Bill:
        return self.run(self._guide_rule)

    def agent(self, agent: Any) -> Bill:
        guide = Guide.from_json(self.env.task, agent.spec.environment["guide"])

        def controller(obs: Tensor) -> Tensor:
            seen = guide.see(obs)
            return guide.act(seen, agent.predict(seen))

        return self.run(controller)


def blind(env: DistrictSite, endings: tuple[str, ...]) -> None:
    """Hold columns of the environment's table at zero; rules read none of those that are ever named here."""
    names = [column.name for column in env.task.encoding.exogenous]
    env.task.table[:, [i for i, name in enumerate(names) if endings and name.endswith(endings)]] = 0


def settings_of(case: str, algorithm: str, change: Change, seed: int) -> AgentSettings:
    sets = [f"case={case}", f"seed={seed}", *change.sets]
    return load_settings([algorithm], sets=sets).agents[algorithm]


def measure(case: str, algorithm: str, change: Change, seed: int, cache: Path) -> dict[str, Any]:
    """Train once with one change, and judge."""
    settings = settings_of(case, algorithm, change, seed)
    run = settings.run
    years = [preset_year(case, year, {}, cache) for year in range(run.years)]
    sites = [read_site(year) for year in years]
    rule = find_rule(STRONGEST, sites, run.task, cache)
    trajectory = change.trajectory(record_years(sites, rule, run.task))
    hours = run.episode_hours
    env = DistrictSite(years, run.num_envs, run.task, starts="random", episode_steps=hours, trajectory=trajectory)
    blind(env, change.blind_to)
    agent = AGENTS[algorithm].agent(GuidedSite(env, rule, run.reach, run.beyond), settings.agent, seed=seed)
    begun = time.process_time()
    agent.learn(run.steps)
    seconds = time.process_time() - begun
    months = Months([preset_year(case, year, {}, cache) for year in VALIDATION], rule, change.blind_to)
    beside, bill = months.rule(), months.agent(agent)
    difference = bill.total - beside.total
    return {
        "seed": seed,
        "difference": difference.tolist(),
        "demand": float((bill.demand - beside.demand).mean()),
        "rule": beside.total.tolist(),
        "cpu_s": seconds,
        "settings": settings.dump(),
        "load": os.getloadavg()[0],
    }


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in (result["machine"] | result["versions"]).items())
    lines = [
        "# What each part of the agents is worth",
        "",
        f"`{result['command']}`; {facts}.",
        "",
        "Each row is one change from the shipped settings. The figure is the bill less the strongest rule's in the "
        f"same hours, PEN per year, mean over validation years {VALIDATION[0]} to {VALIDATION[-1]} and seeds, "
        "district engine; less is better. Its deviation is that of the seeds' means.",
        "",
        "| case | agent | change | seeds | bill less the rule's | deviation | demand | years better | processor s |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for key, runs in result["rows"].items():
        means = [float(np.mean(run["difference"])) for run in runs]
        better = [value < 0 for run in runs for value in run["difference"]]
        spread = f"{np.std(means, ddof=1):,.0f}" if len(means) > 1 else ""
        seeds = " ".join(str(run["seed"]) for run in runs)
        demand, seconds = (np.mean([run[name] for run in runs]) for name in ("demand", "cpu_s"))
        lines.append(
            f"| {' | '.join(key.split(' / '))} | {seeds} | {np.mean(means):+,.0f} | {spread} | {demand:+,.0f} "
            f"| {sum(better)} of {len(better)} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def write(output: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    """All rows so far, whatever this call was asked for, in the order of `CHANGES`."""
    cases = sorted({key.split(" / ")[0] for key in rows}, key=list(PRESETS).index)
    order = [f"{case} / {agent} / {name}" for case in cases for agent, changes in CHANGES.items() for name in changes]
    result = {
        "command": f"python benchmarks/ablation.py --output benchmarks/results --cases {' '.join(cases)}",
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "rows": {key: rows[key] for key in order if key in rows},
    }
    write_json(output / "ablation.json", result)
    write_text(output / "ablation.md", as_markdown(result))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("outputs/cache"), help="cases and tuned rules")
    parser.add_argument("--cases", nargs="+", default=["iquitos-38", "iquitos-128"])
    parser.add_argument("--rows", nargs="+", help="measure these again: parts of a row's name")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.output / "ablation.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else {}
    wanted = [
        (case, algorithm, name, change)
        for case in arguments.cases
        for algorithm, changes in CHANGES.items()
        for name, change in changes.items()
    ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    for case, algorithm, name, change in wanted:
        key = f"{case} / {algorithm} / {name}"
        again = arguments.rows is not None and any(part in key for part in arguments.rows)
        if arguments.rows is not None and not again:
            continue
        present = [settings_of(case, algorithm, change, run["seed"]).dump() for run in rows.get(key, [])]
        runs = [run for run, now in zip(rows.get(key, []), present) if run["settings"] == now and not again]
        for seed in [seed for seed in arguments.seeds if seed not in [run["seed"] for run in runs]]:
            runs = [*runs, measure(case, algorithm, change, seed, arguments.cache)]
            rows[key] = runs
            print(key, runs[-1], flush=True)
            write(arguments.output, rows)
    write(arguments.output, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
