"""Meter files of every kind, written from a known load, and read back: right, or a question, never a silent factor.

Each file is a draw of unit x interval x time zone x kind of stamp x separator x marks x preamble x gaps and more. What
is read must be the energy that was written, step by step. A question is answered as its owner would, by the option that
it names; after that the energy must be right.

    python benchmarks/import_files.py --cases 2000
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from iquitos_rl.cases.metered.meter import load_series, open_meter
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.zone import named_zone
from iquitos_rl.errors import UserError

RESULT = Path(__file__).parent / "results" / "import"
UNITS = {"kWh": (1.0, True), "Wh": (1e-3, True), "MWh": (1e3, True), "MJ": (1 / 3.6, True), "kW": (1.0, False)}
UNITS |= {"W": (1e-3, False), "MW": (1e3, False), "GW": (1e6, False), "GWh": (1e6, True)}
WORDS = {
    "kWh": "kilowatt hours",
    "Wh": "watt-hours",
    "kW": "kilowatts",
    "W": "watts",
    "MW": "Megawatt",
    "MWh": "megawatt hours",
}
ZONES = ("Europe/Berlin", "UTC", "America/New_York", "Asia/Kolkata", "America/Lima", "Australia/Sydney")
DATES = {
    "iso": "%Y-%m-%d",
    "slashed iso": "%Y/%m/%d",
    "dotted": "%d.%m.%Y",
    "day first": "%d/%m/%Y",
    "month first": "%m/%d/%Y",
    "short": "%d.%m.%y",
    "named": "%d-%b-%Y",
    "compact": "%Y%m%d",
}
CLOCKS = {"24": "%H:%M", "seconds": "%H:%M:%S", "am": "%I:%M %p"}
NAMES = ("load", "Verbrauch", "Consumo", "Demand", "active", "Energie", "import")
MISSING = ("", "NA", "n/a", "-", "null", "unavailable")


@dataclass(frozen=True)
class Kind:
    """What one file is like."""

    unit: str
    spelt: bool
    named: bool
    register: bool
    minutes: int
    zone: str
    style: str
    """How a stamp tells its zone: naive, offset, utc, unix, or separate date and time columns."""
    ends: bool
    date: str
    clock: str
    separator: str
    comma: bool
    thousands: bool
    preamble: int
    total: bool
    gaps: tuple[int, ...]
    missing: str
    newest_first: bool
    encoding: str
    jitter: int
    cut: int
    """Rows that lack at the begin of the first day."""
    more: tuple[str, ...]
    day: str
    days: int
    scale: float
    seed: int


kinds = st.builds(
    Kind,
    unit=st.sampled_from(sorted(UNITS)),
    spelt=st.booleans(),
    named=st.sampled_from([True] * 7 + [False]),
    register=st.sampled_from([False] * 3 + [True]),
    minutes=st.sampled_from([5, 10, 15, 30, 60]),
    zone=st.sampled_from(ZONES),
    style=st.sampled_from(["naive", "naive", "offset", "utc", "unix", "separate"]),
    ends=st.booleans(),
    date=st.sampled_from(sorted(DATES)),
    clock=st.sampled_from(sorted(CLOCKS)),
    separator=st.sampled_from([",", ";", "\t", "|"]),
    comma=st.booleans(),
    thousands=st.sampled_from([False, False, True]),
    preamble=st.integers(0, 4),
    total=st.booleans(),
    gaps=st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    missing=st.sampled_from(MISSING),
    newest_first=st.sampled_from([False, False, True]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    jitter=st.sampled_from([0, 0, 0, 4]),
    cut=st.sampled_from([0, 0, 0, 0, 1, 4, 5]),
    more=st.lists(
        st.sampled_from(["price EUR/kWh", "temperature", "Status", "Power factor"]), max_size=2, unique=True
    ).map(tuple),
    day=st.sampled_from(
        ["2024-03-04", "2024-03-30", "2024-10-26", "2023-11-04", "2024-12-30", "2024-02-27", "2024-04-05", "2024-03-09"]
    ),
    days=st.integers(2, 5),
    scale=st.sampled_from([0.05, 0.7, 40.0, 1500.0]),
    seed=st.integers(0, 10**6),
)


@dataclass
class Written:
    """A file and what it holds."""

    text: str
    begin: np.ndarray
    """UTC of every step, datetime64[s]."""
    kwh: np.ndarray
    known: np.ndarray
    """Whether the file tells a step's energy."""
    tolerance: float
    answers: dict[str, str] = field(default_factory=dict)
    """Option to what its owner would say."""


def write(kind: Kind) -> Written:
    rng = np.random.default_rng(kind.seed)
    zone = named_zone(kind.zone)
    midnight = np.datetime64(kind.day, "s")
    edges, _ = zone.to_utc(np.array([midnight, midnight + np.timedelta64(kind.days * 86400, "s")]), np.zeros(2, bool))
    step = np.timedelta64(kind.minutes * 60, "s")
    if kind.style == "utc" and (edges[0] + step).astype(np.int64) % 86400 == 0:
        kind = replace(kind, ends=False)  # ends of whole local days that are whole days of UTC: nobody could tell
    begin = np.arange(edges[0] + kind.cut * step, edges[1] - kind.cut * step, step).astype("datetime64[s]")
    hour = (begin.astype(np.int64) % 86400) / 3600
    shape = 1 + 0.5 * np.sin((hour - 9) * np.pi / 12) + rng.uniform(0, 0.6, len(begin))
    kwh = kind.scale * shape * kind.minutes / 60
    factor, energy = UNITS[kind.unit]
    register = kind.register and energy
    figures = kwh / factor if energy else kwh / factor / (kind.minutes / 60)
    digits = int(np.clip(4 - np.floor(np.log10(figures.max())), 0, 10))
    if register:
        figures = np.round(rng.uniform(0, 500) * figures.max() + np.append(0, np.cumsum(figures[:-1])), digits)
        kwh = np.diff(figures) * factor
    else:
        figures = np.round(figures, digits)
        kwh = figures * factor * (1 if energy else kind.minutes / 60)
    stamps = begin if register else begin + (step if kind.ends else np.timedelta64(0, "s"))
    late = rng.integers(-kind.jitter, kind.jitter + 1, len(stamps)).astype("timedelta64[s]")
    local = zone.local(stamps) + late
    rows = [
        (*_stamp(kind, moment, shown), _number(figure, digits, kind))
        for moment, shown, figure in zip(stamps + late, local, figures)
    ]
    known = np.ones(len(kwh), bool)
    for gap in kind.gaps:
        row = 1 + gap % (len(rows) - 2)
        rows[row] = (*rows[row][:-1], kind.missing)
        known[max(row - 1, 0) : row + 1] = False
    if register:
        begin = begin[:-1]
    lines = [_cells(kind, [*row, *_more(kind)]) for row in rows]
    lines = lines[::-1] if kind.newest_first else lines
    title = _title(kind, register, rng)
    times = (
        ["Date", "Time"]
        if kind.style == "separate"
        else ["time (UTC)" if kind.style == "utc" and kind.seed % 2 else "time"]
    )
    head = [_cells(kind, [*times, title, *kind.more])]
    about = ["Report of the grid operator", "Meter: 1ESY1160", "Customer: A. N. Other", ""][: kind.preamble]
    tail = [
        _cells(
            kind, ["Total", *([""] * (len(times) - 1)), _number(figures.sum(), digits, kind), *([""] * len(kind.more))]
        )
    ]
    text = "\n".join([*about, *head, *lines, *(tail if kind.total and not register else [])]) + "\n"
    answers = {
        "unit": kind.unit,
        "decimal": "comma" if kind.comma else "point",
        "stamps": "end" if kind.ends and not register else "start",
        "dates": "mdy" if kind.date == "month first" else "dmy",
        "clock": "daylight",
        "quantity": "register" if register else "interval",
        "load-column": title,
    }
    return Written(text, begin, kwh, known, 2 * 10.0**-digits * factor, answers)


def _title(kind: Kind, register: bool, rng: np.random.Generator) -> str:
    name = NAMES[int(rng.integers(len(NAMES)))]
    if not kind.named:
        return name
    unit = WORDS.get(kind.unit, kind.unit) if kind.spelt else kind.unit
    form = ("{name} [{unit}]", "{name}_{unit}", "{name} ({unit})", "{unit}")[int(rng.integers(4))]
    return ("Total " if register and kind.seed % 3 else "") + form.format(name=name, unit=unit)


def _number(value: float, digits: int, kind: Kind) -> str:
    text = f"{value:,.{digits}f}" if kind.thousands else f"{value:.{digits}f}"
    if kind.comma:
        text = text.translate(str.maketrans(",.", ".,"))
    return text


def _stamp(kind: Kind, moment: np.datetime64, local: np.datetime64) -> tuple[str, ...]:
    """The cells that say when, from the time in UTC and on the site's clock."""
    if kind.style == "unix":
        return (str(int(moment.astype(np.int64))),)
    wall = (moment if kind.style == "utc" else local).astype(object)
    date, clock = DATES[kind.date], CLOCKS["seconds" if kind.jitter else kind.clock]
    if kind.style == "separate":
        return wall.strftime(date), wall.strftime(clock)
    text = wall.strftime(f"{date} {clock}")
    if kind.style == "utc" and not kind.seed % 2:
        text += "Z"
    if kind.style == "offset":
        minutes = round(float((local - moment) / np.timedelta64(60, "s")))
        text += f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    return (text,)


def _more(kind: Kind) -> list[str]:
    cells = {"price EUR/kWh": "0.31", "temperature": "12.5", "Status": "ok", "Power factor": "0.97"}
    if kind.comma:
        cells = {name: cell.replace(".", ",") for name, cell in cells.items()}
    return [cells[name] for name in kind.more]


def _cells(kind: Kind, cells: list[str]) -> str:
    return kind.separator.join(f'"{cell}"' if kind.separator in cell else cell for cell in cells)


def outcome(kind: Kind, folder: Path) -> str:
    """What became of a file: "right", or "right after" the options that were asked for.

    Raises:
        AssertionError: the energy is not what was written, or an error names no option.
    """
    written = write(kind)
    path = folder / "load.csv"
    path.write_bytes(written.text.encode(kind.encoding))
    reading, asked, column = Reading(), [], None
    for _ in range(6):
        notes: list[str] = []
        try:
            file = open_meter(path, "load", named_zone(kind.zone), replace(reading, column=column), notes)
            series, net = load_series(file)
        except UserError as error:
            question = str(error)
        else:
            question = ""
        if question:
            option = next((name for name in re.findall(r"--([a-z-]+)", question) if name in written.answers), None)
            assert option is not None, f"{question}\n{kind}"
            assert option not in asked, f"asked twice: {question}\n{kind}"
            asked.append(option)
            answer = written.answers[option]
            if option == "load-column":
                column = answer
            else:
                reading = replace(reading, **{option: answer})  # type: ignore[arg-type]
            continue
        assert not net, kind
        _compare(kind, written, series)
        return "right" if not asked else f"right after {' and '.join(asked)}"
    raise AssertionError(f"asked without end: {kind}")


def _compare(kind: Kind, written: Written, series: Any) -> None:
    assert series.seconds == kind.minutes * 60, kind
    slot = (series.begin - written.begin[0]).astype(np.int64) / series.seconds
    assert (slot == np.round(slot)).all(), kind
    slot = slot.astype(np.int64)
    inside = (slot >= 0) & (slot < len(written.kwh))
    assert inside.all(), f"{(~inside).sum()} steps that nobody wrote\n{kind}"
    missing = np.setdiff1d(np.flatnonzero(written.known), slot)
    assert len(missing) == 0, f"{len(missing)} steps lost\n{kind}"
    known = written.known[slot]
    error = np.abs(series.values - written.kwh[slot])[known].max()
    assert error <= written.tolerance + 1e-9 * np.abs(written.kwh).max(), f"off by {error}\n{kind}"


def run(cases: int, record: Callable[[Kind, str], None]) -> None:
    """So many draws; a failing one is shrunk and raised."""
    with tempfile.TemporaryDirectory() as folder:

        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(kinds)
        def check(kind: Kind) -> None:
            record(kind, outcome(kind, Path(folder)))

        check()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    cases = parser.parse_args().cases
    found: Counter[str] = Counter()
    run(cases, lambda kind, result: found.update([result]))
    rows = [f"| {result} | {count} |" for result, count in found.most_common()]
    text = [
        f"# {sum(found.values()):,} meter files written from a known load and read back",
        "",
        "`python benchmarks/import_files.py`: unit x interval x zone x stamp x separator x marks x preamble x gaps x "
        "encoding.",
        "Every file came back to the energy of every step, some after a question that its owner can answer by an "
        "option.",
        "",
        "| outcome | files |",
        "|---|---|",
        *rows,
        "| another energy than was written | 0 |",
    ]
    RESULT.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")
    RESULT.with_suffix(".json").write_text(json.dumps(dict(found), indent=1) + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
