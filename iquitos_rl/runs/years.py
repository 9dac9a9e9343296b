"""Which schema folders a run trains on and which it is evaluated on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from iquitos_rl.cases.presets import PRESETS, build_preset
from iquitos_rl.config import RunSettings
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import digest
from iquitos_rl.machine.interrupt import Check
from iquitos_rl.machine.locks import only_process
from iquitos_rl.registry import plugin_source
from iquitos_rl.version import __version__

EVALUATION_YEAR_SEED = 1000
"""Year seeds from here on are never trained on."""


class Years(NamedTuple):
    name: str
    """What the case is called in file names and tables."""
    train: list[Path]
    evaluate: Path
    unseen: bool
    """Whether the evaluation year was kept out of training."""


def preset_year(
    preset: str, year_seed: int, overrides: dict[str, Any], cache: Path, check: Check = lambda: None
) -> Path:
    """The folder of one year of a preset, built unless it is there already or another process builds it.

    Raises:
        UserError: the cache cannot be written to.
    """
    version = digest(preset, overrides, __version__, *plugin_source(PRESETS.require(preset).build))[:8]
    folder = cache / "cases" / f"{preset}-{version}" / f"year-{year_seed}"
    if not (folder / "schema.json").is_file():
        with only_process(folder, check):
            if not (folder / "schema.json").is_file():
                build_preset(preset, year_seed, folder, overrides)
    return folder


def prepare_years(settings: RunSettings, cache: Path, check: Check = lambda: None) -> Years:
    """Find or build the training years and the evaluation year of a run.

    Raises:
        UserError: the case does not exist, or settings of a preset are given for a folder.
    """
    if settings.years > EVALUATION_YEAR_SEED:
        raise UserError(f"years = {settings.years}: at most {EVALUATION_YEAR_SEED}, later seeds are for evaluation")
    evaluate = resolve_case(settings.eval_case) if settings.eval_case is not None else None
    if settings.case in PRESETS:
        year = partial(preset_year, settings.case, overrides=settings.case_settings, cache=cache, check=check)
        train = [year(seed) for seed in range(settings.years)]
        return Years(settings.case, train, evaluate or year(EVALUATION_YEAR_SEED), unseen=True)
    if settings.case_settings:
        raise UserError(f"case_settings belong to the presets {', '.join(PRESETS)}, not to the folder {settings.case}")
    folder = resolve_case(settings.case)
    return Years(folder.resolve().name, [folder], evaluate or folder, unseen=evaluate not in (None, folder))
