"""Training one agent from its first step, or from its last checkpoint, to the end of its budget."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import psutil
import torch
from pydantic import Field

from iquitos_rl.agents import AGENTS
from iquitos_rl.agents.progress import Progress
from iquitos_rl.agents.start import start_from
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.checkpoints.checkpoint import Checkpoints, generator_states, set_generator_states
from iquitos_rl.config import AgentSettings, unguided_settings
from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.errors import UserError
from iquitos_rl.judging.table import is_year
from iquitos_rl.machine.bars import progress_bar
from iquitos_rl.machine.elsewhere import place_of
from iquitos_rl.machine.facts import versions
from iquitos_rl.machine.inputs import typed
from iquitos_rl.machine.interrupt import Check, Interrupts
from iquitos_rl.report.metrics import MetricsWriter
from iquitos_rl.runs.best import YEARS, Best
from iquitos_rl.runs.engine import Engine, choose_guidance, make_engine
from iquitos_rl.runs.folder import differences, refuse_changes
from iquitos_rl.runs.planning import planned_settings
from iquitos_rl.runs.timings import Timings
from iquitos_rl.runs.years import Years
from iquitos_rl.writers.registry import WRITERS
from iquitos_rl.writers.several import Writers

FOLDER, INSPECTION = "checkpoints", "inspection"
FEW_UPDATES = 100


class Session(NamedTuple):
    """What holds for every agent of a command."""

    interrupts: Interrupts
    resume: bool
    allow_changes: bool
    hint: str
    """The command that resumes the run."""
    cache: Path
    """Where tuned rules are kept."""
    device: torch.device
    years: Years
    evaluation: str
    """Fingerprint of the year that agents are evaluated on."""
    timings: Timings
    watch: Check
    """Raises what has gone wrong in another process."""


Seconds = Annotated[float, Field(ge=0, le=1e12)]


class About(NamedTuple):
    """What a checkpoint says of the training that it is of."""

    algorithm: str
    settings: dict[str, Any]
    training_years: list[str]
    evaluation_year: str
    versions: dict[str, str]
    updates: int
    train_s: Seconds
    checkpoint_s: Seconds


class Training:
    """One agent, its environments and its checkpoints.

    Raises:
        UserError: the checkpoint is of other settings or data, or none is whole.
    """

    def __init__(self, name: str, settings: AgentSettings, output: Path, session: Session) -> None:
        self.name, self.settings, self.output, self.session = name, settings, output, session
        device, timings = session.device, session.timings
        for writer in settings.run.writers:  # one that is not installed shows before anything takes time
            WRITERS.require(writer)
        with timings.phase("reading"):
            sites = [read_site(folder) for folder in session.years.train]
        with timings.phase("rule"):
            rule, reason = choose_guidance(settings.run, sites, session.cache, session.interrupts.check)
        with timings.phase("engine"):
            self.engine: Engine = make_engine(settings.run, sites, device, rule, check=session.interrupts.check)
        engine, hours = self.engine, self.engine.steps_per_year
        self.total = settings.run.steps or (settings.run.episodes or 1) * hours
        guide = "no rule" if rule is None else f"the rule {rule.name}"
        length = "site-years" if is_year(hours * sites[0].hours_per_step) else f"times the {hours:,} steps of the data"
        budget = f"{self.total / hours:.1f} {length}, {guide} as guide ({reason})"
        print(f"training on the {engine.name} engine ({engine.reason}), {budget}", flush=True)
        unguided = unguided_settings(name)
        if rule is None and settings.run.guide != "none" and unguided.is_file():
            print(f"settings meant for runs without a guide: --config {unguided}", flush=True)
        planned = planned_settings(name, settings.agent, engine.env, device)
        self.agent = AGENTS[name].agent(engine.env, planned, device=device, seed=settings.run.seed)
        if settings.run.continue_from is not None:
            start_from(self.agent, place_of(settings.run.continue_from))
            print(f"starting with the networks of {settings.run.continue_from}", flush=True)
        updates = self.agent.updates_by(self.total)
        if updates is not None and updates < FEW_UPDATES:
            print(f"warning: {self.total:,} steps are {updates:,} updates of {name}, too few to learn from", flush=True)
        self.checkpoints = Checkpoints(output / FOLDER, settings.run.checkpoint_minutes)
        self.best = Best(YEARS * hours)
        self.seconds, self.step = 0.0, 0
        if session.resume:
            self._resume()

    def _resume(self) -> None:
        """Bring agent and environments to where the newest whole checkpoint was taken."""
        found = self.checkpoints.load({"agent": self.agent.state_dict()})
        if found is None:
            print(f"{self.output}: no checkpoint was finished, training starts at step 0", flush=True)
            return
        try:
            about = typed(found.about, About)
        except ValueError as error:
            raise UserError(f"{self.checkpoints.folder}: the checkpoint does not say what it is of: {error}") from None
        changes = self._changes(about)
        refuse_changes(self.output, changes, self.session.allow_changes)
        state = found.state
        try:
            if changes:
                keep_learning_rates(state["agent"], self.agent.state_dict())
            self.agent.load_state_dict(state["agent"])
            if self.agent.steps < self.total:
                self._move_environments(state)
            self.best.load_state_dict(state["best"])
            set_generator_states(state["generators"])
            self.seconds, self.step = about.train_s, found.step
            self.checkpoints.seconds = about.checkpoint_s
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever a state of another kind makes the parts raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"{self.checkpoints.folder}: the checkpoint does not fit this agent ({reason})") from error
        print(f"resumed at step {self.step} of {self.total}", flush=True)

    def _move_environments(self, state: dict[str, Any]) -> None:
        """Environments that cannot be brought to the same point, because their simulator or data changed, start new
        episodes instead."""
        try:
            self.engine.env.load_state_dict(state["environments"])
        except (UserError, KeyError, RuntimeError, IndexError, TypeError, ValueError) as error:
            print(f"warning: {error}; their open episodes start again", flush=True)
            self.agent.reset()

    def _changes(self, about: About) -> list[str]:
        now = self._about()
        changes = differences(about.settings, now["settings"])
        if about.algorithm != self.name:
            changes.append(f"the algorithm was {about.algorithm} and is {self.name}")
        for years in ("training years", "evaluation year"):
            if getattr(about, key := years.replace(" ", "_")) != now[key]:
                changes.append(f"the files of the {years} have changed")
        others = [f"{name} {own}" for name, own in about.versions.items() if now["versions"].get(name) != own]
        if others:
            print(f"warning: the checkpoint was written with {', '.join(others)}: the last bits may differ", flush=True)
        return changes

    def run(self, pause: int | None = None) -> dict[str, float]:
        """Train until the budget is spent, save the policy, and return how long it took.

        Args:
            pause: train to so many steps only; the next run goes on from there, to the bit.

        Raises:
            Interrupted: the user asked to stop; the run is saved as it is after the step in flight.
            UserError: a number is not finite; the state is saved for inspection, apart from the checkpoints.
            WorkerError: a simulator died or hangs; the run is saved as it was before that step.
        """
        writer = MetricsWriter(self.output, self.agent.steps)
        label = f"{self.output.parent.name}-{self.name}" if self.output.name == self.name else self.output.name
        run, dump = self.settings.run, self.settings.dump()
        others = Writers(run.writers, run.project, label, dump, self.output, fresh=not self.session.resume)
        bar, process = progress_bar(self.total, f"train {self.name}", "step"), psutil.Process()
        bar.initial = bar.n = self.step
        start, before = time.perf_counter(), self.seconds

        def report(progress: Progress) -> None:
            memory = {"ram_mib": process.memory_info().rss / 2**20}
            if self.session.device.type == "cuda":
                memory["gpu_mib"] = torch.cuda.max_memory_allocated(self.session.device) / 2**20
            shown = {key: f"{value:.0f}" for key, value in memory.items()}
            if "episode_return" in progress.metrics:
                shown["return"] = f"{progress.metrics['episode_return']:.1f}"
            bar.set_postfix(shown, refresh=False)
            metrics = {**progress.metrics, **memory, "updates": float(progress.updates)}
            for each in (writer, others):
                each.write(progress.steps, metrics)
            self._keep_best(progress)

        def after_step(step: int) -> None:
            bar.update(step - bar.n)
            episodes = step // self.engine.episode_steps - self.step // self.engine.episode_steps
            self.step, self.seconds = step, before + time.perf_counter() - start
            if self.session.interrupts.number is not None:
                self._save(wait=True)
                self.session.interrupts.check(self._saved())
            if episodes or self.checkpoints.due():
                self._save()
                self.session.watch()

        try:
            if self.agent.steps < min(self.total, pause or self.total):
                more = None if pause is None else min(pause, self.total) - self.agent.steps
                self.agent.learn(more, until=self.total, on_log=report, on_step=after_step)
                self._save(wait=True)
        except UserError as error:
            raise UserError(f"{error}; {self._inspection()}") from error
        except WorkerError as error:
            if self.step:
                self._save(wait=True)
            raise WorkerError(f"{error}; {self._saved()}") from error
        finally:
            bar.close()
            writer.close()
            others.close()
            self.engine.env.close()
        self.agent.save_policy(self.output / "policy")
        saving, seconds = self.checkpoints.seconds, self.seconds
        return {
            "train_s": round(seconds, 1),
            "steps": self.agent.steps,
            "updates": self.agent.updates,
            "steps_per_s": round(self.agent.steps / seconds, 1) if seconds else 0.0,
            "checkpoint_s": round(saving, 2),
            "checkpoint_share": round(saving / seconds, 5) if seconds else 0.0,
            **({"best_policy_step": self.best.step} if self.best.step else {}),
        }

    def _keep_best(self, progress: Progress) -> None:
        mean = self.best.mean(progress)
        if mean is None or mean <= self.best.reward:
            return
        try:
            self.agent.save_policy(self.output / "policy-best")
            self.best.reward, self.best.step = mean, progress.steps
        except UserError as error:  # the next report tries again
            print(f"warning: {error}", file=sys.stderr, flush=True)

    def _save(self, wait: bool = False) -> None:
        self.agent.metrics.check()  # a state in which learning has stopped is none to go on from
        self.checkpoints.save(self._state(), self.step, self._about(), wait=wait)

    def _saved(self) -> str:
        step = self.checkpoints.last_step
        at = "nothing could be saved" if step is None else f"saved at step {step} of {self.total}"
        return f"{at}; to resume: {self.session.hint}"

    def _inspection(self) -> str:
        """Save the state as it is, apart from the checkpoints; returns where it and the last good one are."""
        self.checkpoints.finish()
        good = self.checkpoints.last_step
        kept = "there is no checkpoint yet" if good is None else f"the checkpoint of step {good} is untouched"
        place = Checkpoints(self.output / INSPECTION, 0.0)
        place.save(self._state(), self.step, self._about(), wait=True, check=False)
        return f"stopped at step {self.step}, state for inspection in {place.folder}; {kept}"

    def _state(self) -> dict[str, Any]:
        return {
            "agent": self.agent.state_dict(),
            "best": self.best.state_dict(),
            "environments": self.engine.env.state_dict(),
            "generators": generator_states(),
        }

    def _about(self) -> dict[str, Any]:
        return {
            "algorithm": self.name,
            "settings": self.settings.dump(),
            "training_years": self.engine.fingerprints,
            "evaluation_year": self.session.evaluation,
            "versions": versions(),
            "updates": self.agent.updates,
            "train_s": self.seconds,
            "checkpoint_s": self.checkpoints.seconds,
        }


def keep_learning_rates(state: Any, own: Any) -> None:
    """Give the optimisers of a loaded state the settings that the agent was made with."""
    if not (isinstance(state, dict) and isinstance(own, dict)):
        return
    if "param_groups" in state and "param_groups" in own:
        for old, new in zip(state["param_groups"], own["param_groups"]):
            old.update({key: value for key, value in new.items() if key != "params"})
    for key in state.keys() & own.keys():
        keep_learning_rates(state[key], own[key])
