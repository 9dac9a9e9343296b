"""One agent of a run: trained from where it stands, evaluated, and its result kept until the summary is written."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.config import AgentSettings
from iquitos_rl.judging.evaluation import evaluate_policy
from iquitos_rl.judging.summary import Result
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.interrupt import Interrupted
from iquitos_rl.runs.folder import RESULT
from iquitos_rl.runs.training import Session, Training
from iquitos_rl.runs.years import Years


def train_and_evaluate(
    name: str, settings: AgentSettings, years: Years, device: torch.device, output: Path, session: Session
) -> Result:
    """Train an agent from where it stands, and evaluate it on CityLearn."""
    training = Training(name, settings, years.train, device, output, session)
    if session.resume and (result := _stored_result(output, training)) is not None:
        return result
    timing = training.run()
    # What was saved is evaluated, on the CPU: one observation at a time is slower on a GPU than the simulator.
    agent: Any = AGENTS[name].agent.load(output / "policy")

    def check() -> None:
        session.interrupts.check(f"trained, not evaluated yet; to resume: {session.hint}")

    check()
    result = evaluate_policy(name, agent, years.evaluate, settings.run.task, output, check)._replace(timing=timing)
    write_json(output / RESULT, {"steps": training.agent.steps, "result": result._asdict()})
    return result


def attempt(
    name: str, settings: AgentSettings, years: Years, device: torch.device, output: Path, session: Session
) -> Result:
    """`train_and_evaluate` for one of several agents: an error is written down, and the other agents continue."""
    output.mkdir(exist_ok=True)
    try:
        return train_and_evaluate(name, settings, years, device, output, session)
    except Interrupted:
        raise
    except Exception as error:
        write_text(output / "error.txt", traceback.format_exc())
        message = f"{type(error).__name__}: {error}"
        print(f"{name} failed: {message}; see {output / 'error.txt'}", file=sys.stderr, flush=True)
        return Result.failure(message)


def _stored_result(output: Path, training: Training) -> Result | None:
    """The evaluation of this agent after as many steps, if the command was interrupted after it."""
    try:
        data = json.loads((output / RESULT).read_text(encoding="utf-8"))
        steps, result = data["steps"], Result(**data["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # evaluating again is always right
    return result if steps == training.agent.steps >= training.total else None
