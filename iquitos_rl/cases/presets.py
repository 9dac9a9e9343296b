"""Cases that are built rather than given as a folder, by the names that `--case` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import new_folder
from iquitos_rl.registry import Registry


class Preset(NamedTuple):
    """One case that can be built for any year seed; equal arguments must give equal files."""

    build: Callable[[int, Path, Mapping[str, object]], object]
    """Writes a schema folder: from a year seed, the empty folder to write into, and what `--set case_settings` says."""
    settings: BaseModel | None = None
    """What case_settings can change, with the preset's values; None where that is nothing."""
    version: int = 1
    """Raised when equal arguments give other files than before, so that stored years are built anew."""


PRESETS: Registry[Preset] = Registry(
    "preset",
    {
        "iquitos-128": "iquitos_rl.cases.iquitos.build:IQUITOS_128",
        "iquitos-38": "iquitos_rl.cases.iquitos.build:IQUITOS_38",
        "iquitos-38-january": "iquitos_rl.cases.iquitos.build:IQUITOS_38_JANUARY",
        **{
            f"iquitos-{sockets}-{shift}": f"iquitos_rl.cases.iquitos.shifts:{size}_{shift.upper()}"
            for sockets, size in ((38, "SMALL"), (128, "LARGE"))
            for shift in ("load", "tenant", "inverter", "hours")
        },
    },
)


def build_preset(name: str, year_seed: int, output: Path, overrides: Mapping[str, object]) -> Path:
    """Write one year of a preset and return its folder.

    Args:
        output: a folder that does not exist yet or is empty; it appears when everything is written.

    Raises:
        UserError: an unknown preset or setting, or the folder cannot be written.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if overrides and preset.settings is None:
        raise UserError(f"the preset {name} has no settings: {', '.join(overrides)}")
    with new_folder(output) as folder:
        preset.build(year_seed, folder, overrides)
        if not (folder / "schema.json").is_file():
            raise UserError(f"the preset {name} wrote no schema.json")
    return output
