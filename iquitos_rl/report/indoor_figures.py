"""Figures of what it is like inside: temperatures against the comfort band, outages, tanks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from iquitos_rl.report import style
from iquitos_rl.report.dispatch_figures import steps, time_ticks
from iquitos_rl.report.measures import peak_window, step_hours
from iquitos_rl.report.results import Results

MOST = 3
"""Buildings in a figure; more would be too small to read."""
DAYS = 7
TANKS = {"cooling": style.SKY, "heating": style.VERMILLION, "dhw": style.ORANGE}


def buildings(inside: pd.DataFrame) -> list[str]:
    """Names of the buildings whose temperature is simulated."""
    return [str(column).rpartition("/")[0] for column in inside if str(column).endswith("/temperature")]


def shown(results: Results, name: str) -> list[str]:
    """The buildings that a figure of a controller shows: those with the most degree-hours outside of the band."""
    inside = results.indoors[name]
    found = buildings(inside)
    worst = sorted(found, key=lambda building: -float(outside(inside, building, results.comfort_band).sum()))
    return [building for building in found if building in worst[:MOST]]


def outside(inside: pd.DataFrame, building: str, band: float) -> pd.Series[float]:
    """Degrees beyond the band in each row in which it counts."""
    own = inside[f"{building}/temperature"]
    low, high, counts = band_of(inside, building, band)
    return ((low - own).clip(lower=0) + (own - high).clip(lower=0)) * counts


def band_of(
    inside: pd.DataFrame, building: str, band: float
) -> tuple[pd.Series[float], pd.Series[float], pd.Series[bool]]:
    """The lowest and the highest comfortable temperature, C, and whether they count: while somebody is in and the
    building may be cooled or heated. One that is only cooled, or only heated, has one set-point for both."""
    names = ("cooling_set_point", "heating_set_point", "cools", "heats", "occupied")
    cooling, heating, cools, heats, occupied = (inside[f"{building}/{name}"] for name in names)
    low, high = heating.where(heats > 0, cooling), cooling.where(cools > 0, heating)
    return low - band, high + band, (occupied > 0) & (cools + heats > 0)


def window(results: Results, name: str) -> slice:
    """Rows of the days shown: around the first outage, else around the highest import."""
    hours, inside = results.hours[name], results.indoors[name]
    out = inside[[column for column in inside if str(column).endswith("/outage")]].to_numpy().any(axis=-1)
    if not out.any():
        return peak_window(hours, DAYS)
    per_day = round(24 / step_hours(hours))
    days = -(-len(hours) // per_day)
    first = max(0, min(int(out.argmax()) // per_day - 1, days - DAYS)) * per_day
    return slice(first, min(first + DAYS * per_day, len(hours)))


def when(results: Results, name: str) -> str:
    """The days shown, and which buildings, in words."""
    rows, step = window(results, name), step_hours(results.hours[name])
    first, last = (int(row * step / 24) + 1 for row in (rows.start, rows.stop - 1))
    drawn, every = shown(results, name), buildings(results.indoors[name])
    chosen = f": the {len(drawn)} of {len(every)} buildings with the most discomfort" * (len(drawn) < len(every))
    return f"days {first} to {last}{chosen}"


def indoors(results: Results, name: str) -> Figure:
    """A week of a controller: temperatures of the buildings that are least comfortable, the band while somebody is in,
    outages, and the SOC of the tanks that it uses."""
    rows = window(results, name)
    hours, step = results.hours[name].iloc[rows], step_hours(results.hours[name])
    frames = {who: results.indoors[who].iloc[rows] for who in ("uncontrolled", name) if who in results.indoors}
    inside, drawn = frames[name], shown(results, name)
    tanks = [building for building in drawn if soc_columns(inside, building)]
    ratios = (*(2.2 for _ in drawn), *(1.0 for _ in tanks))
    figure, axes = style.subplots(1.2 + 0.47 * sum(ratios), ratios, sharex=True)
    time = np.arange(len(hours) + 1) * step / (1 if len(hours) * step <= 24 else 24)
    for axis, building in zip(axes, drawn):
        temperatures(axis, time, frames, building, results.comfort_band)
    for axis, building in zip(axes[len(drawn) :], tanks):
        for use, column in soc_columns(inside, building).items():
            label = f"tank, {'hot water' if use == 'dhw' else use}"
            steps(axis, time, 100 * inside[column], color=TANKS[use], label=label)
        axis.set(ylim=(0, 105), title=f"{building}: SOC of its tanks, %")
    time_ticks(axes[-1], hours, int(rows.start * step / 24), time[-1])
    style.legend(figure, [axes[0], *axes[len(drawn) :]])
    return figure


def soc_columns(inside: pd.DataFrame, building: str) -> dict[str, str]:
    """The columns of a building's tanks by their use, of those that are not empty all the time."""
    named = {use: f"{building}/{use}_soc" for use in TANKS}
    return {use: column for use, column in named.items() if column in inside and inside[column].any()}


def temperatures(axis: Any, time: Any, frames: dict[str, pd.DataFrame], building: str, band: float) -> None:
    """The temperature of a building under each controller, over its band and its outages."""
    inside = next(reversed(frames.values()))
    held = [np.append(values, values.iloc[-1]) for values in band_of(inside, building, band)]
    axis.fill_between(
        *(time, *held[:2]), where=held[2], step="post", color=style.GREEN, alpha=0.25, linewidth=0, label="comfort band"
    )
    out = inside[f"{building}/outage"].to_numpy() > 0
    for row in np.flatnonzero(out):
        axis.axvspan(time[row], time[row + 1], color=style.GREY, alpha=0.3, linewidth=0, label="no grid")
    for who, frame in frames.items():
        steps(axis, time, frame[f"{building}/temperature"], **style.line(who))
    axis.set_title(f"{building}: inside, C")
