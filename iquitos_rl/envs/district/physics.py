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
from iquitos_rl.envs.district.appliances import Appliances, ApplianceState
from iquitos_rl.envs.district.batteries import (
    TINY,
    Batteries,
    Exchange,
    exchange_exact,
    exchange_fast,
    initial_soc,
    make_batteries,
    single,
    stand_by,
    stored,
)
from iquitos_rl.envs.district.chargers import charge_exact, charge_fast, make_chargers, request_exact, request_fast
from iquitos_rl.envs.district.end_uses import first_row, serve
from iquitos_rl.envs.district.limits import apply_limits, in_sequence, make_layout, make_limits
from iquitos_rl.envs.district.outage import clipped, islanded, spare, used_by
from iquitos_rl.envs.district.states import named_tensors, put, where
from iquitos_rl.envs.district.tables import (
    EMPTY,
    check_sites,
    code_rows,
    drift_rows,
    energy_rows,
    own_vehicles,
    vehicle_rows,
)
from iquitos_rl.envs.district.thermal import Inside, Thermal, ThermalFlows, ThermalState

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
    """(E, N) this row's entry of `tables.code_rows`."""
    thermal: ThermalState | None = None
    """None where no building has a thermal device."""
    appliances: ApplianceState | None = None
    """None where there are none."""


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
    thermal: ThermalFlows | None = None
    appliance_kwh: Tensor | None = None
    """(E, A)."""
    missed_kwh: Tensor | None = None
    """(E,) kWh of the cycles of appliances that cannot start any more, in the step in which they lost the chance."""


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
        self.socket_building = torch.tensor([b for b, _ in site.sockets], dtype=torch.int64, device=self.device)
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
        self.thermal: Thermal | None = None
        if site.thermal:
            self.thermal = Thermal(sites, self.device, exact)
        self.outage: Tensor | None = None
        """(S * T, B) bool: the building has no grid in this row; None where that never happens."""
        outages = [b.outage for s in sites for b in s.buildings if b.outage is not None]
        if any(outage.any() for outage in outages):
            self.outage = torch.from_numpy(np.stack(outages, axis=1)).to(self.device)
            self.outage = self.outage.view(self.rows, len(sites), -1).transpose(0, 1).flatten(0, 1)
        self.appliances: Appliances | None = None
        if site.appliances:
            self.appliances = Appliances(sites, self.dtype, self.device, self.outage, self.limits)
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

    def step(
        self,
        battery_action: Tensor,
        socket_action: Tensor,
        tank_action: Tensor | None = None,
        hvac_action: Tensor | None = None,
        appliance_action: Tensor | None = None,
    ) -> Flows:
        """Apply actions in CityLearn's units and move on by one row.

        Args:
            battery_action, socket_action: (E, B) and (E, N), -1 to 1 of nominal power.
            tank_action: (E, B, 3) share of each tank's capacity to charge or discharge in an hour.
            hvac_action: (E, B, 2) share of nominal power for cooling and for heating, 0 to 1.
            appliance_action: (E, A), above an appliance's threshold to start it.

        The last row, T - 1, has a state but no step, since CityLearn never simulates it.
        """
        self.state, flows = self.advance(
            self.state, battery_action, socket_action, tank_action, hvac_action, appliance_action
        )
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
        """The state of as many environments at the start of episodes at these rows and scenarios, (E,) each."""
        here = scenario * self.rows + row
        code = self.codes.index_select(0, here)

        def each(start: Tensor) -> Tensor:
            return start.expand(len(row), -1).clone()

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
            thermal=None if self.thermal is None else self.thermal.fresh(here),
            appliances=None if self.appliances is None else self.appliances.fresh(len(row)),
        )

    def restarted(self, state: State, done: Tensor, row: Tensor, scenario: Tensor) -> State:
        """`state`, with environments where `done` (E,) bool is True restarted at `row` and `scenario`."""
        return where(done, self.fresh(row, scenario), state)

    def replaced(self, state: State, index: Tensor, new: State) -> State:
        """`state`, with the environments at `index` (K,) replaced by the K of `new`, in which episodes begin.

        What networks remember is blanked in place: `state` must be of a step that has just been made.
        """
        if state.thermal is None or new.thermal is None:
            return put(index, new, state, self.num_envs)
        memories = state.thermal.memories
        bare, new_bare = (s._replace(thermal=s.thermal._replace(memories=())) for s in (state, new))  # type: ignore[union-attr]
        found = put(index, new_bare, bare, self.num_envs)
        assert found.thermal is not None
        for tensor in named_tensors(memories).values():
            tensor.index_fill_(0, index, 0)
        return found._replace(thermal=found.thermal._replace(memories=memories))

    def set_points(self, state: State) -> Tensor | None:
        """(E, B, 2) set-points for cooling and heating before the next action, C; None where they are the data's."""
        if self.thermal is None or state.thermal is None:
            return None
        return self.thermal.set_points(state.thermal, self.row_of(state))

    # -- one step ------------------------------------------------------------------------------------------------

    def advance(
        self,
        state: State,
        battery_action: Tensor,
        socket_action: Tensor,
        tank_action: Tensor | None = None,
        hvac_action: Tensor | None = None,
        appliance_action: Tensor | None = None,
    ) -> tuple[State, Flows]:
        """One step as a pure function of the state; see `step`."""
        here = self.row_of(state)
        load, pv = self.energy.index_select(0, here).split(self.buildings, dim=1)
        battery_action = battery_action.to(self.dtype).clamp(-1, 1) * self.battery_active
        socket_action = socket_action.to(self.dtype).clamp(-1, 1) * self.socket_active
        power = (request_exact if self.exact else request_fast)(self.chargers, socket_action)
        wanted, appliances, appliance_kw = None, state.appliances, None
        if self.appliances is not None and appliances is not None and appliance_action is not None:
            wanted = self.appliances.wanted(appliances, here, appliance_action.to(self.dtype))
            running = self.appliances.running(appliances) @ self.appliances.at / self.hours
            appliance_kw = running + self.appliances.first_kw(here, wanted)
        if self.limits is not None:
            base, kw = self._base_kw(here, load, pv, appliance_kw), self.battery.nominal_power
            power, battery_action = apply_limits(self.limits, self.chargers, power, battery_action, kw, base)
        thermal, heat, spent = None, torch.zeros_like(load), load
        if self.thermal is None:
            battery_soc, battery_degraded, battery_kwh = self._use_batteries(state, battery_action)
        else:
            assert state.thermal is not None
            assert tank_action is not None
            assert hvac_action is not None
            out = None if self.outage is None else self.outage.index_select(0, here)
            thermal, inside, battery, spent = self._use_devices(
                state, here, load, pv, battery_action, tank_action, hvac_action, out
            )
            battery_soc, battery_degraded, battery_kwh = battery
            load = thermal.load
            cooling, heating, dhw = thermal.electricity.unbind(-1)
            heat = stored(stored(cooling + heating, self.exact) + dhw, self.exact)
            if out is not None:
                power = self._outage_power(power, pv, thermal, battery_kwh, out)
        connected = (EMPTY - state.code).clamp(0, 1)
        vehicle_soc, vehicle_degraded, socket_soc, socket_kwh = self._use_sockets(state, power * connected, here)
        if self.exact:  # CityLearn adds these one by one in float32
            sockets_kwh = single(in_sequence(self.layout.by_building(socket_kwh)))
            net = single(single(single(single(heat + load) + battery_kwh) - pv) + sockets_kwh)
        else:
            net = heat + load + battery_kwh - pv + self.layout.by_building(socket_kwh).sum(-1)
        appliance_kwh, missed_kwh = None, None
        if self.appliances is not None and appliances is not None and wanted is not None:
            started = self.appliances.permitted(appliances, here, wanted, (spent - pv) / self.hours)
            appliances = self.appliances.start(appliances, here, started)
            appliance_kwh = self.appliances.running(appliances)
            net = stored(net + stored(appliance_kwh @ self.appliances.at, self.exact), self.exact)
            missed_kwh = self.appliances.missed_kwh(appliances, here)
            appliances = self.appliances.rest(appliances)
        if self.outage is not None:
            net = net * ~self.outage.index_select(0, here)
        flows = Flows(
            net, battery_kwh, socket_kwh, socket_soc * connected, battery_soc, thermal, appliance_kwh, missed_kwh
        )

        row = (state.row + 1).clamp(max=self.rows - 1)
        there = state.scenario * self.rows + row
        if self.exact or self.battery_traits.leaks:
            battery_soc = stored(stand_by(self.battery, battery_soc), self.exact)
        used_soc = vehicle_soc
        if self.exact or self.vehicle_traits.leaks or not self.all_sockets_active or self.drift is not None:
            vehicle_soc = stored(stand_by(self.vehicle, vehicle_soc), self.exact)
        if self.drift is not None:
            vehicle_soc = self._drift(used_soc, vehicle_soc, self.drift.index_select(0, there))
        code = self.codes.index_select(0, there)
        vehicle_soc = self._arrive(vehicle_soc, code, there)
        rested = None
        if self.thermal is not None and thermal is not None and state.thermal is not None:
            rested = self.thermal.rest(state.thermal, thermal, inside)
        electrical = battery_soc, battery_degraded, vehicle_soc, vehicle_degraded, code
        return State(row, state.scenario, *electrical, rested, appliances), flows

    def _use_devices(
        self,
        state: State,
        here: Tensor,
        load: Tensor,
        pv: Tensor,
        battery_action: Tensor,
        tank_action: Tensor,
        hvac_action: Tensor,
        out: Tensor | None,
    ) -> tuple[ThermalFlows, Inside, tuple[Tensor, Tensor, Tensor], Tensor]:
        """What thermal devices, load and batteries do in a row: flows, how it is inside, SOC, degraded capacity and kWh
        of the batteries, and the kWh (E, B) of all but batteries and PV that CityLearn counts for appliances."""
        thermal, before, asked = self.thermal, state.thermal, load
        assert thermal is not None
        assert before is not None
        tank_action = tank_action.to(self.dtype) * thermal.tank_active
        demand, cop = thermal.wanted(before, here, hvac_action.to(self.dtype))
        if out is None:
            served = serve(thermal.devices, before.tank_soc, tank_action, demand, cop, self.hours, self.exact)
            battery = self._use_batteries(state, battery_action)
        else:
            energy = battery_action * self.battery.nominal_power * self.hours

            def exchange(kwh: Tensor) -> Exchange:
                return Exchange(
                    *self._use_batteries(state, kwh / self.hours / self.battery.nominal_power.clamp(min=TINY), kwh)
                )

            found = islanded(
                thermal.devices,
                exchange,
                out,
                energy,
                before.tank_soc,
                tank_action,
                demand,
                cop,
                thermal.demand.index_select(0, here),
                load,
                pv,
                self.hours,
                self.exact,
            )
            served, load, battery = found.served, found.load, found.battery
        spent = ((served.delivered + served.balance) / cop).sum(-1) + load
        first = (before.age == 0).view(-1, 1, 1)
        electricity = first_row(served, cop, first, self.exact)
        if out is not None:
            booked = clipped(used_by(electricity, load, battery[2]), pv, out, self.exact)
            opening = first[..., 0]
            electricity = torch.where(first, torch.stack(booked[:3], dim=-1), electricity)
            load = torch.where(opening, booked.load, load)
        inside = thermal.follow(before, here, served)
        unserved = torch.zeros_like(load[:, 0])
        if out is not None:
            given = served.delivered + (-served.balance).clamp(min=0)
            unserved = (demand - given).clamp(min=0).sum((-2, -1)) + (asked - load).sum(-1)
        flows = ThermalFlows(
            demand=demand,
            delivered=served.delivered,
            tank_kwh=served.balance,
            tank_soc=served.soc,
            electricity=electricity,
            load=load,
            temperature=inside.temperature,
            unserved=unserved,
            set_points=inside.set_points,
        )
        return flows, inside, tuple(battery), spent  # type: ignore[return-value]

    def _outage_power(
        self, power: Tensor, pv: Tensor, thermal: ThermalFlows, battery_kwh: Tensor, out: Tensor
    ) -> Tensor:
        """(E, N) kW of the sockets: in an outage vehicles only charge, each with at most what everything else left."""
        used = used_by(thermal.electricity, thermal.load, battery_kwh)
        left = spare(used, pv, out, self.exact).index_select(1, self.socket_building) / self.hours
        full, least = self.chargers.charge.full, self.chargers.charge.least
        target = torch.minimum(power.clamp(min=0), left)
        again = target / full.clamp(min=TINY) * full
        dropped = (again.abs() < self.chargers.charge.deadband) | ((least > 0) & (target < least))
        limited = torch.where(dropped, torch.zeros_like(again), again)
        return torch.where(out.index_select(1, self.socket_building), limited, power)

    def _base_kw(self, here: Tensor, load: Tensor, pv: Tensor, appliances: Tensor | None) -> Tensor:
        """(E, B) kW that a connection's limits expect of everything else: thermal devices as in the data."""
        base = load / self.hours - pv / self.hours
        if self.thermal is not None:
            parts = self.thermal.demand.index_select(0, here) / self.thermal.cop.index_select(0, here) / self.hours
            cooling, heating, dhw = parts.unbind(-1)
            base = cooling + heating + dhw + load / self.hours - pv / self.hours
        base = base if appliances is None else base + appliances
        return base if self.outage is None else base * ~self.outage.index_select(0, here)

    def _use_batteries(
        self, state: State, action: Tensor, energy: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New SOC, new degraded capacity and kWh taken of the stationary batteries, (E, B) each; asked for an action,
        or for an energy in kWh."""
        b, soc, degraded = self.battery, state.battery_soc, state.battery_degraded
        if self.exact:
            energy = action * b.nominal_power * self.hours if energy is None else energy
            return exchange_exact(b, soc, degraded, energy, self.hours)
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
        stays = factor.isnan()  # filled before the product: a gradient of zero times NaN is NaN
        drifted = stored((used * factor.masked_fill(stays, 1.0)).clamp(0, 1), self.exact)
        return torch.where(stays, rested, drifted)

    def _arrive(self, vehicle_soc: Tensor, code: Tensor, row: Tensor) -> Tensor:
        """Set the SOC of the vehicles that connect in these rows, (E,)."""
        keep = (code - 1).clamp(0, 1)
        if self.roaming is None:
            return torch.lerp(code, vehicle_soc, keep)
        index = self.roaming.index_select(0, row)
        return vehicle_soc.scatter(1, index, torch.lerp(code, vehicle_soc.gather(1, index), keep))

    # -- construction --------------------------------------------------------------------------------------------

    def _table(self, rows: list[Floats]) -> Tensor:
        """(S * T, columns)."""
        return torch.as_tensor(np.concatenate(rows), dtype=self.dtype, device=self.device)

    def _switch(self, active: list[bool]) -> Tensor:
        return torch.tensor(active, dtype=self.dtype, device=self.device)

    def _start(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
