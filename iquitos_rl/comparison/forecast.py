"""What comparisons of many sites take on given machines, from what one comparison took here.

A comparison's steps are sequential where they must be (a rule is tuned, references are judged, an agent is trained, its
policy is judged) and independent otherwise. On machines that carry out m steps at once, work that one would do in W
seconds, with C seconds in the longest sequence, takes at least max(W / m, C) and, whatever the order, at most W / m + C
(Graham 1966). How much faster a core of those machines is, or how much slower when all are busy, is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from iquitos_rl.errors import UserError
from iquitos_rl.machine.available import MIB, parse_size, show_size
from iquitos_rl.machine.inputs import InputError, read_json
from iquitos_rl.report.results import read_summary
from iquitos_rl.runs.folder import SUMMARY
from iquitos_rl.runs.timings import FILE as TIMINGS

STEP_S = 0.01
"""What a step costs beyond its work: `benchmarks/results/cluster.md`, rounded up."""


class Nodes(NamedTuple):
    """Machines of one kind."""

    number: int
    cores: int
    ram: int | None
    """Bytes of each; None where it is not to be the limit."""

    def room(self, step_bytes: int) -> int:
        """Steps that all of them carry out at once."""
        each = self.cores if self.ram is None else min(self.cores, self.ram // max(1, step_bytes))
        return self.number * each


class Rates(NamedTuple):
    """What was measured, seconds of one core."""

    tuning_s: float | None
    """Of all rules of a site; None where that comparison took them from the cache."""
    reference_s: float
    """Of all references in one year."""
    training_s: dict[str, float]
    """Of one training of each agent, with its first year's evaluation."""
    evaluation_s: float
    """Of a policy in one year."""
    step_bytes: int
    """RAM of a process."""
    training_bytes: float
    """Of a training's folder."""


class Forecast(NamedTuple):
    steps: int
    work_s: float
    """Seconds that one core would take."""
    chain_s: float
    """Seconds of the longest sequence."""
    room: int
    disk_bytes: float

    @property
    def at_least_s(self) -> float:
        return max(self.work_s / self.room, self.chain_s)

    @property
    def at_most_s(self) -> float:
        return self.work_s / self.room + self.chain_s


def parse_nodes(text: str) -> list[Nodes]:
    """Machines from `10x16:64GiB,2x8`: ten of 16 cores and 64 GiB, two of 8 cores.

    Raises:
        UserError: the text is nothing of that kind.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{1,6})x([0-9]{1,4})(?::(.+))?\s*", part)
        if match is None or int(match[1]) < 1 or int(match[2]) < 1:
            raise UserError(f"--cluster {text}: expected COUNTxCORES or COUNTxCORES:RAM, as in 10x16:64GiB,2x8")
        found.append(Nodes(int(match[1]), int(match[2]), None if match[3] is None else parse_size(match[3])))
    return found


def read_rates(folder: Path) -> Rates:
    """What a finished comparison took.

    Raises:
        UserError: the folder holds none, or one without timings.
    """
    summary = read_summary(folder / SUMMARY)
    if summary.get("kind") != "comparison":
        raise UserError(f"{folder} holds no finished comparison")
    training: dict[str, float] = {}
    evaluations, sizes = [], []
    for name in summary["settings"]:
        own = []
        for seed in range(summary["seeds"]):
            run = folder / f"{name}-seed-{seed}"
            try:
                phases = read_json(run / TIMINGS)["phases"]
                own.append(sum(phase["cpu_s"] for phase in phases if phase["name"] != "start"))
                evaluations += [phase["cpu_s"] for phase in phases if phase["name"] == "evaluation"]
            except (InputError, KeyError, TypeError):
                continue
            sizes.append(sum(path.stat().st_size for path in run.rglob("*") if path.is_file()))
        if own:
            training[name] = median(own)
    stored = [_seconds(path) for path in (folder.parent / "cache" / "references").glob("*/judged.json")]
    if not training or not evaluations or not stored:
        raise UserError(f"{folder} holds no timings of trainings and references")
    references = {record["controller"] for record in summary["records"] if record["seed"] is None}
    return Rates(
        summary.get("core_s", {}).get("tuned"),
        sum(stored) / len(stored) * len(references),
        training,
        median(evaluations),
        int(summary.get("memory", {}).get("ram_peak_mib", 0.0) * MIB),
        sum(sizes) / len(sizes),
    )


def _seconds(path: Path) -> float:
    try:
        return float(read_json(path)["judged"]["seconds"])
    except (InputError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} does not say how long it took") from None


def forecast(rates: Rates, nodes: Sequence[Nodes], sites: int, seeds: int, years: int) -> Forecast:
    """What comparisons of so many sites take, all agents that were measured in each.

    Args:
        years: to judge on; the first is part of a training.

    Raises:
        UserError: no process fits any of the nodes.
    """
    room = sum(own.room(rates.step_bytes) for own in nodes)
    if room == 0:
        raise UserError(f"no node has the {show_size(rates.step_bytes)} that a process takes")
    tuning, trainings = rates.tuning_s or 0.0, seeds * len(rates.training_s)
    judging = trainings * (years - 1) * rates.evaluation_s
    site = tuning + years * rates.reference_s + seeds * sum(rates.training_s.values()) + judging
    steps = 1 + years + trainings * years
    chain = tuning + rates.reference_s + max(rates.training_s.values()) + (years > 1) * rates.evaluation_s
    work = sites * (site + steps * STEP_S)
    return Forecast(sites * steps, work, chain, room, sites * trainings * rates.training_bytes)


def describe(rates: Rates, found: Forecast, sites: int, seeds: int, years: int) -> str:
    """The forecast as text."""
    agents = ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in rates.training_s.items())
    tuning = "rules taken from the cache, not counted" if rates.tuning_s is None else f"rules {rates.tuning_s:,.0f} s"
    lines = [
        f"measured, seconds of a core: {tuning}; references {rates.reference_s:,.0f} s a year; a training {agents};",
        f"a policy's year {rates.evaluation_s:,.0f} s; {show_size(rates.step_bytes)} of RAM a process",
        f"{sites:,} sites, {seeds} seeds, {years} years: {found.steps:,} steps, {found.work_s / 3600:,.1f} core hours",
        f"{found.room:,} steps at once: {_span(found.at_least_s)} to {_span(found.at_most_s)}",
        f"trainings' folders: {show_size(found.disk_bytes)}",
    ]
    return "\n".join(lines)


def _span(seconds: float) -> str:
    for size, name in ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.0f} seconds"


def plan_comparisons(folder: Path, cluster: str, sites: int, seeds: int, years: int) -> str:
    """The forecast for a command's words, as text.

    Raises:
        UserError: a word is wrong, or the folder holds no comparison.
    """
    limits: dict[str, Any] = {"sites": sites, "seeds": seeds, "eval-years": years}
    for name, value in limits.items():
        if not 1 <= value <= 1_000_000_000:
            raise UserError(f"--{name} {value}: at least 1 and at most 1000000000")
    nodes, rates = parse_nodes(cluster), read_rates(folder)
    return describe(rates, forecast(rates, nodes, sites, seeds, years), sites, seeds, years)
