"""Figures of bills, CO2 and learning curves, drawn from a run's results."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iquitos_rl.judging.table import is_year
from iquitos_rl.report import style
from iquitos_rl.report.measures import Score, co2_terms, scores, step_hours
from iquitos_rl.report.results import Results

TERMS = {
    "energy_cost": ("energy", style.BLUE),
    "demand_cost": ("demand charge", style.ORANGE),
    "carbon_cost": ("carbon price", style.GREEN),
    "shortfall_cost": ("EV shortfall", style.VERMILLION),
}
"""Label and colour."""
OTHER_TERMS = {
    "export_cost": ("export", style.SKY),
    "fixed_cost": ("standing charge", style.YELLOW),
    "comfort_cost": ("discomfort", style.PURPLE),
    "unserved_cost": ("unserved energy", style.GREY),
}
"""The same, of tariffs that have them, and of sites with thermal devices."""


def bill(results: Results, names: list[str]) -> Figure:
    """Each controller's bill, stacked by term."""
    found = [results.controllers[name] for name in names]
    divisor, unit = money(results, [own["bill"] for own in found])
    terms = {label: (shade, [own[key] / divisor for own in found]) for key, (label, shade) in billed(found).items()}
    return stacked_bars(names, terms, unit)


def billed(found: list[dict[str, float]]) -> dict[str, tuple[str, str]]:
    """Those terms of the bill that any controller pays, key to label and colour."""
    known = TERMS | {key: look for key, look in OTHER_TERMS.items() if all(key in own for own in found)}
    return {key: look for key, look in known.items() if any(own[key] for own in found)} or TERMS


def money(results: Results, values: Iterable[float]) -> tuple[float, str]:
    """What to divide amounts by, and the unit."""
    largest = max((abs(value) for value in values), default=0.0)
    return style.scale(largest, f"thousand {results.currency}", results.currency)


def co2(results: Results, names: list[str]) -> Figure:
    """Each controller's grid CO2, stacked by use of the energy."""
    found = [co2_terms(results.controllers[name]) for name in names]
    labels = dict.fromkeys(label for own in found for label in own)
    labels = {label: None for label in labels if any(own.get(label) for own in found)} or labels
    largest = max((sum(own.values()) for own in found), default=0.0)
    divisor, unit = style.scale(1e3 * largest, "tonnes", "kg")
    terms = {label: (style.FLOWS[label], [1e3 / divisor * own.get(label, 0.0) for own in found]) for label in labels}
    return stacked_bars(names, terms, f"{unit} of CO2 from the grid")


def stacked_bars(names: list[str], terms: dict[str, tuple[str, list[float]]], unit: str) -> Figure:
    """One bar per controller, stacked from `terms`: label to colour and one value per controller; what is below 0 is
    stacked to the left."""
    figure, (axis,) = style.subplots(1.3 + 0.34 * len(names))
    right, left = np.zeros(len(names)), np.zeros(len(names))
    rows = [style.display_name(name) for name in names]
    for label, (shade, values) in terms.items():
        above, below = np.maximum(values, 0.0), np.minimum(values, 0.0)
        axis.barh(rows, above, left=right, color=shade, label=label, height=0.7)
        if below.any():
            axis.barh(rows, below, left=left, color=shade, height=0.7)
        right, left = right + above, left + below
    for row, total in enumerate(right + left):
        style.mark(axis, right[row], row, style.short(total))
    style.finish_bars(axis, unit, right.max())
    if left.any():
        axis.set_xlim(left=1.05 * left.min())
        axis.axvline(0, color=style.BLACK, linewidth=0.8)
    style.legend(figure, [axis], columns=2)
    return figure


def saving(results: Results, names: list[str]) -> Figure:
    """How far each term of the bill is below uncontrolled, which the stacked bars show too coarsely."""
    idle = results.controllers["uncontrolled"]
    terms = billed([idle, *(results.controllers[name] for name in names)])
    figure, (axis,) = style.subplots(1.2 + 0.2 * len(names) * len(terms))
    first = np.arange(len(names)) * (len(terms) + 1)
    divisor, unit = money(results, [idle["bill"]])
    for row, (key, (label, shade)) in enumerate(terms.items()):
        values = [(idle[key] - results.controllers[name][key]) / divisor for name in names]
        axis.barh(first + row, values, color=shade, label=label, height=0.85)
        for y, value in zip(first + row, values):
            style.mark(axis, value, y, f"{round(value, 1) + 0.0:+,.1f}", left=value <= -0.05)
    axis.set_yticks(first + (len(terms) - 1) / 2, map(style.display_name, names))
    axis.axvline(0, color=style.BLACK, linewidth=0.8)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    style.finish_bars(axis, f"{unit} below uncontrolled")
    style.legend(figure, [axis], columns=2)
    return figure


def above_optimum(results: Results, names: list[str]) -> Figure:
    """How far each controller's bill is above the optimum's of the same year."""
    divisor, unit = money(
        results, (value for score in scores(results, "above_optimum").values() for value in score[:3])
    )
    return scored_bars(results, names, "above_optimum", style.short, f"{unit} above perfect foresight", divisor)


def gap(results: Results, names: list[str]) -> Figure:
    """Share of the gap between uncontrolled (0) and optimum (100 %) that each controller closes."""
    figure = scored_bars(results, names, "gap_closed", "{:.1f}".format, "% of the gap, 100 is perfect foresight")
    figure.axes[0].axvline(100, color=style.BLACK, linewidth=0.8, linestyle="--")
    return figure


def below_strongest(results: Results, names: list[str]) -> Figure:
    """How far each controller's bill is below the strongest rule's of the same year."""
    label = "% below the strongest rule's bill of the same year"
    return scored_bars(results, names, "below_strongest", "{:+.2f}".format, label)


def scored_bars(
    results: Results, names: list[str], key: str, form: Callable[[float], str], label: str, divisor: float = 1.0
) -> Figure:
    """A score of each controller; in a comparison with its interval and a stroke for each seed and year."""
    found = {
        name: Score(score.value / divisor, score.low / divisor, score.high / divisor, [x / divisor for x in score.each])
        for name, score in scores(results, key).items()
    }
    figure, (axis,) = style.subplots(0.75 + 0.34 * len(names))
    for row, name in enumerate(names):
        score = found[name]
        axis.barh(row, score.value, color=style.colour(name), height=0.62)
        axis.plot(score.each, np.full(len(score.each), row + 0.17), "|", color=style.BLACK, markersize=5, alpha=0.5)
        if score.low < score.high:
            axis.plot([score.low, score.high], [row - 0.12] * 2, "|-", color=style.BLACK, linewidth=1.3, markersize=5)
        style.mark(axis, max(0.0, score.high, *score.each), row, form(score.value))
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
    step = 1.0 if hours is None else step_hours(hours)
    large = max((abs(own.get("bill", 0.0)) for own in results.controllers.values()), default=0.0) >= 1e4
    long = hours is None or is_year(len(hours) * step)
    span, unit = (8760 / step, "site-year") if long else (24 / step, "site-day")
    scaled = long and large
    divisor, money, mass = (1e3, f"thousand {results.currency}", "t") if scaled else (1.0, results.currency, "kg")
    panels = (
        ("episode_return", "return of finished episodes", False),
        ("env/energy_cost", f"energy cost, {money} a {unit}", True),
        ("env/carbon_kg", f"grid CO2, {mass} a {unit}", True),
    )
    used = [panel for panel in panels if any(panel[0] in f for frames in results.metrics.values() for f in frames)]
    figure, axes = style.subplots(0.6 + 1.35 * len(used), (1,) * len(used), sharex=True)
    for axis, (key, title, summed) in zip(axes, used):
        for name, frames in results.metrics.items():
            draw_curves(
                axis, name, [training_curve(frame, key, summed, span, divisor) for frame in frames if key in frame]
            )
        axis.set_title(title)
        style.thousands(axis.yaxis)
    axes[-1].set_xlabel(f"{unit}s trained")
    axes[-1].xaxis.set_major_locator(MaxNLocator(6))
    if len(results.metrics) > 1:
        style.legend(figure, axes[:1])
    return figure


def training_curve(frame: pd.DataFrame, key: str, summed: bool, span: float, divisor: float) -> pd.Series[float]:
    """A metric by the spans trained, of so many steps; a `summed` one (the total since the row before) as so many
    times `divisor` in a span."""
    values = frame[key]
    if summed:
        values = values / frame.step.diff().fillna(frame.step) * span / divisor
    return values.set_axis(frame.step / span).dropna()


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
