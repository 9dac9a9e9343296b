"""Load and PV of an owner's site on the rows of its case."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iquitos_rl.cases.iquitos.build import modelled_pv, performance_ratio
from iquitos_rl.cases.iquitos.calendar import Calendar, Times
from iquitos_rl.cases.iquitos.presets import CaseSettings
from iquitos_rl.cases.iquitos.solar import Sun, Weather
from iquitos_rl.cases.metered.grid import Series, in_other_year
from iquitos_rl.cases.metered.own_files import Files, Gathered, zone_of
from iquitos_rl.cases.metered.period import Period, fitted, whole_days
from iquitos_rl.cases.metered.plausible import pv_warnings
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError


def metered_pv(
    site: Gathered, period: Period, utc: Times, standard: float, files: Files, notes: list[str]
) -> Floats | None:
    """(T,) metered mean kW, None without a PV series."""
    if site.pv is None or files.pv is None:
        return None
    zone, hours = zone_of(site), site.pv.seconds / 3600
    own = whole_days(site.pv, zone)
    if own.first <= period.first and own.end >= period.end:
        return fitted(site.pv, period, files.pv.name, notes) / hours
    values = in_other_year(site.pv, utc, np.timedelta64(round(standard * 3600), "s"))
    if values is None:
        raise UserError(
            f"{files.pv.name}: covers {own.first} to {own.end} UTC, the load {period.first} to {period.end} UTC; they "
            "share fewer than two days, and it is no whole typical year"
        )
    load = files.load.name if files.load else "the sessions"
    notes.append(f"{files.pv.name}: other year than {load}, matched by month, day and hour (a typical year)")
    return values / hours


def own_load(
    site: Gathered, load: Series, period: Period, pv_kw: Floats | None, step: int, files: Files, notes: list[str]
) -> Floats:
    """(T,) kWh of the load; where the meter is net, PV is added to it."""
    name = files.load.name if files.load else "load"
    values = fitted(load, period, name, notes)
    lowest = float(values.min())
    if not site.net:
        if lowest < 0:
            at = str(zone_of(site).local(period.first + np.array([int(values.argmin()) * step], "timedelta64[s]"))[0])
            raise UserError(
                f"{name}: the load is negative ({lowest:g} kWh at {at.replace('T', ' ')}); if it is net of PV, give "
                "--pv FILE and --quantity load=net"
            )
        return values
    if pv_kw is None:
        if lowest < 0:
            raise UserError(
                f"{name}: the meter is net of PV ({lowest:g} kWh at least); give the PV with --pv FILE, then the load "
                "is net plus PV"
            )
        notes.append(f"{name}: a net meter that never exports, without PV: taken as the load")
        return values
    total = values + pv_kw * step / 3600
    below = total < 0
    if below.any():
        worst = float(total.min())
        if below.mean() > 0.02 or worst < -0.05 * float(np.abs(values).max()):
            raise UserError(
                f"{name}: net plus PV is negative in {int(below.sum())} rows ({worst:g} kWh at least): is the net "
                "meter positive for import, is the PV complete, and are both in the same time zone?"
            )
        notes.append(f"{name}: {int(below.sum())} slightly negative values of net plus PV set to 0")
    notes.append(f"{name}: the load is net plus PV")
    return np.maximum(total, 0.0)


def own_pv(
    metered: Floats | None,
    weather: Weather,
    calendar: Calendar,
    sun: Sun,
    settings: CaseSettings,
    given: set[str],
    placed: bool,
    known: bool,
    found: Mapping[str, Floats],
    notes: list[str],
) -> tuple[CaseSettings, Floats, list[str]]:
    """(T,) mean kW of the PV with the settings that fit it, and warnings."""

    def changed(**values: object) -> CaseSettings:
        return settings.model_copy(update={"pv": settings.pv.model_copy(update=values)})

    if metered is not None:
        settings = changed(model="metered")
        if "pv.dc_kw" not in given:
            peak = float(metered.max())
            settings = changed(dc_kw=round(peak, 3) or 1.0, ac_kw=round(peak, 3) or 1.0)
            notes.append(f"PV nameplate is not given: its highest mean, {settings.pv.dc_kw:g} kW (--set pv.dc_kw=)")
        warnings = pv_warnings(metered, calendar, sun, settings) if placed else []
        ratio = performance_ratio(metered, weather, settings)
        if "ghi" in found and ratio > 1:
            warnings.append(
                f"PV of {metered.sum() * calendar.seconds / 3600:,.0f} kWh from {settings.pv.dc_kw:g} kW and "
                f"{weather.ghi.sum() * calendar.seconds / 3.6e6:,.0f} kWh/m2 is a performance ratio of {ratio:.2f}, "
                "which no plant reaches; --set pv.model=pvwatts computes it instead"
            )
        return settings, metered, warnings
    if settings.pv.model == "metered":
        raise UserError("setting pv.model: no column holds PV energy; name it with --pv-column")
    if settings.pv.dc_kw == 0:
        return settings, np.zeros(calendar.rows), []
    if not placed:
        raise UserError(
            "PV is computed from the sun: say where the site lies with --set site.latitude= --set site.longitude="
        )
    wind = np.maximum(found["wind"], 0.0) if "wind" in found else None
    pv_kw, warnings = modelled_pv(weather, sun, settings, wind)
    notes.append(
        f"PV computed by pv.model={settings.pv.model} from the weather: pv.dc_kw={settings.pv.dc_kw:,.6g} kW, tilt "
        f"{settings.pv.tilt:g}, azimuth {settings.pv.azimuth:g}"
    )
    return settings, pv_kw, warnings
