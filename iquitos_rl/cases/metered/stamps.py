"""Dates and times as people write them, column by column.

A column is read in one form. What only the whole file can tell (day or month first, time zone) is decided later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from iquitos_rl.cases.iquitos.calendar import Times
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

TIME = r"(?P<h>\d{1,2})(?:[:.hH](?P<mi>\d{2})(?:[:.](?P<s>\d{2})(?:[.,]\d+)?)?)?\s*(?P<ap>[AaPp]\.?\s?[Mm]\.?)?"
CLOCK = r"(?P<h>\d{1,2}):(?P<mi>\d{2})(?::(?P<s>\d{2})(?:[.,]\d+)?)?\s*(?P<ap>[AaPp]\.?\s?[Mm]\.?)?"
ZONE = r"\s*\(?(?P<off>Z|[+-]\d{2}(?::?\d{2})?|[A-Za-z]{2,5}|CET/CEST)?\)?"
REST = rf"(?:(?:[T _,:]|\s-\s)\s*{TIME}{ZONE})?"
WEEKDAY = r"(?:[A-Za-zÀ-ÿ]{2,10}\.?,?\s+)?"
MONTH = r"(?P<mon>[A-Za-zÀ-ÿ]{3,10})\.?"
FORMS = {
    "ISO": rf"(?P<y>\d{{4}})(?P<sep>[-/.])(?P<m>\d{{1,2}})(?P=sep)(?P<d>\d{{1,2}}){REST}",
    "compact": r"(?P<y>(?:19|20)\d{2})(?P<m>[01]\d)(?P<d>[0-3]\d)"
    r"(?:[:T _]?(?P<h>\d{2}):?(?P<mi>\d{2})(?::?(?P<s>\d{2}))?\s*(?P<ap>[AaPp]\.?\s?[Mm]\.?)?" + ZONE + ")?",
    "numeric": rf"{WEEKDAY}(?P<a>\d{{1,2}})(?P<sep>[-/.])(?P<b>\d{{1,2}})(?P=sep)(?P<c>\d{{4}}|\d{{2}}){REST}",
    "day name": rf"{WEEKDAY}(?P<d>\d{{1,2}})[-\s./]*{MONTH}[-\s./,]*(?P<y>\d{{4}}|\d{{2}}){REST}",
    "month name": rf"{WEEKDAY}{MONTH}[-\s./]*(?P<d>\d{{1,2}}),?\s+(?P<y>\d{{4}}){REST}",
}
PATTERNS = {name: re.compile(rf"^{text}$") for name, text in FORMS.items()}
TIME_ONLY = re.compile(rf"^{CLOCK}$")
RANGE = re.compile(r"^(.*\d.*?)\s+[-–]\s+\S.*$")  # noqa: RUF001
TIME_RANGE = re.compile(r"^(\d{1,2}:\d{2}(?::\d{2})?)\s*[-–]\s*\d.*$")  # noqa: RUF001
ORDERS = {"dmy": ("b", "a", "c"), "mdy": ("a", "b", "c"), "ymd": ("b", "c", "a")}
"""Month, day and year among the three numbers of a date."""
ORDER_NAMES = {"dmy": "day/month/year", "mdy": "month/day/year", "ymd": "year/month/day"}
HOURS = {
    **dict.fromkeys(("z", "utc", "gmt", "wet"), 0.0),
    **dict.fromkeys(("bst", "cet", "mez", "west"), 1.0),
    **dict.fromkeys(("cest", "mesz", "eet"), 2.0),
    **dict.fromkeys(("eest",), 3.0),
    **dict.fromkeys(("pdt", "mst"), -7.0),
    **dict.fromkeys(("mdt", "cst"), -6.0),
    **dict.fromkeys(("cdt", "est"), -5.0),
    **dict.fromkeys(("edt",), -4.0),
    "pst": -8.0,
    "aest": 10.0,
    "aedt": 11.0,
    "jst": 9.0,
}
MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan ene gen january januar enero gennaio janvier janeiro januari janv",
            "feb fev fév february februar febrero febbraio février fevereiro februari févr",
            "mar mär mrz maa march märz marzo mars março maart",
            "apr abr avr april abril aprile avril",
            "may mai mei mag mayo maggio maio",
            "jun juin june juni junio giugno junho giu",
            "jul juil july juli julio luglio juillet julho lug",
            "aug ago aoû august agosto août augustus",
            "sep set september septiembre settembre septembre setembro sept",
            "oct okt ott out october oktober octubre ottobre octobre outubro",
            "nov november noviembre novembre novembro",
            "dec dez dic déc december dezember diciembre dicembre décembre dezembro",
        ),
        start=1,
    )
    for name in names.split()
}
NO_TIME = np.datetime64("NaT", "s")
UNKNOWN_ZONE = -99.0


@dataclass(frozen=True)
class Stamps:
    """One column of dates, as the wall clock that wrote it showed them; (N,) each."""

    wall: Times
    """datetime64[s], NaT where the cell is not a date."""
    offset: Floats
    """Hours ahead of UTC where the cell says so, NaN elsewhere."""
    timed: bool
    """Whether any cell has a time of day."""
    order: str
    """How the date's numbers were read; empty where there was no choice."""
    is_range: bool
    """Whether cells hold a begin and an end; the begin is what was read."""


class Times24(NamedTuple):
    """One column of times of day."""

    seconds: Floats
    """(N,) since midnight, up to 86,400; NaN where the cell is none."""
    is_range: bool


def looks_like_stamp(text: str) -> bool:
    """Whether a cell holds a date, with or without a time."""
    first, _ = begin_of(text)
    return any(pattern.match(first) for name, pattern in PATTERNS.items() if name != "compact") or bool(
        re.match(r"^(19|20)\d{6}[:T _]\d{2}", first)
    )


def looks_like_time(text: str) -> bool:
    return TIME_ONLY.match(begin_of(text)[0]) is not None


def begin_of(text: str) -> tuple[str, bool]:
    """The first of two times in a cell such as 00:00 - 01:00, and whether there were two."""
    match = TIME_RANGE.match(text) or RANGE.match(text)
    if match and (any(p.match(match[1]) for p in PATTERNS.values()) or TIME_ONLY.match(match[1])):
        return match[1], True
    return text, False


def read_times(texts: Sequence[str]) -> Times24 | None:
    """A column of times of day; None if most cells are none."""
    begins = [begin_of(text) for text in texts]
    parts = pd.Series([text for text, _ in begins], dtype=object).str.extract(TIME_ONLY)
    seconds = _seconds(parts)
    if np.isnan(seconds).mean() > 0.1:
        return None
    return Times24(seconds, any(two for _, two in begins))


def read_stamps(texts: Sequence[str], name: str, lines: Ints, order: str | None) -> Stamps | None:
    """A column of dates; None if most cells are none.

    Args:
        order: "dmy", "mdy" or "ymd" where the owner says it.

    Raises:
        UserError: a zone's abbreviation is unknown, or the numbers do not tell day from month: the question.
    """
    begins = [begin_of(text) for text in texts]
    column = pd.Series([text for text, _ in begins], dtype=object)
    sample = column[column != ""]
    sample = sample.iloc[:: max(1, len(sample) // 200)]
    form = max(PATTERNS, key=lambda each: sum(bool(PATTERNS[each].match(text)) for text in sample))
    parts = column.str.extract(PATTERNS[form])
    if parts["d" if "d" in parts else "a"].notna().mean() < 0.5:
        return None
    seconds = _seconds(parts)
    timed = bool(parts["h"].notna().any())
    seconds = np.where(parts["h"].isna().to_numpy(), 0.0, seconds)
    found = ""
    if form == "numeric":
        days, found = _ordered(parts, seconds, name, lines, order)
    else:
        month = parts["mon"].str.lower().map(MONTHS) if "mon" in parts else parts["m"]
        days = _days(_ints(parts["y"]), _ints(month), _ints(parts["d"]))
    wall = days.astype("datetime64[s]") + np.nan_to_num(seconds).astype("timedelta64[s]")
    wall[np.isnan(seconds)] = NO_TIME
    return Stamps(wall, _offsets(parts, name, lines), timed, found, any(two for _, two in begins))


def _ints(column: pd.Series) -> Ints:
    return pd.to_numeric(column, errors="coerce").fillna(0).to_numpy(np.int64)


def _seconds(parts: pd.DataFrame) -> Floats:
    """(N,) seconds since midnight; NaN where a number is none of a clock's."""
    hour, minute, second = (pd.to_numeric(parts[key], errors="coerce").to_numpy(float) for key in ("h", "mi", "s"))
    missing = np.isnan(hour)
    minute, second = np.nan_to_num(minute), np.nan_to_num(second)
    if "ap" in parts and parts["ap"].notna().any():
        half = parts["ap"].fillna("").str.lower().str[:1].to_numpy()
        wrong = (half != "") & ((hour < 1) | (hour > 12))
        hour = np.where(half == "p", hour % 12 + 12, np.where(half == "a", hour % 12, hour))
        hour[wrong] = np.nan
    seconds = hour * 3600 + minute * 60 + second
    bad = missing | (hour > 24) | (minute > 59) | (second > 59) | (seconds > 86400)
    return np.where(bad, np.nan, seconds)


def _days(year: Ints, month: Ints, day: Ints) -> NDArray[np.datetime64]:
    """(N,) datetime64[D]; NaT where there is no such day. Years of two digits are of this century."""
    year = np.where(year < 100, year + 2000, year)
    fine = (month >= 1) & (month <= 12) & (day >= 1) & (year >= 1900) & (year < 2200)
    first = (np.where(fine, year, 2000) - 1970) * 12 + np.where(fine, month, 1) - 1
    of_month = first.astype("datetime64[M]")
    days = of_month.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    days[~fine | (days.astype("datetime64[M]") != of_month)] = np.datetime64("NaT")
    return days


def _ordered(
    parts: pd.DataFrame, seconds: Floats, name: str, lines: Ints, given: str | None
) -> tuple[NDArray[np.datetime64], str]:
    """Days, in the order of day, month and year that fits every row and the file's even steps best."""
    number = {key: _ints(parts[key]) for key in "abc"}
    there = parts["a"].notna().to_numpy()
    if given is not None:
        orders = [given]
    elif (parts["sep"][there] == ".").all():
        orders = ["dmy"]  # with dots nobody writes the month first
    else:
        orders = ["dmy", "mdy"] + (["ymd"] if parts["c"].dropna().str.len().max() == 2 else [])
    found = {order: _days(*(number[ORDERS[order][k]] for k in (2, 0, 1))) for order in orders}
    missing = {order: int((np.isnat(days) & there).sum()) for order, days in found.items()}
    fewest = min(missing.values())
    possible = {order: days for order, days in found.items() if missing[order] == fewest}
    if len(possible) > 1:
        score = {order: _evenness(days, seconds) for order, days in possible.items()}
        best = max(score.values())
        possible = {order: days for order, days in possible.items() if score[order] >= best - 1e-9}
    order, days = next(iter(possible.items()))
    others = [other for other, values in possible.items() if not np.array_equal(values, days, equal_nan=True)]
    if others:
        row = int(np.argmax(there))
        text = "".join(str(parts[key].iloc[row]) for key in ("a", "sep", "b", "sep", "c"))
        choice = " or ".join(f"--dates {each} ({ORDER_NAMES[each]})" for each in (order, *others))
        raise UserError(f"{name}, line {lines[row]}: {text} does not tell day from month; say {choice}")
    return days, order


def _evenness(days: NDArray[np.datetime64], seconds: Floats) -> float:
    """Share of rows that follow the row before at the usual distance, less what the gaps hold."""
    stamps = days.astype("datetime64[s]").astype(np.int64) + np.nan_to_num(seconds).astype(np.int64)
    steps = np.abs(np.diff(stamps[~np.isnat(days)]))
    steps = steps[steps > 0]
    if len(steps) == 0:
        return 0.0
    return float((steps == np.bincount(np.minimum(steps, 10**6)).argmax()).mean())


def _offsets(parts: pd.DataFrame, name: str, lines: Ints) -> Floats:
    """(N,) hours ahead of UTC that the cells name."""
    result = np.full(len(parts), np.nan)
    if "off" not in parts or parts["off"].isna().all():
        return result
    for text in parts["off"].dropna().unique():
        rows = (parts["off"] == text).to_numpy()
        match = re.fullmatch(r"([+-])(\d{2}):?(\d{2})?", text)
        if match:
            hours = int(match[2]) + int(match[3] or 0) / 60
            result[rows] = -hours if match[1] == "-" else hours
        elif text == "CET/CEST":
            continue
        elif text.lower() in HOURS:
            result[rows] = HOURS[text.lower()]
        else:
            raise UserError(
                f"{name}, line {lines[int(np.argmax(rows))]}: {text} is no time zone known here; use +01:00"
            )
    return result
