"""The district engine's entry among the engines."""

from __future__ import annotations

from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.engines import EngineEntry, Made, Wanted


def make(wanted: Wanted) -> Made:
    """Episodes of `episode_hours` that start at any hour of any year.

    Raises:
        UserError: a site needs what only CityLearn simulates.
    """
    site = DistrictSite(
        wanted.sites,
        wanted.num_envs,
        wanted.task,
        wanted.spec,
        device=wanted.device,
        starts="random",
        episode_steps=wanted.episode_hours,
        trajectory=wanted.trajectory,
    )
    return Made(site)


ENTRY = EngineEntry(cannot=lambda site: site.unsupported, make=make, guided=True)
