"""Units of energy and power as column names spell them."""

from __future__ import annotations

import re
from typing import NamedTuple

PREFIX = {"": 1e-3, "k": 1.0, "m": 1e3, "g": 1e6, "t": 1e9}
AREA = r"(?![\s/_]*(?:m²|m\^?-?2|sqm|qm))"
SYMBOL = re.compile(
    # A symbol stands alone, or after a lower-case letter where it is written with its capital (DemandkWh).
    rf"(?:(?<![A-Za-z])|(?<=[a-z])(?=[kMG]?W)|(?=[kmg]wh))([kKmMgGtT]?)([wW][hH]?|[jJ])(?![A-Za-z²]){AREA}(\s*/\s*h\b)?"
)
PREFIX_WORD = r"(kilo|mega|giga|)"
HOUR_WORD = r"[\s_-]*(hours?|hrs?|stunden?|horas?|heures?|uur)"
WATT_WORD = re.compile(rf"(?<![a-z]){PREFIX_WORD}[\s_-]?(?:watts?|vatios?)(?:{HOUR_WORD})?(?![a-z]){AREA}", re.I)
JOULE_WORD = re.compile(rf"(?<![a-z]){PREFIX_WORD}[\s_-]?joules?(?![a-z])", re.I)
LONG = {"kilo": "k", "mega": "m", "giga": "g"}


class Unit(NamedTuple):
    text: str
    factor: float
    """To kWh, or kW."""
    energy: bool
    """Energy of an interval; else mean power."""

    @property
    def meaning(self) -> str:
        return f"{self.text} per interval" if self.energy else f"mean {self.text} of the interval"


KNOWN = "kWh, Wh, MWh, GWh, MJ, kW, W, MW or GW"


def units_in(text: str) -> list[Unit]:
    """Every different unit that a text names, in its order."""
    found: dict[Unit, None] = {}
    for match in WATT_WORD.finditer(text):
        found.setdefault(_watts(LONG.get(match[1].lower(), ""), bool(match[2])))
    for match in JOULE_WORD.finditer(text):
        found.setdefault(_joules(LONG.get(match[1].lower(), "")))
    for match in SYMBOL.finditer(text):
        prefix, base, per_hour = match[1], match[2].lower(), match[3]
        if prefix == "m" and match[2][0] == "W":
            continue  # mW may be meant as milli or mega: named no unit
        if base == "j":
            if not prefix and match[2] == "j":
                continue
            found.setdefault(_joules(prefix.lower()))
        else:
            found.setdefault(_watts(prefix.lower(), base == "wh" and not per_hour))
    return list(found)


def _watts(prefix: str, energy: bool) -> Unit:
    letter = {"": "", "k": "k"}.get(prefix, prefix.upper())
    return Unit(f"{letter}W{'h' if energy else ''}", PREFIX[prefix], energy)


def _joules(prefix: str) -> Unit:
    letter = {"": "", "k": "k"}.get(prefix, prefix.upper())
    return Unit(f"{letter}J", PREFIX[prefix] / 3600, True)
