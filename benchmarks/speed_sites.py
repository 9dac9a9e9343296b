"""Speed of both engines on CityLearn's data sets: `python benchmarks/speed_sites.py FOLDER... --output FOLDER`.

For each folder: steps per second of unchanged CityLearn (its step with reward and observation) and of this package's
environment over it, of the district engine with 256, 1,024 and 4,096 environments, seconds to the engine's first step,
and bytes per environment. Everything includes action mapping, objective and observation. One CPU thread, seconds of
its processor time; all are measured in turn, round by round, so that other work on the machine slows them alike.
Exit status 1 where one falls short of a bar.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from speed import first_step

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.citylearn.env import CityLearnSite, load_citylearn
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.district.footprint import footprint
from iquitos_rl.errors import UserError
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

ENVS = (256, 1024, 4096)
ROUNDS = 5
SITE_TIMES_STOCK = 2.0
"""Least ratio of this package's environment over CityLearn to CityLearn's own step."""
ENGINE_TIMES_STOCK = {False: 1000.0, True: 200.0}
"""Least ratio of the best number of environments, without and with networks."""
FIRST_STEP_S = 3.0
"""Longest processor time from process start to the engine's first step."""


class Stock:
    """CityLearn's own step, with rewards and observations."""

    def __init__(self, folder: Path) -> None:
        self.env = load_citylearn(folder, fast=False)
        self.rng = np.random.default_rng(0)
        self.low, self.high = self.env.action_space[0].low, self.env.action_space[0].high
        self.transitions = 1

    def begin(self) -> None:
        self.env.reset()

    def step(self) -> None:
        self.env.step([self.rng.uniform(self.low, self.high).tolist()])


class Ours:
    """This package's environment over CityLearn."""

    def __init__(self, folder: Path) -> None:
        self.env = CityLearnSite([folder])
        self.rng = np.random.default_rng(0)
        self.transitions = 1

    def begin(self) -> None:
        self.env.reset(seed=0)

    def step(self) -> None:
        self.env.step(self.rng.uniform(-1, 1, self.env.task.action_dim).astype(np.float32))


class Engine:
    """The district engine, episodes that end all the time included."""

    def __init__(self, site: Site, envs: int) -> None:
        self.env = DistrictSite([site], envs, starts="random", episode_steps=min(720, site.rows // 2))
        self.action = torch.rand((envs, self.env.action_dim), generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.transitions = envs
        self.env.reset(seed=0)

    def begin(self) -> None:
        return

    @torch.inference_mode()
    def step(self) -> None:
        self.env.step(self.action)


Stepped = Stock | Ours | Engine


def seconds(thing: Stepped, calls: int) -> float:
    """Processor seconds of so many steps from the start of an episode."""
    thing.begin()
    start = time.process_time()
    for _ in range(calls):
        thing.step()
    return time.process_time() - start


def rates(things: dict[str, Stepped], most: int, stretch: float) -> dict[str, list[float]]:
    """Transitions per second of each, round by round; a stretch takes about `stretch` s and at most `most` steps."""
    calls = {}
    for name, thing in things.items():
        seconds(thing, 3)
        calls[name] = min(max(3, int(stretch / max(seconds(thing, 3) / 3, 1e-9))), most)
    found: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(ROUNDS):
        for name, thing in things.items():
            found[name].append(calls[name] * thing.transitions / seconds(thing, calls[name]))
    return found


def measure(folder: Path, stretch: float) -> dict[str, Any]:
    """One data set's row.

    Raises:
        UserError: CityLearn, or this package, cannot load the folder as it is.
    """
    site = read_site(folder)
    things: dict[str, Stepped] = {"stock": Stock(folder), "ours": Ours(folder)}
    if not site.unsupported:
        things |= {str(envs): Engine(site, envs) for envs in ENVS}
    found = rates(things, site.rows - 2, stretch)
    stock = found["stock"]

    def times(name: str) -> float:
        return statistics.median(own / theirs for own, theirs in zip(found[name], stock, strict=True))

    median: Callable[[str], float] = lambda name: statistics.median(found[name])  # noqa: E731
    row: dict[str, Any] = {
        "site": folder.name,
        "buildings": len(site.buildings),
        "networks": any(building.dynamics is not None for building in site.buildings),
        "stock": median("stock"),
        "ours": median("ours"),
        "ours_times_stock": times("ours"),
    }
    if not site.unsupported:
        row["engine"] = {name: {"steps_per_s": median(name), "times_stock": times(name)} for name in map(str, ENVS)}
        row["bytes_per_env"] = footprint(things[str(ENVS[0])].env).per_env
        row["first_step_s"] = first_step(folder, "district")["processor_s"]
    return row


def shortfalls(row: dict[str, Any]) -> list[str]:
    found = []
    if row["ours_times_stock"] < SITE_TIMES_STOCK:
        found.append(f"our environment {row['ours_times_stock']:.2f} times CityLearn, {SITE_TIMES_STOCK:g} wanted")
    if "engine" in row:
        best, bar = max(e["times_stock"] for e in row["engine"].values()), ENGINE_TIMES_STOCK[row["networks"]]
        if best < bar:
            found.append(f"the engine {best:,.0f} times CityLearn, {bar:,.0f} wanted")
        if row["first_step_s"] > FIRST_STEP_S:
            found.append(f"first step after {row['first_step_s']:.1f} s, {FIRST_STEP_S:g} wanted")
    return [f"{row['site']}: {line}" for line in found]


def as_markdown(result: dict[str, Any]) -> str:
    facts = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    packages = ", ".join(f"{key} {value}" for key, value in result["versions"].items())
    load = result["load_average"]
    lines = [
        "# Speed on CityLearn's data sets",
        "",
        f"`{result['command']}`; {facts}; {packages}. Load average {load[0]:.1f} before, {load[1]:.1f} after.",
        "",
        "Steps of one environment per second of one thread's processor time, with action mapping, objective and "
        f"observation; medians of {ROUNDS} rounds in which everything is measured in turn. Stock: CityLearn's own "
        "step. Ours: this package's environment over CityLearn, equal to the bit. Engine: batched, in single "
        "precision, with its multiple of stock. First step: processor time from process start.",
        "",
        f"| data set | buildings | networks | stock | ours | times stock "
        f"| {' | '.join(f'engine, {e:,}' for e in ENVS)} | first step, s | bytes/environment |",
        "|---|---:|---|---:|---:|---:|" + "---:|" * (len(ENVS) + 2),
    ]
    for row in result["rows"]:
        cells = ["not run"] * len(ENVS) + ["", ""]
        if "engine" in row:
            cells = [f"{e['steps_per_s']:,.0f} ({e['times_stock']:,.0f})" for e in row["engine"].values()]
            cells += [f"{row['first_step_s']:.2f}", f"{row['bytes_per_env']:,.0f}"]
        lines.append(
            f"| {row['site']} | {row['buildings']} | {'LSTM' if row['networks'] else ''} | {row['stock']:.0f} "
            f"| {row['ours']:.0f} | {row['ours_times_stock']:.2f} | {' | '.join(cells)} |"
        )
    lines += [""]
    lines += [f"{name}: not measured, {reason}." for name, reason in result["refused"].items()]
    short = result["short_of_a_bar"]
    bars = f"At least {SITE_TIMES_STOCK:g} times stock, the engine {ENGINE_TIMES_STOCK[False]:,.0f} times without and "
    bars += f"{ENGINE_TIMES_STOCK[True]:,.0f} with networks, first step within {FIRST_STEP_S:g} s. "
    return "\n".join([*lines, "", bars + (f"Short: {'; '.join(short)}." if short else "No bar was missed."), ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one timed stretch")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    before = psutil.getloadavg()[0]
    rows, refused = [], {}
    for folder in arguments.folders:
        try:
            rows.append(measure(folder, arguments.seconds))
            print(json.dumps(rows[-1]), flush=True)
        except (UserError, OSError, RuntimeError) as error:  # the last where CityLearn wants to download tables
            refused[folder.name] = str(error).replace(f"{folder}: ", "").replace(str(folder), folder.name)
    result = {
        "command": "python benchmarks/speed_sites.py FOLDER... --output FOLDER",
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "load_average": [before, psutil.getloadavg()[0]],
        "rows": rows,
        "refused": refused,
        "short_of_a_bar": [line for row in rows for line in shortfalls(row)],
    }
    write_json(arguments.output / "speed_sites.json", json.loads(json.dumps(result)))
    write_text(arguments.output / "speed_sites.md", as_markdown(result))
    for line in result["short_of_a_bar"]:
        print("short of a bar:", line, file=sys.stderr)
    return 1 if result["short_of_a_bar"] else 0


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.ERROR)
    raise SystemExit(main())
