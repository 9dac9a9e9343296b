"""A page about a case, to look at before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.cases.tariff import DemandCharge, Tariff, Window, export_prices, read_tariff
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_text
from iquitos_rl.machine.inputs import InputError, read_json
from iquitos_rl.report import site_figures as figures
from iquitos_rl.report.markup import captioned, templates
from iquitos_rl.report.style import MONTHS, render, short


def describe(folder: Path, output: Path) -> Path:
    """Write a page, which needs no other file and no network, about a case; returns its path.

    Raises:
        UserError: the case has errors, or the page cannot be written.
    """
    report = check_case(folder)
    if report.errors:
        raise UserError(f"{folder}: {report.errors[0]}")
    site, tariff = read_site(folder), read_tariff(folder)
    try:
        record = read_json(folder / "case.json")
    except InputError:
        record = {}
    record = record if isinstance(record, dict) else {}
    texts = {key: [str(text) for text in record.get(key, [])] for key in ("assumptions", "warnings")}
    page = (
        templates()
        .get_template("site.html")
        .render(
            title=site.name,
            facts=facts(site, record),
            charges=charges(site, tariff),
            assumptions=texts["assumptions"],
            warnings=list(dict.fromkeys([*texts["warnings"], *map(str, report.warnings)])),
            drawings=drawings(site, tariff),
        )
    )
    write_text(output, page.lstrip())
    return output


def facts(site: Site, record: dict[str, Any]) -> list[list[str]]:
    """Key figures of a site, a name and a value each."""
    hours, days = site.hours_per_step, site.rows * site.hours_per_step / 24
    load, pv = (figures.total(site, name) for name in ("load", "pv"))
    rows = [["data", f"{days:.0f} days in steps of {60 * hours:g} minutes{_since(record)}"]]
    if len(site.buildings) > 1:
        rows.append(["buildings, each with its own meter", str(len(site.buildings))])
    rows.append(
        ["load", f"{_kwh(load.sum() * hours)}, {short(load.max())} kW at most, {short(load.min())} kW at least"]
    )
    if pv.any():
        share = pv.sum() / load.sum() if load.any() else 0.0
        more = f", {100 * share:.0f} % of the load" if load.any() else ""
        rows.append(["PV", f"{_kwh(pv.sum() * hours)}, {short(pv.max())} kW at most{more}"])
    for building in site.buildings:
        if building.battery is not None:
            battery = building.battery
            what = f"{short(battery.capacity)} kWh, {short(battery.nominal_power)} kW"
            rows.append([f"battery of {building.name}", f"{what}, usable {100 * battery.depth_of_discharge:.0f} %"])
    if site.sockets:
        stays, needs = figures.stays_of(site)
        power = sum(charger.max_charging_power for _, charger in site.sockets)
        rows.append(["sockets", f"{len(site.sockets)}, {short(power)} kW together"])
        if len(stays):
            a_day = f"{short(len(stays) / days)} a day, {short(float(stays.mean()))} h each"
            rows.append(["visits", f"{a_day}, {short(float(needs.sum() / days))} kWh a day wanted"])
    return rows


def charges(site: Site, tariff: Tariff) -> list[list[str]]:
    """What is paid, a name and a value each."""
    currency, price = tariff.currency, site.buildings[0].price
    rows = [["energy", f"{_range(price)} {currency} per kWh"]]
    earned = export_prices(site, tariff)
    rows.append(["export", "earns nothing" if earned is None else f"{_range(earned)} {currency} per kWh"])
    if tariff.export_limit_kw is not None:
        rows.append(["export limit", f"{short(tariff.export_limit_kw)} kW a building"])
    for charge in tariff.charges:
        if charge.price:
            rows.append(["demand charge", f"{short(charge.price)} {currency} per kW and month{_when(charge)}"])
    if tariff.fixed:
        rows.append(["standing charge", f"{short(tariff.standing_per_day)} {currency} a day"])
    return rows


def drawings(site: Site, tariff: Tariff) -> list[Markup]:
    """The figures with their captions."""
    shown: list[tuple[str, str, Any]] = [
        ("days", "The mean day in each quarter of the year.", lambda: figures.power_days(site)),
        ("months", "Every month of the data.", lambda: figures.months(site)),
        (
            "load_map",
            "Every hour of every day. Gaps that were filled and a clock that is off show as lines.",
            lambda: figures.every_day(site, "load", "load, kW"),
        ),
    ]
    if figures.total(site, "pv").any():
        caption = "Every hour of every day. The middle of the bright band is noon by the sun."
        shown.append(("pv_map", caption, lambda: figures.every_day(site, "pv", "PV, kW")))
    caption = "Line: mean by the hour of the day; shade: from the lowest to the highest."
    shown.append(("prices", caption, lambda: figures.prices(site, tariff)))
    if figures.AIR in site.buildings[0].weather:
        shown.append(("weather", "Weather: the mean day in each quarter.", lambda: figures.weather(site)))
    if site.sockets:
        shown.append(("visits", "Vehicles.", lambda: figures.visits(site)))
    return [captioned(render(draw, name)[1], caption) for name, caption, draw in shown]


def _since(record: dict[str, Any]) -> str:
    return (
        f" from {str(record['first']).replace('T', ' ')[:16]} ({record.get('zone', '')})" if "first" in record else ""
    )


def _kwh(value: float) -> str:
    return f"{value / 1000:,.0f} MWh" if value >= 1e5 else f"{value:,.0f} kWh"


def _range(values: np.ndarray[Any, Any]) -> str:
    low, high = float(values.min()), float(values.max())
    return short(low) if low == high else f"{short(low)} to {short(high)}, {short(float(values.mean()))} on average,"


def _when(charge: DemandCharge) -> str:
    text = " or ".join(filter(None, map(_window, charge.when)))
    ratchet = f", at least on {100 * charge.ratchet:g} % of the highest import before" if charge.ratchet else ""
    return (f", {text}" if text else "") + ratchet


def _window(window: Window) -> str:
    parts = []
    if window.hours is not None:
        parts.append(f"hours {', '.join(map(str, window.hours))}" if window.hours else "never")
    if window.days != "all":
        parts.append(f"on {window.days}")
    if window.months is not None:
        parts.append(f"in {', '.join(MONTHS[month - 1] for month in window.months)}")
    return " ".join(parts)
