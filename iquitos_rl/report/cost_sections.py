"""The report's sections on costs, as HTML. A sentence says what cannot be shown because the run lacks it."""

from __future__ import annotations

from iquitos_rl.baselines.registry import CONTROLLERS
from iquitos_rl.judging.references import kept
from iquitos_rl.judging.standings import EXPLAINED, HEAD, table_rows
from iquitos_rl.judging.table import ROWS
from iquitos_rl.report import cost_figures, hour_figures
from iquitos_rl.report.markup import cell, figure, missing, paragraph, side_by_side, table
from iquitos_rl.report.measures import gap_share, scores
from iquitos_rl.report.results import REFERENCES, Results
from iquitos_rl.report.style import display_name

CO2_NEEDS = ("co2_kg", "import_kwh", "load_kwh", "ev_kwh")
INTERVALS = " Line: 95 % interval over seeds; strokes: each seed and year."


def lead(results: Results) -> str:
    """The main figure, bills above the optimum, and the meaning of the controllers' names."""
    found = scores(results, "above_optimum")
    names = sorted((name for name in found if name not in ("grid_only", "optimum")), key=lambda n: -found[n].value)
    drawn = ""
    if names:
        text = "How far each bill is above that of perfect foresight. 0 cannot be reached without knowing the whole"
        text += f" year in advance.{INTERVALS if results.standings else ''}"
        drawn = figure(results, "above_optimum", text, cost_figures.above_optimum, names)
    meant = [[entry.label, entry.meaning] for name, entry in CONTROLLERS.items() if name in results.controllers]
    return side_by_side([drawn, table(meant)]) if results.agents else ""


def comparison(results: Results) -> str:
    """Standings of a comparison: the table and its two main figures."""
    currency = str(results.summary.get("currency", ""))
    # A line may break before the interval in a cell, but not inside it.
    kept = [[cell.replace(", ", ",\N{NO-BREAK SPACE}") for cell in row] for row in table_rows(results.summary)]
    rows = [[display_name(row[0]), *row[1:]] for row in kept]
    html = paragraph(EXPLAINED) + table(rows, [name.replace("bill", f"bill, {currency}") for name in HEAD])
    figures = gap_figure(results)
    paired = [name for name in (*results.agents, "mpc", "optimum") if name in scores(results, "below_strongest")]
    if paired:
        text = f"How far each bill is below the strongest rule's bill of the same year.{INTERVALS}"
        figures.append(figure(results, "below_strongest", text, cost_figures.below_strongest, paired))
    return html + side_by_side(figures) + every_evaluation(results)


def gap_figure(results: Results) -> list[str]:
    """One figure, or none if the optimum is unknown."""
    found = scores(results, "gap_closed")
    names = sorted((name for name in found if name != "grid_only"), key=lambda name: -found[name].value)
    text = "Share of the gap between uncontrolled and perfect foresight that each controller closes."
    text += INTERVALS if results.standings else ""
    return [figure(results, "gap", text, cost_figures.gap, names)] if names else []


def every_evaluation(results: Results) -> str:
    """A collapsed table of every agent, seed and year."""
    forms = {"gap_closed": ".1f", "below_strongest": "+.2f"}
    shares = {key: scores(results, key) for key in forms}
    rows = []
    for name in (name for name in results.agents if name in results.standings):
        for i, record in enumerate(r for r in results.summary["records"] if r["controller"] == name):
            found = {key: own[name].each[i] for key, own in shares.items() if name in own}
            cells = [f"{found[key]:{form}} %" if key in found else "" for key, form in forms.items()]
            cells += [cell(record["figures"].get(key), 0) for key in ("bill", "departures_served", "departures")]
            rows.append([display_name(name), str(record["seed"]), record["year"], *cells])
    head = ("", "seed", "year", "gap closed", "below the strongest rule", "bill", "EVs served", "EV departures")
    return f"<details><summary>Every seed in every year</summary>{table(rows, head)}</details>\n"


def costs(results: Results) -> str:
    """Bill and CO2 of every controller, the highest first."""
    controllers = results.controllers
    terms = ("bill", *(key for key, *_ in cost_figures.TERMS))
    billed = [name for name, found in ranked(controllers, "bill") if all(key in found for key in terms)]
    emitting = [name for name, found in ranked(controllers, "co2_kg") if all(key in found for key in CO2_NEEDS)]
    compared = [name for name in billed if name not in ("grid_only", "uncontrolled")]
    if results.standings:
        compared = [name for name in compared if name in (*results.agents, *kept())]
    figures, notes = [], []
    for name in controllers:
        for names, what in ((billed, "a term of the bill"), (emitting, "a term of the CO2")):
            if name not in names:
                notes.append(f"The summary lacks {what} of {display_name(name)}, which is left out of that figure.")
    if billed:
        figures.append(figure(results, "bill", "The bill by term.", cost_figures.bill, billed))
    if "uncontrolled" in billed and compared:
        text = "How far each term is below the uncontrolled site (negative: above it)."
        figures.append(figure(results, "saving", text, cost_figures.saving, compared))
    if emitting:
        text = "CO2 of the imported energy, divided among its uses. Exports earn no credit."
        figures.append(figure(results, "co2", text, cost_figures.co2, emitting))
    figures += [] if results.standings else gap_figure(results)
    figures += monthly_peaks(results)
    if not scores(results, "gap_closed"):
        notes.append("The summary has no optimum with perfect foresight: how much was possible is not known here.")
    for name, reason in results.summary.get("left_out", {}).items():
        notes.append(f"{display_name(name)} is left out: {reason}.")
    return side_by_side([*figures, cost_table(results)]) + "".join(map(missing, notes))


def monthly_peaks(results: Results) -> list[str]:
    """One figure, or none if the run has no time series."""
    if not results.hours:
        return []
    idle = results.controllers.get("uncontrolled", {})
    text = "Each month's highest import, which sets the demand charge"
    if idle.get("bill", 0) > 0 and "demand_cost" in idle:
        text += f" ({100 * idle['demand_cost'] / idle['bill']:.0f} % of the uncontrolled bill)"
    text += ". The tariff's periods are recognised by their prices."
    return [figure(results, "monthly", text, hour_figures.monthly)]


def ranked(controllers: dict[str, dict[str, float]], key: str) -> list[tuple[str, dict[str, float]]]:
    """Controllers that have the value, the largest first."""
    found = [item for item in controllers.items() if key in item[1]]
    return sorted(found, key=lambda item: -item[1][key])


def cost_table(results: Results) -> str:
    """The summary as a table, agents first, with distances from uncontrolled; cells without a value are empty."""
    rules = [name for name in results.rules if name in kept() or not results.standings]
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
            rows.append([label, *("" if share is None else f"{round(share, 2) + 0.0:+.2f} %" for share in shares)])
    closed = [gap_share(controllers, name) for name in controllers]
    if not results.standings and any(share is not None for share in closed):
        rows.append(["gap closed", *("" if share is None else f"{100 * share:.1f} %" for share in closed)])
    html = table(rows, [str(results.summary.get("currency", "")), *map(display_name, controllers)])
    return html.replace("class=wide", 'class="wide full"', 1) if len(controllers) > 4 else html
