"""Figures of a year's hours: each function draws one `Figure` from the hours that a run wrote down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iquitos_rl.report.results import BESIDE, Results, dear_hours, energy_balance, months, step_hours
from iquitos_rl.report.style import (
    BLACK,
    BLUE,
    GREY,
    MONTHS,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    colour,
    dashes,
    display_name,
    finish_bars,
    legend,
    mark,
    subplots,
    thousands,
)

OPTIMUM = "optimum"
MARKERS = ("o", "s", "^", "D", "v", "P")


def monthly(results: Results) -> Figure:
    """Each month's highest import, at the dearest price and otherwise, and the demand charges it led to."""
    first = next(iter(results.hours.values()))
    split = dear_hours(first)
    booked = all("demand_cost" in hours for name, hours in results.hours.items() if name != OPTIMUM)
    titles = ["highest import, kW"]
    if split is not None:
        titles = ["highest import in the hours of the highest price, kW", "highest import in the other hours, kW"]
    if booked:
        titles.append(f"demand charges, thousand {results.summary.get('currency', 'currency')}")
    figure, axes = subplots(0.7 + 1.5 * len(titles), (1,) * len(titles), sharex=True)
    width = 0.8 / len(results.hours)
    for i, (name, hours) in enumerate(results.hours.items()):
        month, power, dear = months(hours), hours.import_kwh / step_hours(hours), dear_hours(hours)
        series = [power] if split is None or dear is None else [power.where(dear), power.where(~dear)]
        bars = [values.groupby(month).max() for values in series]
        bars += [(hours.demand_cost / 1e3).groupby(month).sum()] if booked and "demand_cost" in hours else []
        for axis, values in zip(axes, bars):
            place = values.index.to_numpy() + (i - (len(results.hours) - 1) / 2) * width
            axis.bar(place, values, width * 0.92, color=colour(results, name), label=display_name(name))
    month = first.month.groupby(months(first)).first()
    for axis, title in zip(axes, titles):
        axis.set_title(title)
        axis.set_xticks(range(len(month)), [MONTHS[int(m - 1) % 12][: 1 if len(month) > 6 else 3] for m in month])
        axis.grid(axis="x", visible=False)
        axis.yaxis.set_major_locator(MaxNLocator(4))
        thousands(axis.yaxis)
    legend(figure, axes[0])
    return figure


def dispatch(results: Results, name: str, rows: slice) -> Figure:
    """Hours of a controller: where power came from and went to, net beside uncontrolled, SOC and price."""
    hours = results.hours[name].iloc[rows]
    step = step_hours(results.hours[name])
    time = np.arange(len(hours) + 1) * step / (1 if len(hours) * step <= 24 else 24)
    power = pd.concat([hours, hours.iloc[-1:]]) / step  # a step lasts to its end
    has_soc = "battery_soc" in hours
    figure, axes = subplots(5.0 if has_soc else 4.2, (3, 2, 1, 0.8) if has_soc else (3, 2, 0.8), sharex=True)

    axis, battery = axes[0], power.bess_kwh
    supply = [(power.pv_kwh, "PV", YELLOW), (-battery.clip(upper=0), "battery out", SKY)]
    stack(axis, time, [*supply, (power.import_kwh, "import", "#BBBBBB")], 1)
    stack(axis, time, [(battery.clip(lower=0), "battery in", BLUE), (power.export_kwh, "export", ORANGE)], -1)
    axis.step(time, power.load_kwh, color=BLACK, where="post", label="load")
    total = power.load_kwh + power.ev_kwh + power.other_kwh
    axis.step(time, total, color=PURPLE, where="post", linestyle=(0, (3, 1.2)), label="load + vehicles")
    axis.axhline(0, color=BLACK, linewidth=0.6)
    axis.set_title("power, kW: above what came, below what left")

    axis = axes[1]
    others = {who: frame.iloc[rows] for who, frame in results.hours.items() if who in ("uncontrolled", *BESIDE)}
    others = {who: frame for who, frame in others.items() if who != name and len(frame) == len(hours)}
    for who, frame in others.items():
        net, own = (frame.net_kwh / step).to_numpy(), colour(results, who)
        style = {"color": own, "linestyle": dashes(who), "linewidth": 1, "where": "post"}
        axis.step(time, [*net, net[-1]], label=f"net, {display_name(who)}", **style)
        if has_soc and who in BESIDE and "battery_soc" in frame:
            soc = (frame.battery_soc * 100).to_numpy()
            axes[2].step(time, [*soc, soc[-1]], **style)
    own = colour(results, name)
    axis.step(time, power.net_kwh, color=own, where="post", label=f"net, {display_name(name)}")
    axis.set_title("net, kW (negative: export)")
    if has_soc:
        axes[2].step(time, power.battery_soc * step * 100, color=own, where="post")
        axes[2].set_ylim(0, 100)
        axes[2].set_title("battery SOC, %")
    axes[-1].step(time, power.price * step, color=VERMILLION, where="post")
    axes[-1].set_ylim(bottom=min(0, hours.price.min()), top=max(hours.price.max() * 1.15, 1e-9))
    axes[-1].set_title(f"price, {results.summary.get('currency', 'currency')}/kWh")
    for axis in axes[:2]:
        thousands(axis.yaxis)
    first_day = int(rows.start * step / 24)
    if len(hours) * step <= 24:
        ticks = range(0, 25, 3)
        axes[-1].set_xticks(ticks, [str((int(hours.hour.iloc[0]) + tick) % 24) for tick in ticks])
        axes[-1].set_xlabel("hour of the day")
    else:
        days = np.arange(int(np.ceil(time[-1])))
        axes[-1].set_xticks(days, [str(first_day + day + 1) for day in days], ha="left")
        axes[-1].set_xlabel("day of the simulated period")
    axes[-1].set_xlim(time[0], time[-1])
    shared_scale(results, axes[:2], rows, step)
    handles = [axis.get_legend_handles_labels() for axis in axes[:2]]
    figure.legend(*map(sum_lists, zip(*handles)), loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1)
    return figure


def sum_lists(lists: tuple[list[Any], ...]) -> list[Any]:
    return [item for items in lists for item in items]


def stack(axis: Any, time: Any, series: list[tuple[Any, str, str]], sign: int) -> None:
    base = np.zeros(len(time))
    for values, label, shade in series:
        top = base + sign * values.to_numpy()
        axis.fill_between(time, base, top, step="post", color=shade, linewidth=0, label=label)
        base = top


def shared_scale(results: Results, axes: Any, rows: slice, step: float) -> None:
    """The same power scale for every controller, so that figures side by side can be compared."""
    frames = [hours.iloc[rows] / step for hours in results.controlled.values()]
    top = max((f.pv_kwh - f.bess_kwh.clip(upper=0) + f.import_kwh).max() for f in frames)
    axes[0].set_ylim(min(-(f.bess_kwh.clip(lower=0) + f.export_kwh).max() for f in frames) * 1.05, top * 1.05)
    low, high = min(f.net_kwh.min() for f in frames), max(f.net_kwh.max() for f in frames)
    margin = max(high - low, 1e-6) * 0.05
    axes[1].set_ylim(min(0, low) - margin, max(0, high) + margin)


def year(results: Results, name: str) -> Figure:
    """Every day of the simulated period: energies, the highest import, the range of SOC and of price."""
    hours = results.hours[name]
    step = step_hours(hours)
    frame = hours.assign(out=-hours.bess_kwh.clip(upper=0))
    daily = frame.groupby(np.arange(len(frame)) // round(24 / step))
    has_soc = "battery_soc" in hours
    figure, axes = subplots(5.0 if has_soc else 4.2, (2.6, 1.8, 1, 0.8) if has_soc else (2.6, 1.8, 0.8), sharex=True)
    lines = (("load_kwh", "load", BLACK), ("pv_kwh", "PV", ORANGE), ("import_kwh", "import", GREY))
    for key, label, shade in (*lines, ("out", "battery out", SKY), ("ev_kwh", "vehicles", PURPLE)):
        axes[0].plot(daily[key].sum() / 1e3, color=shade, label=label, linewidth=1)
    axes[0].set_title("energy, MWh a day")
    axes[0].set_ylim(bottom=0)
    if name != "uncontrolled" and "uncontrolled" in results.hours:
        idle = results.hours["uncontrolled"].import_kwh / step
        axes[1].plot(idle.groupby(np.arange(len(idle)) // round(24 / step)).max(), color=GREY, linewidth=1)
    own = colour(results, name)
    axes[1].plot(daily.import_kwh.max() / step, color=own, linewidth=1)
    other = "" if name == "uncontrolled" else " (grey: uncontrolled)"
    axes[1].set_title(f"highest import of the day, kW{other}")
    if has_soc:
        low, high = daily.battery_soc.min() * 100, daily.battery_soc.max() * 100
        axes[2].fill_between(low.index, low, high, color=SKY, linewidth=0.5)
        axes[2].set_ylim(0, 100)
        axes[2].set_title("battery SOC, %: lowest to highest")
    low, high = daily.price.min(), daily.price.max()
    axes[-1].fill_between(low.index, low, high, color=VERMILLION, alpha=0.5, linewidth=0.8, edgecolor=VERMILLION)
    axes[-1].set_ylim(bottom=min(0, low.min()), top=max(high.max() * 1.15, 1e-9))
    currency = results.summary.get("currency", "currency")
    axes[-1].set_title(f"price, {currency}/kWh: lowest to highest")
    for axis in axes[:2]:
        thousands(axis.yaxis)
    axes[-1].set_xlim(0, max(len(low) - 1, 1))
    axes[-1].set_xlabel("day of the simulated period")
    legend(figure, axes[0])
    return figure


def heat_map(results: Results, name: str, key: str) -> Figure:
    """Mean power of a column (kWh a step) by clock hour and month, kW, on one scale for all controllers."""
    tables = {
        who: (f[key] / step_hours(f)).groupby([f.month, f.hour % 24]).mean().unstack()
        for who, f in results.controlled.items()
    }
    table = tables[name]
    low = min(float(np.nanmin(t.to_numpy())) for t in tables.values())
    high = max(float(np.nanmax(t.to_numpy())) for t in tables.values())
    options = {"cmap": "cividis", "vmin": low, "vmax": high}
    if key != "net_kwh":
        bound = max(-low, high, 1e-9)
        options = {"cmap": "PuOr", "vmin": -bound, "vmax": bound}
    figure, (axis,) = subplots(0.9 + 0.19 * len(table))
    image = axis.imshow(table.to_numpy(), aspect="auto", interpolation="none", **options)
    axis.grid(visible=False)
    axis.set_yticks(range(len(table)), [MONTHS[int(month - 1) % 12] for month in table.index])
    axis.set_xticks(range(0, table.shape[1], 3), [f"{int(hour)}" for hour in table.columns[::3]])
    axis.set_xlabel("hour of the day")
    what = "net import" if key == "net_kwh" else "battery, charging positive"
    axis.set_title(f"{display_name(name)}: mean {what}, kW")
    bar = figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02)
    thousands(bar.ax.yaxis)
    return figure


def average_day(results: Results) -> Figure:
    """Mean power by clock hour: net import and battery of every controller."""
    figure, axes = subplots(3.9, (1.4, 1), sharex=True)
    for name, hours in results.hours.items():
        for axis, key in zip(axes, ("net_kwh", "bess_kwh")):
            mean = (hours[key] / step_hours(hours)).groupby(hours.hour % 24).mean()
            axis.plot(mean, dashes(name), color=colour(results, name), label=display_name(name), marker=".")
    for axis, title in zip(axes, ("mean net import, kW", "mean battery power, kW (charging positive)")):
        axis.set_title(title)
        axis.axhline(0, color=BLACK, linewidth=0.6)
        thousands(axis.yaxis)
    axes[-1].set_xticks(range(0, 24, 3))
    axes[-1].set_xlabel("hour of the day")
    legend(figure, axes[0])
    return figure


def vehicles(results: Results) -> Figure:
    """When the vehicles are charged on the mean day, and what they lacked at departure each month."""
    traced = {name: hours for name, hours in results.hours.items() if "missing_kwh" in hours}
    figure, axes = subplots(4.2 if traced else 2.4, (1.3, 1) if traced else (1,))
    for name, hours in results.hours.items():
        mean = (hours.ev_kwh / step_hours(hours)).groupby(hours.hour % 24).mean()
        axes[0].plot(mean, dashes(name), color=colour(results, name), label=display_name(name), marker=".")
    axes[0].set_title("mean charging power of all vehicles, kW")
    axes[0].set_xticks(range(0, 24, 3))
    axes[0].set_xlabel("hour of the day")
    axes[0].set_ylim(bottom=min(0, axes[0].get_ylim()[0]))
    thousands(axes[0].yaxis)
    for i, (name, hours) in enumerate(traced.items()):
        missing = hours.missing_kwh.groupby(months(hours)).sum()
        place = missing.index.to_numpy() + (i - (len(traced) - 1) / 2) * 0.8 / len(traced)
        axes[1].bar(place, missing, 0.74 / len(traced), color=colour(results, name))
        month = hours.month.groupby(months(hours)).first()
        axes[1].set_xticks(range(len(month)), [MONTHS[int(m - 1) % 12][: 1 if len(month) > 6 else 3] for m in month])
        axes[1].set_title("energy missing at departure, kWh a month")
        axes[1].grid(axis="x", visible=False)
        thousands(axes[1].yaxis)
    legend(figure, axes[0])
    return figure


def sockets(results: Results) -> Figure:
    """Every socket's departures, the share of them served and the energy missing."""
    figure, axes = subplots(4.2, (1, 1, 1), sharex=True)
    first = next(iter(results.sockets.values()))
    place = np.arange(1, len(first) + 1)
    axes[0].bar(place, first.departures, color=GREY, width=0.8)
    shift = np.linspace(-0.25, 0.25, len(results.sockets)) if len(results.sockets) > 1 else [0.0]
    for (name, frame), by, marker in zip(results.sockets.items(), shift, MARKERS * len(results.sockets)):
        style = {"color": colour(results, name), "label": display_name(name), "linestyle": "none", "markersize": 3.5}
        share = 100 * frame.served / frame.departures.where(frame.departures > 0)
        axes[1].plot(place + by, share, marker, **style)
        axes[2].plot(place + by, frame.missing_kwh, marker, **style)
    low = min(axes[1].get_ylim()[0], 99)
    axes[1].set_ylim(low, 100 + 0.06 * (100 - low))
    axes[2].set_ylim(bottom=min(0, axes[2].get_ylim()[0]))
    titles = ("departures", "% of them served", "energy missing at departures, kWh")
    for axis, title in zip(axes, titles):
        axis.set_title(title)
        thousands(axis.yaxis)
    axes[-1].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes[-1].set_xlabel("socket")
    legend(figure, axes[1])
    return figure


def balance(results: Results) -> Figure:
    """What came in and what went out, MWh: two bars of one length for each controller."""
    shades = {"import": "#BBBBBB", "PV": YELLOW, "battery out": SKY, "load": "#444444", "vehicles": PURPLE}
    shades |= {"other": VERMILLION, "battery in": BLUE, "export": ORANGE}
    figure, (axis,) = subplots(1.5 + 0.66 * len(results.hours))
    labels: list[str] = []
    for hours, name in zip(results.hours.values(), results.hours):
        for flows, way in zip(energy_balance(hours), ("in", "out")):
            left = 0.0
            for label, value in flows.items():
                if value / 1e3 >= 0.05:
                    axis.barh(len(labels), value / 1e3, left=left, color=shades[label], height=0.8, label=label)
                left += value / 1e3
            mark(axis, left, len(labels), f"{left:,.0f}")
            labels.append(f"{display_name(name)}, {way}")
    axis.set_yticks(range(len(labels)), labels)
    finish_bars(axis, max(sum(energy_balance(hours)[0].values()) for hours in results.hours.values()) / 1e3, "MWh")
    handles = dict(zip(*reversed(axis.get_legend_handles_labels())))
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=3, handlelength=1.2)
    return figure
