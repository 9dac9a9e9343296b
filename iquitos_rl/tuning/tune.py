"""A tuning from its request to the settings that it found and the page about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.agents.search import Search
from iquitos_rl.assignments import Layer, merge, parse_assignments, read_yaml, write_layer, write_value
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cluster.choose import executor
from iquitos_rl.comparison.tasks import tune_task
from iquitos_rl.config import AgentSettings, load_settings
from iquitos_rl.envs.citylearn.env import require_citylearn, resolve_case
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import RULES_FOLDER, STRONGEST, TUNING_YEARS, rule_files
from iquitos_rl.machine.device import choose_threads
from iquitos_rl.machine.facts import versions
from iquitos_rl.machine.files import digest, write_json, write_text
from iquitos_rl.machine.inputs import InputError, read_json
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.runs.engine import obstacle
from iquitos_rl.runs.executor import Executor, Step, carry_out
from iquitos_rl.runs.folder import lock_output
from iquitos_rl.runs.session import OUTPUTS
from iquitos_rl.runs.years import EVALUATION_YEAR_SEED, prepare_years, preset_year
from iquitos_rl.tuning.page import write_page
from iquitos_rl.tuning.study import RUNGS, Budget, inside, open_study, search_for, values_of
from iquitos_rl.tuning.trial import Rung, forget, measure, rung_task

VALIDATION_YEAR_SEED = 900
"""Year seeds from here on, up to those of evaluation, are for validation."""
DESCRIPTION, BEST, FOUND = "tuning.json", "best.yaml", "trials.json"
HOUR = 3600.0


@dataclass(frozen=True)
class TuningRequest:
    """What a tuning is asked to do; `config`, `flags` and `sets` are those of a training's `Request`. What they set is
    not tuned."""

    agent: str
    config: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    trials: int = 40
    hours: float | None = None
    """Most hours; see `Budget`."""
    validation_years: int = 2
    """Years of a preset to validate on."""
    validation_cases: tuple[str, ...] = ()
    """Schema folders to validate on instead."""
    jobs: int = 1
    cluster: str | None = None
    output: Path | None = None
    command: str = ""


class Tuning(NamedTuple):
    """A tuning that was planned."""

    request: TuningRequest
    output: Path
    cache: Path
    settings: AgentSettings
    """The start: those of the first trial, whose values of what is tuned are the shipped ones."""
    search: Search
    case: str
    train_years: list[Path]
    validation: list[Path]
    steps: int
    """Of a whole training."""

    def trial(self, values: Mapping[str, Any]) -> AgentSettings:
        """The settings of a trial."""
        own, request = [f"{key}={write_value(value)}" for key, value in values.items()], self.request
        loaded = load_settings([request.agent], request.config, request.flags, [*request.sets, *own])
        return loaded.agents[request.agent]

    def folder(self, number: int) -> Path:
        return self.output / f"trial-{number:04}"

    def step(self, number: int, values: dict[str, Any], rung: int) -> Step[Rung]:
        """Trains a trial to a rung, see `search_for`."""
        settings, folder = self.trial(values), self.folder(number)
        steps = -(-self.steps * RUNGS[rung] // RUNGS[-1])
        start = settings.run.continue_from
        starts = {} if start is None else {start: Path(start).absolute()}
        own = (self.request.agent, settings, steps, self.train_years, self.validation, folder, self.cache)
        return Step(
            partial(rung_task, *own),
            reads=(*starts.values(), *self.train_years, *self.validation, self.cache / RULES_FOLDER),
            writes=(folder,),
            cases=starts,
            gpus=float(settings.run.device == "cuda"),
        )


def plan(request: TuningRequest) -> Tuning:
    """Put settings, search space and years together.

    Raises:
        UserError: something of the request cannot be used.
    """
    if not 1 <= request.trials <= 100_000:
        raise UserError(f"--trials {request.trials}: at least 1 and at most 100000")
    if request.hours is not None and not 0 < request.hours <= 100_000:
        raise UserError(f"--hours {request.hours}: above 0 and at most 100000")
    if request.jobs > 1 and request.cluster is not None:
        raise UserError(
            "--jobs and --cluster: a cluster's nodes run as many trials as they have cores; give one of them"
        )
    if not 1 <= request.jobs <= 1_024:
        raise UserError(f"--jobs {request.jobs}: at least 1 and at most 1024")
    if not 1 <= request.validation_years <= EVALUATION_YEAR_SEED - VALIDATION_YEAR_SEED:
        raise UserError(f"--validation-years {request.validation_years}: at least 1 and at most 100")
    flags = {"threads": 1, **request.flags}  # each trial has a core, and results do not depend on how many there are
    request = TuningRequest(**{**request.__dict__, "flags": flags})
    settings = load_settings([request.agent], request.config, flags, request.sets).agents[request.agent]
    run = settings.run
    output = request.output or OUTPUTS / f"tune-{Path(run.case).name}-{request.agent}"
    cache = output.parent / "cache"
    if run.years > VALIDATION_YEAR_SEED:
        raise UserError(f"years = {run.years}: at most {VALIDATION_YEAR_SEED}, later seeds are for validation")
    years = prepare_years(run, cache)
    train = [folder.absolute() for folder in years.train]
    validation = _validation(request, settings, cache)
    shared = {*train, years.evaluate.absolute()} & set(validation) if years.unseen else set()
    if shared:
        raise UserError(f"{shared.pop()} is trained on or kept for evaluation: validate on another year")
    if set(validation) & set(train):
        print("warning: settings are validated on the data trained on; name others with --validation-cases", flush=True)
    for folder in validation:
        if errors := check_case(folder).errors:
            raise UserError(f"{folder}: {errors[0]}")
    sites = [read_site(folder) for folder in train]
    search = _search(request, obstacle(run, sites) is None and run.guide != "none")
    steps = run.steps or (run.episodes or 1) * (sites[0].rows - 1)
    return Tuning(request, output, cache, settings, search, years.name, train, validation, steps)


def _validation(request: TuningRequest, settings: AgentSettings, cache: Path) -> list[Path]:
    run = settings.run
    if request.validation_cases:
        return [resolve_case(case).absolute() for case in request.validation_cases]
    if run.case in PRESETS:
        seeds = range(VALIDATION_YEAR_SEED, VALIDATION_YEAR_SEED + request.validation_years)
        return [preset_year(run.case, seed, run.case_settings, cache).absolute() for seed in seeds]
    return [resolve_case(run.case).absolute()]


def _search(request: TuningRequest, guided: bool) -> Search:
    """The agent's search space without what the user has set, or what has no effect."""
    layers: Sequence[Layer] = [
        *([] if request.config is None else [read_yaml(request.config)]),
        {key: value for key, value in request.flags.items() if value is not None},
        parse_assignments(request.sets),
    ]
    own: Layer = {}
    for layer in layers:
        own = merge(own, merge(layer, layer.get(request.agent) or {}))

    def is_set(key: str) -> bool:
        place: Any = own
        for part in key.split("."):
            if not isinstance(place, Mapping) or part not in place:
                return False
            place = place[part]
        return True

    declared = AGENTS.require(request.agent).search
    search = {key: space for key, space in declared.items() if not is_set(key) and (guided or key != "reach")}
    if not search:
        text = "declares nothing to tune" if not declared else "has nothing left to tune: all of it is set"
        raise UserError(f"{request.agent} {text}")
    return search


def tune(request: TuningRequest) -> int:
    """Carry the tuning out, and write what it found; returns the exit status: 1 where no trial came to its end.

    Raises:
        UserError: the input is at fault, or Optuna or Ray is missing.
        Failure: a process died.
        Interrupted: the user asked to stop; the same request goes on.
    """
    with Interrupts("finishing the step and saving") as interrupts:
        require_citylearn()
        tuning = plan(request)
        _open(tuning)
        choose_threads(1)
        study = open_study(tuning.output, tuning.case)
        hint = f"stopped; to resume: {request.command}"
        carriers = executor(request.jobs, request.cluster, tuning.output, interrupts, hint)
        with lock_output(tuning.output), carriers as carrier:
            _tune_rule(tuning, carrier)
            start = inside(tuning.settings.flat(), tuning.search)
            if start is not None and not study.trials:
                study.enqueue_trial(start)
            budget = Budget(request.trials, None if request.hours is None else request.hours * HOUR)
            seed = tuning.settings.run.seed
            for text in search_for(study, tuning.search, budget, carrier.room, seed, carrier, tuning.step):
                print(text, flush=True)
        return _write(tuning, study)


def _open(tuning: Tuning) -> None:
    """Create the output folder, or make sure that it is this tuning's own.

    Raises:
        UserError: it holds something else, or was searched with other settings.
    """
    output, path = tuning.output, tuning.output / DESCRIPTION
    what = {
        "agent": tuning.request.agent,
        "case": tuning.case,
        "settings": digest(tuning.settings.dump(), tuning.steps, {k: repr(v) for k, v in tuning.search.items()}),
        "years": [read_site(folder).fingerprint for folder in (*tuning.train_years, *tuning.validation)],
    }
    if output.is_dir() and any(output.iterdir()):
        try:
            known = read_json(path)
        except InputError:
            raise UserError(f"--output {output} holds something, but no tuning: choose another folder") from None
        for key, value in what.items():
            if not isinstance(known, dict) or known.get(key) != value:
                raise UserError(f"--output {output} is a tuning with other {key}: choose another folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be created: {error.strerror}") from None
    write_json(path, what)


def _tune_rule(tuning: Tuning, carrier: Executor) -> None:
    """Tune the rule that actions count from once, for all trials."""
    run, own = tuning.settings.run, tuning
    if "reach" not in own.search and obstacle(run, [read_site(folder) for folder in own.train_years]) is not None:
        return
    if run.guide == "none":
        return
    step = Step(
        partial(tune_task, STRONGEST, own.train_years, run.task, own.cache),
        reads=tuple(own.train_years[:TUNING_YEARS]),
        writes=rule_files(STRONGEST, own.train_years, run.task, own.cache),
    )
    for _ in carry_out({"rule": step}, carrier):
        pass


def _write(tuning: Tuning, study: Any) -> int:
    """Write trials, settings and page; returns the exit status."""
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "settings": values_of(trial.params, tuning.search),
            "rungs": {str(rung): value for rung, value in sorted(trial.intermediate_values.items())},
            **({"reason": trial.user_attrs["reason"]} if "reason" in trial.user_attrs else {}),
        }
        for trial in study.trials
        if trial.params
    ]
    for trial in trials:
        if trial["state"] != "running":
            forget(tuning.folder(trial["number"]))
    complete = [trial for trial in trials if trial["state"] == "complete"]
    best = min(complete, key=lambda trial: trial["rungs"][str(RUNGS[-1])], default=None)
    summary: dict[str, Any] = {
        "agent": tuning.request.agent,
        "case": tuning.case,
        "measure": measure(tuning.settings.run.task.objective.preset),
        "validated_on": [folder.name for folder in tuning.validation],
        "steps": tuning.steps,
        "rungs": [rung / RUNGS[-1] for rung in RUNGS],
        "best": None if best is None else best["number"],
        "spent_s": round(float(study.user_attrs.get("spent_s", 0.0)), 1),
        "trials": trials,
        "command": tuning.request.command,
        "versions": versions(),
    }
    write_json(tuning.output / FOUND, summary)
    page = write_page(tuning.output, summary, tuning.search)
    if best is None:
        print(f"no trial came to its end within the budget; the same command with a larger one goes on: {page}")
        return 1
    settings, own = tuning.trial(best["settings"]), tuning.request.agent
    about = (
        f"# {own} on {tuning.case}, tuned: trial {best['number']} of {len(trials)}. `train {own} --config` takes it.\n"
    )
    write_text(tuning.output / BEST, about + write_layer(settings.dump()))
    value = best["rungs"][str(RUNGS[-1])]
    print(f"best: trial {best['number']}, {summary['measure']} {value:,.6g} on {', '.join(summary['validated_on'])}")
    print(f"its settings are in {tuning.output / BEST}, to read: {page}", flush=True)
    return 0
