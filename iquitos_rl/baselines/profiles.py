"""What a site's hours are like on average: the only thing that rules and forecasts know beforehand.

Taken from the years that may be learned from. Shapes: B buildings, 24 hours of the day; kW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.stays import read_stays
from iquitos_rl.cases.site import Floats, Ints, Site


class Profiles(NamedTuple):
    """Mean power by hour of the day, each (24, B), and the seasons."""

    load: Floats
    pv: Floats
    vehicles: Floats  # every vehicle charging at full power on arrival
    season: Floats
    """(12, B) mean load of each calendar month as a multiple of the year's; 1 for a month that never occurs."""


PROFILE_ROWS = (24, 24, 24, 12)
"""Rows of each field of `Profiles`."""


def fit_profiles(sites: Sequence[Site]) -> Profiles:
    """Mean day of some years."""
    return Profiles(*(np.mean(of_years, axis=0) for of_years in zip(*map(_profiles, sites))))


def _profiles(site: Site) -> Profiles:
    month, energies = site.month - 1, (series(site, "load"), series(site, "pv"), arrival_charging(site))
    load, pv, vehicles = (_mean_by(site.hour, energy / site.hours_per_step, 24) for energy in energies)
    season = _mean_by(month, energies[0], 12) / np.maximum(energies[0].mean(0), 1e-9)
    return Profiles(load, pv, vehicles, np.where(np.isin(np.arange(12), month)[:, None], season, 1.0))


def _mean_by(group: Ints, values: Floats, count: int) -> Floats:
    """(count, B) mean of (T, B) values in each group; 0 for a group that never occurs."""
    total = np.zeros((count, values.shape[1]))
    np.add.at(total, group, values)
    return total / np.maximum(np.bincount(group, minlength=count), 1)[:, None]


def series(site: Site, name: str) -> Floats:
    """(T, B) of a field that every building has, such as "load"."""
    return np.stack([getattr(building, name) for building in site.buildings], axis=-1)


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
