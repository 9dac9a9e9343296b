"""What a comparison compares, fixed before anything runs: settings, runs and years."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.comparison.judged_years import JudgedYears, claim
from iquitos_rl.config import RunSettings, Settings, compared_agents, load_settings
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.inputs import InputError, read_json, read_typed
from iquitos_rl.runs.folder import NO_DIFFERENCE, SUMMARY, differences, has_failures, read_run
from iquitos_rl.runs.session import OUTPUTS
from iquitos_rl.runs.years import EVALUATION_YEAR_SEED, prepare_years, preset_year

DESCRIPTION = "comparison.json"


@dataclass(frozen=True)
class ComparisonRequest:
    """What a comparison is asked to do; `config`, `flags` and `sets` are those of a training's `Request`."""

    agents: tuple[str, ...] = ()
    """Names of the registry; none means every agent with a shipped YAML file."""
    seeds: int = 5
    """Trainings of each agent, with seeds 0, 1, ..."""
    eval_years: int = 3
    """Years of a preset to evaluate on."""
    eval_cases: tuple[str, ...] = ()
    """Schema folders to evaluate on instead."""
    judged: Path | None = None
    """File of years to evaluate on instead, see `judged_years.py`."""
    again: bool = False
    """Evaluate on them although it was done with other settings."""
    jobs: int = 1
    """Processes that train and simulate at the same time."""
    cluster: str | None = None
    """Address of a Ray cluster whose nodes do it instead, or `auto`."""
    config: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    output: Path | None = None
    command: str = ""
    """What the user typed: it resumes the comparison, and the report shows it."""


@dataclass(frozen=True)
class Comparison:
    output: Path
    cache: Path
    case: str
    """What it is called in tables."""
    settings: Settings
    """Of each agent's first seed; the others differ in the seed alone."""
    seeds: int
    train_years: list[Path]
    years: dict[str, Path]
    """Label to folder of each year that is judged; the first is the one that training runs are judged on."""
    fingerprints: dict[str, str]
    """Label to fingerprint of each of these years, see `Site`."""
    unseen: bool
    """False for a folder that is trained on and, having no other year, judged on too."""
    warnings: tuple[str, ...]
    """About the data of the years."""

    @property
    def objective(self) -> Objective:
        """The bill that all are judged by."""
        return Objective(read_tariff(next(iter(self.years.values()))), self.settings.run.task.objective)

    @property
    def folders(self) -> dict[str, Path]:
        """Where the folders lie that settings name."""
        runs = [own.run for own in self.settings.agents.values()]
        cases = [case for run in runs for case in (run.case, run.eval_case, *run.more_cases) if case is not None]
        found = {case: resolve_case(case).absolute() for case in cases if case not in PRESETS}
        return found | {run.continue_from: Path(run.continue_from).absolute() for run in runs if run.continue_from}

    def run(self, name: str, seed: int) -> Path:
        """Folder of a training run."""
        return self.output / f"{name}-seed-{seed}"

    def dump(self, name: str, seed: int) -> dict[str, Any]:
        """Settings of a training run."""
        return {**self.settings.agents[name].dump(), "seed": seed}

    def is_finished(self, name: str, seed: int) -> bool:
        """Whether a training run has come to its end."""
        folder = self.run(name, seed)
        return (folder / SUMMARY).is_file() and not has_failures(folder)


def plan(request: ComparisonRequest) -> Comparison:
    """Put the settings together, and find or build all years.

    Raises:
        UserError: an agent or a setting is unknown, there is to be none of something, the case does not exist, or
            a year's data are wrong.
    """
    agents = compared_agents(request.agents)
    for name, most in (("seeds", 10_000), ("eval_years", 1_000), ("jobs", 1_024)):
        if not 1 <= getattr(request, name) <= most:
            raise UserError(f"--{name.replace('_', '-')} {getattr(request, name)}: at least 1 and at most {most}")
    flags = dict(request.flags)
    if request.eval_cases:
        flags["eval_case"] = request.eval_cases[0]
    if request.jobs > 1 and request.cluster is not None:
        raise UserError(
            "--jobs and --cluster: a cluster's nodes run as many steps as they have cores; give one of them"
        )
    if request.jobs > 1 or request.cluster is not None:
        flags["threads"] = 1  # each process has a core
    settings = load_settings(agents, request.config, flags, request.sets)
    first = settings.run
    cache = (OUTPUTS if request.output is None else request.output.parent) / "cache"
    judged = {} if request.judged is None else _judged_years(request, request.judged, first, cache)
    if judged:
        # A training evaluates its policy on the first of them, as it does with --eval-cases.
        flags["eval_case"] = str(next(iter(judged.values())))
        settings = load_settings(agents, request.config, flags, request.sets)
        first = settings.run
    output = request.output or OUTPUTS / f"compare-{Path(first.case).name}"
    train, years = prepare_years(first, cache), judged or years_to_judge(request, first, cache)
    unseen = not set(years.values()) & set(train.train)
    if request.eval_cases and not unseen:
        raise UserError("--eval-cases: a year that is trained on cannot judge")
    reports = {folder: check_case(folder) for folder in years.values()}
    for folder, report in reports.items():
        if report.errors:
            raise UserError(f"{folder}: {report.errors[0]}")
    warnings = tuple(dict.fromkeys(text for report in reports.values() for text in report.warnings))
    prints = {label: read_site(folder).fingerprint for label, folder in years.items()}
    if not unseen:
        text = "agents are judged on the data that they were trained on; name other data with --eval-cases"
        print(f"warning: {text}", flush=True)
        warnings = (text, *warnings)
    if request.judged is not None:
        own = {name: {**agent.dump(), "eval_case": None} for name, agent in settings.agents.items()}
        said = claim(request.judged, " ".join((train.name, *request.eval_cases)), own, request.again)
        warnings = warnings if said is None else (said, *warnings)
    folders = [folder.absolute() for folder in train.train]
    places = {label: folder.absolute() for label, folder in years.items()}
    return Comparison(output, cache, train.name, settings, request.seeds, folders, places, prints, unseen, warnings)


def _judged_years(request: ComparisonRequest, path: Path, settings: RunSettings, cache: Path) -> dict[str, Path]:
    presets, seeds = request.eval_cases or (settings.case,), read_typed(path, JudgedYears).seeds
    for case in presets:
        if case not in PRESETS:
            raise UserError(f"--judged: its years are drawn from a preset, and {case} is none")
    every = [(case, n) for case in presets for n in seeds]
    return {f"{case}-{n}": preset_year(case, n, settings.case_settings, cache) for case, n in every}


def years_to_judge(request: ComparisonRequest, settings: RunSettings, cache: Path) -> dict[str, Path]:
    """Label to folder of each year to judge on: the folders and the presets' years that were asked for, else the unseen
    years of the preset that is trained on, or the folder."""
    numbers = range(EVALUATION_YEAR_SEED, EVALUATION_YEAR_SEED + request.eval_years)
    if request.eval_cases:
        presets = [(case, n) for case in request.eval_cases if case in PRESETS for n in numbers]
        years = {f"{case}-{n}": preset_year(case, n, settings.case_settings, cache) for case, n in presets}
        folders = [resolve_case(case) for case in request.eval_cases if case not in PRESETS]
        years |= {folder.resolve().name: folder for folder in folders}
        if len(years) < len(presets) + len(folders):
            raise UserError("--eval-cases: two folders have the same name, by which years are told apart")
        return years
    if settings.case in PRESETS:
        return {f"year-{n}": preset_year(settings.case, n, settings.case_settings, cache) for n in numbers}
    folder = resolve_case(settings.eval_case or settings.case)
    return {folder.resolve().name: folder}


def open_comparison(comparison: Comparison) -> None:
    """Create the output folder, or make sure that it is this comparison's own.

    More agents, seeds or years may be asked for than before.

    Raises:
        UserError: it holds something else, or runs with other settings.
    """
    output, path = comparison.output, comparison.output / DESCRIPTION
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is not a folder")
    if output.is_dir() and any(output.iterdir()):
        try:
            known = read_json(path)["case"]
        except (InputError, KeyError, TypeError):
            raise UserError(f"--output {output} holds something, but no comparison: choose another folder") from None
        if known != comparison.case:
            raise UserError(f"--output {output} is a comparison on {known}, not on {comparison.case}")
    for name in comparison.settings.agents:
        for seed in range(comparison.seeds):
            found, wanted = read_run(comparison.run(name, seed)), comparison.dump(name, seed)
            if found and (changes := differences(found.settings.get(name, {}), wanted, but=NO_DIFFERENCE)):
                text = f"{found.folder} is a run with other settings ({'; '.join(changes)})"
                raise UserError(f"{text}: choose another --output")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be created: {error.strerror}") from None
    write_json(path, {"case": comparison.case})
