"""Numbers as people write them: decimal and thousands marks, missing values, units behind the figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.errors import UserError

MISSING = frozenset(
    (
        *("", "na", "n/a", "n.a.", "nan", "null", "none", "nil", "nd", "n.v.", "k.a.", "s/d", "<na>"),
        *("-", "--", "---", "–", "—", ".", "..", "?", "*"),  # noqa: RUF001
        *("unavailable", "unknown", "missing", "no data", "keine daten"),
        *("#n/a", "#nv", "#n/d", "#value!", "#wert!", "#div/0!"),
        *("-9999", "-9999.0", "-9999.00", "-99999"),
    )
)
NUMBER = re.compile(r"[-+]?(?:\d[\d.,]*|[.,]\d+)(?:[eE][-+]?\d+)?")
UNIT_AFTER = re.compile(r"(?<=[\d.,])\s*(?:[A-Za-z€%°][A-Za-z€%°/²]{0,8})$")
"""A unit behind a figure, such as 1.2 kWh."""
EXPONENT = re.compile(r"[eE][-+]?\d+$")


def plain(text: str) -> str:
    """A figure without what only helps to read it: blanks and apostrophes between thousands, currency, plus."""
    if NUMBER.fullmatch(text):
        return text.lstrip("+")
    text = text.strip().replace("−", "-").replace("\xa0", " ").replace("\u202f", " ")  # noqa: RUF001
    text = text.lstrip("$€£").strip()
    return re.sub(r"(?<=\d)[ '’](?=\d{3}(?!\d))", "", text)  # noqa: RUF001


def figure(text: str) -> str:
    """The same without a unit behind it."""
    text = plain(text)
    return text if NUMBER.fullmatch(text) else UNIT_AFTER.sub("", text)


def is_missing(text: str) -> bool:
    return text.strip().lower() in MISSING


def looks_like_number(text: str) -> bool:
    """Whether a cell holds a figure, with a unit behind it or not."""
    return bool(NUMBER.fullmatch(figure(text)))


def unit_behind(texts: Sequence[str]) -> str | None:
    """The unit that stands behind the figures of a column, None where none or several do."""
    found = set()
    for text in texts:
        match = UNIT_AFTER.search(text) if text and not EXPONENT.search(text) else None
        if match:
            found.add(match[0].strip())
    return found.pop() if len(found) == 1 else None


class _Proofs:
    """What the cells of one column say about its decimal mark."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.proofs: dict[str, str] = {}
        """Decimal mark to a cell that proves it."""
        self.doubtful: dict[str, str] = {}
        """Mark to a cell in which it may part thousands or decimals."""
        for text in dict.fromkeys(texts):
            self._look(text)

    def _look(self, text: str) -> None:
        points, commas = text.count("."), text.count(",")
        if not NUMBER.fullmatch(text) or not (points or commas):
            return
        if points and commas:
            last = "." if text.rfind(".") > text.rfind(",") else ","
            self.proofs.setdefault(last, text)
            return
        mark, other = (".", ",") if points else (",", ".")
        if max(points, commas) > 1:
            self.proofs.setdefault(other, text)
            return
        before, after = EXPONENT.sub("", text).lstrip("+-").split(mark)
        if len(after) == 3 and 1 <= len(before) <= 3 and before[0] != "0":
            self.doubtful.setdefault(mark, text)
        else:
            self.proofs.setdefault(mark, text)


class Marks(NamedTuple):
    """Title of a column to its decimal mark, or to the question where nothing tells it."""

    known: dict[str, str]
    questions: dict[str, str]

    def of(self, title: str) -> str:
        """The decimal mark of a column. Raises UserError: the question."""
        if title in self.questions:
            raise UserError(self.questions[title])
        return self.known.get(title, ".")


def decimal_marks(columns: Mapping[str, Sequence[str]], name: str, given: str | None, notes: list[str]) -> Marks:
    """The decimal mark of each column: what its cells prove, else what the file's other columns prove.

    Nothing is known of a column that proves both marks, or none (1,200 may be 1200 or 1.2).

    Args:
        columns: title to cells that are figures, as `figure` returns them.
        given: "point" or "comma" where the owner says it.
    """
    if given is not None:
        return Marks(dict.fromkeys(columns, "." if given == "point" else ","), {})
    marks = {title: _Proofs(texts) for title, texts in columns.items()}
    proofs = {mark: cell for found in marks.values() for mark, cell in found.proofs.items()}
    result = Marks({}, {})
    for title, found in marks.items():
        own = found.proofs or (proofs if len(proofs) == 1 else {})
        if len(own) == 2:
            result.questions[title] = (
                f"{name}: {title} has decimal points ({own['.']}) and decimal commas ({own[',']}); say --decimal "
                "point or --decimal comma"
            )
        elif not own and found.doubtful:
            result.questions[title] = _question(f"{name}: {title}", *next(iter(found.doubtful.items())))
        else:
            result.known[title] = next(iter(own), ".")
    if "," in result.known.values():
        notes.append(f"{name}: numbers have a decimal comma")
    elif any("," in marks[title].doubtful for title in result.known):
        notes.append(f"{name}: commas part thousands")
    return result


def _question(what: str, mark: str, cell: str) -> str:
    joined, parted = cell.replace(mark, ""), cell.replace(mark, ".")
    point, comma = (parted, joined) if mark == "." else (joined, parted)
    return (
        f"{what} {cell!r} may be {joined} or {parted}; say --decimal point (it is {point}) or --decimal comma (it is "
        f"{comma})"
    )


def numbers(texts: Sequence[str], mark: str, lines: Ints, name: str, title: str) -> Floats:
    """(N,) a column's numbers, NaN where the value is missing.

    Args:
        mark: the decimal mark.
        lines: (N,) line of each cell.

    Raises:
        UserError: a cell is not a number, with its line.
    """
    series = pd.Series(texts, dtype=object)
    codes, found = pd.factorize(series)
    values = np.empty(len(found))
    wrong: set[int] = set()
    for k, text in enumerate(found):
        try:
            values[k] = number(text, mark)
        except ValueError:
            values[k] = np.nan
            wrong.add(k)
    if wrong:
        row = int(np.argmax(np.isin(codes, sorted(wrong))))
        raise UserError(f"{name}, line {lines[row]}: {title} {texts[row]!r} is not a number")
    return values[codes]


def number(text: str, mark: str) -> float:
    """One number; NaN for a missing one. Raises ValueError: it is none, or is not finite."""
    if is_missing(text):
        return float("nan")
    text = figure(text)
    if not NUMBER.fullmatch(text):
        raise ValueError(text)
    value = float(text.replace("," if mark == "." else ".", "").replace(mark, "."))
    if not np.isfinite(value):
        raise ValueError(text)
    return value
