"""How time and memory grow: `python benchmarks/scaling.py --output benchmarks/results`.

Each table doubles one size and keeps the others. Times are of one thread's processor time, medians of rounds in which
all sizes of a table take turns, so a busy machine slows them alike. A slope of 1 is linear growth: the exponent between
a size and the one before. Small sizes cost what the number of operations costs, so slopes begin near 0. The sites are
generated, with random actions. MiB are those of states and tables, or of the networks.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # the generator of schemas lives with the tests

from schemas import Features, write_schema

from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.judging.table import listed, markdown_table
from iquitos_rl.machine.facts import machine, versions
from iquitos_rl.machine.files import write_json, write_text

ROUNDS = 7
STEEPEST = 1.1
"""Slope that the last two doublings of a size may not exceed: linear, and what timing adds."""


class Size(NamedTuple):
    """What is measured at one size."""

    size: int
    run: Callable[[], object]
    nbytes: int
    """Of what grows with the size."""


def site_folder(root: Path, buildings: int, sockets: int, seed: int = 0) -> Path:
    """A generated site of so many buildings and sockets, 48 rows; equal but for their number."""
    features = Features(rows=48, buildings=(buildings, buildings), sockets=(sockets, sockets), seconds=(3600,))
    for name in ("service", "constraints", "omit", "offset", "inactive", "roaming"):
        setattr(features, name, 0.0)
    return write_schema(root / f"{buildings}-{sockets}-{seed}", seed, features)


def steps(folders: Sequence[Path], num_envs: int) -> tuple[Callable[[], object], DistrictSite]:
    env = DistrictSite([read_site(folder) for folder in folders], num_envs, starts="random", episode_steps=24)
    env.reset(seed=0)
    action = torch.rand(num_envs, env.action_dim) * 2 - 1
    return lambda: env.step(action), env


def update(folder: Path, **settings: Any) -> tuple[Callable[[], object], int]:
    """One update of SAC on a batch that is there already, and the bytes of its networks."""
    env = DistrictSite([folder], 8, starts="random", episode_steps=24)
    config = {"learning_starts": 100, "buffer_size": 1_000, "update_ratio": 0.02, **settings}
    agent = AGENTS["sac"].agent(env, AGENTS["sac"].config(**config), seed=0)
    agent.learn(160)
    size = agent.config.batch_size
    batch, noise = next(iter(agent.buffer.batches(size, 1))), torch.randn(2, size, agent.spec.action_dim)
    held = sum(parameter.nbytes for parameter in agent.networks.parameters())
    return lambda: agent.update(batch, noise), held


def tables(root: Path) -> dict[str, list[Size]]:
    """By what is doubled."""
    found: dict[str, list[Size]] = {}

    def engine(title: str, size: int, folders: Sequence[Path], num_envs: int) -> None:
        run, env = steps(folders, num_envs)
        held = env.state_bytes * num_envs + env.task.table.nbytes
        found.setdefault(title, []).append(Size(size, run, held))

    def learner(title: str, size: int | None, **settings: Any) -> None:
        run, held = update(common, **settings)
        found.setdefault(title, []).append(Size(held // 4 if size is None else size, run, held))

    common = site_folder(root, 2, 8)
    for power in range(0, 14, 2):
        engine("environments (2 buildings, 8 sockets)", 2**power, [common], 2**power)
    for power in range(2, 10):
        engine("sockets (1 building, 256 environments)", 2**power, [site_folder(root, 1, 2**power)], 256)
    for count in (1, 2, 5, 10, 25, 50, 100):
        engine("buildings (2 sockets in all, 64 environments)", count, [site_folder(root, count, 2)], 64)
    for power in range(5):
        engine("years (256 environments)", 2**power, [common] * 2**power, 256)
    for power in range(6, 13):
        learner("batch (SAC, two layers of 256)", 2**power, hidden=[256, 256], batch_size=2**power)
    for power in range(6, 12):
        learner("parameters (SAC, two layers, batch 256)", None, hidden=[2**power] * 2, batch_size=256)
    return found


def timed(sizes: Sequence[Size], seconds: float) -> list[float]:
    """Seconds of one call at each size."""

    def stretch(run: Callable[[], object], calls: int) -> float:
        begun = time.process_time()
        for _ in range(calls):
            run()
        return (time.process_time() - begun) / calls

    calls = []
    for size in sizes:
        stretch(size.run, 3)
        calls.append(max(2, round(seconds / max(stretch(size.run, 2), 1e-6))))
    rounds = [[stretch(size.run, count) for size, count in zip(sizes, calls)] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds)]


def slopes(sizes: Sequence[int], values: Sequence[float]) -> list[float]:
    """(n - 1,) exponent of growth from each size to the next."""
    pairs = zip(sizes, sizes[1:], values, values[1:])
    return [math.log(after / before) / math.log(larger / smaller) for smaller, larger, before, after in pairs]


def as_markdown(result: dict[str, Any]) -> str:
    load = f"Load average {result['load']:.1f}."
    facts = f"`{result['command']}`; {listed(result['machine'])}; {listed(result['versions'])}. {load}"
    parts = ["# Growth of time and memory", facts, " ".join(__doc__.split("\n\n", 1)[1].split())]
    for title, rows in result["tables"].items():
        cells = [["size", "ms", "slope", "MiB", "slope"]]
        for i, row in enumerate(rows):
            grown = [f"{row[key]:.2f}" if i else "" for key in ("time_slope", "memory_slope")]
            cells.append(
                [f"{row['size']:,}", f"{1e3 * row['s']:.3g}", grown[0], f"{row['bytes'] / 2**20:.3g}", grown[1]]
            )
        parts += [f"## {title[0].upper()}{title[1:]}", markdown_table(cells).rstrip()]
    steep = result["steep"]
    verdict = f"Steeper than linear: {'; '.join(steep)}." if steep else "Nothing grows faster than linearly."
    return "\n\n".join([*parts, verdict]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each stretch that is timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "command": "python benchmarks/scaling.py --output benchmarks/results",
        "machine": machine(torch.device("cpu"), 1),
        "versions": versions(),
        "load": os.getloadavg()[0],
        "tables": {},
        "steep": [],
    }
    with TemporaryDirectory() as temporary:
        for title, sizes in tables(Path(temporary)).items():
            counts, held = [size.size for size in sizes], [size.nbytes for size in sizes]
            seconds = timed(sizes, arguments.seconds)
            grown = zip([0.0, *slopes(counts, seconds)], [0.0, *slopes(counts, held)])
            rows = [
                {"size": n, "s": s, "bytes": b, "time_slope": t, "memory_slope": m}
                for n, s, b, (t, m) in zip(counts, seconds, held, grown)
            ]
            result["tables"][title] = rows
            over = math.log(seconds[-1] / seconds[-3]) / math.log(counts[-1] / counts[-3])
            if over > STEEPEST:
                result["steep"].append(f"{title}, time, {over:.2f}")
            print(title, rows, flush=True)
    write_json(arguments.output / "scaling.json", result)
    write_text(arguments.output / "scaling.md", as_markdown(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
