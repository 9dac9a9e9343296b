"""The settings of a site of which nothing is known yet: what its owner does not give is not there."""

from __future__ import annotations

from collections.abc import Mapping

from iquitos_rl.cases.iquitos.presets import (
    TARIFFS,
    BessSettings,
    CarbonSettings,
    CaseSettings,
    Overrides,
    PvSettings,
    SiteSettings,
    SocketSettings,
    TariffSettings,
    WeatherSettings,
    case_settings,
    with_changes,
)
from iquitos_rl.errors import UserError

NOTHING = CaseSettings(
    site=SiteSettings(latitude=0.0, longitude=0.0, altitude=0.0, utc_offset=0.0),
    pv=PvSettings(dc_kw=0.0, ac_kw=1.0, tilt=30.0, azimuth=180.0, losses=0.14),
    bess=BessSettings(capacity_kwh=0.0, power_kw=1.0, depth_of_discharge=1.0, capacity_loss_coefficient=0.0),
    sockets=SocketSettings(moto_count=0, mototaxi_count=0),
    tariff=TariffSettings(kind="flat", currency="currency", peak_hours=()),
    carbon=CarbonSettings(kg_per_kwh=0.0),
    weather=WeatherSettings(linke_turbidity=3.0, wind_speed=2.0),
)


def own_settings(preset: str | None, overrides: Overrides, notes: list[str]) -> tuple[CaseSettings, set[str]]:
    """A preset's settings, or none at all, with the owner's; and the keys that somebody has said.

    Raises:
        UserError: an unknown key or an impossible value; a battery without its power.
    """
    if preset is not None or isinstance(overrides, CaseSettings):
        resolved = case_settings(preset or "iquitos-38", overrides)
        return resolved, {f"{group}.{key}" for group, values in resolved.model_dump().items() for key in values}
    changes = flat(overrides or {})
    given = set(changes)
    if changes.get("bess.capacity_kwh") and "bess.power_kw" not in changes:
        raise UserError("a battery of what power? say it with --set bess.power_kw=")
    resolved = with_changes(NOTHING, changes)
    pv = resolved.pv
    extra: dict[str, object] = {}
    if "pv.ac_kw" not in given and pv.dc_kw > 0:
        extra["pv.ac_kw"] = pv.dc_kw
    if "pv.azimuth" not in given and resolved.site.latitude < 0:
        extra["pv.azimuth"] = 0.0
    resolved = with_changes(resolved, extra)
    parts = [
        f"battery {resolved.bess.capacity_kwh:g} kWh and {resolved.bess.power_kw:g} kW"
        if resolved.bess.capacity_kwh
        else "no battery",
        f"PV {resolved.pv.dc_kw:g} kW" if resolved.pv.dc_kw else "",
        "" if "carbon.kg_per_kwh" in given else "no carbon intensity (--set carbon.kg_per_kwh=)",
    ]
    notes.append("site: " + ", ".join(part for part in parts if part))
    return resolved, given


def flat(overrides: Mapping[str, object]) -> dict[str, object]:
    """`{"group": {"key": value}}` as `{"group.key": value}`."""
    changes: dict[str, object] = {}
    for name, value in overrides.items():
        if isinstance(value, Mapping) and "." not in name:
            changes |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            changes[name] = value
    return changes


def require_tariff(given: set[str]) -> None:
    """Raise UserError, the question, where nobody has said what energy costs."""
    needed = {"tariff.energy_off_peak"} | ({"tariff.energy_peak"} if "tariff.peak_hours" in given else set())
    if "tariff.kind" not in given and not needed <= given:
        raise UserError(
            "what does energy cost? give --tariff FILE, or say --set tariff.energy_off_peak=0.30 --set "
            "tariff.currency=EUR, with --set tariff.energy_peak=0.38 --set tariff.peak_hours=[17,18,19,20] where "
            f"there are two prices, or --set tariff.kind= with one of {', '.join(TARIFFS)}"
        )
