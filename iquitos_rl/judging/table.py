"""The summary as a table for people."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from iquitos_rl.judging.scores import KPI, SCORES

HOURS = ("timeseries", "trace", "sockets", "indoors")
"""Kinds of CSV files of a simulated year, see `judging/timeseries.py`; the last two only where a site has them."""
RATIO = -1
"""Scale of a number that is shown with four digits."""
CENTS = -2
"""Scale of an amount that is shown with two."""
ROWS = (
    ("bill", "bill", 0),
    ("energy", "energy_cost", 0),
    ("demand charge", "demand_cost", 0),
    ("carbon price", "carbon_cost", 0),
    ("EV shortfall", "shortfall_cost", 0),
    ("export", "export_cost", 0),
    ("standing charge", "fixed_cost", 0),
    ("discomfort", "comfort_cost", 0),
    ("unserved energy", "unserved_cost", 0),
    ("CO2, t", "co2_kg", 3),
    ("import, MWh", "import_kwh", 3),
    ("export, MWh", "export_kwh", 3),
    ("of these lost at the export limit, MWh", "lost_export_kwh", 3),
    ("cooling, heating, hot water, MWh", "thermal_kwh", 3),
    ("not served in outages, kWh", "unserved_kwh", 0),
    ("EV charging, MWh", "ev_kwh", 3),
    ("EV departures", "departures", 0),
    ("of these served (5 points of SOC)", "departures_served", 0),
    ("EV energy missing, kWh", "ev_missing_kwh", 0),
    ("self-consumption of PV", "self_consumption", None),
    ("BESS full cycles", "battery_cycles", 0),
)
BEYOND = ("grid_only", "optimum")
"""What no controller can be compared with: it is no controller."""
SMALL_KWH = 10_000
"""A site that imports less is told in kWh and kg, not in MWh and t."""
SMALL_BILL = 1_000
"""A smaller bill is told with two decimals."""
VEHICLES = ("ev_kwh", "departures", "departures_served", "ev_missing_kwh", "shortfall_cost")
FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a formula begins with, in either width."""
UNUSED = (
    "demand_cost",
    "carbon_cost",
    "comfort_cost",
    "unserved_cost",
    "unserved_kwh",
    "export_kwh",
    "export_cost",
    "lost_export_kwh",
)
"""Rows that are left out where no controller has anything in them."""


def comparison_table(summary: dict[str, Any]) -> str:
    """A Markdown table with one column for each controller; a figure that a controller does not have stays empty."""
    controllers: dict[str, dict[str, float]] = summary["controllers"]
    head = f"{summary['case']}, {summary['evaluated_on']}, {summary['currency']} {period(controllers)}"
    rows, scores = figure_rows(controllers), score_rows(controllers)
    text = markdown_table([[head, *controllers], *rows, *scores[:1]])
    agents = summary["reductions_percent"]
    for agent in agents:
        opponent = best_opponent(controllers, agents, "bill")
        for other in dict.fromkeys(name for name in (opponent, "uncontrolled") if name is not None):
            text += f"\n{agent} is {difference(controllers[agent], controllers[other], summary['currency'])} {other}"
            text += ", the best of the others" if other == opponent else ""
        if agent in summary["gap_closed"]:
            share = 100 * summary["gap_closed"][agent]
            text += f"\n{agent} closes {share:.1f} % of the gap between uncontrolled and optimum"
        text += "\n"
    return text.rstrip("\n")


def best_opponent(controllers: Mapping[str, Mapping[str, float]], agents: Collection[str], key: str) -> str | None:
    """The controller with the lowest figure of those that can be beaten: no agent, no bound, no sum."""
    able = [name for name in controllers if name not in (*agents, *BEYOND) and key in controllers[name]]
    return min(able, key=lambda name: controllers[name][key], default=None)


def difference(mine: Mapping[str, float], theirs: Mapping[str, float], currency: str) -> str:
    """How two bills differ: `82 PEN (0.02 %) better than`."""
    less = theirs["bill"] - mine["bill"]
    share = f" ({100 * abs(less) / theirs['bill']:.2f} %)" if theirs["bill"] > 0 else ""
    return f"{money(abs(less), theirs['bill'])} {currency}{share} {'better' if less >= 0 else 'worse'} than"


def money(value: float, bill: float) -> str:
    """An amount, as precise as the bill that it belongs to asks for."""
    return f"{value:,.{2 if abs(bill) < SMALL_BILL else 0}f}"


def figure_rows(controllers: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Label and a cell for each controller, for those `ROWS` that say something of the site."""
    everyone = controllers.values()
    small = max((found.get("import_kwh", SMALL_KWH) for found in everyone), default=SMALL_KWH) < SMALL_KWH
    cents = max((abs(found.get("bill", 0.0)) for found in everyone), default=0.0) < SMALL_BILL
    idle = {key for key in UNUSED if not any(found.get(key) for found in everyone)}
    if not any(found.get("departures") or found.get("ev_kwh") for found in everyone):
        idle |= set(VEHICLES)
    rows = []
    for label, key, scale in ROWS:
        if key not in idle and any(key in found for found in everyone):
            if small and scale == 3:
                label, scale = label.replace(", MWh", ", kWh").replace(", t", ", kg"), 0
            if cents and (key == "bill" or key.endswith("_cost")):
                scale = CENTS
            rows.append([label, *(cell(found.get(key), scale) for found in everyone)])
    return rows


def score_rows(controllers: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Label and a cell for each controller, for those `SCORES` that any of them has; less is better."""
    return [
        [label, *(cell(found.get(key), RATIO) for found in controllers.values())]
        for key, label in SCORES.items()
        if any(key in found for found in controllers.values())
    ]


def kpi_rows(controllers: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """The same for CityLearn's KPIs, by CityLearn's names."""
    names = dict.fromkeys(key for found in controllers.values() for key in found if key.startswith(KPI))
    return [
        [name.removeprefix(KPI), *(cell(found.get(name), RATIO) for found in controllers.values())] for name in names
    ]


def is_year(hours: float | None) -> bool:
    """Whether so many hours are a year; a run that does not say how many has one."""
    return hours is None or abs(hours / 24 - 365.5) < 1


def period(controllers: Mapping[str, Mapping[str, float]]) -> str:
    """How long the controllers were simulated: `per year`, `in 30 days`."""
    hours = next((found["hours"] for found in controllers.values() if "hours" in found), None)
    if hours is None or is_year(hours):
        return "per year"
    return f"in {hours / 24:.0f} days" if hours >= 48 else f"in {hours:.0f} hours"


def cell(value: float | None, scale: int | None) -> str:
    """A number divided by 10 ** scale, as a percentage if `scale` is None, with four digits if it is `RATIO`, with two
    if it is `CENTS`; empty if the value is None."""
    if value is None:
        return ""
    if scale == RATIO:
        return f"{round(value, 4) + 0.0:.4f}"
    if scale == CENTS:
        return f"{value:,.2f}"
    return f"{100 * value:.1f} %" if scale is None else f"{value / 10**scale:,.{1 if scale else 0}f}"


def plain_cell(text: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula; what is no text stays as it is."""
    if not isinstance(text, str):
        return text
    text = "".join(c if c.isprintable() else " " for c in text)
    return f"'{text}" if text.lstrip().startswith(FORMULAS) else text


def plain_words(text: str) -> str:
    """Text that Markdown shows as it is, on one line: nothing in it is a tag, a link or the edge of a cell."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"[\\`*<>|]", r"\\\g<0>", text).replace("](", "]\\(")


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is the head, and every column but the first is aligned to the right."""
    first, *others = rows
    head, *lines = (f"| {' | '.join(map(plain_words, row))} |\n" for row in (first, *others))
    return f"{head}|---|{'---:|' * (len(first) - 1)}\n{''.join(lines)}"


def listed(facts: Mapping[str, Any]) -> str:
    """Names and values in one line."""
    return ", ".join(plain_words(f"{name} {value}") for name, value in facts.items())
