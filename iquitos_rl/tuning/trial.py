"""One trial of a tuning: an agent trained for a while, and what its policy then costs in years that it has not seen."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cli import explained
from iquitos_rl.config import AgentSettings
from iquitos_rl.errors import Failure, UserError
from iquitos_rl.judging.evaluation import evaluate_policy
from iquitos_rl.machine.console import log_to
from iquitos_rl.machine.device import choose_device, choose_threads
from iquitos_rl.machine.files import digest, write_json
from iquitos_rl.machine.inputs import InputError, read_typed
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.runs.evaluation import load_site_agent
from iquitos_rl.runs.timings import Timings
from iquitos_rl.runs.training import FOLDER, Session, Training
from iquitos_rl.runs.years import Years


class Rung(NamedTuple):
    """What a trial has come to after a share of its training."""

    value: float | None
    """Mean over the validation years of what is to be low; None where training failed."""
    reason: str = ""
    """Why it failed, in a sentence."""


class _Stored(NamedTuple):
    inputs: str
    rung: Rung


def measure(preset: str) -> str:
    """The figure of a year that is to be low: what the agent is rewarded for, in the unit that people know."""
    if preset == "co2":
        return "co2_kg"
    return f"score_{preset.removeprefix('challenge-')}" if preset.startswith("challenge-") else "bill"


def rung_task(
    name: str,
    settings: AgentSettings,
    steps: int,
    years: Sequence[Path],
    validation: Sequence[Path],
    folder: Path,
    cache: Path,
    interrupts: Interrupts,
) -> Rung:
    """Train a trial on from where it stands to so many steps, and evaluate it on CityLearn; a rung that was
    reached before is taken as it is.

    Args:
        years: to train on.
        validation: years to evaluate on.
        folder: of this trial.
        cache: holds the tuned rule.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rung-{steps}.json"
    inputs = digest(name, settings.dump(), *(read_site(year).fingerprint for year in (*years, *validation)))
    try:
        known = read_typed(path, _Stored)
        if known.inputs == inputs:
            return known.rung
    except InputError:
        pass
    with log_to(folder / "log.txt"):
        try:
            rung = Rung(_train_and_evaluate(name, settings, steps, list(years), validation, folder, cache, interrupts))
        except (UserError, Failure) as error:
            rung = Rung(None, explained(error)[1])
            print(f"after at most {steps:,} steps: {rung.reason}", flush=True)
    write_json(path, _Stored(inputs, rung)._asdict() | {"rung": rung._asdict()})
    return rung


def _train_and_evaluate(
    name: str,
    settings: AgentSettings,
    steps: int,
    years: list[Path],
    validation: Sequence[Path],
    folder: Path,
    cache: Path,
    interrupts: Interrupts,
) -> float:
    choose_threads(settings.run.threads)
    session = Session(
        interrupts=interrupts,
        resume=True,
        allow_changes=False,
        hint="the same command",
        cache=cache,
        device=choose_device(settings.run.device),
        years=Years(validation[0].name, years, validation[0], unseen=True),
        evaluation=read_site(validation[0]).fingerprint,
        timings=Timings(),
        watch=lambda: None,
    )
    Training(name, settings, folder, session).run(pause=steps)
    agent, task = load_site_agent(name, folder / "policy")
    key, total = measure(settings.run.task.objective.preset), 0.0
    for year in validation:
        figures = evaluate_policy(name, agent, year, task, None, interrupts.check).figures
        if key not in figures:
            raise UserError(f"{year}: CityLearn finds no {key} there")
        total += figures[key]
    return total / len(validation)


def forget(folder: Path) -> None:
    """Drop what only a trial that goes on needs."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
