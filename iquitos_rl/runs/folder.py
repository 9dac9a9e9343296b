"""The folder of a run: what it says of the run, which is the latest, and that one process at a time works in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_json

RUN = "run.json"
LOCK = ".lock"
SUMMARY = "simulation_summary.json"
RESULT = Path("checkpoints") / "result.json"
"""An agent's evaluation, kept until the summary of all is written."""


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
