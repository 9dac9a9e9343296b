"""What sizes earn, drawn."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from iquitos_rl.judging.sizes import Sized
from iquitos_rl.report import style

SHADES = (style.BLUE, style.ORANGE, style.GREEN, style.VERMILLION, style.PURPLE, style.SKY, style.GREY)


def earnings(found: Sequence[Sized], currency: str, span: str) -> Figure:
    """How far the bill of each size is below that of the first: a line for each PV, over the battery; over PV where
    there is one battery."""
    first = found[0]
    batteries = {own.size.battery_kwh for own in found}
    over_pv = len(batteries) == 1
    lines = sorted({own.size.battery_kwh if over_pv else own.size.pv_kw for own in found})
    figure, (axis,) = style.subplots(2.8)
    for line, shade in zip(lines, [*SHADES] * len(lines)):
        own = [s for s in found if (s.size.battery_kwh if over_pv else s.size.pv_kw) == line]
        x = [s.size.pv_kw if over_pv else s.size.battery_kwh for s in own]
        name = f"battery of {line:g} kWh" if over_pv else f"PV of {line:g} kW"
        axis.plot(x, [first.rule - s.rule for s in own], "o-", color=shade, markersize=4, label=f"{name}, rule")
        axis.plot(x, [first.optimum - s.optimum for s in own], "o:", color=shade, markersize=4, label="optimum")
    axis.axhline(0, color=style.BLACK, linewidth=0.6)
    axis.set(xlabel="PV, kW" if over_pv else "battery, kWh", title=f"earned, {currency} {span}")
    style.thousands(axis.yaxis)
    style.legend(figure, [axis], columns=2)
    return figure
