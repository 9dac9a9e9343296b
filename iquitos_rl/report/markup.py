"""Fills `page.html`, the template of the report, and escapes every text that goes into it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from iquitos_rl.judging.standings import EXPLAINED, kpis_explained
from iquitos_rl.report import cost_figures, dispatch_figures, hour_figures, indoor_figures, tables
from iquitos_rl.report.results import Results
from iquitos_rl.report.style import display_name, save


def fill_page(results: Results, title: str, headline: list[str]) -> str:
    """The page, with its figures written to the run's folder."""
    environment = templates()
    environment.filters["named"] = display_name
    figures = {"cost": cost_figures, "hour": hour_figures, "power": dispatch_figures, "indoor": indoor_figures}
    environment.globals.update(results=results, figure=partial(figure, results), tables=tables, **figures)
    page = environment.get_template("page.html").render(
        title=title, headline=headline, explained=EXPLAINED, kpis_explained=f"{kpis_explained(results.vehicles)}."
    )
    return page.lstrip()  # of the empty lines between the template's macros


def templates(*more: Path) -> Environment:
    """Where pages are filled from, and `more` folders that are looked into first; every value is escaped."""
    return Environment(
        loader=FileSystemLoader([*more, Path(__file__).parent]),
        autoescape=True,
        finalize=prose,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def prose(text: Any) -> Markup:
    """Escaped text without line breaks before percent signs; HTML as it is."""
    return text if isinstance(text, Markup) else Markup(escape(str(text)).replace(" %", "&nbsp;%"))


def figure(results: Results, name: str, caption: str, draw: Callable[..., Figure], *arguments: Any) -> Markup:
    """The figure `draw(results, *arguments)` with its caption, which is also the text for screen readers.

    Nothing if one of the arguments is an empty list.
    """
    if [] in arguments:
        return Markup()
    return captioned(save(lambda: draw(results, *arguments), results.folder / "plots", name), caption)


def captioned(svg: str, caption: str) -> Markup:
    """A drawing with its caption, which is also the text for screen readers."""
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return Markup(f"<figure>{svg}<figcaption>{prose(caption)}</figcaption></figure>\n")
