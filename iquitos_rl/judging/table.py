"""The summary as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROWS = (
    ("bill", "bill", 0),
    ("energy", "energy_cost", 0),
    ("demand charge", "demand_cost", 0),
    ("carbon price", "carbon_cost", 0),
    ("EV shortfall", "shortfall_cost", 0),
    ("discomfort", "comfort_cost", 0),
    ("unserved energy", "unserved_cost", 0),
    ("CO2, t", "co2_kg", 3),
    ("import, MWh", "import_kwh", 3),
    ("export, MWh", "export_kwh", 3),
    ("EV charging, MWh", "ev_kwh", 3),
    ("EV departures", "departures", 0),
    ("of these served", "departures_served", 0),
    ("EV energy missing, kWh", "ev_missing_kwh", 0),
    ("self-consumption of PV", "self_consumption", None),
    ("BESS full cycles", "battery_cycles", 0),
)


def comparison_table(summary: dict[str, Any]) -> str:
    """A Markdown table with one column for each controller; a figure that a controller does not have stays empty."""
    controllers: dict[str, dict[str, float]] = summary["controllers"]
    head = f"{summary['case']}, {summary['evaluated_on']}, {summary['currency']} per year"
    text = markdown_table([[head, *controllers], *figure_rows(controllers)])
    for agent, percent in summary["reductions_percent"].items():
        for reference, values in percent.items():
            bill, co2 = values.get("bill"), values.get("co2_kg")
            parts = [f"{name} {value:+.2f} %" for name, value in (("bill", bill), ("CO2", co2)) if value is not None]
            text += f"\n{agent} below {reference.removeprefix('vs_')}: {', '.join(parts)}\n"
    for agent, share in summary["gap_closed"].items():
        if agent in summary["reductions_percent"]:
            text += f"\n{agent} closes {100 * share:.1f} % of the gap between uncontrolled and optimum\n"
    return text.rstrip("\n")


def figure_rows(controllers: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Label and a cell for each controller, for those `ROWS` that any of them has."""
    return [
        [label, *(cell(found.get(key), scale) for found in controllers.values())]
        for label, key, scale in ROWS
        if any(key in found for found in controllers.values())
    ]


def cell(value: float | None, scale: int | None) -> str:
    """A number divided by 10 ** scale, or as a percentage if `scale` is None; empty if the value is None."""
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if scale is None else f"{value / 10**scale:,.{1 if scale else 0}f}"


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is the head, and every column but the first is aligned to the right."""
    head, *lines = (f"| {' | '.join(row)} |\n" for row in rows)
    return f"{head}|---|{'---:|' * (head.count(' | '))}\n{''.join(lines)}"


def listed(facts: Mapping[str, Any]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())
