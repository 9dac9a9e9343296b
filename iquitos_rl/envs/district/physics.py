"""The electrical physics of a site for many environments at once: batteries, vehicles at sockets, limits, losses.

E environments, B buildings, N sockets, V vehicles, T data rows, S scenarios (data years of sites with one structure).
Every environment has its own row and scenario. Exact mode computes in float64, with CityLearn's order of operations and
its roundings to float32 (numpy 1.26). It agrees to the bit, except that an emptied battery may keep an SOC of 1e-16,
because CityLearn takes square roots with `pow`. Fast mode computes the same formulas in float32, without masks. A step
has static shapes and does not synchronise with the device, so it can be captured in a CUDA graph.

Source: CityLearn 3.0.2, `energy_model.py`, `electric_vehicle_charger.py`, `building.py` (update_variables),
`internal/building_ops.py` (apply_actions) and `internal/runtime.py` (next_time_step).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Battery, Floats, Site
from iquitos_rl.envs.district.batteries import (
    Batteries,
    exchange_exact,
    exchange_fast,
    initial_soc,
    make_batteries,
    single,
    stand_by,
)
from iquitos_rl.envs.district.chargers import charge_exact, charge_fast, make_chargers, request_exact, request_fast
from iquitos_rl.envs.district.limits import apply_limits, in_sequence, make_layout, make_limits
from iquitos_rl.envs.district.tables import (
    EMPTY,
    check_sites,
    code_rows,
    drift_rows,
    energy_rows,
    own_vehicles,
    vehicle_rows,
)

NOTHING = Battery(
    capacity=0.0,
    nominal_power=0.0,
    initial_soc=0.0,
    depth_of_discharge=1.0,
    efficiency=1.0,
    loss_coefficient=0.0,
    capacity_loss_coefficient=0.0,
    power_efficiency_curve=np.array([[0.0, 1.0], [1.0, 1.0]]),
    capacity_power_curve=np.array([[0.0, 1.0], [1.0, 1.0]]),
)
"""Placeholder for a building without battery or a socket without vehicle."""


class State(NamedTuple):
    """Before the next action, after arrivals. W is N if every vehicle always uses one socket, else V + 1."""

    row: Tensor
    """(E,) int64, 0 to T - 1."""
    scenario: Tensor
    """(E,) int64, 0 to S - 1."""
    battery_soc: Tensor
    """(E, B)."""
    battery_degraded: Tensor
    """(E, B) capacity left in kWh in exact mode, share of capacity lost in fast mode."""
    vehicle_soc: Tensor
    """(E, W)."""
    vehicle_degraded: Tensor
    """(E, W)."""
    code: Tensor
    """(E, N) this row's entry of `site_tables.code_rows`."""


class Flows(NamedTuple):
    """Energies of one step, kWh, positive if taken from the building's supply."""

    net: Tensor
    """(E, B) net consumption of the buildings."""
    battery_kwh: Tensor
    """(E, B)."""
    socket_kwh: Tensor
    """(E, N)."""
    socket_soc: Tensor
    """(E, N) SOC of the connected vehicle after the action, before standby losses; 0 at an empty socket."""
    battery_soc: Tensor
    """(E, B) SOC after the action, before standby losses."""


class Physics:
    """Tables and state of E environments.

    Args:
        sites: data years of one site; they may differ only in their series and visits.
        exact: compute in float64 and agree with CityLearn to the bit; slower.

    Raises:
        UserError: the engine does not support a site, or the sites differ in structure.
    """

    def __init__(
        self, sites: Sequence[Site], num_envs: int, device: torch.device | str = "cpu", exact: bool = False
    ) -> None:
        check_sites(sites)
        site = sites[0]
        self.num_envs, self.rows, self.exact = num_envs, site.rows, exact
        self.device = torch.device(device)
        self.dtype = torch.float64 if exact else torch.float32
        self.hours = site.hours_per_step
        chargers = [charger for _, charger in site.sockets]
        self.buildings, self.sockets = len(site.buildings), len(chargers)
        self.energy = self._table([energy_rows(s) for s in sites])
        self.codes = self._table([code_rows(s) for s in sites])
        self.layout = make_layout(site, self.device)
        self.chargers = make_chargers(chargers, self.dtype, self.device)
        self.limits = make_limits(site, self.layout, self.dtype, self.device)

        owned = [building.battery or NOTHING for building in site.buildings]
        self.battery, self.battery_traits = make_batteries(owned, self.hours, exact, self.device)
        self.battery_start = initial_soc(owned, exact, self.device)
        self.battery_active = self._switch([b.battery_action for b in site.buildings])
        self.socket_active = self._switch([site.buildings[b].socket_action for b, _ in site.sockets])
        self.all_sockets_active = all(site.buildings[b].socket_action for b, _ in site.sockets)

        visits = np.concatenate([vehicle_rows(s) for s in sites])
        owners = own_vehicles(visits, len(site.vehicles))
        fleet = [vehicle.battery for vehicle in site.vehicles]
        present = [*fleet, NOTHING] if owners is None else [fleet[v] if v >= 0 else NOTHING for v in owners]
        self.vehicle, self.vehicle_traits = make_batteries(present, self.hours, exact, self.device)
        self.vehicle_start = initial_soc(present, exact, self.device)
        self.roaming: Tensor | None = None
        """(S * T, N) index of the connected vehicle, V for none; None if every vehicle always uses one socket."""
        if owners is None:
            index = np.where(visits < 0, len(fleet), visits)
            self.roaming = torch.as_tensor(index, device=self.device)
        self.drift: Tensor | None = None
        """(S * T, W) factor on the SOC of a vehicle that is away, NaN elsewhere; None where nothing depends on it."""
        if any(site.drift is not None for site in sites):
            self.drift = self._table([drift_rows(s, owners) for s in sites])
        self.start_soc: tuple[Tensor, Tensor] | None = None
        """(S * T, B) and (S * T, W) SOC at the start of an episode, by row; None for the schema's initial SOC."""
        self.state = self.fresh(self._start(), self._start())

    # -- state ---------------------------------------------------------------------------------------------------

    def reset(self, row: Tensor | None = None, scenario: Tensor | None = None) -> None:
        """Restart all environments at (E,) rows of (E,) scenarios, by default the first row of the first.

        A vehicle in the middle of a visit starts with its initial SOC, as at the start of a CityLearn simulation.
        """
        self.state = self.fresh(self._start() if row is None else row, self._start() if scenario is None else scenario)

    def step(self, battery_action: Tensor, socket_action: Tensor) -> Flows:
        """Apply actions (E, B) and (E, N), in [-1, 1] of nominal power as in CityLearn, and advance by one row.

        The last row, T - 1, has a state but no step, since CityLearn never simulates it.
        """
        self.state, flows = self.advance(self.state, battery_action, socket_action)
        return flows

    def row_of(self, state: State) -> Tensor:
        """(E,) index of each environment's row in tables (S * T, ...)."""
        return state.scenario * self.rows + state.row

    def soc_at_sockets(self, state: State) -> Tensor:
        """(E, N) SOC of the connected vehicle before the next action, after arrivals; 0 at an empty socket."""
        connected = (EMPTY - state.code).clamp(0, 1)
        if self.roaming is None:
            return state.vehicle_soc * connected
        return state.vehicle_soc.gather(1, self.roaming.index_select(0, self.row_of(state))) * connected

    @property
    def table_row(self) -> Tensor:
        """`row_of` the present state."""
        return self.row_of(self.state)

    @property
    def socket_soc(self) -> Tensor:
        """`soc_at_sockets` of the present state."""
        return self.soc_at_sockets(self.state)

    @property
    def connected(self) -> Tensor:
        """(E, N) 1 where a vehicle is connected in the present row, else 0."""
        return (EMPTY - self.state.code).clamp(0, 1)

    def fresh(self, row: Tensor, scenario: Tensor) -> State:
        """The state at the start of episodes at these rows and scenarios, (E,) each."""
        here = scenario * self.rows + row
        code = self.codes.index_select(0, here)

        def each(start: Tensor) -> Tensor:
            return start.expand(self.num_envs, -1).clone()

        def unfaded(batteries: Batteries, start: Tensor) -> Tensor:
            return each(batteries.capacity.expand_as(start) if self.exact else torch.zeros_like(start))

        if self.start_soc is None:
            battery_soc, vehicle_soc = each(self.battery_start), self._arrive(each(self.vehicle_start), code, here)
        else:
            battery_soc, vehicle_soc = (table.index_select(0, here) for table in self.start_soc)
        return State(
            row=row,
            scenario=scenario,
            battery_soc=battery_soc,
            battery_degraded=unfaded(self.battery, self.battery_start),
            vehicle_soc=vehicle_soc,
            vehicle_degraded=unfaded(self.vehicle, self.vehicle_start),
            code=code,
        )

    def restarted(self, state: State, done: Tensor, row: Tensor, scenario: Tensor) -> State:
        """`state`, with environments where `done` (E,) bool is True restarted at `row` and `scenario`."""
        new = self.fresh(row, scenario)
        merged = [torch.where(done.view(-1, *[1] * (a.dim() - 1)), a, b) for a, b in zip(new, state, strict=True)]
        return State(*merged)

    # -- one step ------------------------------------------------------------------------------------------------

    def advance(self, state: State, battery_action: Tensor, socket_action: Tensor) -> tuple[State, Flows]:
        """One step as a pure function of the state; see `step`."""
        here = self.row_of(state)
        load, pv = self.energy.index_select(0, here).split(self.buildings, dim=1)
        battery_action = battery_action.to(self.dtype).clamp(-1, 1) * self.battery_active
        socket_action = socket_action.to(self.dtype).clamp(-1, 1) * self.socket_active
        power = (request_exact if self.exact else request_fast)(self.chargers, socket_action)
        if self.limits is not None:
            base, kw = load / self.hours - pv / self.hours, self.battery.nominal_power
            power, battery_action = apply_limits(self.limits, self.chargers, power, battery_action, kw, base)
        battery_soc, battery_degraded, battery_kwh = self._use_batteries(state, battery_action)
        connected = (EMPTY - state.code).clamp(0, 1)
        vehicle_soc, vehicle_degraded, socket_soc, socket_kwh = self._use_sockets(state, power * connected, here)
        if self.exact:  # CityLearn adds these one by one in float32
            sockets_kwh = single(in_sequence(self.layout.by_building(socket_kwh)))
            net = single(single(single(load + battery_kwh) - pv) + sockets_kwh)
        else:
            net = load + battery_kwh - pv + self.layout.by_building(socket_kwh).sum(-1)
        flows = Flows(net, battery_kwh, socket_kwh, socket_soc * connected, battery_soc)

        row = (state.row + 1).clamp(max=self.rows - 1)
        there = state.scenario * self.rows + row
        if self.exact or self.battery_traits.leaks:
            battery_soc = self._stored(stand_by(self.battery, battery_soc))
        used_soc = vehicle_soc
        if self.exact or self.vehicle_traits.leaks or not self.all_sockets_active or self.drift is not None:
            vehicle_soc = self._stored(stand_by(self.vehicle, vehicle_soc))
        if self.drift is not None:
            vehicle_soc = self._drift(used_soc, vehicle_soc, self.drift.index_select(0, there))
        code = self.codes.index_select(0, there)
        vehicle_soc = self._arrive(vehicle_soc, code, there)
        return State(row, state.scenario, battery_soc, battery_degraded, vehicle_soc, vehicle_degraded, code), flows

    def _use_batteries(self, state: State, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """New SOC, new `battery_degraded` and kWh charged of the stationary batteries, (E, B) each."""
        b, soc, degraded = self.battery, state.battery_soc, state.battery_degraded
        if self.exact:
            return exchange_exact(b, soc, degraded, action * b.nominal_power * self.hours, self.hours)
        wanted = action * b.nominal_energy
        soc, degraded, energy = exchange_fast(b, self.battery_traits, soc, degraded, wanted.relu(), (-wanted).relu())
        return soc, degraded, energy * b.capacity

    def _use_sockets(self, state: State, power: Tensor, here: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """New SOC and `vehicle_degraded` of all vehicles (E, W), SOC and kWh at each socket (E, N)."""
        vehicle, soc, degraded = self.vehicle, state.vehicle_soc, state.vehicle_degraded
        if self.sockets == 0:
            return soc, degraded, power, power
        index = None
        if self.roaming is not None:
            index = self.roaming.index_select(0, here)
            vehicle, soc, degraded = vehicle.select(index), soc.gather(1, index), degraded.gather(1, index)
        if self.exact:
            done, kwh = charge_exact(self.chargers, vehicle, soc, degraded, power, self.hours)
        else:
            done, kwh = charge_fast(self.chargers, vehicle, self.vehicle_traits, soc, degraded, power, self.hours)
        # A building without socket actions leaves its vehicles unchanged in CityLearn, even below their lowest SOC.
        soc = done.soc if self.all_sockets_active else torch.lerp(soc, done.soc, self.socket_active)
        if index is None:
            if self.drift is not None:  # below its lowest SOC, a vehicle that is away must not be lifted
                soc = torch.lerp(state.vehicle_soc, soc, (EMPTY - state.code).clamp(0, 1))
            return soc, done.degraded, soc, kwh
        everyone = state.vehicle_soc.scatter(1, index, soc)
        return everyone, state.vehicle_degraded.scatter(1, index, done.degraded), soc, kwh

    def _drift(self, used: Tensor, rested: Tensor, factor: Tensor) -> Tensor:
        """Move the SOC of vehicles that are away (`internal/runtime.py`, simulate_unconnected_ev_soc).

        Args:
            used: (E, W) SOC after the step's action.
            rested: the same after standby losses, which stays where `factor` (E, W) is NaN.
        """
        return torch.where(factor.isnan(), rested, self._stored((used * factor).clamp(0, 1)))

    def _arrive(self, vehicle_soc: Tensor, code: Tensor, row: Tensor) -> Tensor:
        """Set the SOC of the vehicles that connect in these rows, (E,)."""
        keep = (code - 1).clamp(0, 1)
        if self.roaming is None:
            return torch.lerp(code, vehicle_soc, keep)
        index = self.roaming.index_select(0, row)
        return vehicle_soc.scatter(1, index, torch.lerp(code, vehicle_soc.gather(1, index), keep))

    def _stored(self, x: Tensor) -> Tensor:
        return single(x) if self.exact else x

    # -- construction --------------------------------------------------------------------------------------------

    def _table(self, rows: list[Floats]) -> Tensor:
        """(S * T, columns)."""
        return torch.as_tensor(np.concatenate(rows), dtype=self.dtype, device=self.device)

    def _switch(self, active: list[bool]) -> Tensor:
        return torch.tensor(active, dtype=self.dtype, device=self.device)

    def _start(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
