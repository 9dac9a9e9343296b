"""The learning benchmark's figures: interquartile means and their difference with intervals, a verdict, a table and a
plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from learning_rows import Row
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LIBRARIES = {"ours": "iquitos_rl", "sb3": "stable-baselines3"}
COLOURS = {"ours": "#0072B2", "sb3": "#E69F00"}
"""Blue and orange of Okabe and Ito, "Color Universal Design" (2008)."""
RESAMPLES = 20_000
FEWEST_SEEDS = 3
"""Fewer say nothing of the spread: such a row counts as not measured."""

Runs = dict[tuple[str, str], list[dict[str, Any]]]
"""The runs by row name and library."""


class Interval(NamedTuple):
    """An interquartile mean and the bounds of its 95 % interval."""

    mean: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Mean over the last axis of what is left without the lowest and the highest quarter, rounded down."""
    cut = scores.shape[-1] // 4
    middle: np.ndarray[Any, Any] = np.sort(scores, -1)[..., cut : scores.shape[-1] - cut].mean(-1)
    return middle


def interval(scores: Sequence[float]) -> Interval:
    """Percentile bootstrap over the seeds of one row (Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of
    the Statistical Precipice"); with one task a row, a row is the stratum within which seeds are drawn."""
    values = np.asarray(scores, dtype=np.float64)
    low, high = np.percentile(drawn(values, 0), [2.5, 97.5])
    return Interval(float(interquartile_mean(values)), float(low), float(high))


def drawn(scores: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    """(RESAMPLES,) interquartile means of draws of the seeds."""
    return interquartile_mean(np.random.default_rng(seed).choice(scores, (RESAMPLES, len(scores))))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Interval:
    """Ours less the peer's, the seeds of both drawn independently."""
    a, b = (np.asarray(scores, dtype=np.float64) for scores in (ours, theirs))
    low, high = np.percentile(drawn(a, 0) - drawn(b, 1), [2.5, 97.5])
    return Interval(float(interquartile_mean(a) - interquartile_mean(b)), float(low), float(high))


def verdict(found: Interval, margin: float) -> str:
    """Of a difference: "level" where the whole interval is within the margin, "open" where it says too little."""
    if -margin <= found.low and found.high <= margin:
        return "level"
    if found.low > 0:
        return "above"
    return "below" if found.high < 0 else "open"


def scores(runs: Sequence[dict[str, Any]]) -> list[float]:
    """Each run's mean return over its evaluation episodes."""
    return [fmean(run["returns"]) for run in runs]


def intervals(runs: Runs, row: Row) -> dict[str, Interval]:
    """The interval of each library that has run at least `FEWEST_SEEDS` seeds of the row."""
    groups = {library: runs.get((row.name, library), []) for library in LIBRARIES}
    return {library: interval(scores(group)) for library, group in groups.items() if len(group) >= FEWEST_SEEDS}


def table(rows: Sequence[Row], runs: Runs) -> str:
    """Markdown, a line for each row."""
    head = ["algorithm", "environment", "steps", *LIBRARIES.values(), "difference", "margin", "ours is", "published"]
    lines = ["| " + " | ".join([*head, "seconds, ours", "seconds, theirs"]) + " |"]
    lines.append("|---|---|" + "---:|" * 5 + "---|" + "---:|" * 3)
    for row in rows:
        found, returns, times = intervals(runs, row), [], []
        for library in LIBRARIES:
            known = library in found
            returns.append(figure(found[library], len(runs[row.name, library])) if known else "not measured")
            times.append(seconds(runs[row.name, library]) if known else "")
        outcome = ["", f"{row.margin:g}", ""]
        if len(found) == 2:
            less = difference(*(scores(runs[row.name, library]) for library in LIBRARIES))
            outcome = [
                f"{less.mean:+.1f} [{less.low:+.1f}, {less.high:+.1f}]",
                f"{row.margin:g}",
                verdict(less, row.margin),
            ]
        cells = [row.algorithm.upper(), row.env, f"{row.steps:,}", *returns, *outcome, row.published, *times]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def figure(found: Interval, seeds: int) -> str:
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}] ({seeds})"


def seconds(group: Sequence[dict[str, Any]]) -> str:
    """Mean wall seconds of training, and in brackets those that the processor worked."""
    return f"{fmean(run['wall_seconds'] for run in group):.0f} ({fmean(run['cpu_seconds'] for run in group):.0f})"


def plot(path: Path, rows: Sequence[Row], runs: Runs) -> None:
    """A panel for each row that both libraries have run: seeds as dots, interquartile mean and interval as a bar across
    them."""
    done = [row for row in rows if len(intervals(runs, row)) == len(LIBRARIES)]
    if not done:
        return
    columns = min(3, len(done))
    lines = -(-len(done) // columns)
    canvas = FigureCanvasAgg(Figure(figsize=(3.2 * columns, 1.7 * lines), layout="constrained"))
    axes = canvas.figure.subplots(lines, columns, squeeze=False).flatten()
    for ax in axes[len(done) :]:
        ax.remove()
    for ax, row in zip(axes, done):
        for height, library in enumerate(reversed(LIBRARIES)):
            values, colour = scores(runs[row.name, library]), COLOURS[library]
            found = interval(values)
            bar = {"color": colour, "linewidth": 7, "alpha": 0.35, "solid_capstyle": "butt"}
            ax.plot([found.low, found.high], [height, height], **bar)
            ax.plot([found.mean], [height], "|", color=colour, markersize=16, markeredgewidth=2)
            ax.plot(values, [height] * len(values), ".", color=colour, markersize=5)
        ax.set_yticks([0, 1], [LIBRARIES[library] for library in reversed(LIBRARIES)], fontsize=8)
        ax.set_ylim(-0.6, 1.6)
        ax.margins(x=0.15)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.tick_params(axis="x", labelsize=8)
        ax.set_title(f"{row.algorithm.upper()}, {row.env},\n{row.steps:,} steps", fontsize=8, loc="left")
        ax.spines[["top", "right", "left"]].set_visible(False)
    canvas.figure.supxlabel("mean return of the deterministic policy", fontsize=8)
    canvas.figure.savefig(path, dpi=160)
