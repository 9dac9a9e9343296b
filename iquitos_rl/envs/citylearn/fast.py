"""Speeds up CityLearn's own step by skipping work whose results are not used, for one `CityLearnEnv` at a time.

The formulas stay CityLearn's: batteries, chargers, buildings and arriving vehicles are computed by its own functions,
with Python arithmetic instead of numpy's for single numbers (`on_scalars`). Skipped are records of requested actions,
the layout of an unused interface, and sockets and vehicles at which nothing happens.
`tests/envs/citylearn/test_citylearn_env.py` compares every SOC and meter with the unchanged simulator's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from citylearn.base import Environment
from citylearn.building import Building
from citylearn.electric_vehicle import ElectricVehicle
from citylearn.electric_vehicle_charger import Charger
from citylearn.energy_model import Battery, StorageDevice
from citylearn.internal.building_ops import BuildingOpsService
from citylearn.internal.runtime import CityLearnRuntimeService
from numpy.typing import NDArray

from iquitos_rl.envs.citylearn.precision import computes_in_double
from iquitos_rl.envs.citylearn.quick_building import CLOCK, DEVICE, STORAGE, quicken_buildings, stored
from iquitos_rl.envs.citylearn.scalars import on_scalars

CONNECTED, INCOMING, COMMUTING = 1, 2, 3
"""States of a charger, see CityLearn's `ChargerSimulation`."""
NOBODY, STRANGER = -1, -2
"""Codes of rows without a vehicle (or session), and of a vehicle that the schema does not define."""


@contextlib.contextmanager
def quick_construction() -> Iterator[None]:
    """Skip a scan that is quadratic in the chargers and only widens Box bounds that are not used here.

    `building.py`, _ev_time_observation_high_limit: takes 12 s at 128 chargers.
    """
    original = Building._ev_time_observation_high_limit
    Building._ev_time_observation_high_limit = lambda self, key: 8760.0
    try:
        yield
    finally:
        Building._ev_time_observation_high_limit = original


def speed_up(env: Any) -> None:
    """Patch one `CityLearnEnv` (flat interface, one agent, no rendering) to give the same numbers faster."""
    env._entity_service.reset = _nothing  # the layout of an unused interface
    layouts = []
    for building in env.buildings:
        service = building._ops_service
        for device in ("charger", "storage"):
            for moment in ("action", "post_apply"):
                setattr(service, f"_record_{device}_{moment}_feedback", _nothing)
        layouts.append(_action_layout(building))
        # A building's devices and actions do not change, so they need not be listed again every step.
        cache = service._get_apply_action_cache()
        service._get_apply_action_cache = lambda cache=cache: cache
        service.apply_actions = _without_idle_sockets(building, service)
        for charger in building.electric_vehicle_chargers or []:
            if type(charger) is Charger:
                charger.__class__ = QuickCharger
    for battery in [ev.battery for ev in env.electric_vehicles] + [b.electrical_storage for b in env.buildings]:
        if type(battery) is Battery and computes_in_double():
            _quicken(battery)
    if _plain_vehicles(env):
        _advance_only_what_moves(env)
    if computes_in_double():
        quicken_buildings(env)
    env._runtime_service.parse_actions = lambda actions: _parse(layouts, actions[0])


def _nothing(*args: object, **kwargs: object) -> None:
    return None


class QuickCharger(Charger):  # type: ignore[misc]
    """A charger that limits requests without arrays."""

    _signed_power_from_action = on_scalars(Charger._signed_power_from_action)


STORED = STORAGE | DEVICE | stored("Battery", "time_step_ratio", "depth_of_discharge", "capacity_loss_coefficient")
"""Where a battery's properties are."""


class QuickBattery(Battery):  # type: ignore[misc]
    """A battery that computes with Python's floats and stores float32."""

    next_time_step = on_scalars(StorageDevice.next_time_step)
    charge = on_scalars(Battery.charge, STORED)
    _charge = on_scalars(Battery._charge, CLOCK)
    get_max_input_power = on_scalars(Battery.get_max_input_power, STORED)
    get_current_efficiency = on_scalars(Battery.get_current_efficiency, STORED)
    degrade = on_scalars(Battery.degrade, STORED)
    update_electricity_consumption = on_scalars(Battery.update_electricity_consumption, CLOCK)
    _minimum_soc = on_scalars(Battery._minimum_soc)

    @property
    def energy_init(self) -> float:
        return float(Battery.energy_init.fget(self))

    @property
    def efficiency(self) -> float:
        return float(self._efficiency_history[-1])

    @efficiency.setter
    def efficiency(self, value: float) -> None:
        if 0 < value <= 1:
            self._efficiency_history.append(value)
        else:  # CityLearn raises, or draws a random value
            Battery.efficiency.fset(self, value)


def _quicken(battery: Any) -> None:
    battery.__class__ = QuickBattery
    for curve in ("_Battery__power_efficiency_curve", "_Battery__capacity_power_curve"):
        setattr(battery, curve, tuple(row.tolist() for row in getattr(battery, curve)))


class _Layout(NamedTuple):
    names: tuple[str, ...]
    sockets: tuple[tuple[int, str], ...]
    """(index in the building's actions, id) of each charger."""
    others: tuple[tuple[int, str], ...]
    """(index, argument of `apply_actions`) of each other device."""
    grouped: tuple[tuple[int, str, str], ...]
    """(index, group, name) of each appliance and escalator."""


def _action_layout(building: Any) -> _Layout:
    """Where each action goes. `CityLearnRuntimeService.parse_actions` derives this from names in every step."""
    names = tuple(building.active_actions)
    sockets, others, grouped = [], [], []
    for i, name in enumerate(names):
        if "electric_vehicle_storage" in name:
            sockets.append((i, name.replace("electric_vehicle_storage_", "")))
        elif name.startswith("deferrable_appliance_"):
            grouped.append((i, "deferrable_appliance_actions", name))
        elif name.startswith("escalator_"):
            grouped.append((i, "escalator_actions", name))
        else:
            others.append((i, f"{name}_action"))
    return _Layout(names, tuple(sockets), tuple(others), tuple(grouped))


def _parse(layouts: list[_Layout], actions: list[float]) -> list[dict[str, Any]]:
    """The arguments of each building's `apply_actions` from the central action vector."""
    expected = sum(len(layout.names) for layout in layouts)
    assert len(actions) == expected, f"{len(actions)} actions where {expected} are expected"
    parsed, start = [], 0
    for layout in layouts:
        arguments: dict[str, Any] = {name: actions[start + i] for i, name in layout.others}
        if layout.sockets:
            arguments["electric_vehicle_storage_actions"] = {name: actions[start + i] for i, name in layout.sockets}
        for i, group, name in layout.grouped:
            arguments.setdefault(group, {})[name] = actions[start + i]
        parsed.append(arguments)
        start += len(layout.names)
    return parsed


def _without_idle_sockets(building: Any, service: Any) -> Callable[..., None]:
    """`apply_actions` that skips empty sockets with action 0, where it would overwrite zeros with zeros.

    If limits apply to the sockets together, none is skipped.
    """
    chargers = {charger.charger_id: charger for charger in building.electric_vehicle_chargers or []}

    def apply_actions(electric_vehicle_storage_actions: dict[str, float] | None = None, **others: Any) -> None:
        requests = electric_vehicle_storage_actions
        if requests is not None and not building._charging_constraints_enabled:
            requests = {
                name: action
                for name, action in requests.items()
                if action != 0 or chargers[name].connected_electric_vehicle is not None
            }
        BuildingOpsService.apply_actions(service, electric_vehicle_storage_actions=requests, **others)

    return apply_actions


def _plain_vehicles(env: Any) -> bool:
    """Whether vehicles and chargers are CityLearn's own classes and stay the same all year."""
    chargers = [type(charger) for b in env.buildings for charger in b.electric_vehicle_chargers or []]
    vehicles = [type(vehicle) for vehicle in env.electric_vehicles]
    batteries = [type(vehicle.battery) for vehicle in env.electric_vehicles]
    kinds = {*chargers, *vehicles, *batteries}
    return env.topology_mode == "static" and kinds <= {QuickCharger, ElectricVehicle, Battery, QuickBattery}


def _advance_only_what_moves(env: Any) -> None:
    """Let a step visit only the vehicles and sockets that the charger tables name."""
    fleet: _Fleet | None = None

    def reset(*args: Any, **kwargs: Any) -> Any:
        nonlocal fleet
        found = type(env).reset(env, *args, **kwargs)
        fleet = _Fleet(env) if env.electric_vehicles else None
        return found

    def next_time_step() -> float:
        moving = env.time_step < env.time_steps - 2  # at the end of the data only the clock advances
        if moving:
            for building in env.buildings:
                building.next_time_step()
        Environment.next_time_step(env)
        if moving and fleet is not None:
            fleet.advance(env.time_step)
        return 0.0

    env.reset = reset
    env._runtime_service.next_time_step = next_time_step


def _codes(names: NDArray[np.object_], index: dict[str, int] | None = None) -> NDArray[np.int64]:
    """(T,) number of each name, from `index` or in order of appearance; NOBODY for no name, STRANGER if not in it."""
    codes, found = pd.factorize(names)
    numbers = [
        NOBODY
        if not isinstance(name, str) or name.strip() in ("", "nan")
        else i
        if index is None
        else index.get(name, STRANGER)
        for i, name in enumerate(found)
    ]
    return np.array([*numbers, NOBODY])[codes]  # factorize gives -1 for NaN, which picks the last number


class _Fleet:
    """Where every vehicle is in every row, from CityLearn's charger tables.

    Replaces `simulate_unconnected_ev_soc` and `associate_chargers_to_electric_vehicles` of `CityLearnRuntimeService`,
    which read every table of every charger in every step.
    """

    def __init__(self, env: Any) -> None:
        self.env, self.vehicles = env, list(env.electric_vehicles)
        self.chargers = [charger for b in env.buildings for charger in b.electric_vehicle_chargers or []]
        rows, sockets = env.time_steps, len(self.chargers)
        index = {vehicle.name: v for v, vehicle in enumerate(self.vehicles)}
        state, arrival_soc = np.zeros((2, rows, sockets), dtype=np.float32)
        vehicle, departure, session = np.zeros((3, rows, sockets), dtype=np.int64)
        own_rules = np.zeros(sockets, dtype=bool)
        """Chargers whose table gives an SOC for every row, for which CityLearn has separate rules."""
        for n, charger in enumerate(self.chargers):
            table = charger.charger_simulation
            state[:, n] = table.electric_vehicle_charger_state
            vehicle[:, n] = _codes(table.electric_vehicle_id, index)
            session[:, n] = _codes(table.electric_vehicle_session_id)
            departure[:, n] = table.electric_vehicle_departure_time
            arrival_soc[:, n] = table.electric_vehicle_estimated_soc_arrival
            own_rules[n] = hasattr(table, "electric_vehicle_current_soc")
        connected = (state == CONNECTED) & (vehicle >= 0)

        # As in simulate_unconnected_ev_soc: the vehicle at each socket (-1: none), and the SOC to set (or NaN) for a
        # vehicle that arrives one row later.
        arrives = connected[1:] & (state[:-1] != CONNECTED)
        announced = (vehicle[1:] == vehicle[:-1]) & (state[:-1] == INCOMING)
        soc = np.where(announced, arrival_soc[:-1], arrival_soc[1:])
        self._owner = np.where(connected, vehicle, -1)
        self._owner[:-1][arrives] = vehicle[1:][arrives]
        self._arriving_soc = np.full((rows, sockets), np.nan)
        known = arrives & (soc >= 0) & (soc <= 1)
        self._arriving_soc[:-1][known] = soc[known]

        # As in associate_chargers_to_electric_vehicles: which vehicles are new at a socket, and their SOC.
        stays = connected[1:] & connected[:-1] & (vehicle[1:] == vehicle[:-1])
        new_visit = (departure[:-1] <= 1) & (departure[1:] > departure[:-1])
        new_session = (session[:-1] != NOBODY) & (session[1:] != session[:-1])
        stays &= ~np.where(session[1:] == NOBODY, new_visit, new_session)
        was_away = (state[:-1] == INCOMING) | (state[:-1] == COMMUTING)
        soc = np.where(was_away, arrival_soc[:-1], arrival_soc[1:])
        known = connected[1:] & ~stays & (soc >= 0) & (soc <= 1)
        self._newcomer_soc = np.full((rows, sockets), np.nan)
        self._newcomer_soc[1:][known] = soc[known]
        # CityLearn itself handles tables with separate rules, and the error for a vehicle other than the expected one.
        unusual = connected & own_rules
        unusual[1:] |= connected[1:] & was_away & (vehicle[:-1] != NOBODY) & (vehicle[1:] != vehicle[:-1])
        self._connected = connected & ~unusual
        self._incoming = (state == INCOMING) & (vehicle >= 0)
        self._unusual = unusual if unusual.any() else None
        self._vehicle = vehicle

        self._soc = np.zeros((rows, len(self.vehicles)), dtype=np.float32)
        """(T, V); each battery's own series is a column of it."""
        self._initialised = np.zeros((rows, len(self.vehicles)), dtype=bool)
        for v, battery in enumerate(vehicle.battery for vehicle in self.vehicles):
            for name, table in (("soc", self._soc), ("soc_initialized", self._initialised)):
                table[:, v] = getattr(battery, f"_StorageDevice__{name}")
                setattr(battery, f"_StorageDevice__{name}", table[:, v])
        self._spread = CityLearnRuntimeService._ev_unconnected_drift_std(env.seconds_per_time_step)

    def advance(self, t: int) -> None:
        """Advance vehicles and sockets from row t - 1 to row t."""
        self._move_vehicles(t)
        vehicle = self._vehicle[t]
        for plug, table in ((Charger.plug_car, self._connected), (Charger.associate_incoming_car, self._incoming)):
            sockets = np.flatnonzero(table[t])
            for n, v in zip(sockets.tolist(), vehicle[sockets].tolist()):
                plug(self.chargers[n], self.vehicles[v])
        newcomers = np.flatnonzero(self._connected[t] & ~np.isnan(self._newcomer_soc[t]))
        self._soc[t, vehicle[newcomers]] = self._newcomer_soc[t, newcomers]
        if self._unusual is not None and self._unusual[t].any():
            chargers = [self.chargers[n] for n in np.flatnonzero(self._unusual[t])]
            site = SimpleNamespace(electric_vehicle_chargers=chargers)
            part = SimpleNamespace(time_step=t, electric_vehicles=self.vehicles, buildings=[site])
            CityLearnRuntimeService.associate_chargers_to_electric_vehicles(SimpleNamespace(env=part))

    def _move_vehicles(self, t: int) -> None:
        """Standby losses at sockets, the given SOC for vehicles that arrive next, a random change for all others."""
        sockets = np.flatnonzero(self._owner[t] >= 0)
        owners, first = np.unique(self._owner[t, sockets], return_index=True)  # the first of two sockets counts
        soc = self._arriving_soc[t, sockets[first]]
        away = np.ones(len(self.vehicles), dtype=bool)
        away[owners] = False
        arriving = ~np.isnan(soc)

        at_socket = set(owners[~arriving].tolist())
        for v, vehicle in enumerate(self.vehicles):
            if v in at_socket:
                vehicle.battery.next_time_step()
            else:
                Environment.next_time_step(vehicle.battery)
            Environment.next_time_step(vehicle)
        self._soc[t, owners[arriving]] = soc[arriving]
        factor = self.env._ev_drift_random_state.normal(1.0, self._spread, int(away.sum())).clip(0.6, 1.4)
        self._soc[t, away] = (self._soc[t - 1, away] * factor).clip(0.0, 1.0)
        self._initialised[t] = True
