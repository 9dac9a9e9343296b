"""Years that a comparison may be judged on once: their seeds, and what was judged on them, in one file.

A result on a year that was looked at while settings were chosen is worth little. So the seeds are drawn when all
settings are fixed, and a comparison with other settings is refused on them, or its table says that it is not the first.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import digest, write_json
from iquitos_rl.machine.inputs import read_typed

FEWEST, MOST = 10, 1_000
SEEDS = range(10_000, 1_000_000_000)
"""Neither training years nor those that every run is evaluated on."""


class Use(BaseModel):
    """A comparison on these years."""

    model_config = ConfigDict(extra="forbid")

    case: str = Field(max_length=1_000)
    settings: str = Field(max_length=64)
    """Digest of everything that was set but the number of seeds."""


class JudgedYears(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seeds: list[Annotated[int, Field(ge=SEEDS.start, lt=SEEDS.stop)]] = Field(min_length=FEWEST, max_length=MOST)
    used: list[Use] = Field(default_factory=list, max_length=10_000)


def draw(path: Path, count: int = FEWEST) -> JudgedYears:
    """Draw the seeds of so many years and write them down.

    Raises:
        UserError: the file exists, or the years are too few or too many.
    """
    if path.exists():
        raise UserError(f"{path} holds years that were drawn before; drawing again until a result pleases is no proof")
    if not FEWEST <= count <= MOST:
        raise UserError(f"{count} years: at least {FEWEST} and at most {MOST}")
    found = JudgedYears(seeds=random.SystemRandom().sample(SEEDS, count))
    write_json(path, found.model_dump())
    return found


def claim(path: Path, case: str, settings: Any, again: bool) -> str | None:
    """Write down that a comparison is judged on the years of a file; returns what its table has to say about that.

    Args:
        settings: everything that was set but the number of seeds.
        again: judge although it has been done with other settings.

    Raises:
        UserError: the file cannot be used, or the years were judged on with other settings.
    """
    known, use = read_typed(path, JudgedYears), Use(case=case, settings=digest(settings))
    others = [own for own in known.used if own.case == case and own != use]
    if others and not again:
        raise UserError(
            f"{path}: {case} was judged on these years with other settings ({len(others)} before);"
            " draw new years, or say --again, which the table will tell"
        )
    if use not in known.used:
        known.used.append(use)
        write_json(path, known.model_dump())
    if not others:
        return None
    return f"not the first look: these years were judged before with {len(others)} other settings (--again)"
