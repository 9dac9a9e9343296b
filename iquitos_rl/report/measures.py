"""Quantities that the report computes from a run's results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from iquitos_rl.baselines import bill
from iquitos_rl.judging.standings import Record, bills_of
from iquitos_rl.judging.statistics import Estimate, difference
from iquitos_rl.report.results import Results

THERMAL = "cooling, heating, hot water"


def step_hours(hours: pd.DataFrame) -> float:
    """Length of a step in hours, from the number of consecutive rows with the same clock hour."""
    changes = int((hours.hour.diff().iloc[1:] != 0).sum())
    return 1.0 if changes == 0 else 1 / max(1, round((len(hours) - 1) / changes))


def months(hours: pd.DataFrame) -> pd.Series[int]:
    """Number of each row's month, counted from 0 in order of appearance."""
    return (hours.month != hours.month.shift()).cumsum() - 1


def peak_window(hours: pd.DataFrame, days: int) -> slice:
    """Rows of the whole days around the highest import, within the series."""
    per_day = round(24 / step_hours(hours))
    first = (int(hours.import_kwh.to_numpy().argmax()) // per_day - days // 2) * per_day
    first = max(0, min(first, (len(hours) + per_day - 1) // per_day * per_day - days * per_day))
    return slice(first, min(first + days * per_day, len(hours)))


def highest_price_hours(hours: pd.DataFrame) -> pd.Series[bool] | None:
    """Rows with the highest price; None if the tariff has a single price or more than four."""
    levels = hours.price.round(6)
    return levels == levels.max() if 2 <= levels.nunique() <= 4 else None


def energy_balance(hours: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """kWh that came in by source and went out by use; both sums are equal up to rounding."""
    battery = hours.bess_kwh
    came = {"import": hours.import_kwh.sum(), "PV": hours.pv_kwh.sum(), "battery out": -battery.clip(upper=0).sum()}
    went = {"load": hours.load_kwh.sum(), "vehicles": hours.ev_kwh.sum(), THERMAL: hours.other_kwh.sum()}
    went |= {"battery in": battery.clip(lower=0).sum(), "export": hours.export_kwh.sum()}
    return came, went | ({"lost in outages": hours.curtailed_kwh.sum()} if "curtailed_kwh" in hours else {})


def co2_terms(found: dict[str, float]) -> dict[str, float]:
    """Tonnes of grid CO2, divided among load, vehicles, thermal devices and losses in proportion to their energy."""
    terms = {"load": found["load_kwh"], "vehicles": found["ev_kwh"]}
    terms |= {THERMAL: found["thermal_kwh"]} if "thermal_kwh" in found else {}
    used = found["import_kwh"] + found.get("pv_kwh", 0.0) - found.get("export_kwh", 0.0)
    terms["losses, other"] = used - sum(terms.values())
    return {name: found["co2_kg"] / 1e3 * kwh / used if used > 0 else 0.0 for name, kwh in terms.items()}


class Score(NamedTuple):
    """A controller's mean, the bounds of its interval (the mean if there is none), and its value by seed and year."""

    value: float
    low: float
    high: float
    each: list[float]


SCORES: dict[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "gap_closed": (("uncontrolled", "optimum"), lambda mine, idle, best: 100 * bill.gap_share(mine, idle, best)),
    "below_strongest": (("strongest",), lambda mine, rule: 100 * (1 - mine / rule) if rule > 0 else math.nan),
    "above_optimum": (("optimum",), lambda mine, best: mine - best),
}
"""Score to the controllers whose bills it needs, and a formula of a bill and theirs. Units: percent of the gap, percent
of the rule's bill, currency."""


def scores(results: Results, key: str) -> dict[str, Score]:
    """The score `key` (of `SCORES`) of every controller that has one."""
    needed, formula = SCORES[key]
    alone = [{"controller": name, "year": "", "figures": found} for name, found in results.controllers.items()]
    records = [record for record in results.summary.get("records", alone) if "bill" in record["figures"]]
    bills = {(record["controller"], record["year"]): record["figures"]["bill"] for record in records}
    each: dict[str, list[float]] = {}
    for record in records:
        others = [bills.get((other, record["year"])) for other in needed]
        if None not in others and not math.isnan(value := formula(record["figures"]["bill"], *others)):
            each.setdefault(record["controller"], []).append(value)
    if not results.standings:
        return {name: Score(value, value, value, []) for name, (value,) in each.items()}
    return {name: Score(*ends, each[name]) for name in each if (ends := interval(results, name, key)) is not None}


def interval(results: Results, name: str, key: str) -> tuple[float, float, float] | None:
    """Mean and bounds of a score in a comparison."""
    if key == "above_optimum":
        return apart(results, name, "optimum")
    own, scale = results.standings[name].get(key), 100.0 if key == "gap_closed" else 1.0
    return None if own is None else (scale * own["value"], scale * own["low"], scale * own["high"])


def apart(results: Results, name: str, other: str) -> Estimate | None:
    """What the bills of a controller are above those of another in the same years of a comparison; None where one of
    them was not judged."""
    bills = bills_of([Record(**own) for own in results.summary["records"] if "bill" in own["figures"]])
    return difference(bills[name], bills[other]) if name in bills and other in bills else None
