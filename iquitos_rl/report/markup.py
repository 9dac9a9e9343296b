"""The report's HTML: its style sheet and the pieces that sections are put together from. Every text is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

from matplotlib.figure import Figure

from iquitos_rl.report.results import Results
from iquitos_rl.report.style import save

CSS = """
:root { color: #111; background: #fff; font: 17px/1.5 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
body { max-width: 72rem; margin: 0 auto; padding: 0 0.8rem 3rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 1.2rem 0 0.6rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.4rem; border-top: 2px solid #111; padding-top: 0.5rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.2rem; }
p, ul { max-width: 46rem; margin: 0.4rem 0; }
.headline { font-size: 1.25rem; line-height: 1.35; font-weight: 600; }
.missing { color: #444; border-left: 4px solid #E69F00; padding-left: 0.6rem; }
nav { font-size: 0.95rem; } nav a { margin-right: 0.9rem; display: inline-block; padding: 0.2rem 0; color: #0072B2; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0.6rem 0; max-width: 33rem; min-width: 0; } figcaption { font-size: 0.9rem; color: #333; }
svg { width: 100%; height: auto; display: block; } svg * { stroke-linejoin: round; stroke-linecap: butt; }
.wide { overflow-x: auto; min-width: 0; /* a shadow where columns lie beyond the edge */
  background: linear-gradient(to left, #fff 40%, #fff0) right / 2rem 100% no-repeat local,
    linear-gradient(to left, #0004, #0000) right / 0.7rem 100% no-repeat scroll; } .full { grid-column: 1 / -1; }
table { border-collapse: collapse; font-size: 0.95rem; margin: 0.5rem 0; }
th, td { padding: 0.2rem 0.7rem 0.2rem 0; text-align: right; border-bottom: 1px solid #ccc; vertical-align: top;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
.facts td { text-align: left; }
@media (max-width: 30rem) { table { font-size: 0.8rem; } th, td { padding-right: 0.4rem; } }
pre { white-space: pre-wrap; font-size: 0.85rem; background: #f4f4f4; padding: 0.6rem; }
@media print {
  :root { font-size: 10pt; } body { max-width: none; padding: 0; } nav { display: none; }
  .figures { grid-template-columns: 1fr 1fr; } figure, tr, .headline { break-inside: avoid; }
  h2, h3 { break-after: avoid; } .wide { overflow: visible; background: none; }
  th, td { position: static !important; } table { font-size: 8.5pt; } pre { font-size: 7.5pt; }
}
"""


def document(title: str, body: str) -> str:
    """A whole page; `body` is HTML."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}</body>\n</html>\n"
    )


def prose(text: str) -> str:
    """Text in which no line breaks before a percent sign."""
    return escape(text).replace(" %", "&nbsp;%")


def paragraph(text: str, kind: str = "") -> str:
    return f"<p{kind and f' class={kind}'}>{prose(text)}</p>\n" if text else ""


def bullets(texts: Iterable[str]) -> str:
    items = "".join(f"<li>{prose(text)}</li>\n" for text in texts)
    return f"<ul>\n{items}</ul>\n" if items else ""


def missing(text: str) -> str:
    """The sentence that stands where a figure would."""
    return paragraph(text, "missing")


def table(rows: Iterable[Iterable[str]], head: Iterable[str] = ()) -> str:
    columns = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    cells = (("".join(f"<td>{prose(cell)}</td>" for cell in row)) for row in rows)
    lines = "".join(f"<tr>{row}</tr>\n" for row in cells)
    start = f"<thead><tr>{columns}</tr></thead>\n" if columns else ""
    return f"<div class=wide><table{'' if columns else ' class=facts'}>{start}<tbody>{lines}</tbody></table></div>\n"


def cell(value: float | None, scale: int | None) -> str:
    """A number divided by 10 ** scale, or a percentage where that is None; what is not known stays empty."""
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if scale is None else f"{value / 10**scale:,.{1 if scale else 0}f}"


def figure(results: Results, name: str, caption: str, draw: Callable[[], Figure]) -> str:
    """A drawn figure with its caption, which is what a screen reader reads too."""
    svg = save(draw, results.folder / "plots", name)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{svg}<figcaption>{prose(caption)}</figcaption></figure>\n"


def side_by_side(figures: Iterable[str]) -> str:
    return f'<div class="figures">\n{"".join(figures)}</div>\n'
