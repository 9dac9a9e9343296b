"""`report.html`: what a run found, for people, with nothing in it that the run's files do not hold.

What a run lacks is left out, and a sentence says so. Equal files give an equal report, byte for byte.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from iquitos_rl.comparison.table import interval
from iquitos_rl.report import sections
from iquitos_rl.report.markup import CSS, paragraph
from iquitos_rl.report.results import Results, gap_share, read_results
from iquitos_rl.report.style import display_name
from iquitos_rl.runs.files import write_text


def write_report(output: Path) -> Path:
    """Write `report.html` and `plots/*.png` into the folder of a finished run.

    Args:
        output: holds `simulation_summary.json` and, where they exist, the CSV files beside it or in `<agent>/`.

    Returns:
        The page; it needs no other file and no network.

    Raises:
        UserError: the folder is not that of a finished run, a file in it is damaged, or it cannot be written to.
    """
    results = read_results(output)
    parts = [("Standings", sections.comparison(results))] if results.standings else []
    parts += [
        ("The bill and CO2", sections.costs(results)),
        ("Monthly peaks", sections.peaks(results)),
        ("Learning", sections.learning(results)),
        ("Day, week, year", sections.dispatch(results)),
        ("The average day", sections.average_day(results)),
        ("Vehicles", sections.vehicles(results)),
        ("Energy balance", sections.balance(results)),
        ("Memory and speed", sections.speed(results)),
        ("Audit", sections.audit(results)),
    ]
    if str(results.summary.get("case", "")).startswith("iquitos"):
        parts.append(("An older figure", sections.old_claim(results)))
    parts.append(("Settings", sections.settings(results)))
    title = escape(f"{results.summary.get('case', output.name)}: " + ", ".join(map(display_name, results.agents)))
    title += " compared" if results.standings else ""
    links = "".join(f'<a href="#s{i}">{name}</a>' for i, (name, _) in enumerate(parts))
    body = "\n".join(f'<section><h2 id="s{i}">{name}</h2>\n{html}</section>' for i, (name, html) in enumerate(parts))
    sentences = headline(results)
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{CSS}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
        f'<p class="headline">{escape(sentences[0]).replace(" %", "&nbsp;%")}</p>\n{paragraph(" ".join(sentences[1:]))}'
        f"<nav>{links}</nav>\n{body}\n</body>\n</html>\n"
    )
    write_text(output / "report.html", page)
    return output / "report.html"


def headline(results: Results) -> list[str]:
    """What the run found: the main figure first, then what a reader must know to judge it."""
    summary, controllers = results.summary, results.controllers
    failed = [f"{display_name(name)} failed: {message}." for name, message in summary.get("failed", {}).items()]
    if results.standings:
        return [*compared(results), *failed]
    if not results.agents:
        return ["This run holds no agent's figures.", *failed]
    key, what, unit, scale = main_figure(results)
    agents = sorted((name for name in results.agents if key in controllers[name]), key=lambda a: controllers[a][key])
    if not agents:
        return [f"The summary holds no {what} for any agent.", *failed]
    best, idle = agents[0], controllers.get("uncontrolled", {}).get(key)
    mine = controllers[best][key]
    first = f"{display_name(best)}'s {what} on {summary.get('evaluated_on', 'the evaluated year')} is "
    first += f"{mine / scale:,.0f} {unit}"
    if idle is not None:
        share = f" ({100 * abs(1 - mine / idle):.1f} %)" if idle > 0 else ""
        side = "below" if mine <= idle else "above"
        first += f", {abs(idle - mine) / scale:,.0f} {unit}{share} {side} the uncontrolled site's {idle / scale:,.0f}"
    text = [first + "."]
    if (closed := gap_share(controllers, best, key)) is not None:
        text.append(f"It closes {100 * closed:.1f} % of the gap between the uncontrolled site and perfect foresight.")
    rules = sorted((name for name in results.rules if key in controllers[name]), key=lambda a: controllers[a][key])
    if rules:
        rule = controllers[rules[0]][key]
        order = "more" if rule > mine else "no more"
        text.append(f"The best rule ({display_name(rules[0])}) comes to {rule / scale:,.0f} {unit}, {order} than that.")
    departures, served = (controllers[best].get(name) for name in ("departures", "departures_served"))
    if departures and served is not None:
        text.append(f"{served:,.0f} of {departures:,.0f} vehicles left within 5 points of the SOC they wanted.")
    text.append(f"Simulated by {summary.get('simulator', 'a simulator that the summary does not name')}.")
    text.append("One training with one seed: the figures do not say how much another seed would differ.")
    return text + failed


def compared(results: Results) -> list[str]:
    """What a comparison found, one sentence for each agent, the best first."""
    summary, standings = results.summary, results.standings
    agents = sorted((a for a in results.agents if a in standings), key=lambda a: standings[a]["bill"]["value"])
    text = []
    for name in agents:
        own, said = standings[name], []
        if (closed := own["gap_closed"]) is not None:
            share = interval(closed, 100, 1)
            said.append(f"closes {share} % of the gap between the uncontrolled site and perfect foresight")
        if (below := own["below_strongest"]) is not None:
            side = "below" if below["value"] >= 0 else "above"
            count = f"lower in {own['better']} of {own['seeds'] * len(summary['years'])} pairs of seed and year"
            said.append(f"its bill is {abs(below['value']):.1f} % {side} the strongest rule's ({count})")
        if (served := own["served_of_feasible"]) is not None:
            said.append(f"at least {100 * served:.1f} % of the vehicles that could be served were")
        text.append(f"{display_name(name)} {', '.join(said)}." if said else f"{display_name(name)} was judged.")
    count = f"{summary['seeds']} seed{'s' if summary['seeds'] > 1 else ''}"
    text.append(f"Judged on {summary['evaluated_on']}, {count}, by {summary['simulator']}.")
    return text


def main_figure(results: Results) -> tuple[str, str, str, float]:
    """Key, name, unit and scale of what the agents were asked to lower: the bill, or CO2 where that was the order."""
    asked = {
        own.get("task", {}).get("objective", {}).get("preset") for own in results.summary.get("settings", {}).values()
    }
    if asked == {"co2"}:
        return "co2_kg", "grid CO2", "t", 1000.0
    return "bill", "bill", str(results.summary.get("currency", "")), 1.0
