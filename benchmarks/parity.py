"""The district engine against CityLearn, step by step: `python benchmarks/parity.py --output FOLDER [--case DIR ...]`.

Both engines get the same random actions (uniform, with zeros and extremes mixed in, on empty sockets too) over whole
years of both presets and of every `--case`, then over `--random` small generated schemas that use every electrical
feature. Exact mode must agree on every state of charge to the bit and on net consumption within 2 units in the last
place of single precision (numpy 1.26; on numpy 2 CityLearn itself rounds more coarsely). Exit status 1 where a
tolerance is exceeded.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the generator of random schemas lives with the tests

from schemas import write_schema

from iquitos_rl.cases.iquitos import build_case
from iquitos_rl.envs.citylearn import CityLearnSite
from iquitos_rl.envs.district import DistrictSite
from iquitos_rl.envs.task import TaskSettings
from iquitos_rl.runs.files import write_json, write_text
from iquitos_rl.runs.summary import machine, versions

SETTINGS = TaskSettings(sockets="each")
LIMITS = {
    "exact SOC": 1e-12,
    "exact net, ulp": 2.0,
    "exact observation": 5e-7,
    "exact reward": 1e-6,
    "fast SOC": 1e-4,
    "fast net / peak": 1e-4,
    "fast year's CO2": 1e-4,
    "fast year's cost": 1e-4,
    "KPI rows": 1e-5,
}
"""Largest difference allowed; cost, CO2 and KPI rows are relative."""


def random_actions(rng: np.random.Generator, size: int) -> np.ndarray[Any, Any]:
    action = rng.uniform(-1, 1, size)
    corner = rng.random(size)
    return np.where(corner < 0.15, 0.0, np.where(corner < 0.4, np.sign(action), action)).astype(np.float32)


def compare(folder: Path, seed: int, kpis: bool) -> dict[str, float]:
    """Largest differences between the engines over a folder's rows."""
    reference = CityLearnSite([folder], SETTINGS)
    engines = {
        "exact": DistrictSite([folder], 1, SETTINGS, exact=True),
        "fast": DistrictSite([folder], 1, SETTINGS),
    }
    expected, _ = reference.reset(seed=0)
    worst = dict.fromkeys(LIMITS, 0.0)
    if not kpis:
        del worst["KPI rows"]
    worst["exact observation"] = float(np.abs(engines["exact"].reset(seed=0)[0].numpy() - expected).max())
    engines["fast"].reset(seed=0)
    totals = {name: {"carbon_kg": 0.0, "energy_cost": 0.0} for name in ("reference", "exact", "fast")}
    rng, truncated, peak = np.random.default_rng(seed), False, 1e-9
    has_battery = [building.battery is not None for building in reference.task.sites[0].buildings]
    difference, steps = 0.0, 0
    while not truncated:
        action = random_actions(rng, reference.task.action_dim)
        expected, reward, _, truncated, info = reference.step(action)
        flows = reference.flows
        assert flows is not None
        peak = max(peak, float(np.abs(flows.net).max()))
        for name, engine in engines.items():
            step = engine.step(torch.from_numpy(action).unsqueeze(0))
            net = engine.last_flows.net[0].numpy()
            for key in totals[name]:
                totals[name][key] += step.info[key].item()
            soc = np.abs(engine.last_flows.socket_soc[0].numpy() - flows.socket_soc).max(initial=0)
            storage = engine.last_flows.battery_soc[0].numpy()[has_battery] - flows.battery_soc[has_battery]
            soc = max(float(soc), float(np.abs(storage).max(initial=0)))
            worst[f"{name} SOC"] = max(worst[f"{name} SOC"], soc)
            if name == "exact":
                ulp = np.spacing(np.abs(flows.net).astype(np.float32))
                worst["exact net, ulp"] = max(worst["exact net, ulp"], float((np.abs(net - flows.net) / ulp).max()))
                gap = float(np.abs(step.next_obs[0].numpy() - expected).max())
                worst["exact observation"] = max(worst["exact observation"], gap)
                scale = max(abs(reward), 1.0)
                worst["exact reward"] = max(worst["exact reward"], abs(step.reward.item() - reward) / scale)
            else:
                difference = max(difference, float(np.abs(net - flows.net).max()))
        for key in totals["reference"]:
            totals["reference"][key] += info[key]
        steps += 1
    worst["fast net / peak"] = difference / peak
    for label, key in (("fast year's CO2", "carbon_kg"), ("fast year's cost", "energy_cost")):
        worst[label] = abs(totals["fast"][key] / totals["reference"][key] - 1) if totals["reference"][key] else 0.0
    if kpis:
        worst["KPI rows"] = kpi_difference(reference, totals["exact"])
    return {"steps": steps, "sockets": reference.task.num_sockets, **worst}


def kpi_difference(reference: CityLearnSite, totals: dict[str, float]) -> float:
    """Relative difference to CityLearn's own `evaluate()`, for one building: cost and carbon against its baseline.

    Its baseline is the site without battery and without any charging.
    """
    site = reference.task.sites[0]
    if len(site.buildings) > 1:
        return math.nan  # its district rows are unweighted means of ratios, which no totals can reproduce
    rows = reference._sim.evaluate()
    building = site.buildings[0]
    idle = np.maximum(building.load - building.pv, 0)[:-1]
    found = {
        "cost_total": totals["energy_cost"] / float((idle * building.price[:-1]).sum()),
        "carbon_emissions_total": totals["carbon_kg"] / float((idle * building.carbon[:-1]).sum()),
    }
    worst = 0.0
    for name, value in found.items():
        own = rows[(rows.cost_function == name) & (rows.name == building.name)].value.iloc[0]
        worst = max(worst, abs(value / float(own) - 1))
    return worst


def exceeded(row: dict[str, float]) -> list[str]:
    return [name for name, limit in LIMITS.items() if name in row and row[name] > limit]


def as_markdown(result: dict[str, Any]) -> str:
    columns = ["steps", "sockets", *LIMITS]
    lines = [
        "# Parity of the district engine with CityLearn",
        "",
        f"`{result['command']}`; {', '.join(f'{k} {v}' for k, v in result['machine'].items())}; "
        f"{', '.join(f'{k} {v}' for k, v in result['versions'].items())}.",
        "",
        "Largest difference over all steps. SOC and observation absolute; net in units in the last place of single "
        "precision (exact) or as a share of the site's peak (fast); reward relative to at least 1; cost, CO2, KPI rows "
        "relative. KPI rows: cost and carbon of CityLearn's `evaluate()`, one building.",
        "",
        "| case | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
        "| allowed | | | " + " | ".join(f"{limit:g}" for limit in LIMITS.values()) + " |",
    ]
    for name, row in result["cases"].items():
        lines.append(f"| {name} | " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:.2g}" if isinstance(value, float) else f"{value}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--case", type=Path, action="append", default=[], help="further schema folders")
    parser.add_argument("--random", type=int, default=200, help="number of generated schemas")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases: dict[str, dict[str, float]] = {}
    failures = []
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        folders = {preset: build_case(preset, 0, root / preset) for preset in ("iquitos-38", "iquitos-128")}
        folders |= {case.name: case for case in arguments.case}
        for name, folder in folders.items():
            cases[name] = compare(folder, arguments.seed, kpis=True)
            print(name, cases[name], flush=True)
        generated = {}
        for number in range(arguments.random):
            seed = arguments.seed + number
            generated[seed] = compare(write_schema(root / f"random-{seed}", seed), seed, kpis=False)
            failures += [f"random schema {seed}: {name}" for name in exceeded(generated[seed])]
        if generated:
            names = [name for name in next(iter(generated.values())) if name in LIMITS]
            cases[f"{len(generated)} generated schemas, worst"] = {
                "steps": sum(int(row["steps"]) for row in generated.values()),
                "sockets": max(int(row["sockets"]) for row in generated.values()),
                **{name: max(row[name] for row in generated.values()) for name in names},
            }
    failures += [f"{name}: {what}" for name, row in cases.items() if "generated" not in name for what in exceeded(row)]
    result = {
        "command": "python benchmarks/parity.py --output FOLDER" + "".join(f" --case {c.name}" for c in arguments.case),
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "cases": {n: {k: v for k, v in row.items() if not math.isnan(v)} for n, row in cases.items()},
        "failures": failures,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output / "parity.json", result)
    write_text(arguments.output / "parity.md", as_markdown(result))
    for failure in failures:
        print("exceeded:", failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
