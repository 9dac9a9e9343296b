"""Figures of a case before anything is trained on it: load, PV, prices, carbon, weather, visits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.cases.tariff import SATURDAY, Tariff, export_prices
from iquitos_rl.report import style

QUARTERS = ("Jan to Mar", "Apr to Jun", "Jul to Sep", "Oct to Dec")
SHADES = (style.BLUE, style.GREEN, style.ORANGE, style.VERMILLION)
AIR, DIFFUSE, DIRECT = (
    "outdoor_dry_bulb_temperature",
    "diffuse_solar_irradiance",
    "direct_solar_irradiance",
)


def total(site: Site, name: str) -> Floats:
    """(T,) mean kW of a field of all buildings, such as "load"."""
    return np.sum([getattr(building, name) for building in site.buildings], axis=0) / site.hours_per_step


def clock(site: Site) -> Floats:
    """(T,) hours since midnight, with fractions."""
    steps = max(1, round(1 / site.hours_per_step))
    change = np.flatnonzero(np.diff(site.hour, prepend=-1))
    within = np.arange(site.rows) - change[np.searchsorted(change, np.arange(site.rows), side="right") - 1]
    return site.hour + np.minimum(within, steps - 1) * site.hours_per_step


def by_quarter(site: Site, values: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Label of each quarter that the data have to (hours of the day, mean of the values at them)."""
    time, quarter, found = clock(site), (site.month - 1) // 3, {}
    for q, label in enumerate(QUARTERS):
        rows = quarter == q
        if rows.any():
            hours, place = np.unique(time[rows], return_inverse=True)
            found[label] = hours, np.bincount(place, values[rows]) / np.bincount(place)
    return found


def draw_days(axis: Any, site: Site, values: Floats, title: str) -> None:
    for (label, (hours, mean)), shade in zip(by_quarter(site, values).items(), SHADES):
        axis.step([*hours, 24], [*mean, mean[-1]], where="post", color=shade, label=label)
    axis.set(title=title, xticks=range(0, 25, 3))
    style.thousands(axis.yaxis)


def power_days(site: Site) -> Figure:
    """The mean day of each quarter: load and PV."""
    shown = {"load": "mean load, kW"} | ({"pv": "mean PV, kW"} if total(site, "pv").any() else {})
    figure, axes = style.subplots(0.7 + 1.6 * len(shown), (1,) * len(shown), sharex=True)
    for axis, (name, title) in zip(axes, shown.items()):
        draw_days(axis, site, total(site, name), title)
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axes[-1].set_xlabel("hour of the day")
    style.legend(figure, axes[:1], columns=4)
    return figure


def months(site: Site) -> Figure:
    """kWh of load and PV in each month."""
    month = np.cumsum(np.diff(site.month, prepend=site.month[0]) != 0)
    first = np.searchsorted(month, np.arange(month[-1] + 1))
    kinds = [("load", "load", style.FLOWS["load"]), ("pv", "PV", style.YELLOW)]
    shown = [kind for kind in kinds if kind[0] == "load" or total(site, "pv").any()]
    sums = [np.bincount(month, total(site, name)) * site.hours_per_step for name, *_ in shown]
    divisor, unit = style.scale(max(float(own.max()) for own in sums), "MWh", "kWh")
    figure, (axis,) = style.subplots(2.2)
    for i, (own, (_, label, shade)) in enumerate(zip(sums, shown)):
        axis.bar(np.arange(len(own)) + (i - (len(shown) - 1) / 2) * 0.4, own / divisor, 0.38, color=shade, label=label)
    axis.set_xticks(range(len(first)), [style.MONTHS[m - 1][: 1 if len(first) > 6 else 3] for m in site.month[first]])
    axis.set_title(f"energy, {unit} a month")
    axis.grid(axis="x", visible=False)
    style.thousands(axis.yaxis)
    style.legend(figure, [axis])
    return figure


def every_day(site: Site, name: str, title: str) -> Figure:
    """Mean kW of every hour of every day, as a map: gaps and wrong clocks show as lines and steps."""
    power, day = total(site, name), np.cumsum(np.diff(site.hour, prepend=site.hour[0]) < 0)
    table = np.full((24, int(day[-1]) + 1), np.nan)
    place = site.hour * table.shape[1] + day
    count = np.bincount(place, minlength=table.size)
    with np.errstate(invalid="ignore"):
        table[:] = (np.bincount(place, power, minlength=table.size) / np.where(count, count, np.nan)).reshape(
            table.shape
        )
    figure, (axis,) = style.subplots(2.1)
    image = axis.imshow(table, aspect="auto", interpolation="none", cmap="cividis")
    axis.grid(visible=False)
    axis.set_yticks(range(0, 24, 6))
    axis.set(xlabel="day", ylabel="hour", title=title)
    style.thousands(figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02).ax.yaxis)
    return figure


def prices(site: Site, tariff: Tariff) -> Figure:
    """The mean day of prices on workdays and weekends, and of what exports earn and the grid emits."""
    building, earned = site.buildings[0], export_prices(site, tariff)
    shown: dict[str, Floats] = {f"import, {tariff.currency} per kWh": building.price}
    if earned is not None:
        shown[f"export, {tariff.currency} per kWh"] = earned
    if building.carbon.any():
        shown["grid CO2, kg per kWh"] = building.carbon
    figure, axes = style.subplots(0.7 + 1.3 * len(shown), (1,) * len(shown), sharex=True)
    time, free = clock(site), site.day_type >= SATURDAY
    for axis, (title, values) in zip(axes, shown.items()):
        for label, rows, shade in (("workdays", ~free, style.BLUE), ("weekends", free, style.ORANGE)):
            if rows.any():
                hours, place = np.unique(time[rows], return_inverse=True)
                own, step = values[rows], np.append(hours, 24)
                mean = np.bincount(place, own) / np.bincount(place)
                low, high = (np.array([f(own[place == i]) for i in range(len(hours))]) for f in (np.min, np.max))
                axis.fill_between(
                    step, *(np.append(x, x[-1]) for x in (low, high)), step="post", color=shade, alpha=0.15
                )
                axis.step(step, [*mean, mean[-1]], where="post", color=shade, label=label)
        axis.set(title=title, xticks=range(0, 25, 3))
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    axes[-1].set_xlabel("hour of the day")
    style.legend(figure, axes[:1])
    return figure


def weather(site: Site) -> Figure:
    """The mean day of each quarter: temperature and irradiance."""
    columns: Mapping[str, Floats] = site.buildings[0].weather
    known = [(AIR, "air temperature, C"), (DIFFUSE, "diffuse irradiance, W/m2"), (DIRECT, "direct irradiance, W/m2")]
    shown = [(name, title) for name, title in known if name in columns]
    figure, axes = style.subplots(0.7 + 1.3 * len(shown), (1,) * len(shown), sharex=True)
    for axis, (name, title) in zip(axes, shown):
        draw_days(axis, site, columns[name], title)
    axes[-1].set_xlabel("hour of the day")
    style.legend(figure, axes[:1], columns=4)
    return figure


def visits(site: Site) -> Figure:
    """Connected vehicles over the day, how long they stay, and what they need."""
    connected = np.sum([charger.vehicle >= 0 for _, charger in site.sockets], axis=0).astype(np.float64)
    stays, needs = stays_of(site)
    figure, axes = style.subplots(4.4, (1.2, 1, 1))
    draw_days(axes[0], site, connected, "mean number of connected vehicles")
    axes[0].set_xlabel("hour of the day")
    axes[1].hist(stays, bins=24, color=style.PURPLE)
    axes[1].set_title("visits by length of stay, hours")
    axes[2].hist(needs, bins=24, color=style.PURPLE)
    axes[2].set_title("visits by energy wanted, kWh")
    style.legend(figure, axes[:1], columns=4)
    return figure


def stays_of(site: Site) -> tuple[Floats, Floats]:
    """(V,) hours of each visit that ends in the data, and the kWh that its vehicle wants where its arrival is known."""
    hours, needs = [], []
    for _, charger in site.sockets:
        capacity = np.array([vehicle.battery.capacity for vehicle in site.vehicles])
        ends = np.flatnonzero(charger.departs)
        begins = np.flatnonzero((charger.vehicle >= 0) & (~np.isnan(charger.arrival_soc)))
        for end in ends:
            before = begins[begins <= end]
            if len(before):
                first = int(before[-1])
                wanted = max(charger.required_soc[end] - charger.arrival_soc[first], 0.0)
                hours.append((end - first + 1) * site.hours_per_step)
                needs.append(float(wanted * capacity[charger.vehicle[end]]))
    return np.array(hours), np.array(needs)
