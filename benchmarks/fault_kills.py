"""Runs killed at random moments: whether each goes on, and ends as a run that nobody disturbed.

The report is left out: it is drawn in the last seconds of a run, from files that are all there by then.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from iquitos_rl import train
from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.config import shipped_agents
from iquitos_rl.errors import UserError
from iquitos_rl.runs import session

SMALL = {
    "sac": {"hidden": [8], "learning_starts": 30, "batch_size": 16, "log_every": 3, "buffer_size": 300},
    "ppo": {"hidden": [8], "horizon": 4, "batch_size": 6, "epochs": 2},
    "a2c": {"hidden": [8], "horizon": 2, "log_every": 6},
}
STEPS = 300


def command(algorithm: str, folder: Path, output: Path) -> list[str]:
    """A run of a few seconds that saves at every step, and resumes what is there."""
    sets = ["--set", "checkpoint_minutes=0", "--set", "threads=1", "--set", f"agent={json.dumps(SMALL[algorithm])}"]
    size = ["--steps", str(STEPS), "--num-envs", "3"]
    return [algorithm, "--case", str(folder), *size, *sets, "--output", str(output), "--resume"]


def start(argv: list[str], log: Path) -> int:
    """The command in a process of its own, forked so that a kill costs no imports; returns its number."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        with log.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - not pytest's
        session.write_report = lambda folder: folder / "report.html"
        status = train.main(argv)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(child: int) -> int | None:
    """The exit status, None where it was killed."""
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def kill(child: int, seconds: float, log: Path | None = None) -> int | None:
    """Kill it after so many seconds, from its start or with `log` from its first sign of training; then `wait`."""
    while log is not None and not (log.exists() and b"train " in log.read_bytes()) and not _has_ended(child):
        time.sleep(0.01)
    time.sleep(seconds)  # the moment of the kill
    os.kill(child, signal.SIGKILL)  # a child that has ended already is not reaped yet, so this is harmless
    return wait(child)


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def results(output: Path) -> dict[str, Any]:
    """What must be equal: weights, simulated hours, training figures but for memory."""
    found: dict[str, Any] = {path.name: path.read_bytes() for path in output.glob("*_*.csv")}
    found |= {path.parent.name: path.read_bytes() for path in output.glob("policy*/policy.safetensors")}
    found["metrics"] = pd.read_csv(output / "metrics.csv").drop(columns="ram_mib").to_csv()
    return found


def half_written(output: Path) -> list[str]:
    """Files under their final names that cannot be read."""
    bad = []
    for path in output.rglob("*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            bad.append(path.name)
    bad += [path.name for path in output.glob("*_*.csv") if not path.read_bytes().endswith(b"\n")]
    checkpoints = Checkpoints(output / "checkpoints", 0.0, lambda text: None)
    try:
        checkpoints.load()
    except UserError as error:
        bad.append(str(error))
    return bad


def kill_runs(
    folder: Path,
    work: Path,
    kills: int,
    seed: int,
    counts: Counter[str] | None = None,
    done: Callable[[Counter[str]], None] = lambda counts: None,
) -> Counter[str]:
    """Kill commands at random moments until `kills` have been killed; each goes on until it ends by itself.

    Args:
        counts: what an earlier call has counted, to be continued.
        done: called with the counts after every run.
    """
    counts = Counter() if counts is None else counts
    rng = random.Random(f"{seed} {counts['kills']}")
    references: dict[str, tuple[dict[str, Any], float]] = {}
    agents = shipped_agents()
    while counts["kills"] < kills:
        algorithm = agents[counts["runs"] % len(agents)]
        (work / algorithm).mkdir(exist_ok=True)
        log = work / algorithm / "log.txt"
        if algorithm not in references:
            begun = time.perf_counter()
            if wait(start(command(algorithm, folder, work / algorithm / "undisturbed"), log)) != 0:
                raise AssertionError(log.read_text(encoding="utf-8")[-2000:])
            references[algorithm] = results(work / algorithm / "undisturbed"), time.perf_counter() - begun
        expected, seconds = references[algorithm]
        output = work / algorithm / f"run-{counts['runs']}"
        counts["resumes"] -= 1  # the first command of a run is none
        while True:
            log.unlink(missing_ok=True)
            child = start(command(algorithm, folder, output), log)
            counts["resumes"] += 1
            if counts["kills"] >= kills:
                status = wait(child)
            elif rng.random() < 0.25:
                status = kill(child, rng.uniform(0, 1.1 * seconds))
            else:
                status = kill(child, rng.uniform(0, 0.6 * seconds), log)
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            if status is not None:
                break
            counts["kills"] += 1
            counts[phase(text)] += 1
            counts["killed while a file was being written"] += any(output.rglob("*.tmp"))
            bad = half_written(output)
            counts["half-written files"] += len(bad)
            assert not bad, bad
        assert status == 0, text[-2000:]
        same = results(output) == expected
        counts["runs"] += 1
        counts["runs equal to an undisturbed one"] += same
        assert same, f"{output} differs"
        shutil.rmtree(output)
        done(counts)
    return counts


def phase(text: str) -> str:
    """Where a killed command was, from what it had printed."""
    if "results in" in text:
        return "killed at the end"
    if any(f"evaluate {name}" in text for name in shipped_agents()):
        return "killed while judging"
    return "killed while training and saving" if "training on" in text else "killed before training"
