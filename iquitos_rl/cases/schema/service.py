"""The limits of a building's grid connection, from its schema block.

Source: `building.py` (_initialize_charging_constraints) and `internal/building_ops.py` (_split_power_by_connection).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from iquitos_rl.cases.schema.values import Block
from iquitos_rl.cases.site import ElectricalService

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


def service_scopes(
    service: ElectricalService, chargers: Mapping[str, str | None], block: Block | None = None
) -> tuple[Scope, ...]:
    """The scopes of an `electrical_service` in the order CityLearn enforces them: the total, then each phase.

    Args:
        chargers: name to `phase_connection` of the building's chargers.
        block: where modes, phases and limits that CityLearn does not know are recorded.
    """
    block = Block(service.raw) if block is None else block
    mode = str(block.content.get("mode", "single_phase")).strip().lower()
    if mode not in ("single_phase", "three_phase"):
        block.error(f"mode must be single_phase or three_phase, not {mode}")
    phases = PHASES if mode == "three_phase" else PHASES[:1]
    split = str(block.content.get("default_split", "balanced")).strip().upper()
    if split not in ("BALANCED", *phases):
        block.error(f"default_split must be balanced or one of {', '.join(phases)}, not {split}")
    total = block.child("limits").child("total")
    given = block.child("limits").child("per_phase")
    per_phase = {_phase_name(key): given.child(key) for key in given.content}
    if unknown := [name for name in per_phase if name not in phases]:
        given.error(f"{mode} has no phase {unknown[0]}")

    def divisor(connection: str | None, phase: str, owner: str) -> float:
        name = _phase_name(connection) or (PHASES[0] if len(phases) == 1 else ALL_PHASES)
        if name == ALL_PHASES and len(phases) > 1:
            return float(len(phases))
        if name not in phases:
            block.error(f"{owner} has phase_connection {connection}, which {mode} does not have")
        return 1.0 if name == phase else math.inf

    def scope(limits: Block, phase: str) -> Scope:
        return Scope(
            import_kw=_limit(limits, "import_kw"),
            export_kw=_limit(limits, "export_kw"),
            base_divisor=float(len(phases)) if split == "BALANCED" else 1.0 if split == phase else math.inf,
            battery_divisor=divisor(service.battery_phase, phase, "electrical_storage"),
            charger_divisors=tuple(divisor(connection, phase, name) for name, connection in chargers.items()),
        )

    whole = Scope(
        import_kw=_limit(total, "import_kw"),
        export_kw=_limit(total, "export_kw"),
        base_divisor=1.0,
        battery_divisor=1.0,
        charger_divisors=(1.0,) * len(chargers),
    )
    return (whole, *(scope(per_phase.get(phase, Block({})), phase) for phase in phases))


def charging_limits(
    service: ElectricalService, chargers: Mapping[str, str | None], block: Block | None = None
) -> tuple[ChargingLimit, ...]:
    """The limits of a `charging_constraints` block in the order CityLearn enforces them: the building, then each phase.

    Args:
        block: where a limit that is no number of at least 0 and unknown chargers are recorded.
    """
    block = Block(service.raw) if block is None else block
    limits = [ChargingLimit(_limit(block, "building_limit_kw"), (True,) * len(chargers))]
    phases = block.get("phases", [])
    if not isinstance(phases, list):
        block.error("phases must be a list")
        return tuple(limits)
    numbered = Block({f"phases[{k}]": entry for k, entry in enumerate(phases)}, block.report, block.path)
    for _, phase in numbered.children():
        names = phase.get("chargers", [])
        if not isinstance(names, list):
            phase.error("chargers must be a list")
        elif unknown := [name for name in names if name not in list(chargers)]:
            phase.error(f"chargers: the building has no charger {unknown[0]}")
        else:
            limits.append(ChargingLimit(_limit(phase, "limit_kw"), tuple(name in names for name in chargers)))
    return tuple(limits)


def _phase_name(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return PHASE_NAMES.get(text.lower(), text) or None


def _limit(block: Block, key: str) -> float:
    return block.number(key, 0, math.inf, default=math.inf) if key in block else math.inf
