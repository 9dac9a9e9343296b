"""Which run is gone on with, whether it still is the same, and that no other process is at it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_json

RUN = "run.json"
LOCK = ".lock"
SUMMARY = "simulation_summary.json"
RESULT = Path("checkpoints") / "result.json"
"""What an agent was judged to be, kept until the summary of all is written."""
MAY_CHANGE = ("steps", "episodes", "checkpoint_minutes", "threads")
"""Settings that leave what was learned so far as it is."""


class Run(NamedTuple):
    """What was started: the file that every output folder has from its first second on."""

    folder: Path
    algorithm: str
    """sac, ppo, a2c or all."""
    created: str
    """ISO 8601."""
    threads: int
    """PyTorch's, which decide the last bits of sums."""
    settings: dict[str, dict[str, Any]]
    """By algorithm, every effective setting."""

    def write(self) -> None:
        write_json(self.folder / RUN, {key: value for key, value in self._asdict().items() if key != "folder"})


def read_run(folder: Path) -> Run | None:
    """The run in a folder, None where there is none.

    Raises:
        UserError: its description cannot be read.
    """
    path = folder / RUN
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        settings = {str(name): dict(layer) for name, layer in data["settings"].items()}
        return Run(folder, str(data["algorithm"]), str(data["created"]), int(data["threads"]), settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} does not describe a run ({type(error).__name__}: {error})") from None


def latest_run(root: Path, algorithm: str, case: str) -> Run:
    """The run of an algorithm and case that was started last.

    Raises:
        UserError: there is none.
    """
    runs = [read_run(path) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    same = [run for run in runs if run is not None and run.algorithm == algorithm]
    same = [run for run in same if all(layer.get("case") == case for layer in run.settings.values())]
    if not same:
        raise UserError(f"--resume: {root} holds no run of {algorithm} on {case}; name its folder: --resume DIR")
    return max(same, key=lambda run: run.created)


@contextlib.contextmanager
def lock_output(folder: Path) -> Iterator[None]:
    """Keep other processes from an output folder. The system holds the lock and drops it with the process, however
    that ends.

    Raises:
        UserError: another process has it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another process is training there; wait for it or choose another folder") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One phrase for each setting that is not what it was, those in `MAY_CHANGE` left out."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new, name = before.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{name}.")
        elif old != new and name not in MAY_CHANGE:
            found.append(f"{name} was {json.dumps(old)} and is {json.dumps(new)}")
    return found


def refuse_changes(folder: Path, found: list[str], allowed: bool) -> None:
    """Let a run with other settings or data go on only where the user said so.

    Raises:
        UserError: there are differences and they are not allowed.
    """
    if not found:
        return
    if not allowed:
        raise UserError(f"{folder} cannot go on as it was: {'; '.join(found)} (--allow-changes goes on all the same)")
    print(f"going on with changes: {'; '.join(found)}", flush=True)


def has_failures(folder: Path) -> bool:
    """Whether a finished run's summary tells of an agent that failed, which may be tried again."""
    try:
        return bool(json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["failed"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def set_aside(folder: Path, names: list[str]) -> None:
    """Move a finished run's results into a folder of their own before the run is trained further; the summary goes
    last, so that a run cut off here still counts as finished."""
    if not (folder / SUMMARY).is_file():
        return
    number = 1
    while (folder / f"results-{number}").exists():
        number += 1
    old = folder / f"results-{number}"
    files = [f"{kind}_{name}.csv" for name in names for kind in ("timeseries", "trace")]
    places = [Path(), *(Path(name) for name in names if (folder / name).is_dir())]
    try:
        for place in places:
            (old / place).mkdir(parents=True)
            (folder / place / RESULT).unlink(missing_ok=True)
            for file in ("policy", *files, "error.txt"):
                if (folder / place / file).exists():
                    (folder / place / file).rename(old / place / file)
        (folder / SUMMARY).rename(old / SUMMARY)
    except OSError as error:
        raise UserError(f"{folder}: the results so far cannot be moved to {old} ({error.strerror})") from None
    print(f"the results so far are in {old}", flush=True)
