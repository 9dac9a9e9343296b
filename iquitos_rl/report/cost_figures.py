"""Figures of bills, CO2 and learning curves, drawn from a run's results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iquitos_rl.report import style
from iquitos_rl.report.measures import co2_terms, scores, step_hours
from iquitos_rl.report.results import Results

TERMS = {
    "energy_cost": ("energy", style.BLUE),
    "demand_cost": ("demand charge", style.ORANGE),
    "carbon_cost": ("carbon price", style.GREEN),
    "shortfall_cost": ("EV shortfall", style.VERMILLION),
}
"""Label and colour."""
THERMAL_TERMS = {
    "comfort_cost": ("discomfort", style.PURPLE),
    "unserved_cost": ("unserved energy", style.GREY),
}
"""The same, of sites with thermal devices."""


def bill(results: Results, names: list[str]) -> Figure:
    """Each controller's bill, stacked by term."""
    found = [results.controllers[name] for name in names]
    known = TERMS | {key: look for key, look in THERMAL_TERMS.items() if all(key in own for own in found)}
    terms = {label: (shade, [own[key] / 1e3 for own in found]) for key, (label, shade) in known.items()}
    return stacked_bars(names, terms, f"thousand {results.currency}")


def co2(results: Results, names: list[str]) -> Figure:
    """Each controller's grid CO2, stacked by use of the energy."""
    found = [co2_terms(results.controllers[name]) for name in names]
    terms = {label: (style.FLOWS[label], [own[label] for own in found]) for label in found[0]}
    return stacked_bars(names, terms, "tonnes of CO2 from the grid")


def stacked_bars(names: list[str], terms: dict[str, tuple[str, list[float]]], unit: str) -> Figure:
    """One bar per controller, stacked from `terms`: label to colour and one value per controller."""
    figure, (axis,) = style.subplots(1.3 + 0.34 * len(names))
    left = np.zeros(len(names))
    rows = [style.display_name(name) for name in names]
    for label, (shade, values) in terms.items():
        axis.barh(rows, values, left=left, color=shade, label=label, height=0.7)
        left += values
    for row, total in enumerate(left):
        style.mark(axis, total, row, f"{total:,.0f}")
    style.finish_bars(axis, unit, left.max())
    style.legend(figure, [axis], columns=2)
    return figure


def saving(results: Results, names: list[str]) -> Figure:
    """How far each term of the bill is below uncontrolled, which the stacked bars show too coarsely."""
    figure, (axis,) = style.subplots(1.2 + 0.2 * len(names) * len(TERMS))
    idle = results.controllers["uncontrolled"]
    first = np.arange(len(names)) * (len(TERMS) + 1)
    for row, (key, (label, shade)) in enumerate(TERMS.items()):
        values = [(idle[key] - results.controllers[name][key]) / 1e3 for name in names]
        axis.barh(first + row, values, color=shade, label=label, height=0.85)
        for y, value in zip(first + row, values):
            style.mark(axis, value, y, f"{round(value, 1) + 0.0:+,.1f}", left=value <= -0.05)
    axis.set_yticks(first + (len(TERMS) - 1) / 2, map(style.display_name, names))
    axis.axvline(0, color=style.BLACK, linewidth=0.8)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    style.finish_bars(axis, f"thousand {results.currency} below uncontrolled")
    style.legend(figure, [axis], columns=2)
    return figure


def above_optimum(results: Results, names: list[str]) -> Figure:
    """How far each controller's bill is above the optimum's of the same year."""
    return scored_bars(results, names, "above_optimum", ",.0f", f"thousand {results.currency} above perfect foresight")


def gap(results: Results, names: list[str]) -> Figure:
    """Share of the gap between uncontrolled (0) and optimum (100 %) that each controller closes."""
    figure = scored_bars(results, names, "gap_closed", ".1f", "% of the gap, 100 is perfect foresight")
    figure.axes[0].axvline(100, color=style.BLACK, linewidth=0.8, linestyle="--")
    return figure


def below_strongest(results: Results, names: list[str]) -> Figure:
    """How far each controller's bill is below the strongest rule's of the same year."""
    return scored_bars(results, names, "below_strongest", "+.2f", "% below the strongest rule's bill of the same year")


def scored_bars(results: Results, names: list[str], key: str, form: str, label: str) -> Figure:
    """A score of each controller; in a comparison with its interval and a stroke for each seed and year."""
    found = scores(results, key)
    figure, (axis,) = style.subplots(0.75 + 0.34 * len(names))
    for row, name in enumerate(names):
        score = found[name]
        axis.barh(row, score.value, color=style.colour(name), height=0.62)
        axis.plot(score.each, np.full(len(score.each), row + 0.17), "|", color=style.BLACK, markersize=5, alpha=0.5)
        if score.low < score.high:
            axis.plot([score.low, score.high], [row - 0.12] * 2, "|-", color=style.BLACK, linewidth=1.3, markersize=5)
        style.mark(axis, max(0.0, score.high, *score.each), row, f"{score.value:{form}}")
    axis.set_yticks(range(len(names)), map(style.display_name, names))
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.margins(x=0.16)
    axis.axvline(0, color=style.BLACK, linewidth=0.8)
    style.finish_bars(axis, label)
    return figure


def learning(results: Results) -> Figure:
    """Training metrics over site-years: points, and their running mean over a twentieth of the rows. With several
    trainings per agent, only the running means."""
    hours = next(iter(results.hours.values()), None)
    year = 8760 / (1.0 if hours is None else step_hours(hours))  # steps
    panels = (
        ("episode_return", "return of finished episodes", False),
        ("env/energy_cost", f"energy cost, thousand {results.currency} a site-year", True),
        ("env/carbon_kg", "grid CO2, t a site-year", True),
    )
    used = [panel for panel in panels if any(panel[0] in f for frames in results.metrics.values() for f in frames)]
    figure, axes = style.subplots(0.6 + 1.35 * len(used), (1,) * len(used), sharex=True)
    for axis, (key, title, summed) in zip(axes, used):
        for name, frames in results.metrics.items():
            draw_curves(axis, name, [training_curve(frame, key, summed, year) for frame in frames if key in frame])
        axis.set_title(title)
        style.thousands(axis.yaxis)
    axes[-1].set_xlabel("site-years trained")
    axes[-1].xaxis.set_major_locator(MaxNLocator(6))
    if len(results.metrics) > 1:
        style.legend(figure, axes[:1])
    return figure


def training_curve(frame: pd.DataFrame, key: str, summed: bool, year: float) -> pd.Series[float]:
    """A metric by site-years trained; a `summed` one (the total since the row before) in thousands a site-year."""
    values = frame[key]
    if summed:
        values = values / frame.step.diff().fillna(frame.step) * year / 1e3
    return values.set_axis(frame.step / year).dropna()


def draw_curves(axis: Any, name: str, curves: list[pd.Series[float]]) -> None:
    """An agent's running means, and the points if it was trained once."""
    shade, alone = style.colour(name), len(curves) == 1
    for curve in curves:
        if alone:
            axis.plot(curve, ".", color=shade, alpha=0.3, markersize=3, markeredgewidth=0)
        smooth = curve.rolling(max(1, len(curve) // 20), min_periods=1).mean()
        marker = "." if len(curve) == 1 else ""  # a single point draws no line
        look = {"color": shade, "label": style.display_name(name), "linewidth": 1.3 if alone else 0.9}
        axis.plot(smooth, marker=marker, **look)
