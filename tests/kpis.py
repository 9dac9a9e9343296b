"""The annual KPIs that follow from the meter alone, as CityLearn's `evaluate()` defines them."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.site import Floats, Site

CANCELS = 0.01


def kpi_rows(site: Site, net: Floats) -> dict[tuple[str, str], float]:
    """(building or "District", row of `evaluate()`) to its value, for net consumption (T - 1, B) in kWh.

    Each is a ratio to the building without battery and without any charging, 1 where both are nothing; the district's
    is the mean of its buildings' (`internal/kpi.py`). Rows whose ratio does not exist are left out, and those whose
    denominator is next to nothing beside what it is the sum of: CityLearn adds in single precision.
    """
    found: dict[tuple[str, str], float] = {}
    for b, building in enumerate(site.buildings):
        idle = (building.load - building.pv)[:-1]
        price, carbon = building.price[:-1], building.carbon[:-1]
        totals = [
            {
                "electricity_consumption_total": float(own.clip(min=0).sum()),
                "zero_net_energy": float(own.sum()),
                "cost_total": float((own.clip(min=0) * price).sum()),
                "carbon_emissions_total": float((own * carbon).clip(min=0).sum()),
            }
            for own in (net[:, b], idle)
        ]
        if abs(idle.sum()) < CANCELS * np.abs(idle).sum():
            del totals[1]["zero_net_energy"]
        for name, idle_total in totals[1].items():
            if idle_total or not totals[0][name]:
                found[building.name, name] = totals[0][name] / idle_total if idle_total else 1.0
    for name in {name for _, name in found}:
        values = [value for (_, row), value in found.items() if row == name]
        if len(values) == len(site.buildings):
            found["District", name] = float(np.mean(values))
    return found
