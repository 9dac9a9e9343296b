"""Sites by gymnasium's id, `iquitos_rl/Site-v0`: one on CityLearn, many on the district engine."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iquitos_rl.cases.presets import PRESETS, build_preset
from iquitos_rl.envs.citylearn.env import CityLearnSite, resolve_case
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.gym.district import DistrictVectorEnv
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.errors import UserError


def make_site(case: str | Path, year_seed: int = 0, render_mode: None = None, **task: Any) -> CityLearnSite:
    """A site simulated by CityLearn, for `gymnasium.make`.

    Args:
        case: a preset, a schema folder, or the name of one of CityLearn's data sets.
        year_seed: of a preset's year.
        task: settings of `TaskSettings`.

    Raises:
        UserError: there is no such case, or a setting is wrong.
    """
    return CityLearnSite([case_folder(case, year_seed)], _settings(task))


def make_sites(
    num_envs: int,
    case: str | Path,
    year_seed: int = 0,
    render_mode: None = None,
    max_episode_steps: None = None,
    device: str = "cpu",
    **task: Any,
) -> DistrictVectorEnv:
    """Many sites as tensors on a device, for `gymnasium.make_vec`; the other arguments are those of `make_site`."""
    return DistrictVectorEnv(DistrictSite([case_folder(case, year_seed)], num_envs, _settings(task), device=device))


def case_folder(case: str | Path, year_seed: int) -> Path:
    """The folder of a case; that of a preset is built once for the process, and gone when it ends."""
    if str(case) in PRESETS:
        return _built(str(case), year_seed)
    if not Path(case).exists() and len(Path(case).parts) == 1:
        return resolve_case(case)
    if not (Path(case) / "schema.json").is_file():
        raise UserError(f"{case} is neither a folder with a schema.json nor a preset: there are {', '.join(PRESETS)}")
    return Path(case)


@cache
def _built(preset: str, year_seed: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="iquitos-rl-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build_preset(preset, year_seed, folder / preset, {})


def _settings(task: dict[str, Any]) -> TaskSettings:
    try:
        return TaskSettings(**task)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(f"{name}: {first['msg']}; TaskSettings has {', '.join(TaskSettings.model_fields)}") from None
