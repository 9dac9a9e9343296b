"""Resuming a run: finds it, checks that its settings are unchanged, and makes room for new results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iquitos_rl.errors import UserError
from iquitos_rl.runs.folder import RESULT, SUMMARY, Run, is_unused, latest_run, read_run
from iquitos_rl.runs.request import LATEST, OUTPUTS, Request

MAY_CHANGE = ("steps", "episodes", "checkpoint_minutes", "threads")
"""Settings that leave what was learned so far as it is."""


def find_run(request: Request) -> Run | None:
    """The run that is to be resumed; None where training is to start.

    Raises:
        UserError: there is no such run, or it is of another agent.
    """
    if request.resume is None:
        return None
    if request.resume == LATEST and request.output is None:
        return latest_run(OUTPUTS, request.agent, request.settings().run.case)
    if request.resume != LATEST and request.output not in (None, request.resume):
        raise UserError(f"--resume {request.resume}: a run resumes in its own folder; leave out --output")
    folder = request.output if request.resume == LATEST else request.resume
    assert folder is not None
    run = read_run(folder)
    if run is None and (request.resume != LATEST or not is_unused(folder)):
        raise UserError(f"--resume: {folder} holds no run")
    if run is None:
        print(f"{folder} holds no run yet: it starts", flush=True)
    elif run.algorithm != request.agent:
        raise UserError(f"--resume: {folder} is a run of {run.algorithm}, not of {request.agent}")
    return run


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
    """Resume a run whose settings or data have changed only if the user said so.

    Raises:
        UserError: there are differences and they are not allowed.
    """
    if not found:
        return
    if not allowed:
        raise UserError(f"{folder} cannot be resumed as it was: {'; '.join(found)} (--allow-changes resumes it anyway)")
    print(f"resumed with changes: {'; '.join(found)}", flush=True)


def has_failures(folder: Path) -> bool:
    """Whether a finished run's summary tells of an agent that failed, which may be tried again."""
    try:
        return bool(json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["failed"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def set_aside(folder: Path, names: list[str]) -> None:
    """Move a finished run's results into a folder of their own before the run is trained further. The summary is moved
    last, so that a run that is cut off here still counts as finished."""
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
