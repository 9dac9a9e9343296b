"""Years in which one thing is not as in the years that agents and rules learned from, to see who stands it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from iquitos_rl.cases.iquitos.build import VERSION, build_case
from iquitos_rl.cases.iquitos.presets import IQUITOS, CaseSettings, case_settings, with_changes
from iquitos_rl.cases.presets import Preset


def more_load(settings: CaseSettings) -> CaseSettings:
    """A tenth more load, all year."""
    return with_changes(settings, {"load.annual_kwh": 1.1 * settings.load.annual_kwh})


def tenant(settings: CaseSettings) -> CaseSettings:
    """A new tenant from April on, about a tenth of the load of open hours."""
    return with_changes(settings, {"load.tenant_kw": 250.0})


def inverter(settings: CaseSettings) -> CaseSettings:
    """Three of eight inverters stand still from May to September."""
    return with_changes(settings, {"pv.broken": 3})


def hours(settings: CaseSettings) -> CaseSettings:
    """Vehicles come and leave two hours later, so more of them are there in the expensive hours."""
    visits = settings.visits
    return with_changes(
        settings, {"visits.open_hour": visits.open_hour + 2, "visits.close_hour": visits.close_hour + 2}
    )


SHIFTS: dict[str, Callable[[CaseSettings], CaseSettings]] = {
    "load": more_load,
    "tenant": tenant,
    "inverter": inverter,
    "hours": hours,
}


def build_shifted(
    preset: str, shift: str, year_seed: int, output: Path, overrides: Mapping[str, object] | None = None
) -> Path:
    """A year of a preset with a shift; whatever does not depend on it is as in the preset's year of the same seed."""
    return build_case(preset, year_seed, output, SHIFTS[shift](case_settings(preset, overrides)))


def shifted(preset: str, shift: str) -> Preset:
    """The preset of these years."""
    return Preset(partial(build_shifted, preset, shift), SHIFTS[shift](IQUITOS[preset]), VERSION)


SMALL_LOAD, SMALL_TENANT, SMALL_INVERTER, SMALL_HOURS = (shifted("iquitos-38", name) for name in SHIFTS)
LARGE_LOAD, LARGE_TENANT, LARGE_INVERTER, LARGE_HOURS = (shifted("iquitos-128", name) for name in SHIFTS)
