"""What a comparison compares, fixed before anything runs: settings, runs and years."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.presets import PRESETS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import Settings
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.envs.task.objective import Objective, read_tariff
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_json
from iquitos_rl.runs.folder import SUMMARY, read_run
from iquitos_rl.runs.resume import differences, has_failures
from iquitos_rl.runs.years import EVALUATION_YEAR_SEED, prepare_years, preset_year

DESCRIPTION = "comparison.json"


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
    warnings: tuple[str, ...]
    """About the data of the years."""

    @property
    def objective(self) -> Objective:
        """The bill that all are judged by."""
        return Objective(read_tariff(next(iter(self.years.values()))), self.settings.run.task.objective)

    def run(self, name: str, seed: int) -> Path:
        """Folder of a training run."""
        return self.output / f"{name}-seed-{seed}"

    def dump(self, name: str, seed: int) -> dict[str, Any]:
        """Settings of a training run."""
        return {**self.settings.agents[name].dump(), "seed": seed}


def plan(
    output: Path, cache: Path, settings: Settings, seeds: int, eval_years: int, eval_cases: list[str]
) -> Comparison:
    """Find or build all years.

    Raises:
        UserError: the case does not exist or has no unseen years, or a year's data are wrong.
    """
    first = settings.run
    train = prepare_years(first, cache)
    if eval_cases:
        folders = [resolve_case(case) for case in eval_cases]
        years = {folder.resolve().name: folder for folder in folders}
        if len(years) < len(folders):
            raise UserError("--eval-cases: two folders have the same name, by which years are told apart")
    elif first.case in PRESETS:
        numbers = range(EVALUATION_YEAR_SEED, EVALUATION_YEAR_SEED + eval_years)
        years = {f"year-{n}": preset_year(first.case, n, first.case_settings, cache) for n in numbers}
    else:
        raise UserError(f"--case {first.case} is no preset, which makes years of its own: name them with --eval-cases")
    if set(years.values()) & set(train.train):
        raise UserError("--eval-cases: a year that is trained on cannot judge")
    reports = {label: check_case(folder) for label, folder in years.items()}
    for label, report in reports.items():
        if report.errors:
            raise UserError(f"{years[label]}: {report.errors[0]}")
    warnings = tuple(dict.fromkeys(text for report in reports.values() for text in report.warnings))
    prints = {label: read_site(folder).fingerprint for label, folder in years.items()}
    return Comparison(output, cache, train.name, settings, seeds, train.train, years, prints, warnings)


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
            known = json.loads(path.read_text(encoding="utf-8"))["case"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"--output {output} holds something, but no comparison: choose another folder") from None
        if known != comparison.case:
            raise UserError(f"--output {output} is a comparison on {known}, not on {comparison.case}")
    for name in comparison.settings.agents:
        for seed in range(comparison.seeds):
            _refuse_other_settings(comparison.run(name, seed), name, comparison.dump(name, seed))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be created: {error.strerror}") from None
    write_json(path, {"case": comparison.case})


def _refuse_other_settings(folder: Path, name: str, wanted: dict[str, Any]) -> None:
    found = read_run(folder)
    if found is None:
        return
    own = found.settings.get(name, {})
    changes = differences(own, wanted)
    changes += [f"{k} was {own.get(k)} and is {wanted[k]}" for k in ("steps", "episodes") if own.get(k) != wanted[k]]
    if changes:
        raise UserError(f"{folder} is a run with other settings ({'; '.join(changes)}): choose another --output")


def is_finished(folder: Path) -> bool:
    """Whether a training run has come to its end."""
    return (folder / SUMMARY).is_file() and not has_failures(folder)
