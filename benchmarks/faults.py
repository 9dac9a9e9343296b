"""What a run survives, counted: `python benchmarks/faults.py --output FOLDER`.

Kills at random moments of trainings and comparisons, what happens around a run, damaged checkpoints, bad input by the
thousand, changed files for every reader, and the share of time that saving takes. Counts are written as they grow, and
kills go on from those that are there. The tests run a small part of each.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from fault_checkpoints import damage_checkpoints, fuzz_checkpoints
from fault_cost import saving_cost
from fault_inputs import fuzz_command_line, fuzz_meter_files, fuzz_schema, fuzz_settings
from fault_kills import kill_runs
from fault_readers import fuzz_readers
from fault_surroundings import Surroundings, kill_comparisons

from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

SECTIONS = ("kills", "comparisons", "surroundings", "damage", "inputs", "readers", "cost")


def short_case(folder: Path, rows: int) -> Path:
    """The first hours of iquitos-38 with three sockets."""
    build_case("iquitos-38", 0, folder, {"sockets.moto_count": 2, "sockets.mototaxi_count": 1})
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["simulation_end_time_step"] = rows - 1
    write_text(path, json.dumps(schema))
    return folder


def bad_inputs(case: Path, work: Path, cases: int) -> dict[str, int]:
    """Outcomes of so many inputs. Schema folders and metered files take seconds each, the others milliseconds."""
    share = cases // 12
    counts = {
        "settings": fuzz_settings(work, 3 * share),
        "command line": fuzz_command_line(work, 4 * share),
        "checkpoint files": fuzz_checkpoints(work, 3 * share),
        "schema folders": fuzz_schema(case, work, share),
        "metered files": fuzz_meter_files(work, share),
    }
    found = {f"{kind}, {how}": n for kind, count in counts.items() for how, n in sorted(count.items())}
    total = sum(count.total() for count in counts.values())
    # Each of these would have ended the program.
    return {"cases": total, **found, "tracebacks": 0, "results overwritten": 0}


def read_anything(work: Path, cases: int, seed: int) -> dict[str, int]:
    """Outcomes of so many changed files for each reader."""
    counts = fuzz_readers(work, cases, seed)
    found = {f"{kind}, {how}": n for kind, count in counts.items() for how, n in sorted(count.items())}
    return {"files": sum(count.total() for count in counts.values()), **found, "tracebacks": 0}


def days(work: Path) -> list[Path]:
    """A site on two pairs of days: to train on, and to be judged on."""
    found = []
    for first in (24, 64):
        folder = short_case(work / f"days-{first}", 40)
        schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
        schema["simulation_start_time_step"], schema["simulation_end_time_step"] = first, first + 39
        write_text(folder / "schema.json", json.dumps(schema))
        found.append(folder)
    return found


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def table(found: dict[str, Any]) -> str:
    """The counts as Markdown."""
    lines = ["# What a run survives", "", "`python benchmarks/faults.py --output FOLDER`", ""]
    lines += [", ".join(f"{key} {value}" for key, value in {**found["machine"], **found["versions"]}.items()), ""]
    lines += [found["note"], ""] if "note" in found else []
    for section in SECTIONS:
        if section in found:
            lines += [f"| {section} | |", "|---|---:|"]
            lines += [f"| {name} | {_number(value)} |" for name, value in found[section].items()] + [""]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for faults.json and faults.md")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--damages", type=int, default=500)
    parser.add_argument("--cases", type=int, default=2_400, help="bad inputs, over five kinds")
    parser.add_argument("--files", type=int, default=300, help="changed files for each reader")
    parser.add_argument("--scenarios", type=int, default=60, help="of what happens around a run")
    parser.add_argument("--comparisons", type=int, default=40, help="kills of comparisons")
    parser.add_argument("--steps", type=int, default=10_000, help="of the training whose time is taken")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=SECTIONS, action="append")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["CITYLEARN_OFFLINE"] = "1"
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "faults.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found |= {"machine": machine(torch.device("cpu"), 1), "versions": versions()}

    def keep(section: str, counts: dict[str, Any]) -> None:
        found[section] = dict(counts)
        write_json(path, found)
        write_text(arguments.output / "faults.md", table(found))

    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        case = short_case(work / "case", 40)
        for section in arguments.only or SECTIONS:
            if section == "kills":
                before = Counter(found.get("kills", {}))
                kill_runs(case, work, arguments.kills, arguments.seed, before, lambda counts: keep("kills", counts))
            elif section == "damage":
                keep(section, damage_checkpoints(work, arguments.damages, arguments.seed))
            elif section == "comparisons":
                (work / section).mkdir()
                keep(section, kill_comparisons(days(work), work / section, arguments.comparisons, arguments.seed))
            elif section == "surroundings":
                keep(section, Surroundings(case, work / section, arguments.seed).run(arguments.scenarios))
            elif section == "readers":
                keep(section, read_anything(work / section, arguments.files, arguments.seed))
            elif section == "inputs":
                keep(section, bad_inputs(case, work, arguments.cases))
            else:
                keep(section, saving_cost(build_case("iquitos-38", 0, work / "year"), arguments.steps))
    print(table(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
