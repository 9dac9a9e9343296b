"""Figures of what controllers cost and how agents learned: each function draws one `Figure` from a run's results."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from iquitos_rl.report.results import Results, gap_share, step_hours
from iquitos_rl.report.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    colour,
    display_name,
    finish_bars,
    legend,
    mark,
    subplots,
    thousands,
)

TERMS = (
    ("energy_cost", "energy", BLUE),
    ("demand_cost", "demand charge", ORANGE),
    ("carbon_cost", "carbon price", GREEN),
    ("shortfall_cost", "EV shortfall", PURPLE),
)


def bill(results: Results, names: list[str]) -> Figure:
    """Each controller's bill, stacked by term."""
    figure, (axis,) = subplots(1.3 + 0.34 * len(names))
    left = np.zeros(len(names))
    rows = [display_name(name) for name in names]
    for key, label, shade in TERMS:
        values = np.array([results.controllers[name].get(key, 0.0) / 1e3 for name in names])
        axis.barh(rows, values, left=left, color=shade, label=label, height=0.7)
        left += values
    for row, name in enumerate(names):
        mark(axis, left[row], row, f"{results.controllers[name]['bill'] / 1e3:,.0f}")
    finish_bars(axis, left.max(), f"thousand {results.summary.get('currency', 'currency')}")
    legend(figure, axis, columns=2)
    return figure


def co2(results: Results, names: list[str]) -> Figure:
    """Each controller's grid CO2: one term, import times intensity."""
    figure, (axis,) = subplots(0.75 + 0.34 * len(names))
    values = [results.controllers[name]["co2_kg"] / 1e3 for name in names]
    axis.barh([display_name(name) for name in names], values, color=GREEN, height=0.7)
    for row, value in enumerate(values):
        mark(axis, value, row, f"{value:,.0f}")
    finish_bars(axis, max(values), "tonnes of CO2 from the grid")
    return figure


def saving(results: Results, names: list[str]) -> Figure:
    """Terms of the bill below uncontrolled: what the stacked bars are too coarse to show."""
    figure, (axis,) = subplots(1.2 + 0.2 * len(names) * len(TERMS))
    idle = results.controllers["uncontrolled"]
    terms = [term for term in TERMS if all(term[0] in results.controllers[name] for name in ("uncontrolled", *names))]
    for row, (key, label, shade) in enumerate(terms):
        values = [(idle[key] - results.controllers[name][key]) / 1e3 for name in names]
        place = np.arange(len(names)) * (len(terms) + 1) + row
        axis.barh(place, values, color=shade, label=label, height=0.85)
        for y, value in zip(place, values):
            mark(axis, value, y, f"{round(value, 1) + 0.0:+,.1f}", left=value <= -0.05)
    axis.set_yticks(np.arange(len(names)) * (len(terms) + 1) + (len(terms) - 1) / 2, map(display_name, names))
    axis.axvline(0, color=BLACK, linewidth=0.8)
    axis.invert_yaxis()
    axis.margins(x=0.2)
    thousands(axis.xaxis)
    axis.set_xlabel(f"thousand {results.summary.get('currency', 'currency')} below uncontrolled")
    axis.grid(axis="y", visible=False)
    legend(figure, axis, columns=2)
    return figure


def judged_years(results: Results, names: list[str], key: str, scale: float, bound: float | None = None) -> Figure:
    """A figure of a comparison's controllers: interquartile means, their intervals with seeds drawn whole, and each
    seed in each year."""
    figure, (axis,) = subplots(0.95 + 0.34 * len(names))
    points = seed_values(results, key)
    for row, name in enumerate(names):
        own, shade = results.standings[name][key], colour(results, name)
        dots = [scale * value for value in points.get(name, [])]
        axis.plot(dots, np.full(len(dots), row), "|", color=shade, markersize=7, alpha=0.6)
        low, middle, high = (scale * own[end] for end in ("low_whole", "value", "high_whole"))
        axis.plot([low, high], [row, row], color=shade, linewidth=3, solid_capstyle="butt", alpha=0.6)
        axis.plot(middle, row, "o", color=shade, markersize=5)
        mark(axis, max(high, *dots) if dots else high, row, f"{middle:.1f}")
    for line in (0.0, bound):
        if line is not None:
            axis.axvline(line, color=BLACK, linewidth=0.8, linestyle="-" if line == 0 else "--")
    axis.set_yticks(range(len(names)), map(display_name, names))
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.margins(x=0.14)
    axis.grid(axis="y", visible=False)
    return figure


def seed_values(results: Results, key: str) -> dict[str, list[float]]:
    """Controller to `gap_closed` or `below_strongest` of each of its records."""
    records = results.summary["records"]
    bills = {(record["controller"], record["year"]): record["figures"]["bill"] for record in records}
    found: dict[str, list[float]] = {}
    for record in records:
        bill, year = record["figures"]["bill"], record["year"]
        if key == "gap_closed":
            idle, best = bills["uncontrolled", year], bills["optimum", year]
            value = (idle - bill) / (idle - best)
        else:
            value = 100 * (1 - bill / bills["strongest", year])
        found.setdefault(record["controller"], []).append(value)
    return found


def gap(results: Results, names: list[str]) -> Figure:
    """Share of the gap between uncontrolled (0) and optimum (100 %) that each controller closes."""
    if results.standings:
        figure = judged_years(results, names, "gap_closed", 100, bound=100)
        figure.axes[0].set_xlabel("% of the gap, 100 is perfect foresight")
        return figure
    shares = [100 * (gap_share(results.controllers, name) or 0.0) for name in names]
    figure, (axis,) = subplots(0.75 + 0.34 * len(names))
    axis.barh([display_name(name) for name in names], shares, color=[colour(results, name) for name in names])
    for row, share in enumerate(shares):
        mark(axis, max(share, 0), row, f"{share:.1f} %")
    axis.axvline(0, color=BLACK, linewidth=0.8)
    axis.axvline(100, color=BLACK, linewidth=0.8, linestyle="--")
    finish_bars(axis, 100, "% of the gap, 100 is perfect foresight")
    axis.set_xlim(min(0, *shares) * 1.1, 117)
    return figure


def below_strongest(results: Results, names: list[str]) -> Figure:
    """How far each controller's bill is below the strongest rule's of the same year."""
    figure = judged_years(results, names, "below_strongest", 1)
    figure.axes[0].set_xlabel("% below the strongest rule's bill of the same year")
    return figure


def learning(results: Results) -> Figure:
    """Training figures over site-years: the points and their running mean over a twentieth of the rows; of several
    trainings the running means, one line each."""
    panels = (
        ("episode_return", "return of finished episodes", None),
        ("env/energy_cost", f"energy cost, thousand {results.summary.get('currency', 'currency')} a site-year", 1e-3),
        ("env/carbon_kg", "grid CO2, t a site-year", 1e-3),
    )
    used = [panel for panel in panels if any(panel[0] in f for frames in results.metrics.values() for f in frames)]
    figure, axes = subplots(0.6 + 1.35 * len(used), (1,) * len(used), sharex=True)
    for axis, (key, title, per_year) in zip(axes, used):
        for name, frames in results.metrics.items():
            shade, label = colour(results, name), display_name(name)
            for frame in (frame for frame in frames if key in frame):
                values = frame[key]
                if per_year is not None:  # summed over the steps since the row before
                    values = values / frame.step.diff().fillna(frame.step) * site_year(results) * per_year
                known = values.notna().to_numpy()
                years, values = (frame.step / site_year(results))[known], values[known]
                if len(frames) == 1:
                    axis.plot(years, values, ".", color=shade, alpha=0.3, markersize=3, markeredgewidth=0)
                smooth = values.rolling(max(1, len(values) // 20), min_periods=1).mean()
                axis.plot(years, smooth, color=shade, label=label, linewidth=1.3 if len(frames) == 1 else 0.9)
                label = "_"  # one entry in the legend
        axis.set_title(title)
        thousands(axis.yaxis)
    axes[-1].set_xlabel("site-years trained")
    axes[-1].xaxis.set_major_locator(MaxNLocator(6))
    if len(results.metrics) > 1:
        legend(figure, axes[0])
    return figure


def site_year(results: Results) -> float:
    """Steps in 365 days."""
    frame = next(iter(results.hours.values()), None)
    return 8760 / (1.0 if frame is None else step_hours(frame))
