"""Do the agents learn what stable-baselines3's learn? Both train on standard tasks, as often and as long.

    pip install -r benchmarks/learning-requirements.txt     # in an environment of its own
    PYTHONPATH=. python benchmarks/learning.py --output benchmarks/results

Each row (`learning_rows.py`) trains each library once per seed and plays episodes with the deterministic policy, from
starts that no training saw. A finished run is a file in OUTPUT/learning, and is not repeated while its settings stay
the same; the table and the plot, OUTPUT/learning.md and learning.png, are written again after every row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import learning_peer
import torch
from learning_peer import Policy
from learning_rows import ROWS, Row
from learning_table import LIBRARIES, RESAMPLES, Runs, plot, table

from iquitos_rl.agents import AGENTS
from iquitos_rl.cli import run_command
from iquitos_rl.errors import UserError
from iquitos_rl.machine.facts import machine
from iquitos_rl.machine.files import write_json, write_text

EPISODES = 20
FIRST_EVALUATION_SEED = 10_000
"""Training resets with the run's own seed, a small number."""


def train(row: Row, seed: int) -> tuple[Policy, int]:
    """A trained, deterministic policy of ours, and the transitions that its training took."""
    settings, entry = dict(row.ours), AGENTS[row.algorithm]
    envs = [lambda: gymnasium.make(row.env)] * settings.pop("num_envs", 1)
    agent: Any = entry.agent(envs, entry.config(**settings), device="cpu", seed=seed)
    agent.learn(row.steps)
    return agent.predict, agent.steps


def evaluate(policy: Policy, env: str) -> list[float]:
    """The return of each evaluation episode."""
    world = gymnasium.make(env)
    returns = []
    for episode in range(EPISODES):
        obs, _ = world.reset(seed=FIRST_EVALUATION_SEED + episode)
        total, ended = 0.0, False
        while not ended:
            obs, reward, terminated, truncated, _ = world.step(policy(obs))
            total, ended = total + float(reward), terminated or truncated
        returns.append(total)
    return returns


def measure(row: Row, library: str, seed: int) -> dict[str, Any]:
    """One run: what was trained, how long it took, what it earns."""
    wall, cpu = time.perf_counter(), time.process_time()
    policy, steps = (train if library == "ours" else learning_peer.train)(row, seed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "algorithm": row.algorithm,
        "env": row.env,
        "library": library,
        "seed": seed,
        "settings": settings_of(row, library),
        "steps": steps,
        "returns": evaluate(policy, row.env),
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "machine": machine(torch.device("cpu"), torch.get_num_threads()),
        "versions": learning_peer.versions(),
    }


def settings_of(row: Row, library: str) -> dict[str, Any]:
    """What decides a run's outcome beside its seed."""
    return {"steps": row.steps, "episodes": EPISODES, **(row.ours if library == "ours" else row.sb3)}


def stored(path: Path, row: Row, library: str) -> dict[str, Any] | None:
    """The run in a file, where it is there and was made with the present settings."""
    if not path.exists():
        return None
    run = json.loads(path.read_text(encoding="utf-8"))
    return run if run["settings"] == settings_of(row, library) else None


def write_results(output: Path, folder: Path) -> None:
    """Table and plot of all runs so far, whatever rows and seeds this call was asked for."""
    runs: Runs = {}
    for row in ROWS:
        for library in LIBRARIES:
            found = [stored(path, row, library) for path in sorted(folder.glob(f"{row.name}-{library}-*.json"))]
            runs[row.name, library] = [run for run in found if run is not None]
    made = [run for group in runs.values() for run in group]
    if not made:
        return
    names = " ".join(row.name for row in ROWS if not row.by_default)
    asked = f"; with `--rows {names}` what takes hours" if names else ""
    peers = "\n".join(f"* {row.algorithm.upper()}, {row.env}: {row.zoo}" for row in ROWS)
    page = f"""# Learning, beside stable-baselines3

{table(ROWS, runs)}
Interquartile mean of the deterministic policy's return over training seeds, its 95 % bootstrap interval
({RESAMPLES:,} draws of the seeds), and the number of seeds. A seed's return is the mean of the same {EPISODES} episodes
in the same version of the environment. The difference is ours less the peer's, seeds of both drawn independently.
"level": its whole interval is within the margin; "above", "below": it is on one side of zero; "open": neither.
"published" is what the zoo says of one agent of its own, with the deviation over episodes, and after how many steps.
Seconds are the training's mean, of the clock and in brackets of the one core it ran on: other work shared the machine.

![Returns of every seed](learning.png)

The peer's settings are those of RL Baselines3 Zoo; the entry of each row:

{peers}

Both libraries' settings, and how ours were chosen, stand in `benchmarks/learning_rows.py`; every run in the folder
`learning`.

Command: `PYTHONPATH=. python benchmarks/learning.py --output DIR`{asked}

Machine: {told([run["machine"] for run in made])}

Versions: {told([run["versions"] for run in made])}
"""
    write_text(output / "learning.md", page)
    plot(output / "learning.png", ROWS, runs)


def told(descriptions: Sequence[dict[str, Any]]) -> str:
    """Every key with the values that there are of it."""
    keys = dict.fromkeys(key for one in descriptions for key in one)
    values = {key: dict.fromkeys(str(one[key]) for one in descriptions if key in one) for key in keys}
    return ", ".join(f"{key} {' and '.join(found)}" for key, found in values.items())


def main(argv: list[str] | None = None) -> int:
    return run_command(lambda: benchmark(argv))


def benchmark(argv: Sequence[str] | None) -> int:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None, allow_abbrev=False)
    parser.add_argument("--rows", nargs="*", choices=names, metavar="ROW", help=f"of {', '.join(names)}")
    parser.add_argument("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    parser.add_argument("--seeds", type=int, default=5, help="how many, counted from 0")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if arguments.seeds < 1:
        parser.error("--seeds must be at least 1")
    rows = [row for row in ROWS if (row.by_default if arguments.rows is None else row.name in arguments.rows)]
    folder = arguments.output / "learning"
    folder.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    for row in rows:
        try:
            gymnasium.make(row.env).close()
        except (gymnasium.error.Error, ImportError) as error:
            raise UserError(f"{row.env} cannot be made here: {error}") from None
        for seed in range(arguments.seeds):
            for library in arguments.libraries:
                path = folder / f"{row.name}-{library}-{seed}.json"
                if stored(path, row, library) is None:
                    run = measure(row, library, seed)
                    write_json(path, run)
                    mean = sum(run["returns"]) / EPISODES
                    print(f"{path.stem}: {mean:.1f}, {run['cpu_seconds']} CPU s, {run['wall_seconds']} s", flush=True)
        write_results(arguments.output, folder)
    write_results(arguments.output, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
