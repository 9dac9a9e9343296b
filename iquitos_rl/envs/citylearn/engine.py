"""CityLearn's entry among the engines."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import psutil

from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.engines import EngineEntry, Made, Wanted
from iquitos_rl.envs.gym.adapter import as_vector
from iquitos_rl.envs.gym.worker import WorkerEnv


def make(wanted: Wanted) -> Made:
    """Whole years, one simulator a process where there are several."""
    factory = partial(CityLearnSite, [site.path for site in wanted.sites], wanted.task, wanted.spec)
    simulators = min(wanted.num_envs, psutil.cpu_count(logical=False) or 1)  # one simulator fills one core
    factories: list[Callable[[], Any]] = [factory]
    if simulators > 1:
        factories = [partial(WorkerEnv, factory, f"simulator {i}") for i in range(simulators)]
    together = simulators * (wanted.sites[0].rows - 1)
    note = f"{simulators} simulators, at most one for each core"
    return Made(as_vector(factories, wanted.device), together, note)


ENTRY = EngineEntry(cannot=lambda site: (), make=make)
