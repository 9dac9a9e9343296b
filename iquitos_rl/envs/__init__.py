"""Environments: a site on CityLearn, on the batched district engine, and that engine with gymnasium's interface."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iquitos_rl.envs.citylearn.env import CityLearnSite
    from iquitos_rl.envs.district.env import DistrictSite
    from iquitos_rl.envs.gym.district import DistrictVectorEnv

__all__ = ["CityLearnSite", "DistrictSite", "DistrictVectorEnv"]
MODULES = {
    "CityLearnSite": "citylearn.env",
    "DistrictSite": "district.env",
    "DistrictVectorEnv": "gym.district",
}


def __getattr__(name: str) -> Any:
    # Only what is asked for is imported: torch and gymnasium take seconds.
    if name in MODULES:
        return getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
