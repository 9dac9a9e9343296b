"""Writes `report.html`, a readable page of a run's results, from the run's files alone.

If the run lacks something, a sentence says so. Equal files give the same report, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from iquitos_rl.judging.standings import interval
from iquitos_rl.judging.summary import gap_shares
from iquitos_rl.judging.table import SMALL_BILL, best_opponent, period
from iquitos_rl.machine.files import write_text
from iquitos_rl.report.markup import fill_page
from iquitos_rl.report.results import Results, read_results
from iquitos_rl.report.savings import payback
from iquitos_rl.report.style import display_name


def write_report(output: Path, battery_cost: float | None = None) -> Path:
    """Write `report.html` and `plots/*.png` into the folder of a finished run.

    Args:
        output: holds `simulation_summary.json`, and CSV files next to it or in `<agent>/` if they exist.
        battery_cost: what the battery cost, in the tariff's currency.

    Returns:
        Path of the page, which needs no other file and no network.

    Raises:
        UserError: the run is not finished, one of its files is damaged, or the folder cannot be written to.
    """
    results = read_results(output)
    title = f"{results.summary.get('case', output.name)}: " + ", ".join(map(display_name, results.agents))
    title += " compared" if results.standings else ""
    paid = payback(results, battery_cost)
    sentences = [*headline(results), *([] if paid is None else [paid])]
    write_text(output / "report.html", fill_page(results, title, sentences))
    return output / "report.html"


def headline(results: Results) -> list[str]:
    """The main result first, then what a reader must know to assess it."""
    summary, controllers = results.summary, results.controllers
    failed = [f"{display_name(name)} failed: {message}." for name, message in summary.get("failed", {}).items()]
    if not results.agents:
        return ["This run has no results of an agent.", *failed]
    figure = main_figure(results)
    key, what = figure.key, figure.name
    ranked = sorted((found[key], name) for name, found in controllers.items() if key in found)
    agents = [(value, name) for value, name in ranked if name in results.agents]
    if not agents:
        return [f"The summary holds no {what} for any agent.", *failed]
    (mine, best), idle = agents[0], controllers.get("uncontrolled", {}).get(key)
    what = f"mean {what}" if results.standings else what
    where, opponent = summary.get("evaluated_on", "the evaluated year"), best_opponent(controllers, results.agents, key)
    mean = "on average " if results.standings else ""
    said = [f"{display_name(best)}'s {what} on {where} is {figure.amount(mine)}."]
    if opponent is not None:
        than = f"than the best of the others ({display_name(opponent)}): {figure.amount(mine)} against"
        theirs = controllers[opponent][key]
        span = period(controllers)
        said = [
            f"{span[0].upper()}{span[1:]}, {display_name(best)} is {mean}{figure.apart(mine, theirs)} {than} "
            f"{figure.number(theirs)}."
        ]
    if idle is not None and opponent != "uncontrolled":
        said.append(f"It is {figure.apart(mine, idle)} than the uncontrolled site's {what}, {figure.number(idle)}.")
    return [*said, *(compared(results) if results.standings else one_run(results, best)), *failed]


def one_run(results: Results, best: str) -> list[str]:
    """Sentences on the best agent of a single training."""
    controllers, figure = results.controllers, main_figure(results)
    key = figure.key
    text = []
    if (closed := gap_shares(controllers, key).get(best)) is not None:
        text.append(f"It closes {100 * closed:.1f} % of the gap between the uncontrolled site and perfect foresight.")
    departures, served = (controllers[best].get(name) for name in ("departures", "departures_served"))
    if departures and served is not None:
        text.append(f"{served:,.0f} of {departures:,.0f} vehicles left within 5 points of the SOC they wanted.")
    text.append(f"Simulated by {results.summary.get('simulator', 'a simulator that the summary does not name')}.")
    text.append("One training with one seed: the results do not show how much another seed would differ.")
    return text


def compared(results: Results) -> list[str]:
    """Sentences on a comparison, one per agent, the best first."""
    summary, standings = results.summary, results.standings
    agents = sorted((a for a in results.agents if a in standings), key=lambda a: standings[a]["bill"]["value"])
    text = []
    for name in agents:
        own, said = standings[name], []
        if (closed := own["gap_closed"]) is not None:
            said.append(f"closes {interval(closed, 100, 1)} % of the gap")
        if (below := own["below_strongest"]) is not None:
            side, scale = ("below", 1.0) if below["value"] >= 0 else ("above", -1.0)
            count = f"lower in {own['better']} of {own['seeds'] * len(summary['years'])} pairs of seed and year"
            said.append(f"its bill is {interval(below, scale, 2)} % {side} the strongest rule's ({count})")
        if (served := own["served_of_feasible"]) is not None:
            said.append(f"at least {100 * served:.1f} % of the vehicles that could be served were")
        text.append(f"{display_name(name)} {', '.join(said)}." if said else f"{display_name(name)} was evaluated.")
    if any(standings[name]["gap_closed"] is not None for name in agents):
        text.append("The gap is that between the bills of the uncontrolled site and of perfect foresight.")
    count = f"{summary['seeds']} seed{'s' if summary['seeds'] > 1 else ''}"
    text.append(
        f"Evaluated on {summary['evaluated_on']}, {count}, by {summary['simulator']}; in brackets 95 % intervals."
    )
    return text


class MainFigure(NamedTuple):
    """What the agents were to lower."""

    key: str
    name: str
    unit: str
    scale: float
    digits: int = 0

    def number(self, value: float) -> str:
        return f"{value / self.scale:,.{self.digits}f}"

    def apart(self, mine: float, theirs: float) -> str:
        """How far one is below or above the other: `82 PEN (0.02 %) better`."""
        share = f" ({100 * abs(1 - mine / theirs):.2f} %)" if theirs > 0 else ""
        return f"{self.amount(abs(theirs - mine))}{share} {'better' if mine <= theirs else 'worse'}"

    def amount(self, value: float) -> str:
        """With its unit."""
        return f"{self.number(value)} {self.unit}".rstrip()


def preset_of(settings: Mapping[str, Any]) -> str | None:
    """The objective's preset in an agent's settings, if it is there."""
    found: Any = settings
    for key in ("task", "objective", "preset"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else None


def main_figure(results: Results) -> MainFigure:
    """The agents' objective: CO2 or a challenge's score if all agents have that preset, else the bill."""
    asked = {preset_of(own) for own in results.summary.get("settings", {}).values()}
    if asked == {"co2"}:
        return MainFigure("co2_kg", "grid CO2", "t", 1000.0)
    preset = next(iter(asked)) if len(asked) == 1 else None
    if preset is not None and preset.startswith("challenge-"):
        year = preset.removeprefix("challenge-")
        if any(f"score_{year}" in found for found in results.controllers.values()):
            return MainFigure(f"score_{year}", f"score of {year}", "", 1.0, 4)
    small = max((found.get("bill", 0.0) for found in results.controllers.values()), default=0.0) < SMALL_BILL
    return MainFigure("bill", "bill", str(results.summary.get("currency", "")), 1.0, 2 if small else 0)
