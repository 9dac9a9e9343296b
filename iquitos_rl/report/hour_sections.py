"""The report's sections on time series, as HTML. A sentence says what cannot be shown because the run lacks it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

from matplotlib.figure import Figure

from iquitos_rl.report import dispatch_figures, hour_figures
from iquitos_rl.report.markup import cell, figure, missing, paragraph, side_by_side, table
from iquitos_rl.report.measures import energy_balance, peak_window, step_hours
from iquitos_rl.report.results import Results
from iquitos_rl.report.style import MONTHS, display_name


def dispatch(results: Results) -> str:
    if not results.hours:
        return missing("The run's folder holds no timeseries CSV: no hour can be shown.")
    reference = next(iter(results.hours))  # uncontrolled if the run has it
    hours, parts = results.hours[reference], []
    for days, span in ((1, "day"), (7, "week")):
        rows = peak_window(hours, days)
        first, last = (int(row * step_hours(hours) / 24) + 1 for row in (rows.start, rows.stop - 1))
        month = MONTHS[int(hours.month.iloc[rows.start] - 1) % 12]
        when = f"day {first} ({month})" if days == 1 else f"days {first} to {last} (from {month})"
        parts.append(f"<h3>The {span} with the highest import of {escape(display_name(reference))}: {when}</h3>\n")
        parts.append(per_controller(results, span, when, dispatch_figures.dispatch, rows))
    parts.append("<h3>Every day</h3>\n")
    parts.append(per_controller(results, "year", "every day of the simulated period", dispatch_figures.year))
    absent = [display_name(name) for name in ("uncontrolled", *results.agents) if name not in results.hours]
    lacking = f"No timeseries CSV for {', '.join(absent)}: its hours are not shown." if absent else ""
    return "".join(parts) + missing(lacking)


def per_controller(results: Results, kind: str, what: str, draw: Callable[..., Figure], *arguments: Any) -> str:
    return side_by_side(
        figure(results, f"{kind}_{name}", f"{display_name(name)}, {what}.", draw, name, *arguments)
        for name in results.controlled
    )


def average_day(results: Results) -> str:
    if not results.hours:
        return missing("The run's folder holds no timeseries CSV: no average day can be shown.")
    figures = [figure(results, "average_day", "Mean over all days.", hour_figures.average_day)]
    for name, hours in results.controlled.items():
        for key, label in (("net_kwh", "net import"), ("bess_kwh", "battery power")):
            if hours[key].any():
                caption = f"{display_name(name)}: mean {label} by hour of the day and month."
                place = f"map_{key.removesuffix('_kwh')}_{name}"
                figures.append(figure(results, place, caption, hour_figures.heat_map, name, key))
    return side_by_side(figures)


def vehicles(results: Results) -> str:
    rows = [
        [
            display_name(name),
            *(cell(found.get(key), 0) for key in ("departures", "departures_served", "ev_missing_kwh")),
            cell(found.get("served_share"), None),
        ]
        for name, found in results.controllers.items()
        if found.get("departures")
    ]
    if not rows:
        return missing("The summary lists no departing vehicles.")
    parts = [table(rows, ("", "departures", "served", "missing, kWh", "share"))]
    html = paragraph("Served: at departure the SOC was at most 5 points below the wanted SOC.")
    if results.hours:
        caption = "When vehicles are charged, and how much energy was missing at departure."
        parts.insert(0, figure(results, "vehicles", caption, hour_figures.vehicles))
        if not all("missing_kwh" in hours for name, hours in results.hours.items() if name != "optimum"):
            html += missing("A trace CSV is missing: energy missing at departure is not shown for every controller.")
    if results.sockets:
        caption = "Every socket: departures, share of them served, and energy missing."
        parts.append(figure(results, "sockets", caption, hour_figures.sockets))
        html += socket_table(results)
    else:
        html += missing("The run's folder holds no sockets CSV: single sockets are not shown.")
    return side_by_side(parts) + html


def socket_table(results: Results) -> str:
    """A collapsed table of every socket."""
    names = list(results.sockets)
    first = results.sockets[names[0]]
    head = ["socket", "departures", *(f"{display_name(name)}: {what}" for name in names for what in ("served", "kWh"))]
    rows = [
        [str(i + 1), cell(first.departures.iloc[i], 0)]
        + [cell(results.sockets[name][key].iloc[i], 0) for name in names for key in ("served", "energy_kwh")]
        for i in range(len(first))
    ]
    return f"<details><summary>Every socket</summary>{table(rows, head)}</details>\n"


def balance(results: Results) -> str:
    if not results.hours:
        return missing("The run's folder holds no timeseries CSV: no energy balance can be drawn.")
    caption = "Where energy came from and where it went. Battery in minus battery out: losses and what is still stored."
    lines = []
    for name, hours in results.hours.items():
        came, went = (sum(flows.values()) for flows in energy_balance(hours))
        cells = (f"{came / 1e3:,.1f}", f"{went / 1e3:,.1f}", f"{round(came - went, 3) + 0.0:.3f}")
        lines.append([display_name(name), *cells])
    drawn = figure(results, "balance", caption, hour_figures.balance)
    return side_by_side([drawn, table(lines, ("", "in, MWh", "out, MWh", "difference, kWh"))])
