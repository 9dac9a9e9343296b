"""What the report works out from a run's results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from iquitos_rl.baselines import bill
from iquitos_rl.report.results import Results


def step_hours(hours: pd.DataFrame) -> float:
    """Length of a step in hours: the clock hour stays the same for as many rows as an hour has steps."""
    changes = int((hours.hour.diff().iloc[1:] != 0).sum())
    return 1.0 if changes == 0 else 1 / max(1, round((len(hours) - 1) / changes))


def months(hours: pd.DataFrame) -> pd.Series[int]:
    """Number of each row's month in order of appearance, from 0."""
    return (hours.month != hours.month.shift()).cumsum() - 1


def peak_window(hours: pd.DataFrame, days: int) -> slice:
    """Rows of the whole days around the highest import, cut at the ends of the series."""
    per_day = round(24 / step_hours(hours))
    first = (int(hours.import_kwh.to_numpy().argmax()) // per_day - days // 2) * per_day
    first = max(0, min(first, (len(hours) + per_day - 1) // per_day * per_day - days * per_day))
    return slice(first, min(first + days * per_day, len(hours)))


def dear_hours(hours: pd.DataFrame) -> pd.Series[bool] | None:
    """Rows at the highest price where the tariff has a few steps; None where it has one or follows a market."""
    levels = hours.price.round(6)
    return levels == levels.max() if 2 <= levels.nunique() <= 4 else None


def energy_balance(hours: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """kWh that came in and that went out, by where from and where to; the two sums are equal but for rounding."""
    battery = hours.bess_kwh
    came = {"import": hours.import_kwh.sum(), "PV": hours.pv_kwh.sum(), "battery out": -battery.clip(upper=0).sum()}
    went = {"load": hours.load_kwh.sum(), "vehicles": hours.ev_kwh.sum(), "other": hours.other_kwh.sum()}
    went |= {"battery in": battery.clip(lower=0).sum(), "export": hours.export_kwh.sum()}
    return came, went


def co2_terms(found: dict[str, float]) -> dict[str, float]:
    """Tonnes of grid CO2, shared among what used energy by how much it used: load, vehicles, and what is lost."""
    terms = {"load": found["load_kwh"], "vehicles": found["ev_kwh"]}
    used = found["import_kwh"] + found.get("pv_kwh", 0.0) - found.get("export_kwh", 0.0)
    terms["losses, other"] = used - sum(terms.values())
    return {name: found["co2_kg"] / 1e3 * kwh / used if used > 0 else 0.0 for name, kwh in terms.items()}


def gap_share(controllers: dict[str, dict[str, float]], name: str, key: str = "bill") -> float | None:
    """Share of the gap between uncontrolled and the optimum that a controller closes; None where there is no gap."""
    idle, best, mine = (controllers.get(who, {}).get(key) for who in ("uncontrolled", "optimum", name))
    if idle is None or best is None or mine is None or best >= idle:
        return None
    return bill.gap_share(mine, idle, best)


class Score(NamedTuple):
    """A controller's mean, the ends of its interval (the mean where there is none), and each seed in each year."""

    value: float
    low: float
    high: float
    each: list[float]


SCORES: dict[str, tuple[tuple[str, ...], Callable[..., float]]] = {
    "gap_closed": (("uncontrolled", "optimum"), lambda mine, idle, best: 100 * bill.gap_share(mine, idle, best)),
    "below_strongest": (("strongest",), lambda mine, rule: 100 * (1 - mine / rule)),
    "above_optimum": (("optimum",), lambda mine, best: (mine - best) / 1e3),
}
"""Score to the controllers that it needs the bills of, and what it makes of a bill and theirs: percent of the gap,
percent of the rule's bill, thousands of the currency."""


def scores(results: Results, key: str) -> dict[str, Score]:
    """Every controller's score under a key of `SCORES`, where it has one."""
    beside, formula = SCORES[key]
    alone = [{"controller": name, "year": "", "figures": found} for name, found in results.controllers.items()]
    records = [record for record in results.summary.get("records", alone) if "bill" in record["figures"]]
    bills = {(record["controller"], record["year"]): record["figures"]["bill"] for record in records}
    each: dict[str, list[float]] = {}
    for record in records:
        others = [bills.get((other, record["year"])) for other in beside]
        if None not in others and not math.isnan(value := formula(record["figures"]["bill"], *others)):
            each.setdefault(record["controller"], []).append(value)
    if not results.standings:
        return {name: Score(value, value, value, []) for name, (value,) in each.items()}
    return {name: Score(*ends, each[name]) for name in each if (ends := interval(results, name, key)) is not None}


def interval(results: Results, name: str, key: str) -> tuple[float, float, float] | None:
    """Mean and bounds of a comparison's score, which the standings hold; the optimum has one bill in a year, so that
    a distance from it is as sure as the bill."""
    standings = results.standings
    own, scale, origin = standings[name].get(key), 100.0 if key == "gap_closed" else 1.0, 0.0
    if key == "above_optimum":
        own, scale, origin = standings[name]["bill"], 1e-3, standings["optimum"]["bill"]["value"]
    if own is None:
        return None
    value, low, high = (scale * (own[end] - origin) for end in ("value", "low_whole", "high_whole"))
    return value, low, high
