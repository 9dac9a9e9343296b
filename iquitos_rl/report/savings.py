"""What controllers save, with its spread, and what a battery may cost to be paid back."""

from __future__ import annotations

from iquitos_rl.errors import UserError
from iquitos_rl.judging.standings import interval
from iquitos_rl.judging.table import is_year, money, period
from iquitos_rl.report.measures import apart, months
from iquitos_rl.report.results import Results
from iquitos_rl.report.style import display_name

YEARS = 10
"""In which an investment is asked to be paid back where nobody says what it cost."""


def savings(results: Results) -> tuple[list[list[str]], list[str]]:
    """Rows and head: how far each controller's bill is below the uncontrolled site's, in all and by month.

    In a comparison the spread is the 95 % interval over seeds and years, else the lowest and the highest month.
    """
    controllers = results.controllers
    idle = controllers.get("uncontrolled", {}).get("bill")
    if idle is None:
        return [], []
    rows = []
    for name in (*results.agents, *(rule for rule in results.rules if rule in results.hours), "optimum"):
        if name not in controllers or "bill" not in controllers[name]:
            continue
        saved = idle - controllers[name]["bill"]
        share = f"{100 * saved / idle:.1f} %" if idle > 0 else ""
        rows.append([display_name(name), money(saved, saved), share, spread(results, name)])
    currency, span = results.currency, period(controllers)
    what = "95 % interval over seeds and years" if results.standings else "a month, from the worst to the best"
    return rows, ["", f"saved, {currency} {span}", "of the uncontrolled bill", f"{what}, {currency}"]


def spread(results: Results, name: str) -> str:
    """The interval of a saving, or its lowest and highest month; empty where neither is known."""
    if results.standings:
        saved = apart(results, "uncontrolled", name)
        return "" if saved is None else interval(saved._asdict(), 1.0, 0 if abs(saved.value) >= 100 else 2)
    mine, theirs = results.hours.get(name), results.hours.get("uncontrolled")
    if mine is None or theirs is None or "cost" not in mine or "cost" not in theirs or len(mine) != len(theirs):
        return ""
    by_month = (theirs.cost - mine.cost).groupby(months(mine)).sum()
    if len(by_month) < 2:
        return ""
    low, high = float(by_month.min()), float(by_month.max())
    return f"{money(low, high)} to {money(high, high)}"


def payback(results: Results, cost: float | None = None) -> str | None:
    """A sentence on what the best agent's saving pays back; None where nothing is saved or the site has no battery.

    Args:
        cost: of the battery.

    Raises:
        UserError: a cost is given, but the period is no year, or nothing is saved.
    """
    controllers = results.controllers
    idle = controllers.get("uncontrolled", {})
    agents = [name for name in results.agents if "bill" in controllers[name]]
    battery = any("battery_soc" in hours for hours in results.hours.values())
    if not agents or "bill" not in idle or not battery:
        return _refused(cost, "the run has no battery or no agent")
    hours = next((own["hours"] for own in controllers.values() if "hours" in own), None)
    if not is_year(hours):
        return _refused(cost, f"the run covers {(hours or 0) / 24:.0f} days, and a payback needs a year")
    best = min(agents, key=lambda name: controllers[name]["bill"])
    saved, name, currency = idle["bill"] - controllers[best]["bill"], display_name(best), results.currency
    if saved <= 0:
        return _refused(cost, f"{name} saves nothing")
    what = "Battery and charging" if results.vehicles else "The battery"
    if cost is None:
        most = money(YEARS * saved, YEARS * saved)
        return (
            f"{what} under {name} saves {money(saved, saved)} {currency} in this year, so it is paid back in {YEARS} "
            f"years if it costs no more than {most} {currency} (without interest and ageing)."
        )
    return (
        f"{what} under {name} saves {money(saved, saved)} {currency} in this year, so {cost:,.0f} {currency} are paid "
        f"back in {cost / saved:.1f} years (without interest and ageing)."
    )


def _refused(cost: float | None, why: str) -> str | None:
    """Nothing to say, which is an error where a cost was given."""
    if cost is not None:
        raise UserError(f"--battery-cost: {why}")
    return None
