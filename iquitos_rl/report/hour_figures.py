"""Figures of a year by month, by hour of the day and by socket; functions of `Results` draw one `Figure` each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iquitos_rl.report import style
from iquitos_rl.report.cost_figures import money
from iquitos_rl.report.measures import energy_balance, highest_price_hours, months, step_hours
from iquitos_rl.report.results import Results

MARKERS = ("o", "s", "^", "D", "v", "P")


def monthly(results: Results) -> Figure:
    """Each month's highest import, at the highest price and at other prices, and the demand charges."""
    split = highest_price_hours(next(iter(results.hours.values()))) is not None
    titles = ["highest import in the hours of the highest price, kW", "highest import in the other hours, kW"]
    if not split:
        titles = ["highest import, kW"]
    charged = results.traced and any(
        hours.demand_cost.any() for hours in results.hours.values() if "demand_cost" in hours
    )
    if charged:
        titles.append("")
    found = {name: monthly_peaks(hours, split)[: len(titles)] for name, hours in results.hours.items()}
    if charged:
        divisor, unit = money(results, (own[-1].max() for own in found.values() if len(own) == len(titles)))
        titles[-1] = f"demand charges, {unit}"
        found = {n: [*own[:-1], own[-1] / divisor] if len(own) == len(titles) else own for n, own in found.items()}
    figure, axes = style.subplots(0.7 + 1.5 * len(titles), (1,) * len(titles), sharex=True)
    for i, (axis, title) in enumerate(zip(axes, titles)):
        monthly_bars(axis, results, {name: series[i] for name, series in found.items() if i < len(series)})
        axis.set_title(title)
    style.legend(figure, axes[:1])
    return figure


def monthly_peaks(hours: pd.DataFrame, split: bool) -> list[pd.Series[float]]:
    """Each month's highest import, kW (if `split`, one series for the hours of the highest price and one for the
    others), and its demand charges if the trace has them."""
    month, power, highest = months(hours), hours.import_kwh / step_hours(hours), highest_price_hours(hours)
    series = [power.where(highest), power.where(~highest)] if split and highest is not None else [power]
    found = [values.groupby(month).max() for values in series]
    return found + ([hours.demand_cost.groupby(month).sum()] if "demand_cost" in hours else [])


def monthly_bars(axis: Any, results: Results, series: Mapping[str, pd.Series[float]]) -> None:
    """A group of bars for each month, one bar per controller."""
    width = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        place = values.index.to_numpy() + (i - (len(series) - 1) / 2) * width
        axis.bar(place, values, width * 0.92, color=style.colour(name), label=style.display_name(name))
    first = next(iter(results.hours.values()))
    month = first.month.groupby(months(first)).first()
    axis.set_xticks(range(len(month)), [style.MONTHS[int(m - 1) % 12][: 1 if len(month) > 6 else 3] for m in month])
    axis.grid(axis="x", visible=False)
    axis.yaxis.set_major_locator(MaxNLocator(4))
    style.thousands(axis.yaxis)


def heat_map(results: Results, name: str, key: str) -> Figure:
    """Mean power, kW, of a column (kWh per step) by clock hour and month, on the same scale for all controllers."""
    tables = {
        who: (f[key] / step_hours(f)).groupby([f.month, f.hour % 24]).mean().unstack()
        for who, f in results.controlled.items()
    }
    table = tables[name]
    values = np.concatenate([t.to_numpy().ravel() for t in tables.values()])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    bound = max(-low, high, 1e-9)
    options = {"cmap": "PuOr", "vmin": -bound, "vmax": bound}
    if key == "net_kwh":
        options = {"cmap": "cividis", "vmin": low, "vmax": high}
    figure, (axis,) = style.subplots(0.9 + 0.19 * len(table))
    image = axis.imshow(table.to_numpy(), aspect="auto", interpolation="none", **options)
    axis.grid(visible=False)
    axis.set_yticks(range(len(table)), [style.MONTHS[int(month - 1) % 12] for month in table.index])
    axis.set_xticks(range(0, table.shape[1], 3), [f"{int(hour)}" for hour in table.columns[::3]])
    what = "net import" if key == "net_kwh" else "battery, charging positive"
    axis.set(xlabel="hour of the day", title=f"{style.display_name(name)}: mean {what}, kW")
    style.thousands(figure.colorbar(image, ax=axis, fraction=0.05, pad=0.02).ax.yaxis)
    return figure


def average_day(results: Results) -> Figure:
    """Mean power by clock hour: net import and battery of every controller."""
    figure, axes = style.subplots(3.9, (1.4, 1), sharex=True)
    mean_day(axes[0], results, "net_kwh", "mean net import, kW")
    mean_day(axes[1], results, "bess_kwh", "mean battery power, kW (charging positive)")
    axes[1].set_xlabel("hour of the day")
    style.legend(figure, axes[:1])
    return figure


def mean_day(axis: Any, results: Results, key: str, title: str) -> None:
    """Mean power of a column (kWh per step) by clock hour, one line per controller."""
    for name, hours in results.hours.items():
        mean = (hours[key] / step_hours(hours)).groupby(hours.hour % 24).mean()
        axis.plot(mean, marker=".", **style.line(name))
    axis.axhline(0, color=style.BLACK, linewidth=0.6)
    axis.set(title=title, xticks=range(0, 24, 3))
    style.thousands(axis.yaxis)


def vehicles(results: Results) -> Figure:
    """Charging power on the mean day, and the energy missing at departures in each month."""
    missing = {
        name: hours.missing_kwh.groupby(months(hours)).sum()
        for name, hours in results.hours.items()
        if "missing_kwh" in hours
    }
    figure, axes = style.subplots(4.2 if missing else 2.4, (1.3, 1) if missing else (1,))
    mean_day(axes[0], results, "ev_kwh", "mean charging power of all vehicles, kW")
    axes[0].set_xlabel("hour of the day")
    if missing:
        monthly_bars(axes[1], results, missing)
        axes[1].set_title("energy missing at departure, kWh a month")
    style.legend(figure, axes[:1])
    return figure


def sockets(results: Results) -> Figure:
    """Every socket's departures, the share of them that was served, and the energy missing."""
    figure, axes = style.subplots(4.2, (1, 1, 1), sharex=True)
    first = next(iter(results.sockets.values()))
    place = np.arange(1, len(first) + 1)
    axes[0].bar(place, first.departures, color=style.GREY, width=0.8)
    shift = np.linspace(-0.25, 0.25, len(results.sockets)) if len(results.sockets) > 1 else [0.0]
    for (name, frame), by, marker in zip(results.sockets.items(), shift, MARKERS * len(results.sockets)):
        look = {**style.line(name), "linestyle": "none", "marker": marker, "markersize": 3.5}
        axes[1].plot(place + by, 100 * frame.served / frame.departures.where(frame.departures > 0), **look)
        axes[2].plot(place + by, frame.missing_kwh, **look)
    low = min(axes[1].get_ylim()[0], 99)
    axes[1].set_ylim(low, 100 + 0.06 * (100 - low))
    axes[2].set_ylim(bottom=min(0, axes[2].get_ylim()[0]))
    for axis, title in zip(axes, ("departures", "% of them served", "energy missing at departures, kWh")):
        axis.set_title(title)
        style.thousands(axis.yaxis)
    axes[2].xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes[2].set(xlim=(0.3, len(first) + 0.7), xlabel="socket")
    style.legend(figure, axes[1:2])
    return figure


def balance(results: Results) -> Figure:
    """Energy in and out: two bars of equal length per controller."""
    figure, (axis,) = style.subplots(1.5 + 0.66 * len(results.hours))
    largest = max(sum(energy_balance(hours)[0].values()) for hours in results.hours.values())
    divisor, unit = style.scale(largest, "MWh", "kWh")
    labels: list[str] = []
    for name, hours in results.hours.items():
        for flows, way in zip(energy_balance(hours), ("in", "out")):
            left = 0.0
            for label, value in flows.items():
                if value > 1e-4 * largest:
                    axis.barh(
                        len(labels), value / divisor, left=left, color=style.FLOWS[label], height=0.8, label=label
                    )
                left += value / divisor
            style.mark(axis, left, len(labels), f"{left:,.0f}")
            labels.append(f"{style.display_name(name)}, {way}")
    axis.set_yticks(range(len(labels)), labels)
    style.finish_bars(axis, unit, largest / divisor)
    style.legend(figure, [axis])
    return figure
