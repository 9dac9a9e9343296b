"""Which engine a run trains on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from iquitos_rl.baselines.guided import GuidedSite
from iquitos_rl.baselines.recording import record_years
from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import RunSettings
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.worker import WorkerEnv
from iquitos_rl.envs.vector import VectorEnv


class Engine(NamedTuple):
    name: str
    env: VectorEnv
    steps_per_year: int
    episode_steps: float
    """Transitions after which the episodes of all environments end in one step; infinite where they do not."""
    reason: str
    """Why this engine, in one sentence."""
    fingerprints: list[str]
    """Of each training year's files."""


def make_engine(
    settings: RunSettings, train_years: list[Path], device: torch.device, rule: RuleSettings | None = None
) -> Engine:
    """The training environments that the settings ask for.

    Args:
        rule: what actions count from, see `GuidedSite`; for the district engine only.

    Raises:
        UserError: the district engine is asked for by name and cannot reproduce the site.
    """
    sites = [read_site(folder) for folder in train_years]
    steps_per_year = sites[0].rows - 1
    fingerprints = [site.fingerprint for site in sites]
    unsupported = next((site.unsupported for site in sites if site.unsupported), ())
    if settings.engine == "citylearn" or (settings.engine == "auto" and unsupported):
        factory = partial(CityLearnSite, train_years, settings.task)
        factories: list[Callable[[], Any]] = [factory]
        simulators = min(settings.num_envs, psutil.cpu_count(logical=False) or 1)  # one simulator fills one core
        if simulators > 1:
            factories = [partial(WorkerEnv, factory, f"simulator {i}") for i in range(simulators)]
        asked = settings.engine == "citylearn"
        reason = "asked for" if asked else f"the district engine cannot reproduce {'; '.join(unsupported)}"
        reason += f"; {simulators} simulators, at most one for each core"
        vector, together = as_vector(factories, device), simulators * steps_per_year
        return Engine("citylearn", vector, steps_per_year, together, reason, fingerprints)
    site = DistrictSite(
        sites,
        settings.num_envs,
        settings.task,
        device=device,
        starts="random",
        episode_steps=settings.episode_hours,
        trajectory=None if rule is None else record_years(sites, rule, settings.task, device),
    )
    env: VectorEnv = site if rule is None else GuidedSite(site, rule, settings.reach, settings.beyond)
    return Engine("district", env, steps_per_year, inf, "it reproduces this site step by step", fingerprints)
