"""Observation columns of a site's own forecasts: load and PV of each building some hours ahead."""

from __future__ import annotations

from iquitos_rl.cases.forecasts import Kind, site_forecast
from iquitos_rl.cases.site import Floats, Site

HOURS = (1, 3, 6, 12, 24, 48)
"""Leads that an agent sees, of the tables that planners see whole. Prices need none: tariffs are published."""
NAMES = tuple(f"{kind}_ahead_{hours}" for kind in ("load", "pv") for hours in HOURS)


def ahead_columns(site: Site, kind: Kind) -> list[dict[str, Floats]]:
    """(T,) kWh of each column, building by building, by the names of `NAMES`.

    Raises:
        UserError: see `site_forecast`.
    """
    found = site_forecast(site, kind)
    lead = [max(round(hours / site.hours_per_step), 1) - 1 for hours in HOURS]
    return [
        dict(zip(NAMES, (table[:, k, b].astype(float) for table in (found.load, found.pv) for k in lead)))
        for b in range(len(site.buildings))
    ]
