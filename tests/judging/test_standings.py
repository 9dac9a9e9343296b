"""Standings and tables against figures that can be worked out by hand."""

import csv
import io

import pytest

from iquitos_rl.comparison.compare import bound_warnings
from iquitos_rl.judging.standings import Record, as_csv, as_json, co2_markdown, standings

BILLS = {"uncontrolled": (100.0, 200.0), "strongest": (90.0, 160.0), "optimum": (80.0, 120.0)}


def record(name, seed, year, bill, served=10.0):
    figures = {"bill": bill, "co2_kg": 2 * bill, "departures": 12.0, "departures_served": served}
    if name == "optimum":
        del figures["departures_served"]
    return Record(name, seed, year, figures)


@pytest.fixture
def records():
    found = [record(name, None, year, bill) for name, own in BILLS.items() for year, bill in zip("ab", own)]
    found += [record("sac", 0, "a", 85.0), record("sac", 0, "b", 140.0)]
    found += [record("sac", 1, "a", 95.0), record("sac", 1, "b", 130.0, served=9.0)]
    return [*found, record("sac", 2, "a", 1.0)]


def test_standings_compare_within_a_year(records):
    found = standings(records)
    sac = found["sac"]
    assert sac.seeds == 2, "a seed that was not judged in every year does not count"
    shares = sorted([15 / 20, 60 / 80, 5 / 20, 70 / 80])
    assert sac.gap_closed.value == pytest.approx(sum(shares[1:3]) / 2)
    below = sorted([100 * 5 / 90, 100 * 20 / 160, -100 * 5 / 90, 100 * 30 / 160])
    assert sac.below_strongest.value == pytest.approx(sum(below[1:3]) / 2)
    assert sac.below_strongest.low <= sac.below_strongest.value <= sac.below_strongest.high
    assert sac.better == 3
    assert sac.served_of_feasible == pytest.approx(0.9)
    assert sac.mean["bill"] == pytest.approx((85 + 140 + 95 + 130) / 4)
    assert found["optimum"].gap_closed.value == 1
    assert found["optimum"].served_of_feasible is None
    assert found["uncontrolled"].gap_closed == (0, 0, 0)
    assert found["strongest"].better == 0


def test_without_optimum_or_rule_their_columns_are_missing(records):
    kept = [r for r in records if r.controller not in ("optimum", "strongest")]
    sac = standings(kept)["sac"]
    assert sac.gap_closed is None
    assert sac.below_strongest is None
    assert sac.better is None


def test_who_beats_the_bound_is_called_wrong(records):
    assert bound_warnings(records) == ["sac is below the optimum in a: either that bound or this figure is wrong"]


def test_the_csv_has_every_record_as_it_is(records):
    rows = list(csv.DictReader(io.StringIO(as_csv(records))))
    assert len(rows) == len(records)
    for row, own in zip(rows, records):
        assert (row["controller"], row["year"], row["seed"]) == (
            own.controller,
            own.year,
            str(own.seed or 0) * bool(row["seed"]),
        )
        assert float(row["bill"]) == own.figures["bill"]
        assert row["ev_kwh"] == ""


def test_the_co2_table_compares_with_the_uncontrolled_site(records):
    text = co2_markdown({"case": "a site", "simulator": "citylearn", "standings": as_json(standings(records))})
    assert "| uncontrolled | 0.3 [0.2, 0.4] | +0.00 |" in text, "over two years"


def test_a_site_where_nothing_costs_or_emits_anything_has_tables_without_shares(records):
    free = [r._replace(figures={**r.figures, "bill": 0.0, "co2_kg": 0.0}) for r in records]
    found = as_json(standings(free))
    assert "| uncontrolled | 0.0 |" in co2_markdown({"case": "a site", "simulator": "citylearn", "standings": found})
    assert found["sac"]["gap_closed"] is None
    assert found["sac"]["below_strongest"] is None
