"""The report's sections, each HTML made from a run's results; what a run lacks is left out with a sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from html import escape
from typing import Any

import yaml
from matplotlib.figure import Figure

from iquitos_rl.comparison.table import EXPLAINED, HEAD, table_rows
from iquitos_rl.report import cost_figures, dispatch_figures, hour_figures
from iquitos_rl.report.markup import bullets, figure, missing, paragraph, side_by_side, table
from iquitos_rl.report.measures import energy_balance, gap_share, peak_window, scores, step_hours
from iquitos_rl.report.results import BESIDE, REFERENCES, Results
from iquitos_rl.report.style import MONTHS, display_name
from iquitos_rl.runs.table import ROWS

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
    "demand_charge_booked_minus_defined": "demand charges as booked less by their definition",
    "district_largest_net_difference_kwh": "training engine against CityLearn: an hour's net, kWh at most",
    "district_bill_difference_percent": "training engine against CityLearn: the year's bill, %",
    "evaluated_on": "judged on",
    "created": "started",
}
CO2_NEEDS = ("co2_kg", "import_kwh", "load_kwh", "ev_kwh")
INTERVALS = " Line: 95 % interval over seeds; strokes: each seed in each year."
MEANINGS = {
    "grid_only": "the same loads and vehicles without PV and battery",
    "uncontrolled": "battery idle, every vehicle charged at full power from its arrival",
    "strongest": "the best fixed rule of this package, its parameters tuned on training years",
    "mpc": "plans two days ahead each hour, with forecasts from what was seen so far",
    "optimum": "perfect foresight: the cheapest plan when the whole year is known beforehand; nothing can beat it",
}
OLD_CLAIM = """A note of an earlier project promised “baseline about 10,200 kg CO2 a year, SAC -26 %, PPO -29 %, A2C
-24 %”. No computation stands behind it and the site's data contradict it: its grid emissions are thousands of tonnes a
year, and control alone moves them by a few percent, because a one-line greedy rule is already close to the CO2 optimum.
What control can move is the bill."""


def lead(results: Results) -> str:
    """The one figure that says what a controller is worth, and what the names in it mean."""
    found = scores(results, "above_optimum")
    names = sorted((name for name in found if name not in ("grid_only", "optimum")), key=lambda n: -found[n].value)
    drawn = ""
    if names:
        text = "What each bill still holds that perfect foresight would save: 0 cannot be reached without knowing the"
        text += f" whole year beforehand.{INTERVALS if results.standings else ''}"
        drawn = figure(results, "above_optimum", text, partial(cost_figures.above_optimum, results, names))
    meant = [[display_name(name), text] for name, text in MEANINGS.items() if name in results.controllers]
    return side_by_side([drawn, table(meant)]) if results.agents else ""


def comparison(results: Results) -> str:
    """Standings of a comparison: the table, and the two figures that decide."""
    currency = str(results.summary.get("currency", ""))
    # A cell may break before its interval, not in it.
    kept = [[cell.replace(", ", ",\N{NO-BREAK SPACE}") for cell in row] for row in table_rows(results.summary)]
    rows = [[display_name(row[0]), *row[1:]] for row in kept]
    html = paragraph(EXPLAINED) + table(rows, [name.replace("bill", f"bill, {currency}") for name in HEAD])
    figures = gap_figure(results)
    paired = [name for name in (*results.agents, "mpc", "optimum") if name in scores(results, "below_strongest")]
    if paired:
        text = f"How far each bill is below the strongest rule's of the same year.{INTERVALS}"
        draw = partial(cost_figures.below_strongest, results, paired)
        figures.append(figure(results, "below_strongest", text, draw))
    return html + side_by_side(figures) + every_judgement(results)


def gap_figure(results: Results) -> list[str]:
    """None where the optimum is not known."""
    found = scores(results, "gap_closed")
    names = sorted((name for name in found if name != "grid_only"), key=lambda name: -found[name].value)
    text = "Share of the gap between uncontrolled and the optimum with perfect foresight that each closes."
    text += INTERVALS if results.standings else ""
    return [figure(results, "gap", text, partial(cost_figures.gap, results, names))] if names else []


def every_judgement(results: Results) -> str:
    """Each agent's seeds year by year, folded away."""
    forms = {"gap_closed": ".1f", "below_strongest": "+.2f"}
    shares = {key: scores(results, key) for key in forms}
    rows = []
    for name in (name for name in results.agents if name in results.standings):
        for i, record in enumerate(r for r in results.summary["records"] if r["controller"] == name):
            cells = [
                f"{shares[key][name].each[i]:{form}} %" if name in shares[key] else "" for key, form in forms.items()
            ]
            cells += [cell(record["figures"].get(key), 0) for key in ("bill", "departures_served", "departures")]
            rows.append([display_name(name), str(record["seed"]), record["year"], *cells])
    head = ("", "seed", "year", "gap closed", "below the strongest rule", "bill", "EVs served", "EV departures")
    return f"<details><summary>Every seed in every year</summary>{table(rows, head)}</details>\n"


def costs(results: Results) -> str:
    """Bill and CO2 of every controller, dearest first."""
    controllers = results.controllers
    terms = ("bill", *(key for key, *_ in cost_figures.TERMS))
    billed = [name for name, found in ranked(controllers, "bill") if all(key in found for key in terms)]
    emitting = [name for name, found in ranked(controllers, "co2_kg") if all(key in found for key in CO2_NEEDS)]
    compared = [name for name in billed if name not in ("grid_only", "uncontrolled")]
    if results.standings:
        compared = [name for name in compared if name in (*results.agents, *BESIDE)]
    figures, notes = [], []
    for name in controllers:
        for names, what in ((billed, "a term of the bill"), (emitting, "a term of the CO2")):
            if name not in names:
                notes.append(f"The summary lacks {what} of {display_name(name)}, which is left out of that figure.")
    if billed:
        figures.append(figure(results, "bill", "The bill by term.", partial(cost_figures.bill, results, billed)))
    if "uncontrolled" in billed and compared:
        text = "How far each term is below the uncontrolled site (negative: above it)."
        figures.append(figure(results, "saving", text, partial(cost_figures.saving, results, compared)))
    if emitting:
        text = "CO2 of the imported energy, shared among its uses. Nothing is credited for export."
        figures.append(figure(results, "co2", text, partial(cost_figures.co2, results, emitting)))
    figures += [] if results.standings else gap_figure(results)
    if not scores(results, "gap_closed"):
        notes.append("The summary has no optimum with perfect foresight: how much was possible is not known here.")
    for name, reason in results.summary.get("left_out", {}).items():
        notes.append(f"{display_name(name)} is left out: {reason}.")
    return side_by_side([*figures, cost_table(results)]) + "".join(map(missing, notes))


def ranked(controllers: dict[str, dict[str, float]], key: str) -> list[tuple[str, dict[str, float]]]:
    """Controllers that have a figure, the largest first."""
    found = [item for item in controllers.items() if key in item[1]]
    return sorted(found, key=lambda item: -item[1][key])


def cost_table(results: Results) -> str:
    """The summary as a table, agents first, and each one's distance from uncontrolled; what is unknown stays empty."""
    rules = [name for name in results.rules if name in BESIDE or not results.standings]
    names = [*results.agents, *rules, *(name for name in reversed(REFERENCES) if name in results.controllers)]
    controllers = {name: results.controllers[name] for name in names}
    rows = [
        [label, *(cell(found.get(key), scale) for found in controllers.values())]
        for label, key, scale in ROWS
        if any(key in found for found in controllers.values())
    ]
    for label, key in (("bill below uncontrolled", "bill"), ("CO2 below uncontrolled", "co2_kg")):
        idle = controllers.get("uncontrolled", {}).get(key, 0.0)
        if idle > 0:
            shares = [100 * (1 - found[key] / idle) if key in found else None for found in controllers.values()]
            rows.append(
                [
                    label,
                    *("" if share is None else f"{round(share, 2) + 0.0:+.2f} %" for share in shares),
                ]
            )
    closed = [gap_share(controllers, name) for name in controllers]
    if not results.standings and any(share is not None for share in closed):
        rows.append(["gap closed", *("" if share is None else f"{100 * share:.1f} %" for share in closed)])
    html = table(rows, [str(results.summary.get("currency", "")), *map(display_name, controllers)])
    return html.replace("class=wide", 'class="wide full"', 1) if len(controllers) > 4 else html


def cell(value: float | None, scale: int | None) -> str:
    """A figure of `ROWS`: divided by 10 ** scale, or a percentage where that is None."""
    if value is None:
        return ""
    return f"{100 * value:.1f} %" if scale is None else f"{value / 10**scale:,.{1 if scale else 0}f}"


def without_hours(results: Results, names: Iterable[str]) -> str:
    absent = [display_name(name) for name in names if name not in results.hours]
    return missing(f"No timeseries CSV for {', '.join(absent)}: its hours are not shown.") if absent else ""


def peaks(results: Results) -> str:
    if not results.hours:
        return missing("The run's folder holds no timeseries CSV: the monthly peaks are not known.")
    text = ""
    idle = results.controllers.get("uncontrolled", {})
    if idle.get("bill", 0) > 0 and "demand_cost" in idle:
        share = 100 * idle["demand_cost"] / idle["bill"]
        text = f"Demand charges are {share:.0f} % of the uncontrolled bill, set by each month's highest hours."
    caption = "Each month's highest import, which the demand charge is on. Prices stand in for the tariff's periods."
    drawn = figure(results, "monthly", caption, partial(hour_figures.monthly, results))
    return paragraph(text) + side_by_side([drawn]) + without_hours(results, ("uncontrolled", *results.agents))


def learning(results: Results) -> str:
    notes = [
        f"No metrics.csv of {display_name(name)}: its learning curve is missing."
        for name in results.agents
        if name not in results.metrics
    ]
    text = "".join(map(missing, notes))
    if not results.metrics:
        return text or missing("No agent, no learning curve.")
    caption = "Points: training reports; line: their running mean. With exploration and on the training years, so these"
    caption += " are not the judged figures."
    if any(len(frames) > 1 for frames in results.metrics.values()):
        caption = "Running means of the training reports, a line for each seed." + caption.split("mean.")[1]
    return side_by_side([figure(results, "learning", caption, partial(cost_figures.learning, results))]) + text


def dispatch(results: Results) -> str:
    if not results.hours:
        return missing("The run's folder holds no timeseries CSV: no hour can be shown.")
    reference = next(iter(results.hours))  # uncontrolled where it is there
    hours, parts = results.hours[reference], []
    for days, span in ((1, "day"), (7, "week")):
        rows = peak_window(hours, days)
        first, last = (int(row * step_hours(hours) / 24) + 1 for row in (rows.start, rows.stop - 1))
        month = MONTHS[int(hours.month.iloc[rows.start] - 1) % 12]
        when = f"day {first} ({month})" if days == 1 else f"days {first} to {last} (from {month})"
        parts.append(f"<h3>The {span} with the highest import of {escape(display_name(reference))}: {when}</h3>\n")
        drawn = {name: partial(dispatch_figures.dispatch, results, name, rows) for name in results.controlled}
        parts.append(per_controller(results, span, when, drawn))
    parts.append("<h3>Every day</h3>\n")
    drawn = {name: partial(dispatch_figures.year, results, name) for name in results.controlled}
    parts.append(per_controller(results, "year", "every day of the simulated period", drawn))
    return "".join(parts) + without_hours(results, ("uncontrolled", *results.agents))


def per_controller(results: Results, kind: str, what: str, drawn: Mapping[str, Callable[[], Figure]]) -> str:
    return side_by_side(
        figure(results, f"{kind}_{name}", f"{display_name(name)}, {what}.", draw) for name, draw in drawn.items()
    )


def average_day(results: Results) -> str:
    if not results.hours:
        return missing("The run's folder holds no timeseries CSV: no average day can be shown.")
    figures = [figure(results, "average_day", "Mean over all days.", partial(hour_figures.average_day, results))]
    for name, hours in results.controlled.items():
        for key, label in (("net_kwh", "net import"), ("bess_kwh", "battery power")):
            if hours[key].any():
                caption = f"{display_name(name)}: mean {label} by hour of the day and month."
                draw = partial(hour_figures.heat_map, results, name, key)
                figures.append(figure(results, f"map_{key.removesuffix('_kwh')}_{name}", caption, draw))
    return side_by_side(figures)


def vehicles(results: Results) -> str:
    rows = [
        [
            display_name(name),
            *(cell(found.get(key), 0) for key in ("departures", "departures_served", "ev_missing_kwh")),
            cell(found.get("served_share"), None),
        ]
        for name, found in results.controllers.items()
        if found.get("departures")
    ]
    if not rows:
        return missing("The summary knows of no departing vehicle.")
    parts = [table(rows, ("", "departures", "served", "missing, kWh", "share"))]
    html = paragraph("Served: left with no more than 5 points of SOC less than wanted.")
    if results.hours:
        caption = "When vehicles are charged, and what they lacked when they left."
        parts.insert(0, figure(results, "vehicles", caption, partial(hour_figures.vehicles, results)))
        if not all("missing_kwh" in hours for name, hours in results.hours.items() if name != "optimum"):
            html += missing("A trace CSV is missing: what vehicles lacked is not shown for every controller.")
    if results.sockets:
        caption = "Every socket: its departures, how many of them were served, and what its vehicles lacked."
        parts.append(figure(results, "sockets", caption, partial(hour_figures.sockets, results)))
        html += socket_table(results)
    else:
        html += missing("The run's folder holds no sockets CSV: single sockets are not shown.")
    return side_by_side(parts) + html


def socket_table(results: Results) -> str:
    """Every socket's figures, folded away."""
    names = list(results.sockets)
    first = results.sockets[names[0]]
    head = ["socket", "departures", *(f"{display_name(name)}: {what}" for name in names for what in ("served", "kWh"))]
    rows = [
        [str(i + 1), cell(first.departures.iloc[i], 0)]
        + [cell(results.sockets[name][key].iloc[i], 0) for name in names for key in ("served", "energy_kwh")]
        for i in range(len(first))
    ]
    return f"<details><summary>Every socket</summary>{table(rows, head)}</details>\n"


def balance(results: Results) -> str:
    if not results.hours:
        return missing("The run's folder holds no timeseries CSV: no energy balance can be drawn.")
    caption = "Where the energy came from and where it went. Battery in less battery out: losses and what stayed in it."
    lines = []
    for name, hours in results.hours.items():
        came, went = (sum(flows.values()) for flows in energy_balance(hours))
        cells = (f"{came / 1e3:,.1f}", f"{went / 1e3:,.1f}", f"{round(came - went, 3) + 0.0:.3f}")
        lines.append([display_name(name), *cells])
    drawn = figure(results, "balance", caption, partial(hour_figures.balance, results))
    return side_by_side([drawn, table(lines, ("", "in, MWh", "out, MWh", "difference, kWh"))])


def speed(results: Results) -> str:
    summary = results.summary
    facts = [
        [f"{display_name(name)}: {LABELS.get(key, key)}", number(value)]
        for name, own in summary.get("timing", {}).items()
        for key, value in own.items()
    ]
    facts += [["whole run, s", number(summary["wall_s"])]] if "wall_s" in summary else []
    facts += [[LABELS.get(key, key), number(value)] for key, value in summary.get("memory", {}).items()]
    for name, frames in results.metrics.items():
        frame = frames[0]
        for key in (str(column) for column in frame if frame[column].notna().any()):
            if not key.endswith("_mib"):
                continue
            series = frame[key].dropna()
            text = f"{series.iloc[0]:,.0f} at the first report, {series.iloc[-1]:,.0f} at the last"
            facts.append([f"{display_name(name)}: {LABELS.get(key, key)}", text])
    return table(facts) if facts else missing("The summary holds neither memory nor time.")


def number(value: Any) -> str:
    return f"{value:,.6g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def audit(results: Results) -> str:
    summary = results.summary
    checks = summary.get("audit", {})
    warnings = [str(warning) for warning in checks.get("warnings", [])]
    for name in results.agents + tuple(results.rules):
        if (gap_share(results.controllers, name) or 0.0) > 1:
            warnings.append(f"{display_name(name)} is below the optimum: either that bound or this figure is wrong")
    facts = [[LABELS.get(key, key), number(value)] for key, value in checks.items() if key != "warnings"]
    for name, hours in results.hours.items() if not results.standings else ():
        found = results.controllers.get(name, {})
        keys = [key for key in ("import_kwh", "export_kwh", "co2_kg") if found.get(key, 0) > 0]
        if keys:
            off = max(abs(hours[key].sum() / found[key] - 1) for key in keys)
            facts.append([f"{display_name(name)}: sums of the CSV against the summary", f"{off:.1e} apart at most"])
    if results.standings:
        facts.append(["seeds of every agent", ", ".join(map(str, range(summary["seeds"])))])
        shown = ", ".join(f"{display_name(name)} {seed}" for name, seed in summary["hours_of_seed"].items())
        facts.append([f"seed whose hours are shown, the median in {summary['years'][0]}", shown])
    else:
        used = summary.get("settings", {})
        facts += [[f"seed of {display_name(name)}", str(own["seed"])] for name, own in used.items() if "seed" in own]
    facts += [
        [LABELS.get(key, key), str(summary[key])] for key in ("evaluated_on", "simulator", "created") if key in summary
    ]
    facts += [["command", summary["command"]]] if "command" in summary else []
    for key in ("machine", "versions"):
        facts += [[key, ", ".join(f"{name} {value}" for name, value in summary[key].items())]] if key in summary else []
    html = paragraph("Warnings about the data:" if warnings else "No warning about the data.")
    html += bullets(warnings)
    if not checks:
        html += missing("The summary holds no audit.")
    return html + table(facts)


def old_claim(results: Results) -> str:
    found = {name: values["co2_kg"] for name, values in results.controllers.items() if "co2_kg" in values}
    measured = [f"{display_name(name)} {kg / 1000:,.0f} t" for name, kg in found.items()]
    idle = found.get("uncontrolled", 0.0)
    moved = [
        f"{display_name(name)} {100 * (kg / idle - 1):+.1f} %"
        for name, kg in found.items()
        if idle > 0 and name not in REFERENCES
    ]
    text = f" This run measured: {', '.join(measured)}." if measured else ""
    text += f" Against uncontrolled: {', '.join(moved)}." if moved else ""
    return paragraph(" ".join(OLD_CLAIM.split()) + text)


def settings(results: Results) -> str:
    used = results.summary.get("settings")
    if not used:
        return missing("The summary holds no settings.")
    text = yaml.safe_dump(used, sort_keys=False, allow_unicode=True)
    return f"<details><summary>Every setting of this run</summary><pre>{escape(text)}</pre></details>\n"
