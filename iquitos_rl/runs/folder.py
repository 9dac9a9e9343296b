"""The folder of a run: what it says of the run, that one process at a time works in it, and how results make room."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from iquitos_rl.config import Threads
from iquitos_rl.errors import UserError
from iquitos_rl.judging.table import HOURS
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.inputs import InputError, read_json, read_typed

RUN = "run.json"
LOCK = ".lock"
SUMMARY = "simulation_summary.json"
RESULT = Path("checkpoints") / "result.json"
"""An agent's evaluation, kept until the summary of all is written."""
NO_DIFFERENCE = ("checkpoint_minutes", "threads", "writers", "project")
"""Settings that change nothing in what is learned."""
MAY_CHANGE = ("steps", "episodes", *NO_DIFFERENCE)
"""Settings that leave what was learned so far as it is."""


class Run(NamedTuple):
    """What was started: the file that every output folder has from its first second on."""

    folder: Path
    algorithm: str
    """An agent's name, or all."""
    created: str
    """ISO 8601."""
    threads: int
    """PyTorch's; the last bits of sums depend on them."""
    settings: dict[str, dict[str, Any]]
    """By agent, every effective setting."""

    def write(self) -> None:
        write_json(self.folder / RUN, {key: value for key, value in self._asdict().items() if key != "folder"})


class _Described(NamedTuple):
    """The fields of a `Run` that its file holds."""

    algorithm: str
    created: str
    threads: Threads
    settings: dict[str, dict[str, Any]]


def read_run(folder: Path) -> Run | None:
    """The run in a folder, None where there is none.

    Raises:
        UserError: its description cannot be read.
    """
    path = folder / RUN
    try:
        return Run(folder, *read_typed(path, _Described))
    except InputError as error:
        if error.missing or not folder.is_dir():
            return None
        raise UserError(f"{path} does not describe a run: it {error.reason}") from None


def latest_run(root: Path, algorithm: str, case: str) -> Run:
    """The run of an agent (or of all) on a case that was started last.

    Raises:
        UserError: there is none.
    """
    runs = [read_run(path) for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    same = [run for run in runs if run is not None and run.algorithm == algorithm]
    same = [run for run in same if all(layer.get("case") == case for layer in run.settings.values())]
    if not same:
        raise UserError(f"--resume: {root} holds no run of {algorithm} on {case}; name its folder: --resume DIR")
    return max(same, key=lambda run: run.created)


def lock_output(folder: Path, patience_s: float = 0.0) -> AbstractContextManager[Any]:
    """Keep other processes from an output folder. The system holds the lock and drops it with the process, however
    that ends.

    Args:
        patience_s: how long to wait for another process to leave it.

    Raises:
        UserError: another process has it.
    """
    try:
        return FileLock(folder / LOCK).acquire(timeout=patience_s)
    except Timeout:
        raise UserError(f"{folder}: another process is training there; wait for it or choose another folder") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}") from None


def is_unused(folder: Path) -> bool:
    """Whether a folder is missing, or holds only what a run that was cut off in its first second leaves."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.name == LOCK or path.name.endswith(".tmp") or path.name.startswith("settings") for path in folder.iterdir()
    )


def make_output(path: Path) -> Path:
    """Create the output folder.

    Raises:
        UserError: it holds something already, or cannot be created.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"--output {path}: it exists and is not empty; results are never overwritten")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {path}: cannot be created: {error.strerror}") from None
    return path


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], but: Sequence[str] = MAY_CHANGE, prefix: str = ""
) -> list[str]:
    """One phrase for each setting that is not what it was, those in `but` left out."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        old, new, name = before.get(key), now.get(key), f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, but, f"{name}.")
        elif old != new and name not in but:
            found.append(f"{name} was {json.dumps(old)} and is {json.dumps(new)}")
    return found


def refuse_changes(folder: Path, found: list[str], allowed: bool) -> None:
    """Resume a run whose settings or data have changed only if the user said so.

    Raises:
        UserError: there are differences and they are not allowed.
    """
    if found and not allowed:
        raise UserError(f"{folder} cannot be resumed as it was: {'; '.join(found)} (--allow-changes resumes it anyway)")
    if found:
        print(f"resumed with changes: {'; '.join(found)}", flush=True)


def has_failures(folder: Path) -> bool:
    """Whether a finished run's summary tells of an agent that failed, which may be tried again."""
    try:
        return bool(read_json(folder / SUMMARY)["failed"])
    except (InputError, KeyError, TypeError):
        return False


def set_aside(folder: Path, names: list[str]) -> None:
    """Move a finished run's results into a folder of their own before the run is trained further. The summary is moved
    last, so that a run that is cut off here still counts as finished."""
    if not (folder / SUMMARY).is_file():
        return
    old = next(path for number in itertools.count(1) if not (path := folder / f"results-{number}").exists())
    files = [f"{kind}_{name}.csv" for name in names for kind in HOURS]
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
