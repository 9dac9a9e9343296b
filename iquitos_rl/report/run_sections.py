"""The report's sections on the run itself, as HTML: learning, time and memory, checks, settings."""

from __future__ import annotations

from html import escape
from typing import Any

import yaml

from iquitos_rl.report import cost_figures
from iquitos_rl.report.markup import bullets, figure, missing, paragraph, side_by_side, table
from iquitos_rl.report.measures import gap_share
from iquitos_rl.report.results import Results
from iquitos_rl.report.style import display_name

LABELS = {
    "train_s": "training, s",
    "steps": "site-hours trained",
    "steps_per_s": "site-hours trained a second",
    "checkpoint_s": "waiting for checkpoints, s",
    "checkpoint_share": "waiting for checkpoints, share of training",
    "ram_peak_mib": "peak RAM of the process, MiB",
    "gpu_allocated_peak_mib": "peak GPU memory allocated, MiB",
    "gpu_reserved_peak_mib": "peak GPU memory reserved, MiB",
    "ram_mib": "RAM in training, MiB",
    "largest_balance_residual_kwh": "largest residual of an hour's energy balance, kWh",
    "demand_charge_booked_minus_defined": "demand charges as booked minus by definition",
    "district_largest_net_difference_kwh": "training engine against CityLearn: an hour's net, kWh at most",
    "district_bill_difference_percent": "training engine against CityLearn: the year's bill, %",
    "evaluated_on": "evaluated on",
    "created": "started",
    "wall_s": "whole run, s",
}
PROVENANCE = ("evaluated_on", "simulator", "created", "command")


def learning(results: Results) -> str:
    """Learning curves, and the time and memory of training."""
    parts, notes = [], []
    for name in results.agents:
        if name not in results.metrics:
            notes.append(f"No metrics.csv of {display_name(name)}: its learning curve is missing.")
    if results.metrics:
        caption = "Points: metrics during training; line: their running mean."
        if any(len(frames) > 1 for frames in results.metrics.values()):
            caption = "Running means of metrics during training, one line per seed."
        caption += " They include exploration and use the training years, so they are not the evaluation's results."
        parts.append(figure(results, "learning", caption, cost_figures.learning))
    parts.append(speed(results))
    return side_by_side(parts) + "".join(map(missing, notes))


def speed(results: Results) -> str:
    """Time and memory: of each agent, then of the whole run."""
    taken = {name: spent(results, name) for name in results.agents}
    keys = dict.fromkeys(key for own in taken.values() for key in own)
    rows = [[LABELS.get(key, key), *(own.get(key, "") for own in taken.values())] for key in keys]
    whole = {key: results.summary[key] for key in ("wall_s",) if key in results.summary}
    whole |= results.summary.get("memory", {})
    facts = [[LABELS.get(key, key), number(value)] for key, value in whole.items()]
    html = (table(rows, ("", *map(display_name, taken))) if rows else "") + (table(facts) if facts else "")
    return f"<div>{html}</div>\n" if html else missing("The summary holds neither memory nor time.")


def spent(results: Results, name: str) -> dict[str, str]:
    """An agent's time, and its memory from the first to the last row of its first training, which would show a leak."""
    found = {key: number(value) for key, value in results.summary.get("timing", {}).get(name, {}).items()}
    for frame in results.metrics.get(name, [])[:1]:
        for key in (str(column) for column in frame if str(column).endswith("_mib")):
            series = frame[key].dropna()
            if len(series):
                found[key] = f"{series.iloc[0]:,.0f} to {series.iloc[-1]:,.0f}"
    return found


def number(value: float) -> str:
    """A number with three digits, or with all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def audit(results: Results) -> str:
    """Checks and their results, warnings first."""
    checks = results.summary.get("audit", {})
    warnings = [str(warning) for warning in checks.get("warnings", [])]
    for name in results.agents + tuple(results.rules):
        if (gap_share(results.controllers, name) or 0.0) > 1:
            warnings.append(f"{display_name(name)} is below the optimum: either that bound or this result is wrong")
    facts = [[LABELS.get(key, key), number(value)] for key, value in checks.items() if key != "warnings"]
    facts += [] if results.standings else sums_of_hours(results)
    html = paragraph("Warnings about the data:" if warnings else "No warning about the data.") + bullets(warnings)
    html += "" if checks else missing("The summary holds no audit.")
    return html + table(facts + seeds(results) + provenance(results.summary))


def sums_of_hours(results: Results) -> list[list[str]]:
    """Relative difference between the sums of a run's time series and the totals in its summary."""
    facts = []
    for name, hours in results.hours.items():
        found = results.controllers.get(name, {})
        keys = [key for key in ("import_kwh", "export_kwh", "co2_kg") if found.get(key, 0) > 0]
        if keys:
            off = max(abs(hours[key].sum() / found[key] - 1) for key in keys)
            facts.append([f"{display_name(name)}: sums of the CSV against the summary", f"{off:.1e} apart at most"])
    return facts


def seeds(results: Results) -> list[list[str]]:
    summary = results.summary
    if not results.standings:
        used = summary.get("settings", {})
        return [[f"seed of {display_name(name)}", str(own["seed"])] for name, own in used.items() if "seed" in own]
    shown = ", ".join(f"{display_name(name)} {seed}" for name, seed in summary["hours_of_seed"].items())
    return [
        ["seeds of every agent", ", ".join(map(str, range(summary["seeds"])))],
        [f"seed whose hours are shown, the median in {summary['years'][0]}", shown],
    ]


def provenance(summary: dict[str, Any]) -> list[list[str]]:
    """Command, machine, versions and date."""
    facts = [[LABELS.get(key, key), str(summary[key])] for key in PROVENANCE if key in summary]
    for key in ("machine", "versions"):
        facts += [[key, ", ".join(f"{name} {value}" for name, value in summary[key].items())]] if key in summary else []
    return facts


def settings(results: Results) -> str:
    used = results.summary.get("settings")
    if not used:
        return missing("The summary holds no settings.")
    text = yaml.safe_dump(used, sort_keys=False, allow_unicode=True)
    return f"<details><summary>Every setting of this run</summary><pre>{escape(text)}</pre></details>\n"
