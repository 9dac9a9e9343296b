"""A street of buildings of one kind and different sizes, with PV and batteries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from sites import plain_battery, site_of

from iquitos_rl.cases.site import Site
from iquitos_rl.envs.task.objective import Tariff

HOURS = 24 * 8 + 1


def street(folder: Path, count: int, first: int = 0, without_battery: tuple[int, ...] = ()) -> Site:
    """`count` buildings, the numbers `first` and those after it; equal numbers are equal buildings."""
    hours = np.arange(HOURS)
    price = 0.2 + 0.1 * (hours % 24 >= 16)
    site = site_of(folder, [1.0] * HOURS, price.tolist(), plain_battery(6.0, 3.0, 0.5), Tariff())
    buildings = []
    for n in range(first, first + count):
        rng = np.random.default_rng(n)
        size = rng.uniform(0.5, 3.0)
        battery = None if n in without_battery else plain_battery(4.0 + n, 2.0 + rng.uniform(), 0.5)
        sun = np.clip(np.sin((hours % 24 - 6) * np.pi / 12), 0, None)
        buildings.append(
            replace(
                site.buildings[0],
                name=f"House {n}",
                load=size * rng.uniform(0.5, 1.5, HOURS),
                pv=rng.uniform(0.5, 2.0) * sun,
                battery=battery,
                battery_action=battery is not None,
                weather={"outdoor_dry_bulb_temperature": 20 + 5 * sun},
            )
        )
    return replace(site, buildings=tuple(buildings), fingerprint=f"{count} from {first}")
