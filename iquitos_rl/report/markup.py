"""HTML building blocks of the report. They escape every text that they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from iquitos_rl.report.results import Results
from iquitos_rl.report.style import save

CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def document(title: str, body: str) -> str:
    """A complete page; `body` is HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{CSS}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n"
    )


def prose(text: str) -> str:
    """Escaped text without line breaks before percent signs."""
    return escape(text).replace(" %", "&nbsp;%")


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{kind and f' class={kind}'}>{prose(text)}</p>\n" if text else ""


def bullets(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{prose(text)}</li>\n" for text in texts)
    return f"<ul>\n{items}</ul>\n" if items else ""


def missing(text: str) -> str:
    """A sentence in place of content that cannot be shown."""
    return paragraph(text, "missing")


def table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    columns = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{prose(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    start = f"<thead><tr>{columns}</tr></thead>\n" if columns else ""
    return f"<div class=wide><table{'' if columns else ' class=facts'}>{start}<tbody>{lines}</tbody></table></div>\n"


def cell(value: float | None, scale: int | None) -> str:
    """A number divided by 10 ** scale, or as a percentage if `scale` is None; empty if the value is None."""
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if scale is None else f"{value / 10**scale:,.{1 if scale else 0}f}"


def figure(results: Results, name: str, caption: str, draw: Callable[..., Figure], *arguments: Any) -> str:
    """The figure `draw(results, *arguments)` with its caption, which is also the text for screen readers."""
    svg = save(lambda: draw(results, *arguments), results.folder / "plots", name)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{svg}<figcaption>{prose(caption)}</figcaption></figure>\n"


def side_by_side(figures: Iterable[str]) -> str:
    return f'<div class="figures">\n{"".join(figures)}</div>\n'
