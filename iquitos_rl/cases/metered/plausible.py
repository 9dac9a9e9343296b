"""Whether imported series can be true: warnings with the likely cause."""

from __future__ import annotations

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.presets import CaseSettings
from iquitos_rl.cases.iquitos.solar import Sun
from iquitos_rl.cases.site import Floats

FACTORS = {
    1000.0: "1,000 times too high: is it in W or Wh?",
    0.001: "1,000 times too low: is it in MW or MWh?",
}
LARGEST_RATIO, SMALLEST_RATIO = 20.0, 1 / 500
"""Mean load over the power of PV or battery: beyond, one of them is probably in another unit."""


def load_warnings(load: Floats, calendar: Calendar, settings: CaseSettings) -> list[str]:
    """Warnings about a load, kWh per row."""
    warnings = []
    power = load / (calendar.seconds / 3600)
    mean, peak = float(power.mean()), float(power.max())
    sizes = {"PV": settings.pv.dc_kw, "battery": settings.bess.power_kw if settings.bess.capacity_kwh else 0.0}
    known = {name: kw for name, kw in sizes.items() if kw > 0}
    if known and mean > 0:
        name, kw = max(known.items(), key=lambda item: item[1])
        for factor, cause in FACTORS.items():
            ratio = mean / kw
            if (factor > 1 and ratio > LARGEST_RATIO) or (factor < 1 and ratio < SMALLEST_RATIO):
                warnings.append(
                    f"load of {mean:,.{1 if mean >= 1 else 4}f} kW on average at a site with {name} of {kw:g} kW: "
                    f"perhaps {cause}"
                )
    if mean > 0 and peak > 100 * mean:
        hour = str(calendar.begin[int(power.argmax())])
        warnings.append(
            f"load peaks at {peak:,.4g} kW, {peak / mean:,.0f} times its mean, at {hour}: is it a reading error?"
        )
    if mean > 0 and np.ptp(power) < 1e-9:
        warnings.append(f"load is {mean:g} kW in every row: is it the right column?")
    if not load.any():
        warnings.append("load is zero throughout")
    return warnings


def pv_warnings(pv_kw: Floats, calendar: Calendar, sun: Sun, settings: CaseSettings) -> list[str]:
    """Warnings about metered PV, mean kW of each row, against the clear sky at the site."""
    warnings = []
    total = float(pv_kw.sum())
    if total <= 0:
        return ["PV is zero throughout"]
    night = float(pv_kw[sun.zenith > 97].sum()) / total
    if night > 0.02:
        warnings.append(f"{100 * night:.0f} % of the PV falls in the night: is its time zone another, or is it no PV?")
    weight = float((sun.clear_ghi).sum())
    if weight > 0:
        hours = calendar.clock_hours
        centre, noon = float((pv_kw * hours).sum() / total), float((sun.clear_ghi * hours).sum() / weight)
        if abs(centre - noon) > 1.3:
            warnings.append(
                f"PV is centred on {centre:.1f} h, the sun here on {noon:.1f} h: is its time zone another (--clock "
                "pv=utc)?"
            )
    dc = settings.pv.dc_kw
    clear = weight * calendar.seconds / 3.6e6
    per_kw = total * calendar.seconds / 3600 / max(dc, 1e-9)
    for factor, cause in FACTORS.items():
        if 0.1 * factor < per_kw / max(clear, 1e-9) < 1.6 * factor:
            warnings.append(f"PV yields {per_kw:,.1f} kWh per kW of its nameplate, {cause}")
            return warnings
    if per_kw > 1.4 * clear:
        warnings.append(
            f"PV yields {per_kw:,.0f} kWh per kW of its nameplate, where a clear sky gives {clear:,.0f} kWh/m2: is "
            f"pv.dc_kw={dc:g} right?"
        )
    elif pv_kw.max() > 1.05 * dc:
        warnings.append(f"PV peaks at {pv_kw.max():,.4g} kW, above the nameplate pv.dc_kw={dc:g}")
    return warnings
