"""Limits of a building's grid connection, applied to the requested powers.

As in CityLearn, requests are scaled down before it is known what the batteries can take, and requests at empty sockets
count (`internal/building_ops.py`, _apply_electrical_service_constraints and _apply_legacy_charging_constraints): the
same actions must give the same flows. Requests are arranged by building, (E, B, M) kW: a building's chargers, padding,
and its battery last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from iquitos_rl.cases.schema.service import ChargingLimit, Scope, charging_limits, service_scopes
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.district.batteries import TINY
from iquitos_rl.envs.district.chargers import Chargers

PASSES = 8
SLACK = 1e-9


class Layout(NamedTuple):
    """Maps between the flat list of all sockets (N) and the arrangement by building (B, M)."""

    place: Tensor
    """(B * M,) source of each place: a socket, N for padding, N + 1 + b for building b's battery."""
    back: Tensor
    """(N,) place of each socket."""
    buildings: int

    @property
    def width(self) -> int:
        return self.place.shape[0] // self.buildings

    def arrange(self, sockets: Tensor, batteries: Tensor) -> Tensor:
        """(E, N) and (E, B) to (E, B, M)."""
        columns = torch.cat([sockets, torch.zeros_like(batteries[:, :1]), batteries], dim=1)
        return columns.index_select(1, self.place).view(-1, self.buildings, self.width)

    def by_building(self, sockets: Tensor) -> Tensor:
        """(E, N) to (E, B, M), with 0 in the batteries' places."""
        if self.buildings == 1 and self.width > 1:
            return sockets.unsqueeze(1)
        return self.arrange(sockets, sockets.new_zeros(sockets.shape[0], self.buildings))

    def sockets(self, arranged: Tensor) -> Tensor:
        """(E, B, M) to (E, N)."""
        return arranged.flatten(1).index_select(1, self.back)


class ServiceScope(NamedTuple):
    """One scope of `electrical_service`, for all buildings; an infinite divisor excludes a device from the sum."""

    import_kw: Tensor
    """(B,)."""
    export_kw: Tensor
    base_divisor: Tensor
    """(B,)."""
    divisor: Tensor
    """(B, M)."""
    limits_import: bool
    limits_export: bool


class SumLimit(NamedTuple):
    """One scope of `charging_constraints`, for all buildings."""

    limit_kw: Tensor
    """(B,)."""
    member: Tensor
    """(B, M) bool."""


class Limits(NamedTuple):
    """Limits of the grid connections of a site's buildings."""

    layout: Layout
    scopes: tuple[ServiceScope, ...]
    sums: tuple[SumLimit, ...]
    served: Tensor
    """(B,) bool: the building has an `electrical_service`."""
    served_sockets: Tensor
    """(N,) bool: the socket's building has an `electrical_service`."""
    summed_sockets: Tensor
    """(N,) bool: the socket's building has `charging_constraints`."""


def make_layout(site: Site, device: torch.device) -> Layout:
    counts = [len(building.chargers) for building in site.buildings]
    sockets, width = sum(counts), max(counts) + 1
    place = torch.full((len(counts), width), sockets, dtype=torch.int64)
    back: list[int] = []
    first = 0
    for b, count in enumerate(counts):
        place[b, :count] = torch.arange(first, first + count)
        place[b, -1] = sockets + 1 + b
        back += range(b * width, b * width + count)
        first += count
    return Layout(place.flatten().to(device), torch.tensor(back, dtype=torch.int64, device=device), len(counts))


def make_limits(site: Site, layout: Layout, dtype: torch.dtype, device: torch.device) -> Limits | None:
    """The limits of a site's buildings; None if there are none."""
    nothing = Scope(math.inf, math.inf, math.inf, math.inf, ())
    scopes: list[list[Scope]] = []
    sums: list[list[ChargingLimit]] = []
    for building in site.buildings:
        phases = {charger.name: charger.phase_connection for charger in building.chargers}
        service = building.service
        served = service is not None and service.kind == "electrical_service"
        scopes.append(list(service_scopes(service, phases)) if service and served else [])
        sums.append(list(charging_limits(service, phases)) if service and not served else [])
    if not any(scopes) and not any(sums):
        return None

    def tensor(values: object, kind: torch.dtype = dtype) -> Tensor:
        return torch.tensor(values, dtype=kind, device=device)

    def service_scope(k: int) -> ServiceScope:
        rows = [own[k] if k < len(own) else nothing for own in scopes]
        divisors = [
            [*row.charger_divisors, *[math.inf] * (layout.width - 1 - len(row.charger_divisors)), row.battery_divisor]
            for row in rows
        ]
        return ServiceScope(
            import_kw=tensor([row.import_kw for row in rows]),
            export_kw=tensor([row.export_kw for row in rows]),
            base_divisor=tensor([row.base_divisor for row in rows]),
            divisor=tensor(divisors),
            limits_import=any(math.isfinite(row.import_kw) for row in rows),
            limits_export=any(math.isfinite(row.export_kw) for row in rows),
        )

    def sum_limit(k: int) -> SumLimit:
        rows = [own[k] if k < len(own) else ChargingLimit(math.inf, ()) for own in sums]
        members = [[*row.chargers, *[False] * (layout.width - len(row.chargers))] for row in rows]
        return SumLimit(tensor([row.limit_kw for row in rows]), tensor(members, torch.bool))

    return Limits(
        layout=layout,
        scopes=tuple(
            scope
            for scope in (service_scope(k) for k in range(max(map(len, scopes))))
            if scope.limits_import or scope.limits_export
        ),
        sums=tuple(sum_limit(k) for k in range(max(map(len, sums)))),
        served=tensor([bool(own) for own in scopes], torch.bool),
        served_sockets=tensor([bool(scopes[b]) for b, _ in site.sockets], torch.bool),
        summed_sockets=tensor([bool(sums[b]) for b, _ in site.sockets], torch.bool),
    )


def apply_limits(
    limits: Limits, chargers: Chargers, power: Tensor, battery_action: Tensor, battery_kw: Tensor, base: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale requests down to the limits.

    Args:
        power: (E, N) kW requested from the chargers, after their deadbands.
        battery_action: (E, B) in [-1, 1].
        battery_kw: (B,) nominal power.
        base: (E, B) kW, load minus PV.

    Returns:
        The limited power and battery_action.
    """
    request = limits.layout.arrange(power, battery_action * battery_kw)
    request = request * (request.abs() > SLACK)
    wanted = request
    if limits.scopes:
        wanted = wanted * service_scale(limits, request, base)
    if limits.sums:
        wanted = wanted * sum_scale(limits, request)
    target = limits.layout.sockets(wanted)
    full, least, deadband = (
        torch.where(target > 0, charge, discharge)
        for charge, discharge in zip(chargers.charge[:3], chargers.discharge[:3])
    )
    # CityLearn converts the power back to an action, so the charger's deadband applies a second time. An electrical
    # service also drops a power below the least power where that exceeds the full power.
    again = target / full.clamp(min=TINY) * full
    dropped = (again.abs() < deadband) | (limits.served_sockets & (least > 0) & (target.abs() < least))
    again = torch.where(dropped, torch.zeros_like(again), again)
    touched = limits.served_sockets | (limits.summed_sockets & (target > 0))
    battery = (wanted[..., -1] / battery_kw.clamp(min=TINY)).clamp(-1, 1)
    return torch.where(touched, again, power), torch.where(limits.served, battery, battery_action)


def in_sequence(x: Tensor) -> Tensor:
    """Sum over the last dimension from left to right, with the rounding of Python's `sum`."""
    return x.cumsum(-1)[..., -1]


def service_scale(limits: Limits, request: Tensor, base: Tensor) -> Tensor:
    """Share of each request that an `electrical_service` lets through.

    Args:
        request: (E, B, M) kW, positive to import.
        base: (E, B) kW, load minus PV.

    Returns:
        (E, B, M) in [0, 1].
    """
    scale = torch.ones_like(request)
    parts = [request / scope.divisor for scope in limits.scopes]
    for _ in range(PASSES):
        totals = [
            in_sequence(torch.cat([(base / scope.base_divisor).unsqueeze(-1), part * scale], dim=-1))
            for scope, part in zip(limits.scopes, parts)
        ]
        for scope, part, total in zip(limits.scopes, parts, totals):
            if scope.limits_import:
                scale = _scaled(scale, part, total, scope.import_kw)
            if scope.limits_export:
                scale = _scaled(scale, -part, -total, scope.export_kw)
    return scale


def _scaled(scale: Tensor, part: Tensor, total: Tensor, limit: Tensor) -> Tensor:
    """Scale the positive parts by a common factor where `total` (E, B) exceeds `limit` (B,)."""
    adding = part > 0
    relevant = in_sequence(torch.where(adding, scale * part, torch.zeros_like(part)))
    allowed = limit - (total - relevant)
    some = relevant > SLACK
    # Neither 0 / 0 nor infinity where nothing is scaled: their slopes would spoil a gradient that does not use them.
    divisor = torch.where(some, relevant, torch.ones_like(relevant))
    factor = (torch.minimum(allowed, relevant) / divisor).clamp(min=0, max=1)
    excess = (total > limit + SLACK) & some & (factor < 1 - SLACK)
    factor = torch.where(excess, factor, torch.ones_like(factor)).unsqueeze(-1)
    return torch.where(adding, scale * factor, scale)


def sum_scale(limits: Limits, request: Tensor) -> Tensor:
    """(E, B, M) share of each charging request that `charging_constraints` let through."""
    scale = torch.ones_like(request)
    wanted = request.clamp(min=0)
    for limit in limits.sums:
        total = in_sequence(torch.where(limit.member, wanted * scale, torch.zeros_like(wanted)))
        above, one = total > limit.limit_kw, torch.ones_like(total)
        factor = torch.where(above, limit.limit_kw / torch.where(above, total, one), one).unsqueeze(-1)
        scale = torch.where(limit.member & (wanted > 0), scale * factor, scale)
    return scale
