"""A comparison's figures put together: one record for each controller, seed and year, and what they say in all."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from iquitos_rl.baselines.bill import gap_share
from iquitos_rl.judging import paired
from iquitos_rl.judging.references import OPTIMUM, STRONGEST, UNCONTROLLED
from iquitos_rl.judging.scores import KPI, RULE, SCORES, official_2021
from iquitos_rl.judging.statistics import Estimate, Floats, estimate, mean, percent_below
from iquitos_rl.judging.table import (
    SMALL_BILL,
    kpi_rows,
    listed,
    markdown_table,
    period,
    plain_cell,
    plain_words,
    score_rows,
)

COLUMNS = (
    *("bill", "energy_cost", "demand_cost", "carbon_cost", "shortfall_cost", "co2_kg", "import_kwh", "export_kwh"),
    *("load_kwh", "pv_kwh", "ev_kwh", "departures", "departures_served", "ev_missing_kwh", "self_consumption"),
    *("battery_cycles", "peak_import_kw", "balance_residual_kwh"),
)
OF_SOME = ("export_cost", "fixed_cost")
"""Columns of tariffs that have them."""


class Record(NamedTuple):
    """A controller's year."""

    controller: str
    seed: int | None
    """Of an agent's training."""
    year: str
    figures: dict[str, float]


class Standing(NamedTuple):
    """What all records of a controller say."""

    seeds: int
    mean: dict[str, float]
    """Of each figure, over seeds and years: terms of the bill still add up."""
    bill: Estimate
    """Mean."""
    co2_kg: Estimate
    """Mean."""
    gap_closed: Estimate | None
    """Share of the gap between uncontrolled and optimum: interquartile mean."""
    below_strongest: Estimate | None
    """Percent of the strongest rule's bill of the same year: interquartile mean."""
    better: int | None
    """Seeds and years with a lower bill than the strongest rule's."""
    served_of_feasible: float | None
    """Worst share, over seeds and years, of the departures that charging on arrival at full power serves."""


def with_official_scores(records: Sequence[Record]) -> list[Record]:
    """Records with the scores of 2020 and 2021 on the organisers' scale, for years that their rule ran as well."""
    rules = {record.year: record.figures for record in records if record.controller == RULE}
    found = []
    for record in records:
        scores = official_2021(record.figures, rules.get(record.year, {}))
        found.append(record._replace(figures=record.figures | scores))
    return found


def standings(records: Sequence[Record]) -> dict[str, Standing]:
    """Every controller's standing, in the order of the records.

    Only seeds that were judged in every year count.
    """
    years = list(dict.fromkeys(record.year for record in records))
    table = {name: _by_seed(records, name, years) for name in dict.fromkeys(record.controller for record in records)}
    table = {name: rows for name, rows in table.items() if rows}
    bills = {name: _array(rows, "bill") for name, rows in table.items()}
    idle, best, rule = (bills[name][0] if name in bills else None for name in (UNCONTROLLED, OPTIMUM, STRONGEST))
    feasible = None
    if UNCONTROLLED in table and "departures_served" in table[UNCONTROLLED][0][0]:
        feasible = _array(table[UNCONTROLLED], "departures_served")[0]
    found = {}
    for name, rows in table.items():
        kept = [key for key in rows[0][0] if all(key in cell for row in rows for cell in row)]
        values = {key: _array(rows, key) for key in kept}
        closed = below = better = served = None
        if idle is not None and best is not None and (best < idle).all():
            shares = [[gap_share(*values) for values in zip(bill, idle, best)] for bill in bills[name]]
            closed = estimate(np.array(shares))
        if rule is not None:
            better = int((bills[name] < rule).sum())
            below = estimate(percent_below(bills[name], rule)) if (rule > 0).all() else None
        if feasible is not None and feasible.all() and "departures_served" in values:
            served = float((values["departures_served"] / feasible).min())
        means = {key: float(own.mean()) for key, own in values.items()}
        bill, co2 = estimate(values["bill"], mean), estimate(values["co2_kg"], mean)
        found[name] = Standing(len(rows), means, bill, co2, closed, below, better, served)
    return found


def bills_of(records: Sequence[Record]) -> dict[str, Floats]:
    """(S, Y) of each controller, of seeds that were judged in every year."""
    years, names = (list(dict.fromkeys(own)) for own in zip(*((r.year, r.controller) for r in records)))
    found = {name: _by_seed(records, name, years) for name in names}
    return {name: _array(rows, "bill") for name, rows in found.items() if rows}


def _by_seed(records: Sequence[Record], name: str, years: Sequence[str]) -> list[list[dict[str, float]]]:
    """[seed][year] figures."""
    mine = {(record.seed, record.year): record.figures for record in records if record.controller == name}
    seeds = sorted({seed for seed, _ in mine}, key=lambda seed: -1 if seed is None else seed)
    return [[mine[seed, year] for year in years] for seed in seeds if all((seed, year) in mine for year in years)]


def _array(rows: list[list[dict[str, float]]], key: str) -> Floats:
    return np.array([[cell[key] for cell in row] for row in rows], dtype=np.float64)


def as_csv(records: Iterable[Record]) -> str:
    """One line for each controller, seed and year; a figure that it does not have stays empty."""
    text, records = io.StringIO(), list(records)
    writer = csv.writer(text, lineterminator="\n")
    known = dict.fromkeys(key for record in records for key in record.figures)
    judged = [key for key in known if key in SCORES or key in OF_SOME or key.startswith(KPI)]
    columns = (*COLUMNS, *judged)
    writer.writerow(("controller", "seed", "year", *columns))
    for controller, seed, year, own in records:
        cells = (f"{own[key]:.10g}" if key in own else "" for key in columns)
        writer.writerow((plain_cell(controller), seed, plain_cell(year), *cells))  # no seed: an empty cell
    return text.getvalue()


def as_json(found: dict[str, Standing]) -> dict[str, Any]:
    return {
        name: {key: value._asdict() if isinstance(value, Estimate) else value for key, value in own._asdict().items()}
        for name, own in found.items()
    }


HEAD = (
    *("controller", "gap closed, %", "below the strongest rule, %", "better than it", "EVs served, %"),
    *("bill", "CO2, t", "seeds", "gradient steps", "training, s"),
)
EXPLAINED = (
    "Over seeds and years: means of bill and CO2, interquartile means of the two shares; in brackets 95 % bootstrap"
    " intervals, for which seeds and years are drawn. The gap is that between the uncontrolled site and the optimum"
    " with perfect foresight, which no simulator runs. Served: within 5 points of the wanted SOC, as a share of the"
    " departures that charging on arrival at full power serves, in the worst seed and year."
)


def kpis_explained(vehicles: bool) -> str:
    """What CityLearn's KPIs compare with, on a site with vehicles or without."""
    without = ", no vehicle charged" if vehicles else ""
    return (
        f"1 is the same site with storage idle{without}, and cooling and heating as in the data; discomfort and"
        " unserved energy are shares and degrees; less is better"
    )


def table_rows(summary: dict[str, Any]) -> list[list[str]]:
    """Cells under `HEAD` for each controller of a comparison's summary, lowest bill first."""
    standings, years = summary["standings"], len(summary["years"])
    cents = 2 if max(own["bill"]["value"] for own in standings.values()) < SMALL_BILL else 0
    rows = []
    for name in sorted(standings, key=lambda name: standings[name]["bill"]["value"]):
        own = standings[name]
        better, served = own["better"], own["served_of_feasible"]
        shares = interval(own["gap_closed"], 100, 1), interval(own["below_strongest"], 1, 2, sign=True)
        pairs = "" if better is None else f"{better} of {own['seeds'] * years}"
        ev = "" if served is None else f"{100 * served:.2f}"
        costs = interval(own["bill"], 1, cents), interval(own["co2_kg"], 1e-3, 0)
        seeds = str(own["seeds"]) if name in summary["settings"] else ""
        taken = summary["timing"].get(name, {})
        training = (f"{taken[key]:,.0f}" if key in taken else "" for key in ("updates", "train_s"))
        rows.append([name, *shares, pairs, ev, *costs, seeds, *training])
    return rows


def interval(value: dict[str, float] | None, scale: float, digits: int, sign: bool = False) -> str:
    """The mean and its interval; the mean alone where the two bounds are it, as for one seed and year."""
    if value is None:
        return ""
    form = f"{'+' if sign else ''},.{digits}f"
    mean, *ends = (round(scale * value[end], digits) + 0.0 for end in ("value", "low", "high"))
    low, high = sorted(ends)
    return f"{mean:{form}}" + ("" if low == high else f" [{low:{form}}, {high:{form}}]")


def markdown(summary: dict[str, Any]) -> str:
    """The table for people, with what is needed to repeat and to judge it."""
    years = summary["years"]
    lines = [
        f"# {plain_words(summary['case'])}: controllers on {summary['evaluated_on']}\n",
        f"{summary['currency']} {period(summary['controllers'])}, simulated by {summary['simulator']}. {EXPLAINED}\n",
        markdown_table([HEAD, *table_rows(summary)]),
        *paired_table(summary["paired"]),
        *kpi_table(summary["controllers"]),
    ]
    lines += [f"* warning: {plain_words(text)}" for text in summary["audit"]["warnings"]]
    lines += [
        f"* {plain_words(f'{name} is left out: {why}')}"
        for name, why in {**summary["left_out"], **summary["failed"]}.items()
    ]
    lines += [f"* command: {plain_words(summary['command'])}", f"* years: {plain_words(', '.join(years))}"]
    lines += [f"* wall time of the command, s: {summary['wall_s']}"]
    lines += [f"* {key}: {listed(summary[key])}" for key in ("machine", "versions")]
    return "\n".join(lines) + "\n"


def paired_table(found: list[dict[str, Any]]) -> list[str]:
    """Each agent against each opponent, as Markdown."""
    return [f"{paired.EXPLAINED}\n", markdown_table([paired.HEAD, *paired.rows(found)])] if found else []


def kpi_table(controllers: dict[str, dict[str, float]]) -> list[str]:
    """The scores of challenges and CityLearn's KPIs of those controllers that have any, as Markdown."""
    known = {name: found for name, found in controllers.items() if any(key.startswith(KPI) for key in found)}
    rows = score_rows(known) + kpi_rows(known)
    explained = kpis_explained(any(found.get("ev_kwh") for found in known.values()))
    return [f"CityLearn's KPIs: {explained}.\n", markdown_table([["", *known], *rows])] if rows else []


def co2_markdown(summary: dict[str, Any]) -> str:
    """Grid CO2 of every controller, most first, and how far it is below the references."""
    found = {name: own["co2_kg"] for name, own in summary["standings"].items()}
    references = [name for name in ("grid_only", UNCONTROLLED) if name in found and found[name]["value"] > 0]
    rows = [["controller", "CO2, t", *(f"below {name}, %" for name in references)]]
    for name in sorted(found, key=lambda name: -found[name]["value"]):
        shares = (100 * (1 - found[name]["value"] / found[other]["value"]) for other in references)
        rows.append([name, interval(found[name], 1e-3, 1), *(f"{round(share, 2) + 0.0:+.2f}" for share in shares)])
    span = period({name: own["mean"] for name, own in summary["standings"].items()})
    head = f"# {plain_words(summary['case'])}: CO2 from the grid, t {span}"
    text = f"Simulated by {summary['simulator']}. {EXPLAINED.split('. ')[0]}."
    return f"{head}\n\n{text}\n\n{markdown_table(rows)}"
