"""A site as plain arrays: what both engines, the baselines and the optimum are computed from.

`read_site` (`cases/schema/reader.py`) fills these from a CityLearn schema folder without importing citylearn.
Energies are kWh per step, powers kW, prices currency per kWh, carbon kg CO2 per kWh. T is the number of data rows;
an episode has T - 1 steps, because CityLearn never simulates the last row.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.appliance import Appliance
from iquitos_rl.cases.occupant import Occupant
from iquitos_rl.cases.thermal import Dynamics, EndUse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

AWAY, CONNECTED, INCOMING = 3, 1, 2
"""Codes of `electric_vehicle_charger_state` in a charger file."""


@dataclass(frozen=True)
class Battery:
    """A stationary or vehicle battery (`citylearn/energy_model.py`, class Battery), every parameter resolved."""

    capacity: float
    nominal_power: float
    initial_soc: float
    depth_of_discharge: float
    efficiency: float
    loss_coefficient: float
    capacity_loss_coefficient: float
    power_efficiency_curve: Floats
    """(2, K): share of nominal power, round-trip efficiency."""
    capacity_power_curve: Floats
    """(2, K): SOC, share of nominal power available."""

    @property
    def lowest_soc(self) -> float:
        """SOC down to which it can be discharged."""
        return min(max(1.0 - self.depth_of_discharge, 0.0), 1.0)


@dataclass(frozen=True)
class Charger:
    """One socket: its electrical limits and its schedule, row by row."""

    name: str
    efficiency: float
    charge_efficiency_curve: Floats | None
    discharge_efficiency_curve: Floats | None
    max_charging_power: float
    min_charging_power: float
    max_discharging_power: float
    min_discharging_power: float
    phase_connection: str | None
    vehicle: Ints
    """(T,) index into `Site.vehicles` of the connected vehicle, -1 where the socket is empty."""
    departure: Floats
    """(T,) steps left after this one while connected, 0 on the last connected row, -1 where empty."""
    required_soc: Floats
    """(T,) SOC wanted at departure, as a fraction, 0 where empty."""
    arrival_soc: Floats
    """(T,) SOC forced by the data before the row's action, NaN elsewhere: on the rows where a vehicle connects."""
    departs: Bools
    """(T,) True on the last connected row of a visit."""


@dataclass(frozen=True)
class ElectricalService:
    """Import and export limits of one building."""

    kind: str
    """Key of the schema block: `electrical_service` or the older `charging_constraints`."""
    raw: dict[str, object]
    """The schema block as read; the district engine interprets it."""
    battery_phase: str | None
    """`phase_connection` of the stationary battery, as read."""


@dataclass(frozen=True)
class Building:
    """One metered customer."""

    name: str
    load: Floats
    """(T,) non-shiftable load, kWh per step."""
    pv: Floats
    """(T,) PV generation, kWh per step, >= 0."""
    price: Floats
    """(T,) currency per kWh imported."""
    price_predicted: Floats
    """(T, P) published price outlook, P is 0 or 3."""
    carbon: Floats
    """(T,) kg CO2 per kWh imported."""
    weather: dict[str, Floats]
    """Column name of the weather file to (T,) values."""
    battery: Battery | None
    battery_action: bool
    """Whether `electrical_storage` is an active action of this building."""
    socket_action: bool
    """Whether `electric_vehicle_storage` is an active action; where it is not, no vehicle ever charges."""
    chargers: tuple[Charger, ...]
    service: ElectricalService | None
    end_uses: tuple[EndUse, ...] = ()
    """Cooling, heating and hot water; empty, as all that follows, where the building has nothing thermal."""
    dynamics: Dynamics | None = None
    outage: Bools | None = None
    """(T,) True where the grid is out."""
    hvac_mode: Ints | None = None
    """(T,) 0 off, 1 cooling, 2 heating, 3 both."""
    indoor_temperature: Floats | None = None
    """(T,) C, as the data give it."""
    set_points: Floats | None = None
    """(T, 2) C for cooling and for heating, as the data give them."""
    occupants: Floats | None = None
    """(T,) people inside."""
    occupant: Occupant | None = None
    """Who changes the set-points; None where they are as the data say."""
    appliances: tuple[Appliance, ...] = ()

    @property
    def heat_kwh(self) -> Floats:
        """(T,) kWh electric of the thermal devices that meet the demands of the data, as far as their power goes."""
        used = (np.minimum(use.demand / use.cop, use.device.nominal_power) for use in self.end_uses)
        return sum(used, np.zeros(len(self.load)))

    @property
    def idle_net(self) -> Floats:
        """(T,) kWh net consumption while no battery, tank or vehicle moves; nothing in an outage."""
        net = self.load + self.heat_kwh - self.pv if self.end_uses else self.load - self.pv
        return net if self.outage is None else net * ~self.outage


@dataclass(frozen=True)
class Vehicle:
    name: str
    battery: Battery


@dataclass(frozen=True)
class Site:
    """Everything a schema folder says about an electrical district."""

    path: Path
    """The folder."""
    name: str
    seconds_per_time_step: int
    month: Ints
    """(T,) 1 to 12."""
    hour: Ints
    """(T,) 0 to 23, the hour at which the row begins (CityLearn's 1 to 24, less one)."""
    day_type: Ints
    """(T,) 1 (Monday) to 7, 8 for a holiday."""
    buildings: tuple[Building, ...]
    vehicles: tuple[Vehicle, ...]
    drift: Floats | None
    """(T, V) factor on the SOC of a vehicle that is away in this row, NaN where it is at a socket; None where the data
    say the SOC of every arrival. See `cases/schema/schedules.py`, drift_factors."""
    unsupported: tuple[str, ...]
    """Features that only CityLearn simulates (thermal storage, outages, ...), each named; else empty."""
    fingerprint: str
    """SHA-256 over schema and data files: equal inputs, equal fingerprint."""

    @property
    def rows(self) -> int:
        """T, the number of data rows."""
        return len(self.month)

    @property
    def hours_per_step(self) -> float:
        return self.seconds_per_time_step / 3600

    @property
    def thermal(self) -> bool:
        """Whether any building has thermal devices or outages."""
        return any(building.end_uses for building in self.buildings)

    @property
    def appliances(self) -> tuple[tuple[int, Appliance], ...]:
        """Every appliance with the index of its building, building by building."""
        return tuple((b, own) for b, building in enumerate(self.buildings) for own in building.appliances)

    @property
    def sockets(self) -> tuple[tuple[int, Charger], ...]:
        """Every charger with the index of its building, building by building."""
        return tuple((b, charger) for b, building in enumerate(self.buildings) for charger in building.chargers)
