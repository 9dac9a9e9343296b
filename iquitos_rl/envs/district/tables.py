"""Arrays that the physics reads row by row, and the check that sites can be stacked as years of one site.

T data rows, B buildings, N sockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass

import numpy as np

from iquitos_rl.cases.schema.unsupported import PICKLES
from iquitos_rl.cases.site import Floats, Ints, Site
from iquitos_rl.errors import UserError

EMPTY, STAYS = 3.0, 2.0
"""Codes of a socket in a row: empty, or a vehicle stays. An SOC in [0, 1] is that of an arriving vehicle."""
SERIES = (
    *("path", "name", "fingerprint", "unsupported", "drift", "month", "hour", "day_type"),
    *("load", "pv", "price", "price_predicted", "carbon", "weather"),
    *("vehicle", "departure", "required_soc", "arrival_soc", "departs"),
    *("cycle", "profiles", "duration", "logistic"),
    *("demand", "cop", "series", "outage", "hvac_mode", "indoor_temperature", "set_points", "occupants"),
)
"""Fields that may differ between the years of one site."""


def check_sites(sites: Sequence[Site]) -> None:
    """Raise UserError if the engine does not support a site, or if the sites differ in more than their data."""
    if not sites:
        raise UserError("no site was given")
    for site in sites:
        if site.unsupported:
            first, *more = site.unsupported
            frozen = any(feature.endswith(("autosize", PICKLES)) for feature in site.unsupported)
            way = "`iquitos-rl case freeze` writes them down, or use" if frozen else "use"
            raise UserError(
                f"{site.path}: the district engine cannot reproduce {first}{f' and {len(more)} more' if more else ''}: "
                f"{way} the citylearn engine"
            )
        if difference := _difference(sites[0], site, "site"):
            raise UserError(f"{site.path} and {sites[0].path} cannot be years of one site: they differ in {difference}")


def _difference(a: object, b: object, name: str) -> str | None:
    """Name of the first structural field in which two parts of sites differ, or None."""
    if is_dataclass(a) and is_dataclass(b):
        names = [field.name for field in fields(a) if field.name not in SERIES]
        parts = [(getattr(a, part), getattr(b, part), f"{name}.{part}") for part in names]
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        parts = [(x, y, f"{name}[{k}]") for k, (x, y) in enumerate(zip(a, b))]
    else:
        same = np.array_equal(a, b) if isinstance(a, np.ndarray) and isinstance(b, np.ndarray) else a == b
        return None if same else name
    return next(filter(None, (_difference(*part) for part in parts)), None)


def energy_rows(site: Site) -> Floats:
    """(T, 2 B) load of every building, then PV of every building, kWh per step."""
    return np.stack([*(b.load for b in site.buildings), *(b.pv for b in site.buildings)], axis=1)


def code_rows(site: Site) -> Floats:
    """(T, N) `EMPTY`, `STAYS`, or the SOC that the data prescribe."""
    columns = [
        np.where(c.vehicle < 0, EMPTY, np.where(np.isnan(c.arrival_soc), STAYS, c.arrival_soc)) for _, c in site.sockets
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((site.rows, 0))


def vehicle_rows(site: Site) -> Ints:
    """(T, N) index of the connected vehicle, -1 where there is none."""
    columns = [charger.vehicle for _, charger in site.sockets]
    return np.stack(columns, axis=1) if columns else np.zeros((site.rows, 0), dtype=np.int64)


def drift_rows(site: Site, owners: list[int] | None) -> Floats:
    """(T, W) factor on the SOC of each vehicle that is away, NaN where it is not; W as in `physics.State`.

    Args:
        owners: the vehicle of each socket, see `own_vehicles`.
    """
    drift = np.full((site.rows, len(site.vehicles)), np.nan) if site.drift is None else site.drift
    nobody = np.full((site.rows, 1), np.nan)
    return np.hstack([drift, nobody]) if owners is None else np.hstack([drift, nobody])[:, owners]


def own_vehicles(vehicle: Ints, count: int) -> list[int] | None:
    """The vehicle of each socket (-1: none) if vehicles and sockets pair off one to one for the whole data, else None.

    Args:
        vehicle: (rows, N).
        count: number of vehicles.
    """
    owners = [np.unique(column[column >= 0]) for column in vehicle.T]
    taken = np.concatenate([*owners, np.zeros(0, dtype=np.int64)])
    if any(len(owner) > 1 for owner in owners) or len(np.unique(taken)) < len(taken):
        return None
    return [int(owner[0]) if len(owner) else -1 for owner in owners]
