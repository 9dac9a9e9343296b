"""What an owner can say about a file that does not say it itself."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from iquitos_rl.errors import UserError

ROLES = ("load", "pv", "weather", "sessions", "carbon")


@dataclass(frozen=True)
class Reading:
    """How to read one file; None leaves it to the file."""

    column: str | None = None
    unit: str | None = None
    """kWh, Wh, MWh, GWh or MJ per interval, or kW, W, MW, GW."""
    quantity: Literal["interval", "register", "daily", "net"] | None = None
    """Energy per interval (or mean power), a rising meter register, a counter that starts again every day, or load less
    PV."""
    decimal: Literal["point", "comma"] | None = None
    dates: Literal["dmy", "mdy", "ymd"] | None = None
    stamps: Literal["start", "end"] | None = None
    """Whether a row's time is the begin or the end of its interval."""
    clock: Literal["utc", "standard", "daylight"] | None = None
    """Stamps without offset: UTC, the site's clock without daylight saving, or with it."""
    start: str | None = None
    """Time of the first row, where rows have none."""
    step: str | None = None
    """Minutes between such rows."""
    fill: str | None = None
    """Hours: longer gaps are refused."""


CHOICES = {
    name: typing.get_args(typing.get_args(hint)[0])
    for name, hint in typing.get_type_hints(Reading).items()
    if name in ("quantity", "decimal", "dates", "stamps", "clock")
}


def readings(**options: Sequence[str]) -> dict[str, Reading]:
    """Role of a file ("load", "pv", ...) to how to read it, from options such as `unit=["kWh", "pv=W"]`.

    A value without a role holds for every file.

    Raises:
        UserError: a value that the option does not have, a role given twice.
    """
    found = {role: Reading() for role in ROLES}
    for option, values in options.items():
        seen: set[str] = set()
        for text in sorted(values, key=lambda value: value.partition("=")[0] in ROLES):
            role, equals, value = text.partition("=")
            roles = (role,) if equals and role in ROLES else ROLES
            value = value if equals and role in ROLES else text
            allowed = CHOICES.get(option)
            if allowed and value not in allowed:
                raise UserError(f"--{option}: {value!r} is none of {', '.join(allowed)}")
            if (key := roles[0] if len(roles) == 1 else "") in seen:
                raise UserError(f"--{option} is given twice{f' for {key}' if key else ''}")
            seen.add(key)
            for each in roles:
                found[each] = replace(found[each], **{option: value})  # type: ignore[arg-type]
    return found


assert {field.name for field in fields(Reading)} >= set(CHOICES)
