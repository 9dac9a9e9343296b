"""Each agent against each opponent, in the same years."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from iquitos_rl.judging.statistics import Estimate, Floats, detectable, difference, improvement

HEAD = ("agent", "opponent", "bill less the opponent's", "of it, %", "probability of a lower bill", "smallest seen")


class Pair(NamedTuple):
    agent: str
    opponent: str
    difference: Estimate
    """Of mean bills, below 0 where the agent's is lower."""
    percent: float
    """Of the opponent's mean bill."""
    improvement: Estimate
    """Probability that the agent's bill of a year is below the opponent's."""
    detectable: float | None
    """The smallest true difference that so many seeds and years show with a probability of 80 %."""


def pairs(bills: Mapping[str, Floats], agents: Iterable[str], opponents: Iterable[str]) -> list[Pair]:
    """Every pair that has been judged.

    Args:
        bills: (S, Y) of each controller, the years in the same order.
    """
    opponents = [name for name in opponents if name in bills]
    return [_pair(bills, agent, other) for agent in agents if agent in bills for other in opponents]


def _pair(bills: Mapping[str, Floats], agent: str, opponent: str) -> Pair:
    mine, theirs = bills[agent], bills[opponent]
    less, smallest, level = difference(mine, theirs), detectable(mine, theirs), float(theirs.mean())
    percent = 100 * less.value / level if level > 0 else 0.0
    return Pair(agent, opponent, less, percent, improvement(mine, theirs), None if np.isnan(smallest) else smallest)


def as_json(found: Iterable[Pair]) -> list[dict[str, Any]]:
    estimates = ("difference", "improvement")
    return [{**own._asdict(), **{key: getattr(own, key)._asdict() for key in estimates}} for own in found]


def rows(found: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Cells under `HEAD` of what `as_json` wrote."""
    return [
        [
            own["agent"],
            own["opponent"],
            "{value:+,.0f} [{low:+,.0f}, {high:+,.0f}]".format(**own["difference"]),
            f"{own['percent']:+.2f}",
            "{value:.2f} [{low:.2f}, {high:.2f}]".format(**own["improvement"]),
            "" if own["detectable"] is None else f"{own['detectable']:,.0f}",
        ]
        for own in found
    ]


EXPLAINED = (
    "Differences of mean bills with intervals over seeds and years, paired by years; the probability that the agent's"
    " bill of a year is the lower one; and the smallest true difference that so many seeds and years, as these vary,"
    " show with a probability of 80 %."
)
