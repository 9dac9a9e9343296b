"""Everything thermal of a site: end uses, their control, and the temperature that follows.

E environments, B buildings, U = 3 end uses, S sites ("scenarios": years of one structure), T data rows. `Physics` steps
this next to the electrical devices; what the two share is the electricity that the devices use.

Source: CityLearn 3.0.2, `building.py` (update_cooling_demand, update_heating_demand, LSTMDynamicsBuilding).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.district import dynamics, end_uses
from iquitos_rl.envs.district.batteries import stored
from iquitos_rl.envs.district.dynamics import Memory
from iquitos_rl.envs.district.occupants import Occupants

COOLS, HEATS = (1, 3), (2, 3)
"""Values of `hvac_mode` in which a building may be cooled, or heated."""
NEVER = 2**31
"""Lookback of a building without a network: its control never starts."""


class ThermalState(NamedTuple):
    """Before the next action."""

    tank_soc: Tensor
    """(E, B, U)."""
    temperature: Tensor
    """(E, B) C inside, after the last step; at an episode's start that of the data."""
    age: Tensor
    """(E,) int64, steps since the episode began."""
    memories: tuple[Memory, ...]
    """What the networks remember, by group."""
    chosen: Tensor | None = None
    """(E, B, 2) set-points for cooling and heating that occupants have chosen, C; `occupants.NONE` where the data's
    hold. None where nobody chooses any."""


class Inside(NamedTuple):
    """How it is inside after a step."""

    temperature: Tensor
    """(E, B) C."""
    memories: tuple[Memory, ...]
    chosen: Tensor | None
    """As in `ThermalState`."""
    set_points: Tensor | None
    """As in `ThermalFlows`."""


class ThermalFlows(NamedTuple):
    """What one step led to."""

    demand: Tensor
    """(E, B, U) kWh thermal that was asked for."""
    delivered: Tensor
    """(E, B, U) kWh thermal from the device."""
    tank_kwh: Tensor
    """(E, B, U) kWh thermal into the tank, negative out of it."""
    tank_soc: Tensor
    """(E, B, U) after the action, before standby losses."""
    electricity: Tensor
    """(E, B, U) kWh electric."""
    load: Tensor
    """(E, B) kWh of the other load that was served: less than all of it only in an outage."""
    temperature: Tensor
    """(E, B) C inside."""
    unserved: Tensor
    """(E,) kWh, thermal and electric, that were asked for and not delivered: in an outage."""
    set_points: Tensor | None = None
    """(E, B, 2) C for cooling and heating, as the occupants left them; None where they are the data's."""


class Thermal:
    """Tables and parameters of the thermal side.

    Args:
        sites: years of one structure, each building with its `end_uses`.
    """

    def __init__(self, sites: Sequence[Site], device: torch.device, exact: bool) -> None:
        first = sites[0]
        self.exact, self.device, self.hours = exact, device, first.hours_per_step
        self.dtype = torch.float64 if exact else torch.float32
        uses = [b.end_uses for b in first.buildings]
        self.devices = end_uses.make_devices(uses, self.hours, exact, device)
        self.start = end_uses.initial_socs(uses, exact, device)
        tables = [end_uses.rows([b.end_uses for b in site.buildings]) for site in sites]
        self.demand, self.cop = (self._table(list(kind)) for kind in zip(*tables))
        self.temperature = self._table([_each(site, "indoor_temperature") for site in sites])
        mode = np.concatenate([_each(site, "hvac_mode") for site in sites])
        self.mode = torch.from_numpy(np.stack([np.isin(mode, COOLS), np.isin(mode, HEATS)], axis=-1)).to(device)
        """(S * T, B, 2) bool: the building may be cooled, and heated."""
        networks = [b.dynamics for b in first.buildings]
        occupied = any(b.occupant is not None for b in first.buildings)
        self.groups = dynamics.make_groups(networks, device, exact, occupied)
        self.known, self.data = [], []
        for group in self.groups:
            own = ([s.buildings[b].dynamics for b in group.members] for s in sites)
            known, data = zip(*(dynamics.normalised_rows(members, group.changing) for members in own))  # type: ignore[arg-type]
            self.known.append(torch.from_numpy(np.concatenate(known)).to(device, torch.float32))
            self.data.append(torch.from_numpy(np.concatenate(data)).to(device, torch.float32))
        self.lookback = torch.tensor([NEVER if n is None else n.lookback for n in networks], device=device)
        """(B,)."""
        self.occupants: Occupants | None = None
        if occupied:
            self.occupants = Occupants(sites, self.mode, self.lookback, self.dtype, exact)
        controlled = [[use.device_action for use in b.end_uses[:2]] for b in first.buildings]
        self.controlled = torch.tensor(controlled, device=device)
        """(B, 2) bool: an action sets the demand for cooling, and for heating."""
        scale = [[self.hours, 1.0]] * len(uses)  # CityLearn leaves the length of a step out of heating
        self.control_kwh = self.devices.power[:, :2] * torch.tensor(scale, dtype=self.dtype, device=device)
        self.tank_active = torch.tensor([[u.tank_action for u in b] for b in uses], dtype=self.dtype, device=device)

    def fresh(self, here: Tensor) -> ThermalState:
        """The state at the start of an episode at these rows (E,) of the tables."""
        soc = self.start.expand(len(here), -1, -1).clone()
        memories = tuple(dynamics.blank(group, len(here)) for group in self.groups)
        chosen = None if self.occupants is None else self.occupants.fresh(len(here))
        return ThermalState(soc, self.temperature.index_select(0, here), torch.zeros_like(here), memories, chosen)

    def set_points(self, state: ThermalState, here: Tensor) -> Tensor | None:
        """(E, B, 2) set-points for cooling and heating before the next action, C; None where they are the data's."""
        if self.occupants is None or state.chosen is None:
            return None
        return self.occupants.points(state.chosen, here)

    def wanted(self, state: ThermalState, here: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """(E, B, U) demands of this row, those that an action (E, B, 2) sets included; and the COPs.

        Control starts once a network has read as many rows as it looks back; until then the data's demand is met.
        """
        demand, cop = self.demand.index_select(0, here), self.cop.index_select(0, here)
        if not self.groups:
            return demand, cop
        power = torch.minimum(action * self.control_kwh, self.devices.power[:, :2])
        asked = power * cop[..., :2] * self.mode.index_select(0, here)
        asked = stored(asked, self.exact)
        on = (state.age.unsqueeze(-1) > self.lookback).unsqueeze(-1) & self.controlled
        hvac = torch.where(on, asked, demand[..., :2])
        return torch.cat([hvac, demand[..., 2:]], dim=-1), cop

    def follow(self, state: ThermalState, here: Tensor, served: end_uses.Served) -> Inside:
        """How warm it is inside after the row, and what occupants do about it."""
        temperature = self.temperature.index_select(0, here)
        given = served.delivered[..., :2] + (-served.balance[..., :2]).clamp(min=0)
        given = stored(given, self.exact)
        points, memories = self.set_points(state, here), []
        for group, known, data, memory in zip(self.groups, self.known, self.data, state.memories):
            full = state.age >= group.lookback
            changing = given.index_select(1, group.buildings)
            if points is not None and len(group.changing) > 2:
                changing = torch.cat([changing, points.index_select(1, group.buildings)], dim=-1)
            memory, found = dynamics.predict(
                group,
                memory,
                known.index_select(0, here),
                data.index_select(0, here),
                changing,
                full,
            )
            data_says = temperature.index_select(1, group.buildings)
            predicted = torch.where(full.unsqueeze(-1), found.to(self.dtype), data_says)
            temperature = temperature.index_copy(1, group.buildings, predicted)
            memories.append(memory)
        chosen = state.chosen
        if self.occupants is not None and chosen is not None:
            chosen = self.occupants.act(chosen, here, state.age, state.temperature, temperature)
            points = self.occupants.points(chosen, here)
        return Inside(temperature, tuple(memories), chosen, points)

    def rest(self, state: ThermalState, flows: ThermalFlows, inside: Inside) -> ThermalState:
        """The state at the start of the next row."""
        soc = end_uses.stand_by(self.devices, flows.tank_soc, self.exact)
        return ThermalState(soc, flows.temperature, state.age + 1, inside.memories, inside.chosen)

    def _table(self, tables: Sequence[Floats]) -> Tensor:
        """(S * T, ...)."""
        return torch.from_numpy(np.concatenate(tables)).to(self.device, self.dtype)


def _each(site: Site, name: str) -> Floats:
    """(T, B) a series of every building."""
    return np.stack([getattr(building, name) for building in site.buildings], axis=1)
