"""What a site's hours are like on average: the only thing that rules and forecasts know beforehand.

Taken from the years that may be learned from. Shapes: B buildings, 24 hours of the day; kW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.stays import read_stays
from iquitos_rl.cases.site import Floats, Site


class Profiles(NamedTuple):
    """Mean power by hour of the day, each (24, B), and the seasons."""

    load: Floats
    pv: Floats
    vehicles: Floats
    """Every vehicle charging at full power on arrival."""
    season: Floats
    """(12, B) mean load of each calendar month as a multiple of the year's; 1 for a month that never occurs."""


def fit_profiles(sites: Sequence[Site]) -> Profiles:
    """Mean day of some years."""
    load, pv, vehicles = (
        np.mean([_mean_day(site, energy(site)) for site in sites], axis=0) for energy in (_load, _pv, arrival_charging)
    )
    return Profiles(load, pv, vehicles, np.mean([_season(site) for site in sites], axis=0))


def _load(site: Site) -> Floats:
    return np.stack([building.load for building in site.buildings], axis=-1)


def _pv(site: Site) -> Floats:
    return np.stack([building.pv for building in site.buildings], axis=-1)


def arrival_charging(site: Site) -> Floats:
    """(T, B) kWh that vehicles would take if each charged at full power from its arrival until its wanted SOC."""
    stays = read_stays(site, guard=True)
    energy = np.zeros((site.rows, len(site.buildings)))
    arrival = np.where(np.isnan(stays.arrival), 0.5, stays.arrival)
    left = np.maximum(stays.required - arrival, 0) * stays.capacity / np.maximum(stays.gain, 1e-12)
    for step in range(int((stays.last - stays.first).max(initial=-1)) + 1):
        row = stays.first + step
        here = row <= stays.last
        taken = np.minimum(left, stays.charge_limit) * here
        np.add.at(energy, (row[here], stays.building[here]), taken[here])
        left = left - taken
    return energy


def _season(site: Site) -> Floats:
    """(12, B), see `Profiles`."""
    load, month = _load(site), site.month - 1
    total = np.zeros((12, load.shape[1]))
    np.add.at(total, month, load)
    rows = np.bincount(month, minlength=12)[:, None]
    return np.where(rows > 0, total / np.maximum(rows, 1) / np.maximum(load.mean(0), 1e-9), 1.0)


def _mean_day(site: Site, energy: Floats) -> Floats:
    """(24, B) kW of a series (T, B) in kWh per step; hours that never occur are 0."""
    total = np.zeros((24, energy.shape[1]))
    np.add.at(total, site.hour, energy / site.hours_per_step)
    return total / np.maximum(np.bincount(site.hour, minlength=24), 1)[:, None]
