"""Figures of a controller's time series: `dispatch` of a few days, `year` of all days."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iquitos_rl.judging.references import kept
from iquitos_rl.report import style
from iquitos_rl.report.measures import THERMAL, step_hours
from iquitos_rl.report.results import Results


def dispatch(results: Results, name: str, rows: slice) -> Figure:
    """A few days of a controller: sources and uses of power; net, vehicles and SOC compared with other controllers;
    the price, where there is one."""
    hours, step = results.hours[name].iloc[rows], step_hours(results.hours[name])
    priced = bool(results.hours[name].price.any())
    lines = [("net_kwh", 1 / step, "net, kW (negative: export)", 2.0)]
    lines += [("ev_kwh", 1 / step, "vehicles, kW", 1.0)] if results.vehicles else []
    lines += [("battery_soc", 100, "battery SOC, %", 1.0)] if "battery_soc" in hours else []
    ratios = (3, *(ratio for *_, ratio in lines), *([0.8] if priced else []))
    figure, axes = style.subplots(1.3 + 0.47 * sum(ratios), ratios, sharex=True)
    time = np.arange(len(hours) + 1) * step / (1 if len(hours) * step <= 24 else 24)

    power_flows(axes[0], time, hours / step, consumption(results))
    shown = {who: frame.iloc[rows] for who, frame in results.hours.items()}
    others = [who for who in kept() if who != name and len(shown.get(who, ())) == len(hours)]
    for axis, (key, scale, title, _) in zip(axes[1:], lines):
        for who in (who for who in (*others, name) if key in shown[who]):
            steps(axis, time, shown[who][key] * scale, linewidth=1.3 if who == name else 1, **style.line(who))
        axis.set_title(title)
    if priced:
        steps(axes[-1], time, hours.price, color=style.VERMILLION)
        axes[-1].set_title(f"price, {results.currency}/kWh")
        price_scale(axes[-1], hours.price)
    scaled = {who: shown[who] for who in {*results.controlled, *others}}
    shared_scales(axes, [key for key, *_ in lines], scaled, step)
    time_ticks(axes[-1], hours, int(rows.start * step / 24), time[-1])
    style.thousands(*(axis.yaxis for axis in axes[: len(lines) + 1]))
    style.legend(figure, axes[:2])
    return figure


def steps(axis: Any, time: Any, values: pd.Series[float], **look: Any) -> None:
    """A line that holds each value to the end of its step."""
    axis.step(time, [*values, values.iloc[-1]], where="post", **look)


def consumption(results: Results) -> str:
    """What everything that a site uses is called; empty where that is the load alone."""
    added = ["vehicles"] * results.vehicles + ["thermal devices"] * results.thermal
    return " + ".join(["load", *added]) if added else ""


def power_flows(axis: Any, time: Any, power: pd.DataFrame, everything: str) -> None:
    """Sources above zero, outflows below, and the load as a line, kW."""
    battery = power.bess_kwh
    came = {"PV": power.pv_kwh, "battery out": -battery.clip(upper=0), "import": power.import_kwh}
    left = {"battery in": battery.clip(lower=0), "export": power.export_kwh}
    for flows, sign in ((came, 1), (left, -1)):
        base = np.zeros(len(time))
        for label, values in flows.items():
            top = base + sign * np.append(values, values.iloc[-1])
            axis.fill_between(time, base, top, step="post", color=style.FLOWS[label], linewidth=0, label=label)
            base = top
    steps(axis, time, power.load_kwh, color=style.BLACK, label="load")
    total = power.load_kwh + power.ev_kwh + power.other_kwh
    if everything:
        steps(axis, time, total, color=style.PURPLE, linestyle=(0, (3, 1.2)), label=everything)
    axis.axhline(0, color=style.BLACK, linewidth=0.6)
    axis.set_title("power, kW: inflow above zero, outflow below")


def shared_scales(axes: Any, keys: list[str], shown: dict[str, pd.DataFrame], step: float) -> None:
    """Set the same scales for every controller, so that the figures can be compared; `keys` are the columns of the
    panels below the first."""
    frames = [hours / step for hours in shown.values()]
    top = max((f.pv_kwh - f.bess_kwh.clip(upper=0) + f.import_kwh).max() for f in frames)
    axes[0].set_ylim(min(-(f.bess_kwh.clip(lower=0) + f.export_kwh).max() for f in frames) * 1.05, top * 1.05)
    for axis, key in zip(axes[1:], keys):
        if key == "battery_soc":
            axis.set_ylim(0, 100)
            continue
        low, high = min(0, *(f[key].min() for f in frames)), max(0, *(f[key].max() for f in frames))
        margin = max(high - low, 1e-6) * 0.05
        axis.set_ylim(low - margin if low < 0 else 0, high + margin)


def price_scale(axis: Any, price: pd.Series[float]) -> None:
    axis.set_ylim(bottom=min(0, price.min()), top=max(price.max() * 1.15, 1e-9))


def time_ticks(axis: Any, hours: pd.DataFrame, days_before: int, end: float) -> None:
    """Label the axis with hours if it shows one day, else with day numbers."""
    if len(hours) * step_hours(hours) <= 24:
        ticks = range(0, 25, 3)
        axis.set_xticks(ticks, [str((int(hours.hour.iloc[0]) + tick) % 24) for tick in ticks])
        axis.set_xlabel("hour of the day")
    else:
        days = range(int(np.ceil(end)))
        axis.set_xticks(days, [str(days_before + day + 1) for day in days], ha="left")
        axis.set_xlabel("day of the simulated period")
    axis.set_xlim(0, end)


def year(results: Results, name: str) -> Figure:
    """Every day of the simulated period: energies, highest import, range of SOC and of price."""
    hours, step = results.hours[name], step_hours(results.hours[name])
    day = np.arange(len(hours)) // round(24 / step)
    daily = hours.assign(out=-hours.bess_kwh.clip(upper=0)).groupby(day)
    priced, stored = bool(hours.price.any()), "battery_soc" in hours
    ratios = (2.6, 1.8, *([1.0] if stored else []), *([0.8] if priced else []))
    figure, axes = style.subplots(1.3 + 0.6 * sum(ratios), ratios, sharex=True)
    lines: tuple[tuple[str, str, str], ...] = (
        ("load_kwh", "load", style.BLACK),
        ("pv_kwh", "PV", style.ORANGE),
        ("net_kwh", "net", style.GREY),
    )
    lines += (("ev_kwh", "vehicles", style.PURPLE),) if results.vehicles else ()
    lines += (("other_kwh", THERMAL, style.GREEN),) if results.thermal else ()
    divisor, unit = style.scale(float(daily[["load_kwh", "pv_kwh"]].sum().to_numpy().max()), "MWh", "kWh")
    for key, label, shade in (*lines, ("out", "battery out", style.SKY)):
        axes[0].plot(daily[key].sum() / divisor, color=shade, label=label, linewidth=1)
    axes[0].axhline(0, color=style.BLACK, linewidth=0.6)
    axes[0].set_title(f"energy, {unit} a day")

    for who in dict.fromkeys(("uncontrolled", name)):
        if who in results.hours and len(results.hours[who]) == len(hours):
            peaks = results.hours[who].import_kwh.groupby(day).max() / step
            axes[1].plot(peaks, color=style.colour(who), linewidth=1)
    axes[1].set_ylim(0, 1.05 * max(1e-6, *(own.import_kwh.max() / step for own in results.controlled.values())))
    axes[1].set_title("highest import of the day, kW" + (" (grey: uncontrolled)" if name != "uncontrolled" else ""))
    style.thousands(axes[0].yaxis, axes[1].yaxis)
    if stored:
        soc, days = 100 * daily.battery_soc.agg(["min", "max"]), range(daily.ngroups)
        axes[2].fill_between(days, soc["min"], soc["max"], color=style.SKY)
        axes[2].set(ylim=(0, 100), title="battery SOC, %: lowest to highest")
    if priced:
        price = daily.price.agg(["min", "max"])
        axes[-1].fill_between(range(daily.ngroups), price["min"], price["max"], color=style.VERMILLION, alpha=0.5)
        price_scale(axes[-1], hours.price)
        axes[-1].set_title(f"price, {results.currency}/kWh: lowest to highest")
    axes[-1].set(xlim=(0, max(daily.ngroups - 1, 1)), xlabel="day of the simulated period")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    style.legend(figure, axes[:1])
    return figure
