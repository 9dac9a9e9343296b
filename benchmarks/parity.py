"""The district engine against CityLearn, step by step: `python benchmarks/parity.py --output FOLDER [--case DIR ...]`.

Both engines get the same random actions (uniform, with zeros and extremes mixed in, on empty sockets too) over whole
years of both presets and of every `--case`, then over `--random` small generated schemas that use every electrical
feature: twice, with the EV guard, and without it but with actions beside the edges of the chargers' deadbands. Exact
mode must agree on every state of charge to the bit and on net consumption within 2 units in the last place of single
precision (numpy 1.26; on numpy 2 CityLearn itself rounds more coarsely). For each preset PPO trains on the district
engine, and its year's bill there is compared with the bill of the same year on CityLearn. Exit status 1 where a
tolerance is exceeded.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the generator of random schemas lives with the tests

from schemas import write_schema

from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import SiteTask, TaskSettings
from iquitos_rl.judging.kpis import evaluate
from iquitos_rl.judging.series import engine_series
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

Actions = NDArray[np.floating[Any]]
PRESETS = ("iquitos-38", "iquitos-128")
POLICY_STEPS = 200_000
LIMITS = {
    "exact SOC": 1e-12,
    "exact net, ulp": 2.0,
    "exact observation": 5e-7,
    "exact reward": 1e-6,
    "fast SOC": 1e-4,
    "fast net / peak": 1e-4,
    "fast year's CO2": 1e-4,
    "fast year's cost": 1e-4,
    "KPI rows": 1e-9,
    "policy's bill": 1e-3,
}
"""Largest difference allowed; cost, CO2, KPI rows and the policy's bill are relative."""


def random_actions(rng: np.random.Generator, edges: Actions) -> Actions:
    """(A,) uniform actions, zeros, extremes, and the (A, K) actions in `edges`."""
    size, choices = edges.shape
    action = rng.uniform(-1, 1, size)
    edge = edges[np.arange(size), rng.integers(0, max(choices, 1), size)] if choices else action
    kind = rng.random(size)
    return np.select([kind < 0.15, kind < 0.4, kind < 0.5], [np.zeros(size), np.sign(action), edge], action).astype(
        np.float32
    )


def edge_actions(task: SiteTask) -> Actions:
    """(A, 4) actions just outside and inside of each charger's deadbands, where actions are not guarded.

    Beside the edge, not on it: there CityLearn's own rounding decides, and only on the action that reaches the charger.
    """
    rows = [[0.0] * 4] * task.num_battery_actions
    for _, charger in task.sites[0].sockets:
        share = charger.min_charging_power / max(charger.max_charging_power, 1e-6)
        near = [min(share * factor, 1.0) for factor in (1 - 1e-5, 1 + 1e-5)]
        if charger.max_discharging_power > 0:
            back = charger.min_discharging_power / charger.max_discharging_power
            rows.append([*near, *(max(-back * factor, -1.0) for factor in (1 - 1e-5, 1 + 1e-5))])
        else:
            rows.append([2 * value - 1 for value in near] * 2)
    return np.array(rows).reshape(-1, 4)


def compare(folder: Path, seed: int, guard: bool = True, kpis: bool = True) -> dict[str, float]:
    """Largest differences between the engines over a folder's rows."""
    settings = TaskSettings(sockets="each", ev_guard=guard)
    reference = CityLearnSite([folder], settings)
    engines = {
        "exact": DistrictSite([folder], 1, settings, exact=True),
        "fast": DistrictSite([folder], 1, settings),
    }
    edges = np.zeros((reference.task.action_dim, 0)) if guard else edge_actions(reference.task)
    expected, _ = reference.reset(seed=0)
    worst = {name: 0.0 for name in LIMITS if name.startswith(("exact", "fast"))}
    worst["exact observation"] = float(np.abs(engines["exact"].reset(seed=0)[0].numpy() - expected).max())
    engines["fast"].reset(seed=0)
    totals = {name: {"carbon_kg": 0.0, "energy_cost": 0.0} for name in ("reference", "exact", "fast")}
    rng, truncated, peak = np.random.default_rng(seed), False, 1e-9
    has_battery = [building.battery is not None for building in reference.task.sites[0].buildings]
    difference, steps = 0.0, 0
    booked: list[Any] = []
    while not truncated:
        action = random_actions(rng, edges)
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
                booked.append(engine.last_flows)
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
        worst["KPI rows"] = kpi_difference(reference, booked)
    return {"steps": steps, "sockets": reference.task.num_sockets, **worst}


def kpi_difference(reference: CityLearnSite, flows: list[Any]) -> float:
    """Largest difference between a value of CityLearn's own `evaluate()` and that of the engine's flows, relative where
    it is above 1."""
    table = reference.simulator.evaluate()
    kpis = evaluate(engine_series(reference.task.sites[0], flows))
    names, worst = [building.name for building in reference.simulator.buildings], 0.0
    for row in table[table.cost_function.isin(set(kpis.district))].itertuples():
        district = row.level == "district"
        ours = kpis.district[row.cost_function] if district else kpis.building[row.cost_function]
        value, theirs = float(ours[0] if district else ours[0, names.index(row.name)]), float(row.value)
        if not (np.isnan(value) and np.isnan(theirs)):
            worst = max(worst, abs(value - theirs) / max(1.0, abs(theirs)))
    return worst


def policy_difference(folder: Path, seed: int) -> float:
    """Relative difference between a year's bill on CityLearn and on the district engine, of a policy trained there."""
    training = DistrictSite([folder], 64, starts="random", episode_steps=168)
    agent = PPO(training, PPOConfig(horizon=64, batch_size=1024, epochs=5, log_std_init=-1.0), seed=seed)
    agent.learn(POLICY_STEPS)
    reference = CityLearnSite([folder], spec=agent.spec.environment)
    engine = DistrictSite([folder], 1, spec=agent.spec.environment)
    bills = {"citylearn": 0.0, "district": 0.0}
    (obs, _), own, truncated = reference.reset(seed=seed), engine.reset(seed=seed), False
    while not truncated:
        obs, _, _, truncated, info = reference.step(agent.predict(obs, deterministic=True))
        step = engine.step(torch.as_tensor(agent.predict(own, deterministic=True)))
        own = step.obs
        for term in ("energy_cost", "demand_cost", "carbon_cost", "shortfall_cost"):
            bills["citylearn"] += info[term]
            bills["district"] += step.info[term].item()
    print(folder.name, bills, flush=True)
    return abs(bills["district"] / bills["citylearn"] - 1)


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
        "precision (exact) or as a share of the site's peak (fast); reward relative to at least 1; the rest relative. "
        "KPI rows: those of CityLearn's `evaluate()` that follow from the meter. Policy's bill: the year's bill under "
        f"PPO, trained for {POLICY_STEPS:,} steps on the district engine in fast mode, there and on CityLearn.",
        "",
        "| case | " + " | ".join(columns) + " |",
        "|---|" + "---:|" * len(columns),
        "| allowed | | | " + " | ".join(f"{limit:g}" for limit in LIMITS.values()) + " |",
    ]
    generated, rows = result["generated"], dict(result["cases"])
    if generated:
        rows[f"{len(generated)} generated schemas, worst"] = worst_of(generated)
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    lines += ["", f"{result['generated_within']} of {len(generated)} generated schemas within every tolerance."]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2g}" if isinstance(value, float) else f"{value}"


def worst_of(generated: dict[str, dict[str, float]]) -> dict[str, float]:
    names = [name for name in next(iter(generated.values())) if name in LIMITS]
    return {
        "steps": sum(int(row["steps"]) for row in generated.values()),
        "sockets": max(int(row["sockets"]) for row in generated.values()),
        **{name: max(row[name] for row in generated.values()) for name in names},
    }


def compare_both_ways(folder: Path, seed: int) -> dict[str, float]:
    """With and without the EV guard."""
    guarded, free = compare(folder, seed), compare(folder, seed, guard=False, kpis=False)
    merged = guarded | {name: max(guarded[name], value) for name, value in free.items()}
    return merged | {"steps": guarded["steps"] + free["steps"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--case", type=Path, action="append", default=[], help="further schema folders")
    parser.add_argument("--random", type=int, default=200, help="number of generated schemas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="keep what parity.json in the output folder holds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "parity.json"
    result: dict[str, Any] = {
        "command": "python benchmarks/parity.py --output FOLDER" + "".join(f" --case {c.name}" for c in arguments.case),
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "cases": {},
        "generated": {},
    }
    if arguments.resume and path.is_file():
        result |= {key: json.loads(path.read_text(encoding="utf-8"))[key] for key in ("cases", "generated")}
    cases, generated = result["cases"], result["generated"]
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in [*PRESETS, *(case.name for case in arguments.case)]:
            if name in cases:
                continue
            folder = {case.name: case for case in arguments.case}.get(name) or build_case(name, 0, root / name)
            cases[name] = compare(folder, arguments.seed)
            if name in PRESETS:
                cases[name]["policy's bill"] = policy_difference(folder, arguments.seed)
            print(name, cases[name], flush=True)
            write_json(path, result)
        for seed in range(arguments.seed, arguments.seed + arguments.random):
            if str(seed) not in generated:
                generated[str(seed)] = compare_both_ways(write_schema(root / f"random-{seed}", seed), seed)
                write_json(path, result)
    outside = [f"random schema {seed}: {name}" for seed, row in generated.items() for name in exceeded(row)]
    failures = [f"{name}: {what}" for name, row in cases.items() for what in exceeded(row)] + outside
    within = len(generated) - len({failure.partition(":")[0] for failure in outside})
    result |= {"failures": failures, "generated_within": within}
    write_json(path, result)
    write_text(arguments.output / "parity.md", as_markdown(result))
    for failure in failures:
        print("exceeded:", failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
