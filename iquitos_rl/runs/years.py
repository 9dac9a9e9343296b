"""Which schema folders a run trains on and which it is evaluated on."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from iquitos_rl.cases.presets import PRESETS, build_preset
from iquitos_rl.config import RunSettings
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import digest, folder_digest, move_aside, write_text
from iquitos_rl.machine.inputs import InputError, read_text
from iquitos_rl.machine.interrupt import Check, Interrupts
from iquitos_rl.machine.locks import only_process
from iquitos_rl.registry import plugin_source
from iquitos_rl.runs.jobs import Pool
from iquitos_rl.runs.request import refuse_mistyped
from iquitos_rl.version import __version__

EVALUATION_YEAR_SEED = 1000
"""Year seeds from here on are never trained on."""
MANY_YEARS = 4
"""From here on a second process helps to build them: it takes as long to start as some years take to build."""


class Years(NamedTuple):
    name: str
    """What the case is called in file names and tables."""
    train: list[Path]
    evaluate: Path
    unseen: bool
    """Whether the evaluation year was kept out of training."""


def require_case(case: str) -> None:
    """Raise UserError where there is no such preset, folder or dataset; a name close to a preset's is taken for it."""
    if case in PRESETS or os.path.exists(case):
        return
    refuse_mistyped(case)
    resolve_case(case)


def preset_folder(preset: str, overrides: Mapping[str, Any], cache: Path) -> Path:
    """Where the years of a preset are built."""
    version = digest(preset, overrides, __version__, *plugin_source(PRESETS.require(preset).build))[:8]
    return cache / "cases" / f"{preset}-{version}"


def preset_year(
    preset: str, year_seed: int, overrides: Mapping[str, Any], cache: Path, check: Check = lambda: None
) -> Path:
    """The folder of one year of a preset, built unless it is there already or another process builds it; built again if
    one of its files is not what was built.

    Raises:
        UserError: the cache cannot be written to.
    """
    folder = preset_folder(preset, overrides, cache) / f"year-{year_seed}"
    if not _is_whole(folder):
        with only_process(folder, check):
            if not _is_whole(folder):
                if os.path.lexists(folder):
                    print(f"warning: {folder} is damaged; it is built again", file=sys.stderr, flush=True)
                    move_aside(folder)
                build_preset(preset, year_seed, folder, overrides)
                write_text(_seal(folder), folder_digest(folder))
    return folder


def _seal(folder: Path) -> Path:
    """The file next to a built folder that holds its digest."""
    return folder.with_name(f"{folder.name}.sha256")


def _is_whole(folder: Path) -> bool:
    """Whether a year is there and, where its digest was written down, still what was built."""
    if not (folder / "schema.json").is_file():
        return False
    try:
        return read_text(_seal(folder)).strip() == folder_digest(folder)
    except InputError:
        return not os.path.lexists(_seal(folder))


def _build(
    preset: str, seeds: Sequence[int], overrides: Mapping[str, Any], cache: Path, interrupts: Interrupts
) -> bool:
    """Build years in another process; those that exist take no time."""
    with contextlib.redirect_stdout(io.StringIO()):
        for seed in seeds:
            preset_year(preset, seed, overrides, cache, interrupts.check)
            interrupts.check()
    return True


def prepare_years(settings: RunSettings, cache: Path, check: Check = lambda: None, helper: Pool | None = None) -> Years:
    """Find or build the training years and the evaluation year of a run.

    Args:
        helper: builds the later half of the years, where there are many.

    Raises:
        UserError: the case does not exist, or settings of a preset are given for a folder.
    """
    if settings.years > EVALUATION_YEAR_SEED:
        raise UserError(f"years = {settings.years}: at most {EVALUATION_YEAR_SEED}, later seeds are for evaluation")
    evaluate = resolve_case(settings.eval_case) if settings.eval_case is not None else None
    if settings.case in PRESETS:
        seeds, overrides = range(settings.years), settings.case_settings
        built = preset_folder(settings.case, overrides, cache)
        missing = [seed for seed in seeds if not (built / f"year-{seed}").is_dir()]
        if helper is not None and len(missing) >= MANY_YEARS:
            helper.submit("years", partial(_build, settings.case, missing[len(missing) // 2 :], overrides, cache))
        year = partial(preset_year, settings.case, overrides=overrides, cache=cache, check=check)
        evaluate = evaluate or year(EVALUATION_YEAR_SEED)
        return Years(settings.case, [year(seed) for seed in seeds], evaluate, unseen=True)
    if settings.case_settings:
        raise UserError(f"case_settings belong to the presets {', '.join(PRESETS)}, not to the folder {settings.case}")
    folder = resolve_case(settings.case)
    return Years(folder.resolve().name, [folder], evaluate or folder, unseen=evaluate not in (None, folder))
