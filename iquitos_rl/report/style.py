"""What the report's figures share: size, colours, the writing of PNG and SVG.

All are 4.2 in wide with 9 pt letters, so that they stay readable on a telephone; on a wide screen two stand side by
side. Colours are those of Okabe and Ito, "Color Universal Design" (2008), which colour-blind readers tell apart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from iquitos_rl.agents.registry import AGENTS, AgentEntry
from iquitos_rl.baselines.registry import CONTROLLERS, ControllerEntry
from iquitos_rl.baselines.registry import GREY as GREY
from iquitos_rl.errors import UserError

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
FLOWS = {
    **{"import": "#BBBBBB", "PV": YELLOW, "battery out": SKY, "battery in": BLUE},
    **{"load": "#444444", "vehicles": PURPLE, "cooling, heating, hot water": GREEN, "export": ORANGE},
    **{"losses, other": VERMILLION, "lost in outages": VERMILLION},
}
"""Where energy comes from and goes to."""
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
WIDTH = 4.2
PLAIN = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
"""Behind figures beside bars, so that no line runs through them."""
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.3,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
}


def entry(name: str) -> AgentEntry | ControllerEntry:
    """What the registries know of a controller; a grey one where its plugin is not there any more."""
    return AGENTS.get(name) or CONTROLLERS.get(name) or ControllerEntry(name.replace("_", " "), "", None)


def display_name(name: str) -> str:
    """A controller's name for people."""
    return entry(name).label


def colour(name: str) -> str:
    """A controller's colour, the same in every figure of every report."""
    return entry(name).colour


def dashes(name: str) -> str:
    """A controller's line; that of an agent is solid."""
    return CONTROLLERS[name].dashes if name in CONTROLLERS else "-"


def line(name: str) -> dict[str, Any]:
    """How a controller's line looks, and its label."""
    return {"linestyle": dashes(name), "color": colour(name), "label": display_name(name)}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Our style over matplotlib's defaults, whatever the reader's own settings say; theirs come back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save(draw: Callable[[], Figure], folder: Path, name: str) -> str:
    """Write a figure as PNG and return it as SVG that may stand in one HTML page with others.

    Raises:
        UserError: the PNG cannot be written.
    """
    name = re.sub(r"[^\w-]", "_", name)
    image, svg = render(draw, name)
    path = folder / f"{name}.png"
    temporary = path.with_name(path.name + ".tmp")
    try:
        folder.mkdir(exist_ok=True)
        temporary.write_bytes(image)
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return svg


def render(draw: Callable[[], Figure], name: str) -> tuple[bytes, str]:
    """A figure as PNG, and as SVG that may stand in one HTML page with others of other names."""
    with drawing_style():
        matplotlib.rcParams["svg.hashsalt"] = name
        figure, image, text = draw(), io.BytesIO(), io.StringIO()
        FigureCanvasAgg(figure).print_figure(image, format="png", metadata={"Software": None})
        # What was laid out for the one stands for the other; with a layout engine of any kind it would be drawn twice.
        matplotlib.rcParams["figure.constrained_layout.use"] = False
        figure.set_layout_engine(None)
        figure.savefig(text, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    return image.getvalue(), inline_svg(text.getvalue())


def inline_svg(text: str) -> str:
    """An SVG file's element without what only a file needs: prolog, namespaces, metadata, unused ids."""
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"| (?:width|height)="[\d.]+pt"', "", svg)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    return re.sub(r">\s+<", "><", svg).strip()


def subplots(height: float, ratios: tuple[float, ...] = (1,), **options: Any) -> tuple[Figure, Any]:
    """A figure of our width and its axes from top to bottom."""
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(len(ratios), 1, gridspec_kw={"height_ratios": ratios}, squeeze=False, **options)[:, 0]
    return figure, axes


def legend(figure: Figure, axes: Iterable[Any], columns: int = 3) -> None:
    """One legend above all panels, where it hides no data; each label once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    options = {"loc": "outside upper left", "ncols": columns, "handlelength": 1.4, "columnspacing": 1.2}
    figure.legend(handles.values(), handles.keys(), **options)


def thousands(*axes: Any) -> None:
    for axis in axes:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def short(value: float) -> str:
    """A number with three digits, or with all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def scale(largest: float, large: str, small: str) -> tuple[float, str]:
    """What to divide by, and the unit: the large one from 10,000 of the small one."""
    return (1e3, large) if largest >= 1e4 else (1.0, small)


def mark(axis: Any, value: float, row: float, text: str, left: bool = False) -> None:
    """Write a bar's value next to its end."""
    shift, side = (-3, "right") if left else (3, "left")
    axis.annotate(text, (value, row), (shift, 0), textcoords="offset points", va="center", ha=side, bbox=PLAIN)


def finish_bars(axis: Any, label: str, largest: float | None = None) -> None:
    """Scale, label and grid under horizontal bars; those up to `largest` start at zero."""
    if largest is not None:
        axis.invert_yaxis()
        axis.set_xlim(0, max(largest, 1e-9) * 1.17)
        axis.xaxis.set_major_locator(MaxNLocator(6))
    thousands(axis.xaxis)
    axis.set_xlabel(label)
    axis.grid(axis="y", visible=False)
