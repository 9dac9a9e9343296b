"""Tanks, heat pumps and comfort in a site's task: what actions mean, what an agent sees, what it pays for.

E environments, B buildings, U = 3 end uses (cooling, heating, hot water), S * T table rows. There is one action for
each active tank, and one for each building with controllable cooling or heating.

An HVAC action of 0 makes the device meet the demand of the data, as the building does by itself; 1 is its full power
and -1 is off. So doing nothing is an ordinary building, not one that is cooled at half power for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Bools, Building, Floats, Ints, Site
from iquitos_rl.cases.thermal import END_USES
from iquitos_rl.envs.task.settings import ObjectiveSettings

TINY = 1e-6
"""kW or kWh from which on a device or tank counts as there."""
TEMPERATURE_REACH = 10.0
"""Bounds of the distance to the set-point, in K."""
SPREAD = 5.0
"""Bounds of the temperature inside lie so many K beyond the extremes of the data."""

Series = dict[str, tuple[Floats, float, float]]


class Tank(NamedTuple):
    """An action that charges and discharges a tank."""

    building: int
    use: int
    reach: float
    """Share of the capacity that an action of 1 asks for: CityLearn's own bound."""


class Hvac(NamedTuple):
    """An action that sets the demand for cooling, for heating, or for either."""

    building: int
    cools: bool
    heats: bool


def tanks(site: Site) -> list[Tank]:
    """The tanks that actions control, building by building."""
    found = []
    for b, building in enumerate(site.buildings):
        for u, use in enumerate(building.end_uses):
            if use.tank_action:
                found.append(Tank(b, u, min(use.device.nominal_power / max(use.tank.capacity, TINY), 1.0)))
    return found


def hvacs(site: Site) -> list[Hvac]:
    """The buildings whose cooling or heating an action controls."""
    found = []
    for b, building in enumerate(site.buildings):
        controlled = [use.device_action and building.dynamics is not None for use in building.end_uses[:2]]
        if any(controlled):
            powered = [use.device.nominal_power > TINY for use in building.end_uses[:2]]
            found.append(Hvac(b, controlled[0] and powered[0], controlled[1] and powered[1]))
    return found


def action_names(site: Site) -> list[str]:
    """Names of the actions, in order: `Building_1/cooling_storage`, `Building_1/cooling_device`."""
    names = [f"{site.buildings[t.building].name}/{END_USES[t.use]}_storage" for t in tanks(site)]
    for hvac in hvacs(site):
        uses = site.buildings[hvac.building].end_uses
        both = uses[0].device_action and uses[1].device_action
        kind = "cooling_or_heating" if both else "cooling" if uses[0].device_action else "heating"
        names.append(f"{site.buildings[hvac.building].name}/{kind}_device")
    return names


def exogenous(building: Building) -> Series:
    """Columns that no action changes: demands, set-points, people, outages. Demands and set-points are the data's.

    A building that is heated, cooled or without power in one period may not be in another, and a policy is to read the
    same columns in both: they depend on the devices, and not on whether anything happened.
    """
    columns: Series = {}
    simulated = building.dynamics is not None
    for use, own in zip(END_USES, building.end_uses):
        if own.demand.any() or (simulated and own.device.nominal_power > TINY):
            columns[f"{building.name}/{use}_demand"] = own.demand, 0.0, max(1.25 * float(own.demand.max()), TINY)
    if building.dynamics is not None and building.set_points is not None:
        known = building.set_points[~np.isnan(building.set_points)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        for i, use in enumerate(END_USES[:2]):
            columns[f"{building.name}/{use}_set_point"] = np.nan_to_num(building.set_points[:, i]), low - 1, high + 1
        assert building.hvac_mode is not None
        assert building.occupants is not None
        columns[f"{building.name}/cools"] = np.isin(building.hvac_mode, (1, 3)).astype(np.float64), 0.0, 1.0
        columns[f"{building.name}/heats"] = np.isin(building.hvac_mode, (2, 3)).astype(np.float64), 0.0, 1.0
        columns[f"{building.name}/occupants"] = building.occupants, 0.0, max(float(np.nanmax(building.occupants)), 1.0)
    if building.outage is not None and (simulated or building.outage.any()):
        columns[f"{building.name}/outage"] = building.outage.astype(np.float64), 0.0, 1.0
    return columns


def endogenous(site: Site) -> list[tuple[str, float, float]]:
    """Name and bounds of the columns that actions change, in the order of `ThermalTask.observe`."""
    found = [
        (f"{site.buildings[b].name}/{END_USES[u]}_soc", 0.0, 1.0)
        for b, building in enumerate(site.buildings)
        for u, use in enumerate(building.end_uses)
        if use.tank.capacity > TINY
    ]
    for building in site.buildings:
        if building.dynamics is not None:
            assert building.indoor_temperature is not None
            low, high = np.nanmin(building.indoor_temperature), np.nanmax(building.indoor_temperature)
            found.append((f"{building.name}/temperature", float(low) - SPREAD, float(high) + SPREAD))
    for use in END_USES[:2]:
        for building in site.buildings:
            if building.dynamics is not None:
                found.append((f"{building.name}/above_{use}_set_point", -TEMPERATURE_REACH, TEMPERATURE_REACH))
    return found


class ThermalTask:
    """Actions, observation and comfort of a site's thermal devices.

    Args:
        sites: years of one structure.
        settings: the comfort band.
    """

    def __init__(
        self, sites: Sequence[Site], settings: ObjectiveSettings, device: torch.device, dtype: torch.dtype
    ) -> None:
        first = sites[0]
        self.dtype, self.device, self.buildings = dtype, device, len(first.buildings)
        self.band, self.hours = settings.comfort_band, first.hours_per_step
        self.tanks, self.hvacs = tanks(first), hvacs(first)
        self.num_actions = len(self.tanks) + len(self.hvacs)
        self._reach = torch.zeros(len(self.tanks), 3 * self.buildings, dtype=dtype, device=device)
        """(K, 3 B) what an action of 1 asks of its tank."""
        for k, tank in enumerate(self.tanks):
            self._reach[k, tank.building * 3 + tank.use] = tank.reach
        self._hvac_place = self._index([h.building for h in self.hvacs])
        limits = [[-float(h.cools), float(h.heats)] for h in self.hvacs]
        self._low, self._high = torch.tensor(limits, dtype=dtype, device=device).reshape(-1, 2).unbind(-1)
        self._sign = torch.where(self._high > 0, 1, -1).to(dtype)
        self._ideal = self._rows([_ideal(site, self.hvacs) for site in sites])
        """(S * T, H) share of nominal power that meets the data's demand; negative to cool."""
        capacity = [[use.tank.capacity > TINY for use in b.end_uses] for b in first.buildings]
        self._with_tank = self._index(np.flatnonzero(capacity).tolist())
        networks = [b for b, own in enumerate(first.buildings) if own.dynamics is not None]
        self._with_network = self._index(networks)
        set_points, bands = zip(*(_comfort(site, networks, self.band) for site in sites))
        self._set_points = self._rows(list(set_points))
        """(S * T, 2 G) of the G buildings with a network, for cooling, then for heating."""
        self._bands = [self._rows(list(kind)) for kind in zip(*bands)]
        """Highest and lowest comfortable temperature, and whether it counts, (S * T, G) each."""
        modes = zip(*(_modes(site, networks) for site in sites))
        self._modes = [torch.from_numpy(np.concatenate(kind)).to(device) for kind in modes]
        """Whether a building is cooled, and heated, (S * T, G) bool each."""

    def device_actions(self, row: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """An agent's actions (E, X) in [-1, 1] as CityLearn's: of tanks (E, B, 3), of cooling and heating (E, B, 2)."""
        tank, hvac = action.split([len(self.tanks), len(self.hvacs)], -1)
        envs = len(action)
        tanks = (tank @ self._reach).view(envs, self.buildings, 3)
        if not self.hvacs:
            return tanks, action.new_zeros(envs, self.buildings, 2)
        ideal = self._ideal.index_select(0, row)
        # A single action from full cooling over the data's demand to full heating; without heating from full cooling
        # to off, so its sign turns: 1 is always the device's full power.
        toward = hvac * self._sign
        more, less = toward.clamp(min=0) * (self._high - ideal), toward.clamp(max=0) * (ideal - self._low)
        share = ideal + more + less
        both = torch.stack([(-share).clamp(min=0), share.clamp(min=0)], dim=-1)
        if len(self.hvacs) == self.buildings:
            return tanks, both
        hvacs = action.new_zeros(envs, self.buildings, 2).index_copy(1, self._hvac_place, both)
        return tanks, hvacs

    def observe(self, row: Tensor, tank_soc: Tensor, temperature: Tensor, set_points: Tensor | None = None) -> Tensor:
        """(E, columns) values of `endogenous`, from SOCs (E, B, 3) and temperatures (E, B) in C after the last step.

        Args:
            set_points: (E, B, 2) C for cooling and heating; those of the data by default.
        """
        socs = tank_soc.flatten(1).index_select(1, self._with_tank)
        if not len(self._with_network):
            return socs
        inside = temperature.index_select(1, self._with_network)
        if set_points is None:
            points = self._set_points.index_select(0, row)
        else:
            points = set_points.index_select(1, self._with_network).transpose(1, 2).flatten(1).nan_to_num()
        return torch.cat([socs, inside, inside.repeat(1, 2) - points], dim=-1)

    def discomfort(self, row: Tensor, temperature: Tensor, set_points: Tensor | None = None) -> Tensor:
        """(E,) degree-hours outside of the comfort band while somebody is in, over all buildings.

        Too warm counts from the cooling set-point, too cold from the heating set-point; a building that is only cooled,
        or only heated in a row has one set-point for both.
        """
        if not len(self._with_network):
            return torch.zeros_like(temperature[:, 0])
        inside = temperature.index_select(1, self._with_network)
        upper, lower, counts = (table.index_select(0, row) for table in self._bands)
        if set_points is not None:
            cool, heat = set_points.index_select(1, self._with_network).nan_to_num().unbind(-1)
            cooled, heated = (table.index_select(0, row) for table in self._modes)
            upper, lower = torch.where(cooled, cool, heat) + self.band, torch.where(heated, heat, cool) - self.band
        outside = (inside - upper).relu() + (lower - inside).relu()
        return (outside * counts).sum(-1) * self.hours

    def _rows(self, tables: list[Floats]) -> Tensor:
        return torch.from_numpy(np.concatenate(tables)).to(self.device, self.dtype)

    def _index(self, places: list[int]) -> Tensor:
        return torch.tensor(places, dtype=torch.int64, device=self.device)


def _ideal(site: Site, controlled: list[Hvac]) -> Floats:
    """(T, H) share of nominal power that meets the demand of the data: negative to cool, positive to heat."""
    columns = []
    for hvac in controlled:
        share = np.zeros(site.rows)
        for use, sign, on in zip(site.buildings[hvac.building].end_uses, (-1, 1), (hvac.cools, hvac.heats)):
            if on:
                share += sign * np.minimum(use.demand / use.cop / use.device.nominal_power, 1.0)
        columns.append(share)
    return np.stack(columns, axis=-1) if columns else np.zeros((site.rows, 0))


def _comfort(site: Site, networks: list[int], band: float) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
    """Set-points (T, 2 G) of the buildings with a network, see `ThermalTask`; highest and lowest comfortable
    temperature, and whether it counts: while the building may be cooled or heated and somebody is in, (T, G) each."""
    points, upper, lower, counts = [], [], [], []
    for b, cools, heats in zip(networks, *(kind.T for kind in _modes(site, networks))):
        building = site.buildings[b]
        assert building.set_points is not None
        assert building.occupants is not None
        cool, heat = np.nan_to_num(building.set_points).T
        points.append((cool, heat))
        upper.append(np.where(cools, cool, heat) + band)
        lower.append(np.where(heats, heat, cool) - band)
        counts.append((cools | heats) & (building.occupants > 0))
    if not networks:
        return np.zeros((site.rows, 0)), (np.zeros((site.rows, 0)),) * 3
    columns: Floats = np.concatenate([np.stack(kind) for kind in zip(*points)]).T
    most, least, counted = (np.stack(x, axis=-1).astype(np.float64) for x in (upper, lower, counts))
    return columns, (most, least, counted)


def _modes(site: Site, networks: list[int]) -> tuple[Bools, Bools]:
    """(T, G) whether each of these buildings may be cooled, and heated."""
    mode = np.stack([np.zeros(site.rows), *(_known(site.buildings[b].hvac_mode) for b in networks)], axis=1)[:, 1:]
    return np.isin(mode, (1, 3)), np.isin(mode, (2, 3))


def _known(mode: Ints | None) -> Ints:
    assert mode is not None
    return mode
