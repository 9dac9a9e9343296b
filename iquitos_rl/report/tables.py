"""What the page's tables and lists say, as text; a cell without a value is empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.judging.references import kept, opponents
from iquitos_rl.judging.scores import KPI
from iquitos_rl.judging.standings import HEAD, table_rows
from iquitos_rl.judging.summary import gap_shares
from iquitos_rl.judging.table import cell, figure_rows, kpi_rows, listed, score_rows
from iquitos_rl.report.measures import energy_balance, peak_window, scores, step_hours
from iquitos_rl.report.results import REFERENCES, Results
from iquitos_rl.report.savings import savings as savings
from iquitos_rl.report.style import MONTHS, display_name

Rows = list[list[str]]
Table = tuple[Rows, list[str]]
"""Rows and head."""
Controllers = Mapping[str, Mapping[str, float]]
LABELS = {
    "train_s": "training, s",
    "steps": "site-hours trained",
    "updates": "gradient steps",
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
    "district_bill_difference_percent": "training engine against CityLearn: the bill, %",
    "evaluated_on": "evaluated on",
    "created": "started",
    "wall_s": "whole run, s",
}


def labelled(values: Mapping[str, Any]) -> Rows:
    """Names for people and values."""
    return [[LABELS.get(key, key), value if isinstance(value, str) else number(value)] for key, value in values.items()]


def number(value: float) -> str:
    """A number with three digits, or with all digits before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def meanings(results: Results) -> Rows:
    """Every controller and what it does, as far as the site has it."""
    rows = []
    for name, entry in CONTROLLERS.items():
        if name in results.controllers:
            parts = entry.meaning.split(", ")
            absent = [
                what for what, there in (("vehicle", results.vehicles), ("cooling", results.thermal)) if not there
            ]
            rows.append([entry.label, ", ".join(part for part in parts if not any(what in part for what in absent))])
    return rows


def kpis(results: Results) -> Table:
    """Scores of challenges and CityLearn's KPIs, agents first."""
    names = [*results.agents, *(name for name in results.controllers if name not in results.agents)]
    found = {name: results.controllers[name] for name in names}
    found = {name: own for name, own in found.items() if any(key.startswith(KPI) for key in own)}
    return score_rows(found) + kpi_rows(found), ["", *map(display_name, found)]


def by_score(results: Results, key: str, *without: str) -> list[str]:
    """Controllers that have a score (of `SCORES`), the highest first."""
    found = scores(results, key)
    return sorted(found.keys() - set(without), key=lambda name: -found[name].value)


def ranked(controllers: Controllers, *keys: str) -> list[str]:
    """Controllers that have all these figures, those with most of the first one first."""
    found = [name for name, own in controllers.items() if all(key in own for key in keys)]
    return sorted(found, key=lambda name: -controllers[name][keys[0]])


def paired(results: Results) -> list[str]:
    """Controllers shown next to the strongest rule."""
    shown, known = (*results.agents, *opponents()[1:], "optimum"), scores(results, "below_strongest")
    return [name for name in shown if name in known]


def compared(results: Results, billed: list[str]) -> list[str]:
    """Controllers whose savings are shown; in a comparison, which has many rules, only what every run evaluates."""
    if "uncontrolled" not in billed:
        return []
    shown = {*results.agents, *kept()} if results.standings else set(billed)
    return [name for name in billed if name in shown - {"grid_only", "uncontrolled"}]


def standings(results: Results) -> Table:
    # A line may break before the interval in a cell, but not inside it.
    rows = [[cell.replace(", ", ",\N{NO-BREAK SPACE}") for cell in row] for row in table_rows(results.summary)]
    head = [name.replace("bill", f"bill, {results.summary.get('currency', '')}") for name in HEAD]
    return [[display_name(name), *cells] for name, *cells in rows], head


def evaluations(results: Results) -> Rows:
    """Every agent, seed and year."""
    forms = {"gap_closed": ".1f", "below_strongest": "+.2f"}
    shares = {key: scores(results, key) for key in forms}
    rows = []
    for name in (name for name in results.agents if name in results.standings):
        for i, record in enumerate(r for r in results.summary["records"] if r["controller"] == name):
            found = {key: own[name].each[i] for key, own in shares.items() if name in own}
            cells = [f"{found[key]:{form}} %" if key in found else "" for key, form in forms.items()]
            cells += [cell(record["figures"].get(key), 0) for key in ("bill", "departures_served", "departures")]
            rows.append([display_name(name), str(record["seed"]), record["year"], *cells])
    return rows


def demand_share(controllers: Controllers) -> str:
    """That imports are charged, and the share of it in the uncontrolled bill; empty where they are not."""
    idle = controllers.get("uncontrolled", {})
    known = idle.get("bill", 0) > 0 and idle.get("demand_cost", 0) > 0
    share = f"{100 * idle['demand_cost'] / idle['bill']:.0f} %" if known else ""
    return f", which sets the demand charge ({share} of the uncontrolled bill)" if known else ""


def costs(results: Results) -> Table:
    """The figures of every controller, agents first, with distances from uncontrolled."""
    rules = [name for name in results.rules if name in kept() or not results.standings]
    names = [*results.agents, *rules, *(name for name in reversed(REFERENCES) if name in results.controllers)]
    controllers = {name: results.controllers[name] for name in names}
    rows = figure_rows(controllers)
    for label, key in (("bill below uncontrolled", "bill"), ("CO2 below uncontrolled", "co2_kg")):
        idle = controllers.get("uncontrolled", {}).get(key, 0.0)
        if idle > 0:
            shares = [100 * (1 - found[key] / idle) if key in found else None for found in controllers.values()]
            rows.append([label, *("" if share is None else f"{round(share, 2) + 0.0:+.2f} %" for share in shares)])
    closed = {} if results.standings else gap_shares(controllers)
    if closed:
        rows.append(["gap closed", *(cell(closed.get(name), None) for name in controllers)])
    return rows, [str(results.summary.get("currency", "")), *map(display_name, controllers)]


def window(results: Results, days: int) -> tuple[str, slice, str]:
    """The first controller (uncontrolled if the run has it), the days with its highest import, and when they were."""
    name, hours = next(iter(results.hours.items()))
    rows = peak_window(hours, days)
    first, last = (int(row * step_hours(hours) / 24) + 1 for row in (rows.start, rows.stop - 1))
    month = MONTHS[int(hours.month.iloc[rows.start] - 1) % 12]
    return name, rows, f"day {first} ({month})" if days == 1 else f"days {first} to {last} (from {month})"


def vehicles(controllers: Controllers) -> Rows:
    """Departures, those served, energy missing and share served."""
    scales = {"departures": 0, "departures_served": 0, "ev_missing_kwh": 0, "served_share": None}
    return [
        [display_name(name), *(cell(found.get(key), scale) for key, scale in scales.items())]
        for name, found in controllers.items()
        if found.get("departures")
    ]


def sockets(results: Results) -> Table:
    """What was served and taken at each socket, by controller."""
    head, departures = ["socket", "departures"], next(iter(results.sockets.values())).departures
    values = [departures]
    for name, frame in results.sockets.items():
        head += [f"{display_name(name)}: {what}" for what in ("served", "kWh")]
        values += [frame.served, frame.energy_kwh]
    return [[str(i + 1), *(cell(own.iloc[i], 0) for own in values)] for i in range(len(departures))], head


def balance(results: Results) -> Rows:
    """Energy in and energy out in kWh, and their difference."""
    rows = []
    for name, hours in results.hours.items():
        came, went = (sum(flows.values()) for flows in energy_balance(hours))
        difference = f"{round(came - went, 3) + 0.0:.3f}"
        rows.append([display_name(name), f"{came:,.0f}", f"{went:,.0f}", difference])
    return rows


def timing(results: Results) -> Table:
    """Each agent's time, and its memory from the first to the last row of its first training, which shows a leak."""
    taken = {}
    for name in results.agents:
        own = dict(results.summary.get("timing", {}).get(name, {}))
        for frame in results.metrics.get(name, [])[:1]:
            for key in (str(column) for column in frame if str(column).endswith("_mib")):
                series = frame[key].dropna()
                own |= {key: f"{series.iloc[0]:,.0f} to {series.iloc[-1]:,.0f}"} if len(series) else {}
        taken[name] = dict(labelled(own))
    labels = dict.fromkeys(label for own in taken.values() for label in own)
    return [[label, *(own.get(label, "") for own in taken.values())] for label in labels], [
        "",
        *map(display_name, taken),
    ]


def whole_run(summary: Mapping[str, Any]) -> Rows:
    """Time of the whole run and of its parts, and its memory."""
    time = {"wall_s": summary["wall_s"]} if "wall_s" in summary else {}
    parts = [[f"of these {name}, s", f"{seconds:,.1f}"] for name, seconds in summary.get("phases", {}).items()]
    return [*labelled(time), *parts, *labelled(summary.get("memory", {}))]


def warnings(results: Results) -> list[str]:
    shares = gap_shares(results.controllers)
    return [str(warning) for warning in results.summary.get("audit", {}).get("warnings", [])] + [
        f"{display_name(name)} is below the optimum: either that bound or this result is wrong"
        for name in (*results.agents, *results.rules)
        if shares.get(name, 0.0) > 1
    ]


def checks(results: Results) -> Rows:
    """Results of checks, seeds, and where the run comes from."""
    summary = results.summary
    facts = labelled({key: value for key, value in summary.get("audit", {}).items() if key != "warnings"})
    if results.standings:
        shown = ", ".join(f"{display_name(name)} {seed}" for name, seed in summary["hours_of_seed"].items())
        facts.append(["seeds of every agent", ", ".join(map(str, range(summary["seeds"])))])
        facts.append([f"seed whose hours are shown, the median in {summary['years'][0]}", shown])
    else:
        used = summary.get("settings", {}).items()
        facts += sums_of_hours(results)
        facts += [[f"seed of {display_name(name)}", str(own["seed"])] for name, own in used if "seed" in own]
    facts += labelled({k: str(summary[k]) for k in ("evaluated_on", "simulator", "created", "command") if k in summary})
    return facts + [[key, listed(summary[key])] for key in ("machine", "versions") if key in summary]


def sums_of_hours(results: Results) -> Rows:
    """Relative difference between the sums of a run's time series and the totals in its summary."""
    facts = []
    for name, hours in results.hours.items():
        found = results.controllers.get(name, {})
        keys = [key for key in ("import_kwh", "export_kwh", "co2_kg") if found.get(key, 0) > 0]
        if keys:
            off = max(abs(hours[key].sum() / found[key] - 1) for key in keys)
            facts.append([f"{display_name(name)}: sums of the CSV against the summary", f"{off:.1e} apart at most"])
    return facts


def settings(summary: Mapping[str, Any]) -> str:
    """As YAML."""
    return yaml.safe_dump(summary["settings"], sort_keys=False, allow_unicode=True)
