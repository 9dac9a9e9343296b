"""The summary as a table for people."""

from __future__ import annotations

from typing import Any

ROWS = (
    ("bill", "bill", 0),
    ("energy", "energy_cost", 0),
    ("demand charge", "demand_cost", 0),
    ("carbon price", "carbon_cost", 0),
    ("EV shortfall", "shortfall_cost", 0),
    ("discomfort", "comfort_cost", 0),
    ("unserved in outages", "unserved_cost", 0),
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
    names = list(controllers)
    head = f"{summary['case']}, {summary['evaluated_on']}, {summary['currency']} per year"
    lines = [f"| {head} | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for label, key, scale in ROWS:
        if any(key in controllers[name] for name in names):
            cells = (_cell(controllers[name].get(key), scale) for name in names)
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    for agent, percent in summary["reductions_percent"].items():
        for reference, values in percent.items():
            bill, co2 = values.get("bill"), values.get("co2_kg")
            parts = [f"{name} {value:+.2f} %" for name, value in (("bill", bill), ("CO2", co2)) if value is not None]
            lines.append(f"\n{agent} below {reference.removeprefix('vs_')}: {', '.join(parts)}")
    for agent, share in summary["gap_closed"].items():
        if agent in summary["reductions_percent"]:
            lines.append(f"\n{agent} closes {100 * share:.1f} % of the gap between uncontrolled and optimum")
    return "\n".join(lines)


def _cell(value: float | None, scale: int | None) -> str:
    if value is None:
        return ""
    if scale is None:
        return f"{100 * value:.1f} %"
    return f"{value / 10**scale:,.1f}" if scale else f"{value:,.0f}"
