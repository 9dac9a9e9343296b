"""What agents are compared with, on the same year and the same bill: every controller in `CONTROLLERS`.

Each is evaluated once and stored under a digest of everything that it depends on.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from iquitos_rl.baselines.controller import Controller
from iquitos_rl.baselines.optimum import optimum
from iquitos_rl.baselines.planner import KINDS, RANGES, Planner
from iquitos_rl.baselines.profiles import Profiles
from iquitos_rl.baselines.registry import CONTROLLERS, Learned
from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.baselines.tune import tune
from iquitos_rl.baselines.tune_planner import tune_planner
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import simulate_year
from iquitos_rl.judging.summary import (
    SCHEMA_VERSION,
    Judged,
    audit_demand,
    figures,
    grid_only,
    has_costs,
    planned_figures,
)
from iquitos_rl.judging.table import HOURS
from iquitos_rl.judging.timeseries import planned_timeseries, write_csv, write_hours
from iquitos_rl.machine.facts import versions
from iquitos_rl.machine.files import digest, write_json, write_text
from iquitos_rl.machine.inputs import InputError, read_bytes, read_json, read_typed
from iquitos_rl.machine.locks import only_process
from iquitos_rl.registry import plugin_source

UNCONTROLLED, STRONGEST, OPTIMUM = "uncontrolled", "strongest", "optimum"
RULES_FOLDER, REFERENCES_FOLDER = "rules", "references"
"""In the cache."""
TUNING_YEARS = 12
"""Most training years that controllers are tuned on: as many as agents have by default."""


class Reference(NamedTuple):
    """One controller in one year."""

    name: str
    case: Path
    """Folder of the year."""
    fingerprint: str
    """Of the year's files, see `Site`."""
    task: TaskSettings
    rule: Learned | None = None
    """What was learned on training years, see `learn`."""


def compared() -> list[str]:
    """What a comparison evaluates: everything that CityLearn simulates, and the optimum, a bound."""
    return [name for name, entry in CONTROLLERS.items() if entry.make is not None or name == OPTIMUM]


def kept() -> list[str]:
    """What every run evaluates, with its hours stored next to its figures; the uncontrolled site first."""
    return [name for name, entry in CONTROLLERS.items() if entry.kept]


def opponents() -> list[str]:
    """What agents are to be better than: the strongest rule and every controller that plans."""
    return [STRONGEST, *(name for name, entry in CONTROLLERS.items() if entry.needs == "plan")]


def plain_task(task: TaskSettings) -> TaskSettings:
    """The same bill and the same knowledge of the present, with the view and the EV guard that rules need."""
    return TaskSettings(objective=task.objective, present=task.present)


def store_of(reference: Reference, cache: Path) -> Path:
    """The folder that this reference's figures are stored in, by what they depend on: data, tariff, prices, what was
    learned on training years, and the versions of what computes them."""
    objective = Objective(read_tariff(reference.case), reference.task.objective)
    used = {name: version for name, version in versions().items() if name in ("citylearn", "numpy", "iquitos_rl")}
    rule = None if reference.rule is None else reference.rule.to_json()
    guard = reference.task.ev_guard or reference.name != OPTIMUM
    settings = (objective.tariff.model_dump(mode="json"), objective.settings.model_dump(mode="json"))
    entry = CONTROLLERS.require(reference.name)
    source = plugin_source(entry.make, RULES[reference.name].act if entry.needs == "rule" else None)
    present = "" if reference.name == OPTIMUM else reference.task.present
    name = digest(SCHEMA_VERSION, reference.name, reference.fingerprint, *settings, guard, present, rule, used, *source)
    return cache / REFERENCES_FOLDER / f"{reference.name}-{name[:16]}"


class _Stored(NamedTuple):
    """What the store holds of a reference."""

    judged: Judged
    files: dict[str, str]
    """SHA-256 of the files of its hours, by their names."""


def stored(reference: Reference, cache: Path) -> Judged | None:
    """What was found before for equal inputs; None where nothing was, or where it is damaged."""
    store = store_of(reference, cache)
    path = store / "judged.json"
    try:
        judged, files = read_typed(path, _Stored)
        complete = has_costs(judged.figures) and (reference.name != UNCONTROLLED or has_costs(judged.grid_only))
        if not complete or ("timeseries.csv" not in files and CONTROLLERS[reference.name].kept):
            raise InputError(path, "lacks figures")
        for name, wanted in files.items():
            if hashlib.sha256(read_bytes(store / name)).hexdigest() != wanted:
                raise InputError(store / name, "is not what was written (its SHA-256 differs)")
    except InputError as error:
        if os.path.lexists(path):
            print(f"warning: {error}; {reference.name} is evaluated again", file=sys.stderr, flush=True)
        return None
    return judged


def judge(reference: Reference, cache: Path, on_hour: Callable[[int], None] | None = None) -> Judged:
    """Simulate or solve a reference's year and store what comes out.

    Args:
        on_hour: called with the number of hours simulated.

    Raises:
        UserError: the site has what this controller cannot handle.
        AuditError: the simulated year contradicts itself.
        SolverError: the optimum, or a plan, was not found.
    """
    started, store, name = time.perf_counter(), store_of(reference, cache), reference.name
    if name == OPTIMUM:
        site, objective = read_site(reference.case), Objective(read_tariff(reference.case), reference.task.objective)
        found = optimum(site, objective, reference.task.ev_guard)
        write = partial(write_csv, store / "timeseries.csv", planned_timeseries(site, found.plan))
        judged = Judged(planned_figures(site, objective, found), 0.0, 0.0)
    else:
        env, controller = prepare(reference)
        year = simulate_year(env, controller, on_hour=on_hour)
        objective = env.task.objective
        alone = grid_only(year, objective) if name == UNCONTROLLED else {}
        judged = Judged(figures(year), audit_demand(year, objective), 0.0, alone)
        write = partial(write_hours, store, "", year, env)
    judged = judged._replace(seconds=round(time.perf_counter() - started, 1))
    with only_process(store):
        store.mkdir(exist_ok=True)
        if CONTROLLERS[name].kept:
            write()
        files = {path.name: hashlib.sha256(read_bytes(path)).hexdigest() for path in sorted(store.glob("*.csv"))}
        write_json(store / "judged.json", {"judged": judged._asdict(), "files": files})
    return judged


def prepare(reference: Reference) -> tuple[CityLearnSite, Controller]:
    """The year on CityLearn and the controller that is to run it, see `judge`."""
    entry = CONTROLLERS.require(reference.name)
    if entry.make is None:
        raise ValueError(f"no simulator runs {reference.name}")
    env = entry.site([reference.case], plain_task(reference.task))
    return env, entry.make(env, reference.rule)


def learn(
    name: str,
    train_years: Sequence[Path],
    task: TaskSettings,
    cache: Path,
    skip: bool = False,
    on_share: Callable[[float], None] = lambda _: None,
) -> Learned | None:
    """What a controller needs of the training years: a tuned rule or planner, see `find_rule` and `find_planner`."""
    needs = CONTROLLERS.require(name).needs
    if needs == "nothing":
        return None
    sites = [read_site(folder) for folder in train_years[:TUNING_YEARS]]
    return (find_rule if needs == "rule" else find_planner)(name, sites, task, cache, skip, on_share)


def find_rule(
    name: str,
    train_years: Sequence[Site],
    task: TaskSettings,
    cache: Path,
    skip: bool = False,
    on_share: Callable[[float], None] = lambda _: None,
) -> RuleSettings:
    """Take what was tuned before on the same first training years, or tune a rule and store it.

    Args:
        name: key of `RULES`.
        skip: do not tune.
        on_share: called with the share of tuning that is done, and while another process tunes the same; what it
            raises ends it.

    Raises:
        UserError: the district engine cannot reproduce the site, no undamaged rule is stored and it is not to be tuned,
            or the cache cannot be written to.
    """
    return _find(name, RuleSettings.from_json, tune, train_years, task, cache, skip, on_share)


def find_planner(
    name: str,
    train_years: Sequence[Site],
    task: TaskSettings,
    cache: Path,
    skip: bool = False,
    on_share: Callable[[float], None] = lambda _: None,
) -> Planner:
    """The same for a planner; `name` is a key of `KINDS`. Raises SolverError as well: a plan was not found."""
    return _find(name, Planner.from_json, tune_planner, train_years, task, cache, skip, on_share)


T = TypeVar("T", RuleSettings, Planner)


def _find(
    name: str,
    read: Callable[[Any, int], T],
    work: Callable[..., T],
    train_years: Sequence[Site],
    task: TaskSettings,
    cache: Path,
    skip: bool,
    on_share: Callable[[float], None],
) -> T:
    """What is stored, or what is learned, which is then stored.

    Args:
        read: from JSON data and the number of buildings.
    """
    sites, buildings = train_years[:TUNING_YEARS], len(train_years[0].buildings)
    path = _learned_path(name, sites, task, cache)

    def of_site(data: Any) -> T:
        return read(data, buildings)

    found = _stored_learned(path, of_site)
    if found is None:
        if skip:
            raise UserError(
                f"{path.parent.parent} holds no tuned {path.stem} for these inputs, and none is to be tuned"
            )
        with only_process(path, lambda: on_share(0.0)):
            found = _stored_learned(path, of_site, tell=False)  # another process may have tuned it
            if found is None:
                found = work(name, sites, plain_task(task), on_share=on_share)
                write_json(path, found.to_json())
    return found


def _stored_learned(path: Path, read: Callable[[Any], T], tell: bool = True) -> T | None:
    """What was tuned before; None where there is nothing, or where it is damaged."""
    try:
        return read(read_json(path))
    except UserError as error:
        if tell and os.path.lexists(path):
            print(f"warning: {path} cannot be used ({error}); it is tuned again", file=sys.stderr, flush=True)
        return None


def rule_files(name: str, train_years: Sequence[Path], task: TaskSettings, cache: Path) -> tuple[Path, ...]:
    """The file that `learn` stores what it tunes in; none where a controller needs no tuning."""
    if CONTROLLERS.require(name).needs == "nothing":
        return ()
    return (_learned_path(name, [read_site(folder) for folder in train_years[:TUNING_YEARS]], task, cache),)


def _learned_path(name: str, sites: Sequence[Site], task: TaskSettings, cache: Path) -> Path:
    tariff = read_tariff(sites[0].path).model_dump(mode="json")
    prints = [site.fingerprint for site in sites]
    known = (RULES[name].ranges, Profiles._fields) if name in RULES else (RANGES, KINDS[name])
    key = digest(
        SCHEMA_VERSION, name, *known, prints, tariff, plain_task(task).model_dump(mode="json"), versions()["iquitos_rl"]
    )
    return cache / RULES_FOLDER / f"{name}-{key[:16]}.json"


def copy_hours(reference: Reference, cache: Path, output: Path) -> None:
    """Copy the stored hours of a reference into a run's folder, under the controller's name.

    Raises:
        UserError: they are gone, or the folder cannot be written to.
    """
    for kind in HOURS:
        source = store_of(reference, cache) / f"{kind}.csv"
        try:
            if kind == "timeseries" or source.is_file():
                write_text(output / f"{kind}_{reference.name}.csv", read_bytes(source).decode("utf-8"))
        except ValueError as error:
            raise UserError(f"{source} cannot be used: {error}") from None
