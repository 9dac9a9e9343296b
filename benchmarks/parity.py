"""The engine against CityLearn as installed: `python benchmarks/parity.py FOLDER ... --random 300 --output RESULTS`.

Every folder is stepped through by `iquitos-rl case parity`, whole: random, extreme and sparse actions, the engine in
exact and in fast mode. So are `--random` generated folders over all features (batteries, sockets, limits, tanks, heat
pumps, networks, outages, appliances, occupants, steps of 15 minutes and of an hour). A folder of an older CityLearn is
upgraded first. Where the engine does not run a folder, its sentence stands in the table. Exit status 1 where any folder
differs by more than the bars of `iquitos_rl/judging/twin.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the generator of random schemas lives with the tests

from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.schema.reader import load_json
from iquitos_rl.cases.schema.upgrade import old_signs, upgrade
from iquitos_rl.errors import UserError
from iquitos_rl.judging import twin
from iquitos_rl.judging.table import listed, markdown_table
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

GENERATED_SECONDS = 0.1
"""For which the engine's speed on a generated folder is measured."""
HEAD = (
    *("data set", "features", "steps", "exact: SOC", "exact: kWh", "exact: K"),
    *("fast: SOC", "fast: kWh", "fast: K", "fast: sums", "CityLearn, steps/s", "engine, steps/s", "ratio", "B/env"),
)


def compared(folder: Path, steps: int | None, seed: int) -> dict[str, Any]:
    """What `case parity` finds, or why it does not run."""
    try:
        found = twin.compare(folder, steps, seed)
    except UserError as error:
        return {"refused": str(error).replace(str(folder), folder.name)}
    return {**asdict(found), "failures": found.failures()}


def present(folder: Path, root: Path) -> Path:
    """The folder itself, or what it becomes if it is of an older CityLearn."""
    if not old_signs(load_json(folder / "schema.json"), folder):
        return folder
    target = root / folder.name
    print("\n".join(upgrade(folder, target)), flush=True)
    return target


def worst(row: dict[str, Any], mode: str, ending: str) -> float:
    return max((value for name, value in row[mode].items() if name.endswith(ending)), default=0.0)


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    if "refused" in row:
        return [name, row["refused"], *[""] * (len(HEAD) - 2)]
    differences = [
        f"{worst(row, mode, ending):.2g}" for mode in ("exact", "fast") for ending in ("SOC", "(kWh)", "(C)")
    ]
    speeds = row["stock_speed"], row["speed"], row["speed"] / row["stock_speed"], row["bytes_per_env"]
    share = f"{100 * max(row['totals'].values()):.2g} %"
    return [name, ", ".join(row["features"]), f"{row['steps']:,}", *differences, share, *(f"{x:,.0f}" for x in speeds)]


def merged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The worst of many rows as one; features and speeds are those of their sum and their median."""
    run = [row for row in rows if "refused" not in row]
    steps = sum(row["steps"] for row in run)

    def most(key: str) -> dict[str, float]:
        names = dict.fromkeys(name for row in run for name in row[key])
        return {name: max(row[key].get(name, 0.0) for row in run) for name in names}

    def median(key: str) -> float:
        return float(sorted(row[key] for row in run)[len(run) // 2])

    counts: dict[str, int] = {}
    for row in run:
        for feature in row["features"]:
            kind = feature.partition(" ")[2]
            counts[kind] = counts.get(kind, 0) + 1
    return {
        "steps": steps,
        **{key: most(key) for key in ("exact", "fast", "totals")},
        "features": [f"{kind} in {count}" for kind, count in counts.items()],
        **{key: median(key) for key in ("stock_speed", "speed", "bytes_per_env")},
    }


def as_markdown(result: dict[str, Any]) -> str:
    rows = [list(HEAD), *(cells(name, row) for name, row in result["folders"].items())]
    generated = list(result["generated"].values())
    if generated:
        rows.append(cells(f"{len(generated)} generated folders: worst, median speed", merged(generated)))
    within = sum(not row.get("failures", ["refused"]) for row in generated)
    lines = [
        "# The engine against CityLearn",
        "",
        f"`{result['command']}`; {listed(result['machine'])}; {listed(result['versions'])}. {result['note']}",
        "",
        "Largest difference over all rows and buildings, under random, extreme and sparse actions: SOC of batteries, "
        "vehicles and tanks; kWh of the meter and of each device in a step; temperature. Exact mode must agree to the "
        f"bit but for {twin.SPACING:g} numbers of single precision in an energy and {twin.Bars().soc:g} in an SOC "
        "(CityLearn takes square roots with `pow`), and the temperature within "
        f"{twin.Bars().kelvin:g} K. Fast mode: within {twin.Bars().fast_kelvin:g} K, and the sums of every energy, of "
        f"cost and of emission within {100 * twin.Bars().fast_share:g} %; at most {100 * twin.Bars().fast_changes:g} % "
        "of the set-points that occupants choose may differ. Speeds are per second of CPU time of one "
        f"core: CityLearn's own step, and {twin.ENVIRONMENTS} environments of the engine with observation and reward.",
        "",
        markdown_table(rows).rstrip(),
    ]
    if generated:
        minutes = result["generated_seconds"] / 60
        lines += [
            "",
            f"{within} of {len(generated)} generated folders within every bar, in {minutes:.0f} minutes of CPU.",
        ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--random", type=int, default=0, help="number of generated folders")
    parser.add_argument("--steps", type=int, help="at most so many of each folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="a sentence for the table, about the machine")
    parser.add_argument("--resume", action="store_true", help="keep what parity.json in the output folder holds")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "parity.json"
    result: dict[str, Any] = {"folders": {}, "generated": {}, "generated_seconds": 0.0}
    if arguments.resume and path.is_file():
        result = json.loads(path.read_text(encoding="utf-8"))
    result |= {
        "command": "python benchmarks/parity.py FOLDER ... --random 300 --output RESULTS",
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "note": arguments.note,
    }
    folders, generated = result["folders"], result["generated"]
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        for given in arguments.folders:
            name = given.resolve().name
            if name not in folders:
                folders[name] = compared(present(given, root), arguments.steps, arguments.seed)
                print("|".join(cells(name, folders[name])), folders[name].get("failures"), flush=True)
                write_json(path, result)
        twin.MEASURED_SECONDS = GENERATED_SECONDS
        for seed in range(arguments.seed, arguments.seed + arguments.random):
            if str(seed) not in generated:
                start = time.process_time()
                networks, outages = seed % 3 > 0, seed % 2 > 0
                folder = write_thermal_schema(
                    root / f"random-{seed}", seed, networks, outages, appliances=True, occupants=seed % 3 == 2
                )
                generated[str(seed)] = compared(folder, None, seed)
                result["generated_seconds"] += time.process_time() - start
                write_json(path, result)
    write_text(arguments.output / "parity.md", as_markdown(result))
    rows = {**folders, **{f"generated folder {seed}": row for seed, row in generated.items()}}
    failures = [f"{name}: {text}" for name, row in rows.items() for text in row.get("failures", [])]
    failures += [
        f"{name}: {row['refused']}" for name, row in rows.items() if "refused" in row and name[:9] == "generated"
    ]
    for failure in failures:
        print("exceeded:", failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
