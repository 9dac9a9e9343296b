"""Blocks of a schema, their values checked: what is wrong is recorded, and a harmless value is returned instead."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeGuard

import numpy as np

from iquitos_rl.cases.schema.report import SCHEMA, Report
from iquitos_rl.cases.site import Floats

LARGEST = 1e15
"""Above any quantity of a site, in whatever unit; in single precision still far from infinite."""
LARGEST_SEED = 2**32 - 1
"""Of NumPy's older generators, which CityLearn draws with."""
LONGEST_NAME = 200
UNIT_CURVE = np.array([[0.0, 1.0], [1.0, 1.0]])


class Block:
    """A JSON object with the report that its problems go to and its dotted path, "" at the top."""

    def __init__(self, content: Mapping[str, Any], report: Report | None = None, path: str = "") -> None:
        self.content, self.path = content, path
        self.report = Report() if report is None else report

    def __contains__(self, key: str) -> bool:
        return self.content.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it stands, or the default where it is omitted or null."""
        value = self.content.get(key)
        return default if value is None else value

    def error(self, message: str, kind: str | None = None) -> None:
        self.report.add("error", SCHEMA, message, self.path or None, kind=kind)

    def warning(self, message: str, kind: str | None = None) -> None:
        self.report.add("warning", SCHEMA, message, self.path or None, kind=kind)

    def child(self, key: str, required: bool = False) -> Block:
        """The block under a key; an empty one where it is omitted or null, or no block."""
        value, path = self.content.get(key), f"{self.path}.{key}" if self.path else key
        if isinstance(value, dict):
            return Block(value, self.report, path)
        if value is not None:
            self.error(f"{key} must be a JSON object with keys, not {shown(value)}")
        elif required:
            self.error(f"key {key} is missing")
        return Block({}, self.report, path)

    def children(self) -> Iterator[tuple[str, Block]]:
        """Name and block of every entry."""
        for key in self.content:
            if not key.isprintable() or len(key) > LONGEST_NAME:
                self.error(f"{shown(key)} cannot be a name: it must be at most {LONGEST_NAME} printable characters")
            yield key, self.child(key, required=True)

    def check_known(self, known: Collection[str], what: str) -> None:
        """Record what CityLearn ignores: an error where it looks like a misspelt key that is missing."""
        for key in self.content:
            if key not in known:
                near = [name for name in get_close_matches(key, known, n=1, cutoff=0.8) if name not in self]
                if near:
                    self.error(f"unknown {what} {key!r}, CityLearn ignores it; {near[0]} is probably meant")
                else:
                    self.warning(f"unknown {what} {key!r}, CityLearn ignores it")

    def flag(self, key: str, default: bool = False) -> bool:
        """A truth value as CityLearn accepts it (`utilities.py`, parse_bool)."""
        value = self.get(key, default)
        text = str(value).strip().lower()
        if text in ("true", "1", "1.0", "yes", "on"):
            return True
        if text not in ("false", "0", "0.0", "no", "off"):
            self.error(f"{key} must be true or false, not {shown(value)}")
        return False

    def number(self, key: str, low: float, high: float, default: float | None = None, above: bool = False) -> float:
        """A number between low and high, or above low, or the default where it is omitted."""
        value = self.get(key, default)
        if is_number(value) and low <= value <= high and not (above and value == low):
            return float(value)
        if value is None:
            self.error(f"{key} is missing")
        else:
            span = f"above {low:g}" if above else f"of at least {low:g}"
            span = span if math.isinf(high) else f"{span} and at most {high:g}" if above else _between(low, high)
            self.error(f"{key} must be a number {span}, not {shown(value)}")
        return low + 1.0 if above else low

    def whole(self, key: str, low: int, default: int | None = None, high: int = 10**9) -> int:
        """A whole number from low to high."""
        value = self.get(key, default)
        if is_number(value) and value == int(value) and low <= value <= high:
            return int(value)
        most = f" and at most {high}" if is_number(value) and value > high else ""
        self.error(f"{key} must be a whole number of at least {low}{most}, not {shown(value)}")
        return low

    def text(self, key: str, what: str) -> str:
        """A text that must be there, "" where it is not."""
        value = self.get(key)
        if isinstance(value, str) and value.strip():
            return value
        self.error(f"{key} is missing" if value is None else f"{key} must be {what}, not {shown(value)}")
        return ""

    def check_class(self, key: str, required: bool = True) -> None:
        """Record where a value is no class with its module; only CityLearn can tell whether there is such a class."""
        value = self.get(key)
        if (required or value is not None) and (not isinstance(value, str) or "." not in value.strip(".")):
            self.error(f"{key} must name a module and a class, not {shown(value)}")

    def curve(self, key: str, fewest: int = 2) -> Floats:
        """(2, K) from a list of [x, y] pairs with rising x."""
        given = self.get(key)
        sound = isinstance(given, list) and all(
            isinstance(pair, list) and len(pair) == 2 and all(map(is_number, pair)) for pair in given
        )
        pairs = np.array(given if sound else [], dtype=np.float64)
        if len(pairs) < fewest:
            self.error(f"{key} must be a list of at least {fewest} [x, y] pairs of numbers")
        elif (np.diff(pairs[:, 0]) <= 0).any():
            self.error(f"the first numbers of the pairs of {key} must rise")
        else:
            return np.ascontiguousarray(pairs.T)
        return UNIT_CURVE

    def numbers(self, key: str) -> Floats:
        """(K,) from a list of numbers; none where it is no such list."""
        given = self.get(key, [])
        sound = isinstance(given, list) and all(map(is_number, given))
        if not sound:
            self.error(f"{key} must be a list of numbers, not {shown(given)}")
        return np.array(given if sound else [], dtype=np.float64)

    def names(self, key: str) -> list[str]:
        """A list of texts; one text stands for a list of it, nothing for an empty one."""
        value = self.get(key, [])
        values = value if isinstance(value, list) else [value]
        return [str(entry) for entry in values]


def is_number(value: object) -> TypeGuard[float]:
    """A number that can be a quantity: no truth value, finite, and of a size that occurs."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def shown(value: object) -> str:
    """A value for a message, cut where it is long."""
    return reprlib.repr(value)


def _between(low: float, high: float) -> str:
    return f"between {low:g} and {high:g}"
