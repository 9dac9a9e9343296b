"""Agents against opponents, from bills that can be worked out by hand."""

import json

import numpy as np
import pytest

from iquitos_rl.judging.paired import HEAD, as_json, pairs, rows

BILLS = {
    "sac": np.array([[80.0, 160.0], [100.0, 180.0]]),
    "strongest": np.array([[90.0, 190.0]]),
    "mpc": np.array([[100.0, 150.0]]),
    "uncontrolled": np.array([[120.0, 220.0]]),
}


def test_every_agent_meets_every_opponent_that_was_judged():
    found = pairs(BILLS, ("sac", "ppo"), ("strongest", "mpc", "day-ahead"))
    assert [(own.agent, own.opponent) for own in found] == [("sac", "strongest"), ("sac", "mpc")]
    rule, mpc = found
    assert rule.difference.value == pytest.approx(130 - 140)
    assert rule.percent == pytest.approx(100 * -10 / 140)
    assert rule.improvement.value == 0.75
    assert mpc.improvement.value == (1 + 0.5) / 4
    assert rule.detectable is not None


def test_what_is_written_is_what_the_table_says():
    found = json.loads(json.dumps(as_json(pairs(BILLS, ["sac"], ["strongest"]))))
    (line,) = rows(found)
    assert len(line) == len(HEAD)
    assert line[:2] == ["sac", "strongest"]
    assert line[2].startswith("-10 [")
    assert line[3] == "-7.14"
    assert line[4].startswith("0.75 [")


def test_with_one_seed_and_one_year_nothing_is_said_of_what_could_be_seen():
    one = {name: own[:1, :1] for name, own in BILLS.items()}
    (found,) = pairs(one, ["sac"], ["mpc"])
    assert found.detectable is None
    assert rows(as_json([found]))[0][-1] == ""
