"""The limits of a building's grid connection, from its schema block.

Source: `building.py` (_initialize_charging_constraints) and `internal/building_ops.py` (_split_power_by_connection).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from iquitos_rl.cases.site import ElectricalService
from iquitos_rl.errors import UserError

PHASES = ("L1", "L2", "L3")
ALL_PHASES = "all_phases"
PHASE_NAMES = {
    "l1": "L1",
    "l2": "L2",
    "l3": "L3",
    "phase_1": "L1",
    "phase_2": "L2",
    "phase_3": "L3",
    "all_phases": ALL_PHASES,
    "all-phases": ALL_PHASES,
    "three_phase": ALL_PHASES,
    "three-phase": ALL_PHASES,
}


@dataclass(frozen=True)
class Scope:
    """One limit of an `electrical_service`, and what each power contributes to it.

    A contribution is the power divided by a divisor, because CityLearn divides: 1 for all of it, 3 for one phase of a
    three-phase connection, infinity for none.
    """

    import_kw: float
    """Infinite where there is no limit."""
    export_kw: float
    base_divisor: float
    """Of load and PV."""
    battery_divisor: float
    charger_divisors: tuple[float, ...]
    """One per charger of the building."""


@dataclass(frozen=True)
class ChargingLimit:
    """One limit of the older `charging_constraints`, on the sum of charging requests."""

    limit_kw: float
    chargers: tuple[bool, ...]
    """Which chargers of the building count."""


def service_scopes(service: ElectricalService, chargers: Mapping[str, str | None], where: str) -> tuple[Scope, ...]:
    """The scopes of an `electrical_service` in the order CityLearn enforces them: the total, then each phase.

    Args:
        chargers: name to `phase_connection` of the building's chargers.
        where: file and key, for messages.

    Raises:
        UserError: a mode, phase or limit that CityLearn does not know.
    """
    raw = service.raw
    mode = str(raw.get("mode", "single_phase")).strip().lower()
    if mode not in ("single_phase", "three_phase"):
        raise UserError(f"{where}: mode must be single_phase or three_phase, not {mode}")
    phases = PHASES[:1] if mode == "single_phase" else PHASES
    split = str(raw.get("default_split", "balanced")).strip().upper()
    if split not in ("BALANCED", *phases):
        raise UserError(f"{where}: default_split must be balanced or one of {', '.join(phases)}, not {split}")
    limits = _block(raw.get("limits"), f"{where}.limits")
    total = _block(limits.get("total"), f"{where}.limits.total")
    given = _block(limits.get("per_phase"), f"{where}.limits.per_phase")
    per_phase = {_phase_name(key): _block(block, f"{where}.limits.per_phase.{key}") for key, block in given.items()}
    if unknown := [name for name in per_phase if name not in phases]:
        raise UserError(f"{where}.limits.per_phase: {mode} has no phase {unknown[0]}")

    def divisor(connection: str | None, phase: str, owner: str) -> float:
        name = _phase_name(connection) or (PHASES[0] if len(phases) == 1 else ALL_PHASES)
        if name == ALL_PHASES and len(phases) > 1:
            return float(len(phases))
        if name not in phases:
            raise UserError(f"{where}: {owner} has phase_connection {connection}, which {mode} does not have")
        return 1.0 if name == phase else math.inf

    def scope(block: Mapping[str, Any], phase: str) -> Scope:
        return Scope(
            import_kw=_limit(block.get("import_kw"), f"{where}.limits.per_phase.{phase}.import_kw"),
            export_kw=_limit(block.get("export_kw"), f"{where}.limits.per_phase.{phase}.export_kw"),
            base_divisor=float(len(phases)) if split == "BALANCED" else 1.0 if split == phase else math.inf,
            battery_divisor=divisor(service.battery_phase, phase, "electrical_storage"),
            charger_divisors=tuple(divisor(connection, phase, name) for name, connection in chargers.items()),
        )

    whole = Scope(
        import_kw=_limit(total.get("import_kw"), f"{where}.limits.total.import_kw"),
        export_kw=_limit(total.get("export_kw"), f"{where}.limits.total.export_kw"),
        base_divisor=1.0,
        battery_divisor=1.0,
        charger_divisors=(1.0,) * len(chargers),
    )
    return (whole, *(scope(per_phase.get(phase, {}), phase) for phase in phases))


def charging_limits(
    service: ElectricalService, chargers: Mapping[str, str | None], where: str
) -> tuple[ChargingLimit, ...]:
    """The limits of a `charging_constraints` block in the order CityLearn enforces them: the building, then each phase.

    Raises:
        UserError: a limit is not a number of at least 0, or a phase names no list of chargers.
    """
    raw = service.raw
    whole = _limit(raw.get("building_limit_kw"), f"{where}.building_limit_kw")
    limits = [ChargingLimit(whole, (True,) * len(chargers))]
    phases = raw.get("phases") or []
    if not isinstance(phases, list):
        raise UserError(f"{where}.phases must be a list")
    for k, entry in enumerate(phases):
        block = _block(entry, f"{where}.phases[{k}]")
        names = block.get("chargers") or []
        if not isinstance(names, list):
            raise UserError(f"{where}.phases[{k}].chargers must be a list")
        if unknown := [name for name in names if name not in chargers]:
            raise UserError(f"{where}.phases[{k}].chargers: the building has no charger {unknown[0]}")
        limit = _limit(block.get("limit_kw"), f"{where}.phases[{k}].limit_kw")
        limits.append(ChargingLimit(limit, tuple(name in names for name in chargers)))
    return tuple(limits)


def check_service(service: ElectricalService, chargers: Mapping[str, str | None], where: str) -> None:
    """Raise UserError where the block has no meaning."""
    if service.kind == "electrical_service":
        service_scopes(service, chargers, where)
    else:
        charging_limits(service, chargers, where)


def _phase_name(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return PHASE_NAMES.get(text.lower(), text) or None


def _limit(value: object, where: str) -> float:
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value) or value < 0:
        raise UserError(f"{where} must be a number of at least 0, not {value!r}")
    return float(value)


def _block(value: object, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a JSON object with keys, not {value!r}")
    return value
