"""The steps of a comparison: tune, train, judge. Each stores its result as it finishes."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path
from typing import NamedTuple

from iquitos_rl.baselines.programme import SolverError
from iquitos_rl.baselines.registry import Learned
from iquitos_rl.cli import run_command
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.evaluation import evaluate_policy
from iquitos_rl.judging.references import Reference, judge, learn
from iquitos_rl.judging.summary import DEMAND_AUDIT, Judged, has_costs
from iquitos_rl.machine.console import log_to
from iquitos_rl.machine.facts import versions
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.inputs import TENSOR_BYTES, InputError, read_bytes, read_typed
from iquitos_rl.machine.interrupt import STATUS, Interrupted, Interrupts
from iquitos_rl.report.results import read_summary
from iquitos_rl.runs.evaluation import load_site_agent
from iquitos_rl.runs.folder import SUMMARY
from iquitos_rl.runs.session import Request, train


def tune_task(
    name: str, train_years: list[Path], task: TaskSettings, cache: Path, interrupts: Interrupts
) -> Learned | str | None:
    """What a controller needs of the training years, see `learn`; or why it is left out."""
    try:
        return learn(name, train_years, task, cache, on_share=lambda _: interrupts.check())
    except (UserError, SolverError) as error:
        return str(error)


def reference_task(reference: Reference, cache: Path, interrupts: Interrupts) -> Judged | str:
    """Work a reference out and store it, see `judge`; or why it is left out."""
    try:
        return judge(reference, cache, lambda _: interrupts.check())
    except (UserError, SolverError) as error:
        return str(error)


def train_task(request: Request, log: Path, interrupts: Interrupts) -> int:
    """Train as the command does, with its output added to a file; returns its exit status.

    Raises:
        Interrupted: the user asked to stop, or the process is being taken away.
    """
    with log_to(log):
        status = run_command(lambda: train(request))
    if status >= STATUS:
        raise Interrupted(status - STATUS, f"{request.output} has stopped")
    return status


class AgentYear(NamedTuple):
    """What an agent's policy cost in a year."""

    figures: dict[str, float]
    audit: dict[str, float]
    """How far the year's books are from what they should say, see the run's summary."""


def own_year(name: str, run: Path) -> AgentYear:
    """What a finished run's summary says of the year that it was judged on.

    Raises:
        UserError: the summary cannot be read or lacks the agent.
    """
    path = run / SUMMARY
    summary = read_summary(path)
    figures = summary["controllers"].get(name, {})
    if not has_costs(figures):
        raise UserError(f"{path} holds no figures of {name}")
    audit = {key: float(value) for key, value in summary.get("audit", {}).items() if key != "warnings"}
    return AgentYear(figures, audit)


def inputs_of(run: Path, fingerprint: str) -> dict[str, str]:
    """What a policy's figures in a year depend on.

    Raises:
        UserError: the run holds no policy.
    """
    files = (run / "policy" / name for name in ("policy.json", "policy.safetensors"))
    policy = b"".join(read_bytes(path, TENSOR_BYTES) for path in files)
    return {"policy": hashlib.sha256(policy).hexdigest(), "year": fingerprint, "citylearn": versions()["citylearn"]}


class _Stored(NamedTuple):
    """What is stored of an evaluated year."""

    inputs: dict[str, str]
    result: AgentYear


def stored_year(run: Path, year: str, fingerprint: str) -> AgentYear | None:
    """What was found before for this very policy and year; None, and judged again, where anything is in doubt."""
    try:
        found = read_typed(run / "years" / f"{year}.json", _Stored)
    except InputError:
        return None
    same = found.inputs == inputs_of(run, fingerprint) and has_costs(found.result.figures)
    return found.result if same else None


def judge_task(name: str, run: Path, year: str, case: Path, fingerprint: str, interrupts: Interrupts) -> AgentYear:
    """Evaluate a run's policy on a year on CityLearn, and store the result.

    Raises:
        UserError: the policy cannot be read or does not fit the year.
        AuditError: the simulated year contradicts itself.
    """
    agent, task = load_site_agent(name, run / "policy")
    with contextlib.redirect_stdout(io.StringIO()):  # bars of several processes would run into each other
        judged = evaluate_policy(name, agent, case, task, None, interrupts.check)
    result = AgentYear(judged.figures, {DEMAND_AUDIT: judged.demand_audit, **judged.parity})
    path = run / "years" / f"{year}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, {"inputs": inputs_of(run, fingerprint), "result": result._asdict()})
    return result
