"""The page of a tuning: what it found, what mattered, and how trials went; one file that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from iquitos_rl.agents.search import Between, Search
from iquitos_rl.assignments import write_value
from iquitos_rl.machine.files import write_text
from iquitos_rl.report import style
from iquitos_rl.report.markup import captioned, templates
from iquitos_rl.tuning.study import RUNGS, distributions, inside, require_optuna

FEW = 8
"""Trials below which nothing can be said about what matters."""
ROWS = 20
"""Of the table of the best trials."""
Trials = list[dict[str, Any]]


def write_page(folder: Path, summary: Mapping[str, Any], search: Search) -> Path:
    """Write `report.html` and `plots/*.png`; returns the page's path.

    Args:
        summary: what `trials.json` holds.

    Raises:
        UserError: the folder cannot be written to.
    """
    reached: Trials = [trial for trial in summary["trials"] if trial["rungs"]]
    figures = []
    if reached:
        unit = summary["measure"]
        figures = [
            (
                "curves",
                f"Mean {unit} in the validation years after shares of the training; a line is a trial, black the best.",
                lambda: curves(summary, reached),
            ),
            (
                "parallel",
                "A line is a trial: where its settings lie in what was searched. Darker is better, black best.",
                lambda: parallel(summary, reached, search),
            ),
        ]
    if len(reached) >= FEW:
        shares = importance(reached, search)
        text = (
            f"Share of each setting in what decides whether {summary['measure']} is low after a ninth of the training."
        )
        figures.append(("importance", f"{text} By PED-ANOVA (Watanabe et al. 2023).", lambda: bars(shares)))
    page = (
        templates(Path(__file__).parent)
        .get_template("tuning.html")
        .render(
            summary=summary,
            title=f"{summary['case']}: {style.display_name(summary['agent'])} tuned",
            figures=[_figure(folder, *own) for own in figures],
            rows=table(summary, search),
            head=["trial", summary["measure"], "of the training", *(_short(key) for key in search)],
            few=len(reached) < FEW,
        )
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def table(summary: Mapping[str, Any], search: Search) -> list[list[str]]:
    """The best trials, those that went furthest first."""
    reached = [trial for trial in summary["trials"] if trial["rungs"]]
    reached.sort(key=lambda trial: (-len(trial["rungs"]), last(trial)))
    return [
        [
            str(trial["number"]),
            f"{last(trial):,.6g}",
            f"{len(trial['rungs']) and RUNGS[len(trial['rungs']) - 1]}/{RUNGS[-1]}",
            *(_text(trial["settings"][key]) for key in search),
        ]
        for trial in reached[:ROWS]
    ]


def last(trial: Mapping[str, Any]) -> float:
    """What a trial came to after most of its training."""
    return float(trial["rungs"][str(RUNGS[len(trial["rungs"]) - 1])])


def curves(summary: Mapping[str, Any], trials: Trials) -> Figure:
    """Each trial's value over the steps of its training."""
    figure, (axis,) = style.subplots(3.0)
    for trial in [*trials, *(t for t in trials if t["number"] == summary["best"])]:
        best = trial["number"] == summary["best"]
        x = [summary["steps"] * int(rung) / RUNGS[-1] for rung in trial["rungs"]]
        look = {"color": style.BLACK if best else style.SKY, "linewidth": 2 if best else 0.9}
        axis.plot(x, list(trial["rungs"].values()), marker="o", markersize=3, **look)
    axis.set_xlabel("steps of the training")
    axis.set_ylabel(summary["measure"])
    style.thousands(axis.xaxis, axis.yaxis)
    return figure


def parallel(summary: Mapping[str, Any], trials: Trials, search: Search) -> Figure:
    """Each trial as a line through its settings, scaled to what was searched."""
    figure, (axis,) = style.subplots(0.9 + 0.34 * len(search))
    ranked = sorted(trials, key=lambda trial: (-len(trial["rungs"]), last(trial)))
    rows = np.arange(len(search))
    for place, trial in reversed(list(enumerate(ranked))):
        best = trial["number"] == summary["best"]
        share = 1 - place / len(ranked)
        x = [position(trial["settings"][key], search[key]) for key in search]
        axis.plot(x, rows, color=style.BLACK if best else style.BLUE, alpha=1.0 if best else 0.1 + 0.6 * share**2)
    labels = [f"{_short(key)}\n{_ends(space)}" for key, space in search.items()]
    axis.set_yticks(rows, labels, fontsize=7)
    axis.set_xticks([0, 1], ["low", "high"])
    axis.set_ylim(len(search) - 0.6, -0.4)
    axis.grid(axis="x", visible=False)
    return figure


def bars(shares: Mapping[str, float]) -> Figure:
    """Importance of each setting."""
    figure, (axis,) = style.subplots(0.75 + 0.25 * len(shares))
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    for row, (_, share) in enumerate(ranked):
        axis.barh(row, 100 * share, color=style.BLUE, height=0.62)
        style.mark(axis, 100 * share, row, f"{100 * share:.0f}")
    axis.set_yticks(range(len(ranked)), [_short(key) for key, _ in ranked])
    style.finish_bars(axis, "importance, %", largest=100 * max(shares.values(), default=1.0))
    return figure


def importance(trials: Trials, search: Search) -> dict[str, float]:
    """Share of each setting in the value of the first rung, which every trial has."""
    optuna = require_optuna()
    study, spaces = optuna.create_study(), distributions(search)
    for trial in trials:
        drawn, value = inside(trial["settings"], search), trial["rungs"][str(RUNGS[0])]
        study.add_trial(optuna.trial.create_trial(params=drawn, distributions=spaces, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    total = sum(found.values())
    return {key: value / total if total > 0 else 0.0 for key, value in found.items()}


def position(value: Any, space: Any) -> float:
    """Where a value lies in what was searched, 0 to 1."""
    if not isinstance(space, Between):
        places = [_text(own) for own in space.values]
        return places.index(_text(value)) / max(1, len(places) - 1)
    low, high, own = np.log([space.low, space.high, value]) if space.log else (space.low, space.high, value)
    return float((own - low) / (high - low))


def _figure(folder: Path, name: str, caption: str, draw: Callable[[], Figure]) -> Markup:
    return captioned(style.save(draw, folder / "plots", name), caption)


def _short(key: str) -> str:
    return key.removeprefix("agent.")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return write_value(list(value) if isinstance(value, tuple) else value)


def _ends(space: Any) -> str:
    if isinstance(space, Between):
        return f"{space.low:g} to {space.high:g}"
    return f"{_text(space.values[0])} to {_text(space.values[-1])}"
