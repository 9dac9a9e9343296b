"""What CityLearn booked in a row, read from its series.

CityLearn makes its series when an episode begins and writes into them. They are looked up once for an episode, not in
every step. B buildings, N sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.appliance import NOTHING
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.cases.thermal import END_USES
from iquitos_rl.envs.citylearn.occupants import has_occupant

ELECTRICITY = "electricity_consumption"
Series = Callable[[], NDArray[np.floating[Any]]]


class Flows(NamedTuple):
    """Energy of one simulated step as CityLearn booked it, kWh."""

    load: Floats
    """(B,) non-shiftable load."""
    pv: Floats
    """(B,) generation, >= 0."""
    battery: Floats
    """(B,) charge of the stationary battery, negative when it discharges."""
    other: Floats
    """(B,) thermal devices."""
    sockets: Floats
    """(N,) charging of vehicles."""
    net: Floats
    """(B,) what the meter saw."""
    battery_soc: Floats
    """(B,) after the action; 0 where there is no battery."""
    socket_soc: Floats
    """(N,) after the action; 0 at an empty socket."""
    temperature: Floats | None = None
    """(B,) C inside after the step; 0 where the site has no thermal devices."""
    unserved: Floats | np.float64 = np.float64(0)
    """() kWh, thermal and electric, that devices lacked in an outage."""
    appliances: Floats | np.float64 = np.float64(0)
    """(B,) kWh."""
    missed: Floats | np.float64 = np.float64(0)
    """() kWh of the cycles of appliances that can start no more, in the step in which they lost the chance."""


class Booked:
    """The series of one episode.

    Args:
        simulator: a `CityLearnEnv` that has been reset.
        at_socket: (T, N) CityLearn's index of the vehicle at each socket, -1 at an empty one.
    """

    def __init__(self, simulator: Any, site: Site, at_socket: NDArray[np.int64]) -> None:
        self._site, self._buildings, self._at_socket = site, simulator.buildings, at_socket
        self._has_battery = np.array([own.battery is not None for own in site.buildings])
        self._load = _each([b.non_shiftable_load_device for b in self._buildings], ELECTRICITY)
        self._pv = _each(self._buildings, "_Building__solar_generation")
        storages = [b.electrical_storage for b in self._buildings]
        self._battery, self._soc = _each(storages, ELECTRICITY), _each(storages, "soc")
        self._devices = [
            _each([getattr(b, f"{use}_device") for use in END_USES] if own.end_uses else [], ELECTRICITY)
            for b, own in zip(self._buildings, site.buildings, strict=True)
        ]
        chargers = [charger for b in self._buildings for charger in b.electric_vehicle_chargers or []]
        self._sockets = _each(chargers, ELECTRICITY)
        self._net = _each(self._buildings, "_Building__net_electricity_consumption")
        self._vehicles = _each([vehicle.battery for vehicle in simulator.electric_vehicles], "soc")
        self._tanks = [_each([getattr(b, f"{use}_storage") for use in END_USES], "soc") for b in self._buildings]
        owned = [b.deferrable_appliances if own.appliances else [] for b, own in zip(self._buildings, site.buildings)]
        self._appliances = [machine for machines in owned for machine in machines]
        self._drawn = [_each(machines, ELECTRICITY) for machines in owned]
        self._inside = _each([b.energy_simulation for b in self._buildings], "indoor_dry_bulb_temperature")
        self._occupied = any(has_occupant(b) for b in self._buildings)
        self._set_points = [
            _each([b.energy_simulation for b in self._buildings], f"indoor_dry_bulb_temperature_{use}_set_point")
            for use in END_USES[:2]
        ]

    def flows(self, t: int) -> Flows:
        """What the step at row t has just written."""
        return Flows(
            load=_at(self._load, t),
            pv=-_at(self._pv, t),
            battery=_at(self._battery, t),
            other=np.array([sum(float(series()[t]) for series in own) for own in self._devices], dtype=np.float64),
            sockets=_at(self._sockets, t),
            net=_at(self._net, t),
            battery_soc=_at(self._soc, t) * self._has_battery,
            socket_soc=self.socket_soc(t),
            temperature=self.temperature(t),
            unserved=np.float64(self._unserved(t) if self._site.thermal else 0.0),
            appliances=np.array([sum(float(series()[t]) for series in own) for own in self._drawn], dtype=np.float64),
            missed=np.float64(self._missed(t)),
        )

    def battery_soc(self, t: int) -> Floats:
        """SOC at row t of every stationary battery that the site has, before the action at t."""
        return _at(self._soc, t)[self._has_battery]

    def socket_soc(self, t: int) -> Floats:
        """(N,) SOC at row t of the vehicle at each socket, 0 where none is connected."""
        soc = np.zeros(len(self._sockets))
        if len(soc):
            vehicle = self._at_socket[t]
            occupied = np.flatnonzero(vehicle >= 0)
            soc[occupied] = [self._vehicles[v]()[t] for v in vehicle[occupied].tolist()]
        return soc

    def tank_soc(self, t: int) -> Floats:
        """(B, 3) SOC of the tanks at row t, before its action."""
        return np.array([[series()[t] for series in own] for own in self._tanks], dtype=np.float64)

    def temperature(self, t: int) -> Floats:
        """(B,) C inside after the step at row t. CityLearn's own observation shows that of the data instead."""
        return _at(self._inside, t) if self._site.thermal else np.zeros(len(self._buildings))

    def set_points(self, t: int) -> Floats | None:
        """(B, 2) C for cooling and heating at row t, as occupants have left them by now; None without occupants."""
        if not self._occupied:
            return None
        return np.stack([_at(series, t) for series in self._set_points], axis=-1)

    def waiting(self, t: int) -> NDArray[np.bool_]:
        """(A,) whether a cycle of each appliance has neither been started nor missed at row t."""
        cycles = [int(own.cycle[t]) for _, own in self._site.appliances]
        return np.array(
            [cycle != NOTHING and self._state(n, cycle) == "pending" for n, cycle in enumerate(cycles)], dtype=bool
        )

    def running(self, t: int) -> Floats:
        """(A,) kWh that the running cycle of each appliance will draw at row t."""
        return np.array([machine._ElectricDevice__electricity_consumption[t] for machine in self._appliances], float)

    def _state(self, n: int, cycle: int) -> str:
        """CityLearn's word for how a cycle of appliance n stands."""
        machine = self._appliances[n]
        name = machine.deferrable_appliance_simulation.flexibility_schedule[cycle]["cycle_id"]
        return str(machine.cycle_state[name])

    def _missed(self, t: int) -> float:
        """kWh of the cycles that could be started at row t for the last time, and were not."""
        total = 0.0
        for n, (_, own) in enumerate(self._site.appliances):
            if own.closes[t] and self._state(n, int(own.cycle[t])) in ("pending", "missed"):
                total += float(own.profiles[int(own.cycle[t])].sum())
        return total

    def _unserved(self, t: int) -> float:
        """kWh that devices lacked at row t; nothing but in an outage."""
        total = 0.0
        for own, b in zip(self._site.buildings, self._buildings, strict=True):
            if own.outage is not None and own.outage[t]:
                for use in END_USES:
                    balance = getattr(b, f"{use}_storage").energy_balance[t]
                    given = getattr(b, f"_Building__energy_from_{use}_device")[t] - min(balance, 0)
                    total += max(float(getattr(b.energy_simulation, f"{use}_demand")[t] - given), 0.0)
                total += own.load[t] - float(b.non_shiftable_load_device.electricity_consumption[t])
        return total


def _each(things: Sequence[Any], name: str) -> list[Series]:
    """A series of each thing; not looked up again where CityLearn returns the same object at each access."""

    def series(thing: Any) -> Series:
        found = getattr(thing, name)
        return (lambda: found) if getattr(thing, name) is found else lambda: getattr(thing, name)

    return [series(thing) for thing in things]


def _at(series: Sequence[Series], t: int) -> Floats:
    return np.array([own()[t] for own in series], dtype=np.float64)
