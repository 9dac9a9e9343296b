"""Agents on a challenge's public data: trained on one data set, judged by CityLearn on it and on others.

    python benchmarks/challenge.py FOLDER [--judge FOLDER ...] --output FOLDER [--agents shac] [--seeds 1]

The objective is the challenge's score, and settings are those of `configs/challenge/YEAR/`, chosen on the data that is
trained on. One network acts for every building, so other data sets may have other buildings and another number of
them; nothing is trained again. Less is better. Cost, carbon, ramping, load factor and peak are 1 where nothing is
controlled; discomfort is the share of occupied hours more than 2 degrees away from the set-point. Rows that are in the
output already are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.config import config_folder, load_settings
from iquitos_rl.envs.task.objective import ObjectiveSettings
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.judging.challenges import KPIS_2021
from iquitos_rl.judging.evaluation import evaluate_policy
from iquitos_rl.judging.references import Reference, judge, learn
from iquitos_rl.judging.scores import KPI, SCORES, fitting_score
from iquitos_rl.judging.table import listed, markdown_table
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.runs.engine import choose_guidance, make_engine

RULES = ("uncontrolled", "self-consumption")
"""What happens by itself, which is 1 by definition where no devices heat or cool, and the best of the rules on the data
sets of 2022."""
PRESETS = {"2020": "challenge-2021", "2021": "challenge-2021", "2022": "challenge-2022", "2023": "challenge-2023"}
PARTS = {
    "cost_total": "cost",
    "carbon_emissions_total": "carbon",
    "ramping_average": "ramping",
    "monthly_one_minus_load_factor_average": "1 - load factor",
    "daily_peak_average": "daily peak",
    "all_time_peak_average": "highest peak",
    "electricity_consumption_total": "import",
    "discomfort_proportion": "discomfort",
}


def task_of(site: Site) -> TaskSettings:
    fitting = fitting_score(site)
    assert fitting is not None, f"{site.path}: no challenge has such a site"
    return TaskSettings(objective=ObjectiveSettings(preset=PRESETS[fitting]))  # type: ignore[arg-type]


def train(name: str, site: Site, seed: int, cache: Path) -> tuple[Any, dict[str, float]]:
    file = config_folder() / "challenge" / str(fitting_score(site)) / f"{name}.yaml"
    settings = load_settings([name], file).agents[name]
    run = settings.run.model_copy(update={"task": task_of(site), "engine": "district"})
    run = run.model_copy(update={"episode_hours": min(run.episode_hours, site.rows - 2)})
    begun, wall = time.process_time(), time.perf_counter()
    rule = choose_guidance(run, [site], cache).rule
    kind: Any = AGENTS[name].agent
    agent = kind(make_engine(run, [site], torch.device("cpu"), rule).env, settings.agent, seed=seed)
    agent.learn(run.steps)
    spent = {"cpu_s": time.process_time() - begun, "wall_s": time.perf_counter() - wall}
    return agent, {"seed": seed, "steps": agent.steps, **spent}


def row(figures: dict[str, float], **more: float) -> dict[str, float]:
    if "score_2021" in figures:  # on the scale of no control, without the carbon that 2021 added
        five = {"score_2020": fmean(figures[f"{KPI}{name}"] for name in KPIS_2021[:5])}
        figures = {**figures, **five}
    kept = {key: figures[key] for key in ("bill", *SCORES, *(f"{KPI}{part}" for part in PARTS)) if key in figures}
    return {**kept, **more}


def mean_of(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: fmean(own[key] for own in runs) for key in runs[0]}


def as_markdown(result: dict[str, Any]) -> str:
    blocks = []
    for judged, rows in result["rows"].items():
        found = [own for runs in rows.values() for own in runs]
        scores = [key for key in SCORES if any(key in own for own in found)]
        parts = [part for part in PARTS if any(f"{KPI}{part}" in own for own in found)]
        table = [["controller", "seed", *(SCORES[key] for key in scores), *(PARTS[part] for part in parts), "CPU s"]]
        for name, runs in rows.items():
            shown = [(f"{own['seed']:.0f}" if "seed" in own else "", own) for own in runs]
            shown += [(f"mean of {len(runs)}", mean_of(runs))] if len(runs) > 1 else []
            for seed, own in shown:
                values = [own.get(key) for key in (*scores, *(f"{KPI}{part}" for part in parts))]
                cells = ["" if value is None else f"{value:.3f}" for value in values]
                table.append([name, seed, *cells, f"{own['cpu_s']:.0f}" if "cpu_s" in own else ""])
        blocks.append(f"## {judged}\n\n{markdown_table(table)}")
    text = __doc__.split("\n\n", 2)[2].strip().replace("\n", " ")
    facts = f"{listed(result['machine'])}; {listed(result['versions'])}"
    head = f"# Trained on {result['trained_on']}\n\n`{result['command']}`; {facts}."
    return "\n\n".join([head, text, *([result["note"]] if result["note"] else []), *blocks]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--judge", type=Path, nargs="*", default=[])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--agents", nargs="*", default=["shac"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--note", default="", help="written next to the facts of the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    year = fitting_score(read_site(arguments.folder))
    path = arguments.output / f"challenge-{year}.json"
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": {}}
    words = [arguments.folder.name, *(["--judge", *(f.name for f in arguments.judge)] if arguments.judge else [])]
    more = f"--agents {' '.join(arguments.agents)} --seeds {arguments.seeds}"
    result["command"] = f"python benchmarks/challenge.py {' '.join(words)} {more}"
    result |= {"machine": machine(torch.device("cpu"), 1), "versions": versions(), "load": os.getloadavg()[0]}
    result |= {"note": arguments.note, "trained_on": arguments.folder.name}

    def keep(folder: Path, name: str, own: dict[str, float]) -> None:
        result["rows"].setdefault(folder.name, {}).setdefault(name, []).append(own)
        write_json(path, result)
        write_text(path.with_suffix(".md"), as_markdown(result))
        print(folder.name, name, own, flush=True)

    def has(folder: Path, name: str) -> int:
        return len(result["rows"].get(folder.name, {}).get(name, []))

    folders = [arguments.folder, *arguments.judge]
    with TemporaryDirectory() as cache:
        for name in arguments.agents:
            for seed in range(arguments.seeds):
                missing = [folder for folder in folders if has(folder, name) <= seed]
                if not missing:
                    continue
                agent, spent = train(name, read_site(arguments.folder), seed, Path(cache))
                agent.save_policy(arguments.output / f"policy-{year}-{name}-{seed}")
                for folder in missing:
                    judged = evaluate_policy(name, agent, folder, task_of(read_site(folder)), None)
                    keep(folder, name, row(judged.figures, **spent))
        for folder in folders:
            site = read_site(folder)
            for name in (rule for rule in RULES if not has(folder, rule)):
                task = task_of(site)
                rule = learn(name, [folder], task, Path(cache))
                found = judge(Reference(name, folder, site.fingerprint, task, rule), Path(cache))
                keep(folder, name, row(found.figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
