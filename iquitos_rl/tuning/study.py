"""The search: which settings are tried next, and which trials are worth going on with.

Optuna decides both: its tree-structured Parzen estimator (Bergstra et al. 2011) draws settings, and asynchronous
successive halving (Li et al. 2020) ends a trial at a third or a ninth of its training unless it is among the best third
there. Only the process that the user started asks and tells its study; executors carry trials out. Ray Tune would bring
a second scheduler, checkpoints and result folders of its own, and would need a cluster where two processes do.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from iquitos_rl.agents.search import Between, OneOf, Search
from iquitos_rl.errors import UserError
from iquitos_rl.runs.executor import Executor, Step
from iquitos_rl.tuning.trial import Rung

INSTALL = "install Optuna for tuning: pip install 'iquitos_rl[cluster]'"
RUNGS = (1, 3, 9)
"""Ninths of a training after which trials are compared."""
JOURNAL = "study.journal"
SPENT = "spent_s"


class Budget(NamedTuple):
    trials: int
    """Most trials that are begun, those of earlier commands included."""
    seconds: float | None = None
    """No rung is begun later, the time of earlier commands included."""


def require_optuna() -> Any:
    """The module optuna, which says warnings only.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError(INSTALL) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # several parameters at once, PED-ANOVA
    return optuna


def open_study(folder: Path, name: str) -> Any:
    """The study in a folder, or a new one.

    Raises:
        UserError: Optuna is not installed, or its file is damaged.
    """
    optuna = require_optuna()
    storages = optuna.storages
    path = folder / JOURNAL
    try:
        backend = storages.journal.JournalFileBackend(str(path), storages.journal.JournalFileOpenLock(str(path)))
        return optuna.create_study(
            storage=storages.JournalStorage(backend),
            study_name=name,
            load_if_exists=True,
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=RUNGS[0], reduction_factor=3),
        )
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} cannot be used ({type(error).__name__}: {error})") from None


def distributions(search: Search) -> dict[str, Any]:
    """A search space as Optuna has it. Lists are texts there, see `values_of`."""
    kinds = require_optuna().distributions
    found: dict[str, Any] = {}
    for key, space in search.items():
        if isinstance(space, OneOf):
            found[key] = kinds.CategoricalDistribution([_plain(value) for value in space.values])
        elif isinstance(space.low, int) and isinstance(space.high, int):
            found[key] = kinds.IntDistribution(space.low, space.high, log=space.log)
        else:
            found[key] = kinds.FloatDistribution(float(space.low), float(space.high), log=space.log)
    return found


def values_of(parameters: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """What Optuna drew, as settings take it."""
    found = {}
    for key, value in parameters.items():
        space = search[key]
        found[key] = value
        if isinstance(space, OneOf):
            found[key] = next(own for own in space.values if _plain(own) == value)
    return found


def inside(values: Mapping[str, Any], search: Search) -> dict[str, Any] | None:
    """Settings as Optuna would have drawn them; None where one lies outside of what is searched."""
    for key, space in search.items():
        value = values[key]
        if isinstance(space, Between) and not space.low <= value <= space.high:
            return None
        if isinstance(space, OneOf) and _plain(value) not in map(_plain, space.values):
            return None
    return {key: _plain(values[key]) for key in search}


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def search_for(
    study: Any,
    search: Search,
    budget: Budget,
    at_once: int,
    seed: int,
    executor: Executor,
    step: Callable[[int, dict[str, Any], int], Step[Rung]],
) -> Iterator[str]:
    """Carry the study on until the budget is spent; yields a sentence about each rung that was reached.

    Args:
        at_once: trials that are trained at the same time.
        seed: of what is drawn. With one trial at a time, a study that was interrupted goes on as if it had not been.
        step: trains a trial, by its number and its settings, to a rung, an index of `RUNGS`.
    """
    optuna = require_optuna()
    states = optuna.trial.TrialState
    began, before = time.monotonic(), float(study.user_attrs.get(SPENT, 0.0))
    spaces = distributions(search)
    open_trials: dict[str, Any] = {}

    def spent() -> float:
        return before + time.monotonic() - began

    def may_begin() -> bool:
        return budget.seconds is None or spent() < budget.seconds

    def submit(trial: Any) -> None:
        rung = len(study.trials[trial.number].intermediate_values)
        name = f"trial {trial.number}, rung {rung + 1} of {len(RUNGS)}"
        open_trials[name] = trial
        executor.submit(name, step(trial.number, values_of(trial.params, search), rung))

    def fill() -> None:
        while may_begin() and len(open_trials) < at_once and _begun(study, states) < budget.trials:
            drawn = len([t for t in study.trials if t.state != states.WAITING])
            study.sampler = optuna.samplers.TPESampler(seed=seed + drawn, multivariate=True, constant_liar=at_once > 1)
            submit(study.ask(spaces))

    for known in study.get_trials(states=(states.RUNNING,)):
        if may_begin():  # a command before this one was ended in it
            submit(optuna.trial.Trial(study, known._trial_id))
    fill()
    for name, found in executor.finished():
        trial = open_trials.pop(name)
        yield f"{name}: {_tell(study, trial, found, states)}"
        study.set_user_attr(SPENT, spent())
        if study.trials[trial.number].state == states.RUNNING and may_begin():
            submit(trial)
        fill()


def _begun(study: Any, states: Any) -> int:
    return len([trial for trial in study.trials if trial.state != states.WAITING])


def _tell(study: Any, trial: Any, found: Rung, states: Any) -> str:
    """Give a rung's result to the study; returns what became of the trial."""
    if found.value is None:
        trial.set_user_attr("reason", found.reason)
        study.tell(trial, state=states.FAIL)
        return found.reason
    reached = len(study.trials[trial.number].intermediate_values)
    trial.report(found.value, RUNGS[reached])
    if reached + 1 == len(RUNGS):
        study.tell(trial, found.value)
        return f"{found.value:,.6g}, complete"
    if trial.should_prune():
        study.tell(trial, state=states.PRUNED)
        return f"{found.value:,.6g}, ended"
    return f"{found.value:,.6g}"
