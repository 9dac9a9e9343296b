"""Which schema folders a run trains on and which it is evaluated on."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from iquitos_rl.cases.presets import PRESETS, build_preset
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.cases.tariff import TARIFF_FILE, read_tariff
from iquitos_rl.config import RunSettings
from iquitos_rl.envs.citylearn.env import resolve_case
from iquitos_rl.errors import UserError
from iquitos_rl.machine.bars import share_bar
from iquitos_rl.machine.elsewhere import place_of
from iquitos_rl.machine.files import digest, folder_digest, move_aside, new_folder, write_json, write_text
from iquitos_rl.machine.inputs import InputError, read_json, read_text
from iquitos_rl.machine.interrupt import Check, Interrupts
from iquitos_rl.machine.locks import only_process
from iquitos_rl.registry import plugin_source
from iquitos_rl.runs.executor import Executor, Step
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
    if case in PRESETS or os.path.exists(place_of(case)):
        return
    refuse_mistyped(case)
    resolve_case(case)


def preset_folder(preset: str, overrides: Mapping[str, Any], cache: Path) -> Path:
    """Where the years of a preset are built."""
    known = PRESETS.require(preset)
    version = digest(preset, overrides, __version__, known.version, *plugin_source(known.build))[:8]
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


def prepare_years(
    settings: RunSettings, cache: Path, check: Check = lambda: None, helper: Executor | None = None
) -> Years:
    """Find or build the training years and the evaluation year of a run.

    Args:
        helper: builds the later half of the years, where there are many.

    Raises:
        UserError: the case does not exist, or settings of a preset are given for a folder.
    """
    if settings.years > EVALUATION_YEAR_SEED:
        raise UserError(f"years = {settings.years}: at most {EVALUATION_YEAR_SEED}, later seeds are for evaluation")
    evaluate = judged_year(settings, cache, check) if settings.eval_case is not None else None
    if settings.more_cases and any(case in PRESETS for case in (settings.case, *settings.more_cases)):
        raise UserError("a preset makes its own training years (--set years=); several cases are for folders")
    if settings.case in PRESETS:
        seeds, overrides = range(settings.years), settings.case_settings
        built = preset_folder(settings.case, overrides, cache)
        missing = [seed for seed in seeds if not (built / f"year-{seed}").is_dir()]
        if helper is not None and len(missing) >= MANY_YEARS:
            later = missing[len(missing) // 2 :]
            helper.submit("years", Step(partial(_build, settings.case, later, overrides, cache)))
        wanted = [*([] if evaluate else [EVALUATION_YEAR_SEED]), *seeds]
        with share_bar("build the years", check) as on_share:
            found: dict[int, Path] = {}
            for seed in wanted:
                if missing:
                    on_share(len(found) / len(wanted))
                found[seed] = preset_year(settings.case, seed, overrides, cache, check)
            if missing:
                on_share(1.0)
        evaluate = evaluate or found[EVALUATION_YEAR_SEED]
        return Years(settings.case, [found[seed] for seed in seeds], evaluate, unseen=True)
    if settings.case_settings:
        raise UserError(f"case_settings belong to the presets {', '.join(PRESETS)}, not to the folder {settings.case}")
    folders = [resolve_case(case) for case in (settings.case, *settings.more_cases)]
    judged, train = evaluate or folders[-1], equal_years(folders, cache)
    name = folders[0].resolve().name
    if len(folders) > 1 and len({folder.resolve().parent for folder in folders}) == 1:
        name = folders[0].resolve().parent.name
    return Years(name, train, judged, unseen=judged.resolve() not in [folder.resolve() for folder in folders])


def judged_year(settings: RunSettings, cache: Path, check: Check = lambda: None) -> Path:
    """The folder that `eval_case` names; of a preset, such as one with shifted years, the first year not trained on."""
    case = str(settings.eval_case)
    if case in PRESETS:
        return preset_year(case, EVALUATION_YEAR_SEED, settings.case_settings, cache, check)
    return resolve_case(case)


def equal_years(folders: Sequence[Path], cache: Path) -> list[Path]:
    """Folders of years that have the same number of rows: of longer ones a copy without the last rows.

    Raises:
        UserError: the steps have different lengths, or the cache cannot be written to.
    """
    sites = [read_site(folder) for folder in folders]
    for site in sites[1:]:
        if site.seconds_per_time_step != sites[0].seconds_per_time_step:
            raise UserError(f"{site.path} has steps of another length than {sites[0].path}")
    rows = min(site.rows for site in sites)
    return [site.path if site.rows == rows else _cut(site, rows, cache) for site in sites]


def _cut(site: Site, rows: int, cache: Path) -> Path:
    """A copy of a year without its last rows."""
    hours = (site.rows - rows) * site.hours_per_step
    print(f"{site.path}: the last {hours:g} hours are left out of training, since another year is shorter", flush=True)
    tariff = read_tariff(site.path)
    name = digest(site.fingerprint, rows, tariff.model_dump(mode="json"), __version__)[:16]
    target = cache / "cases" / f"cut-{name}"
    with only_process(target):
        if not target.is_dir():
            with new_folder(target) as folder:
                shutil.copytree(site.path, folder, dirs_exist_ok=True)
                schema = read_json(folder / "schema.json")
                schema["simulation_end_time_step"] -= site.rows - rows
                write_json(folder / "schema.json", schema)
                if isinstance(tariff.export_price, tuple):
                    shorter = tariff.model_copy(update={"export_price": tariff.export_price[:rows]})
                    write_json(folder / TARIFF_FILE, shorter.model_dump(mode="json"))
    return target
