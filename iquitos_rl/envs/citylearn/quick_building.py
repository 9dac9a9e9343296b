"""Speeds up what CityLearn computes of a building in a step: thermal devices, tanks, networks, data series.

The formulas stay CityLearn's: its functions are copied (`on_scalars`) or called. What is left out has no result: a
whole series that is computed for its last number, a message for an error that does not occur, observations that a
network does not read, an order of devices that is always the same, and cooling, heating or hot water that a building
does not have.
`tests/envs/citylearn/test_quick_building.py` compares every series with the unchanged simulator's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from citylearn.base import Environment
from citylearn.building import (
    Building,
    LogisticRegressionOccupantInteractionBuilding,
    LSTMDynamicsBuilding,
    OccupantInteractionBuilding,
)
from citylearn.data import TimeSeriesData
from citylearn.energy_model import ElectricHeater, HeatPump, StorageTank
from citylearn.preprocessing import PeriodicNormalization
from torch import Tensor

from iquitos_rl.cases.site import Floats
from iquitos_rl.cases.thermal import END_USES
from iquitos_rl.envs.citylearn.scalars import on_scalars

SERIES = ("energy_simulation", "weather", "pricing", "carbon_intensity")
"""Data of a building, one object with many series each."""
_CLASSES: dict[type, type] = {}
"""CityLearn's class of a building or of data to ours."""


def quicken_buildings(env: Any) -> None:
    """Give the same numbers faster in one `CityLearnEnv` whose buildings and devices stay the same all year."""
    if env.topology_mode != "static":
        return
    for building in env.buildings:
        if type(building) in (Building, LSTMDynamicsBuilding, LogisticRegressionOccupantInteractionBuilding):
            _quicken(building)
    data = {id(series): series for b in env.buildings for series in (getattr(b, name) for name in SERIES)}
    reset = env.reset

    def reset_and_lay_out(*args: Any, **kwargs: Any) -> Any:
        for series in data.values():
            _take_up(series)
        found = reset(*args, **kwargs)
        for series in data.values():
            _lay_out(series)
        return found

    env.reset = reset_and_lay_out


# -- data series -----------------------------------------------------------------------------------------------------


class _LaidOut(TimeSeriesData):  # type: ignore[misc]
    """Data whose series of the present episode are plain attributes, not cut out at every access."""

    __getattribute__ = object.__getattribute__

    def __getattr__(self, name: str, start_time_step: int | None = None, end_time_step: int | None = None) -> Any:
        if start_time_step is None and end_time_step is None:
            return TimeSeriesData.__getattribute__(self, name)
        return TimeSeriesData.__getattr__(self, name, start_time_step, end_time_step)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__.pop(name, None)
        TimeSeriesData.__setattr__(self, name, value)


def _laid_out(kind: type) -> type:
    if kind not in _CLASSES:
        _CLASSES[kind] = type(f"LaidOut{kind.__name__}", (_LaidOut, kind), {})
    return _CLASSES[kind]


def _lay_out(series: Any) -> None:
    """Make attributes of the present episode's part of every series; parts share memory with the whole."""
    if not isinstance(series, _LaidOut):
        object.__setattr__(series, "__class__", _laid_out(type(series)))  # its own would store a series of that name
    own = vars(series)
    parts = {name[1:]: getattr(series, name[1:]) for name, x in own.items() if isinstance(x, np.ndarray)}
    own.update(parts)


def _take_up(series: Any) -> None:
    """Undo `_lay_out` before another episode begins, since CityLearn lists the attributes then."""
    own = vars(series)
    for name in [name for name in own if f"_{name}" in own]:
        del own[name]


# -- devices ---------------------------------------------------------------------------------------------------------


def stored(kind: str, *names: str) -> dict[str, str]:
    """Where a class of CityLearn stores what these properties return."""
    return {name: f"_{kind}__{name}" for name in names}


CLOCK = stored("Environment", "time_step")
DEVICE = CLOCK | stored("ElectricDevice", "nominal_power")
STORAGE = CLOCK | stored("StorageDevice", "capacity", "time_step_ratio")
PUMP = stored("Device", "efficiency") | stored("HeatPump", "target_heating_temperature", "target_cooling_temperature")
BUILDING = CLOCK | stored(
    "Building",
    *(f"{use}_{part}" for use in END_USES for part in ("device", "storage")),
    *("electrical_storage", "non_shiftable_load_device", "energy_simulation", "weather", "pricing"),
)


class QuickPump(HeatPump):  # type: ignore[misc]
    get_cop = on_scalars(HeatPump.get_cop, PUMP)
    get_max_output_power = on_scalars(HeatPump.get_max_output_power)
    available_nominal_power = property(on_scalars(HeatPump.available_nominal_power.fget, DEVICE))
    update_electricity_consumption = on_scalars(HeatPump.update_electricity_consumption, DEVICE)


class QuickHeater(ElectricHeater):  # type: ignore[misc]
    get_max_output_power = on_scalars(ElectricHeater.get_max_output_power)
    get_input_power = on_scalars(ElectricHeater.get_input_power)
    available_nominal_power = property(on_scalars(ElectricHeater.available_nominal_power.fget, DEVICE))
    update_electricity_consumption = on_scalars(ElectricHeater.update_electricity_consumption, DEVICE)


class QuickTank(StorageTank):  # type: ignore[misc]
    charge = on_scalars(StorageTank.charge)
    next_time_step = on_scalars(StorageTank.next_time_step, CLOCK)
    _charge = on_scalars(StorageTank._charge, STORAGE)
    energy_init = property(on_scalars(StorageTank.energy_init.fget, STORAGE))


QUICK = {HeatPump: QuickPump, ElectricHeater: QuickHeater, StorageTank: QuickTank}


# -- buildings -------------------------------------------------------------------------------------------------------


class _Given:
    """What a tank gave to the building in a row: one number of CityLearn's `energy_from_cooling_storage`."""

    def __init__(self, tank: Any) -> None:
        self._balance = tank.energy_balance

    def __getitem__(self, row: int) -> np.float32:
        balance = self._balance[row]
        return -balance if balance < 0 else np.float32(0)


def _quick_checks() -> dict[str, Any]:
    """CityLearn's two checks, which write their messages only where they fail."""
    demand_check = Building._Building___demand_limit_check
    polarity_check = Building._Building___electricity_consumption_polarity_check

    def check_demand(self: Any, end_use: str, demand: float, most: float) -> None:
        if not demand <= most:
            demand_check(self, end_use, demand, most)

    def check_polarity(self: Any, end_use: str, output: float, electricity: float) -> None:
        if not electricity >= 0:
            polarity_check(self, end_use, output, electricity)

    return {
        "_Building___demand_limit_check": check_demand,
        "_Building___electricity_consumption_polarity_check": check_polarity,
    }


def _quick_building(kind: type) -> type:
    """A building that computes single numbers where CityLearn takes one from a whole series."""
    if kind in _CLASSES:
        return _CLASSES[kind]
    members = _quick_checks()
    for name in ("update_electrical_storage", "update_non_shiftable_load", "update_variables"):
        members[name] = on_scalars(getattr(Building, name), BUILDING)
    for use in END_USES:
        name, series = f"update_energy_from_{use}_device", f"energy_from_{use}_storage"
        members[name] = on_scalars(getattr(Building, name), {**BUILDING, series: f"_{series}"})
        name = f"update_{use}_storage"
        members[name] = on_scalars(getattr(Building, name), BUILDING)

        def given(self: Any, tank: str = f"{use}_storage") -> _Given:
            return _Given(getattr(self, tank))

        members[f"_{series}"] = property(given)
    members["active_actions"] = property(lambda self: self._active_actions)
    if issubclass(kind, LSTMDynamicsBuilding):
        members["_update_dynamics_input"] = _update_dynamics_input
        members["update_indoor_dry_bulb_temperature"] = _predict
    return _CLASSES.setdefault(kind, type(f"Quick{kind.__name__}", (kind,), members))


def _quicken(building: Any) -> None:
    building._active_actions = building.active_actions  # which CityLearn lists at every access
    building.__class__ = _quick_building(type(building))
    idle = [use for use in END_USES if _is_idle(building, use)]
    for use in END_USES:
        for part in (getattr(building, f"{use}_device"), getattr(building, f"{use}_storage")):
            part.__class__ = QUICK.get(type(part), type(part))
    for use in idle:
        names = [f"update_energy_from_{use}_device", f"update_{use}_storage"]
        for name in [*names, *([] if use == "dhw" else [f"update_{use}_demand"])]:
            setattr(building, name, _nothing)
    building.next_time_step = _clock(building, idle)
    others = building.electric_vehicle_chargers or building.deferrable_appliances or building.escalators
    two_actions = {"cooling_device", "heating_device"} <= set(building._active_actions)
    if not (others or two_actions or building._charging_constraints_enabled):
        building._ops_service.apply_actions = _in_order(building, [use for use in END_USES if use not in idle])
    if isinstance(building, LSTMDynamicsBuilding):
        building.dynamics.requires_grad_(False)  # nobody learns through a simulation
        building._network = lambda x, state: building.dynamics(x.transpose(0, 1), state)
        if building.dynamics.dropout.p == 0:
            building._network = _forward(building.dynamics)


def _nothing(*args: object) -> None:
    return None


def _is_idle(building: Any, use: str) -> bool:
    """Whether a building has neither a device nor a tank nor any demand for an end use: all its series stay 0."""
    tank = getattr(building, f"{use}_storage")
    data = vars(building.energy_simulation)
    return (
        getattr(building, f"{use}_device").nominal_power == 0
        and tank.capacity == 0
        and tank.initial_soc == 0
        and not any(np.any(data.get(f"_{use}_demand{kind}", 0)) for kind in ("", "_without_control"))
    )


def _in_order(building: Any, uses: list[str]) -> Callable[..., None]:
    """`BuildingOpsService.apply_actions` of a building that has only batteries and these end uses, without the tables
    from which CityLearn works out the order of its devices; CityLearn's own in an outage.

    A discharging battery goes first, any other last, and a tank that gives goes before its device.
    """
    general, active = building._ops_service.apply_actions, set(building._active_actions)
    either = "cooling_or_heating_device" in active
    controlled = [use for use in uses if use != "dhw"] if isinstance(building, LSTMDynamicsBuilding) else []
    demands = [
        (getattr(building, f"update_{use}_demand"), f"{use}_device", -1 if use == "cooling" else 1)
        for use in controlled
    ]
    devices = [
        (
            getattr(building, f"update_energy_from_{use}_device"),
            getattr(building, f"update_{use}_storage"),
            f"{use}_storage",
        )
        for use in uses
    ]

    def apply_actions(**actions: Any) -> None:
        if building.power_outage:
            general(**actions)
            return

        def asked(name: str, otherwise: float) -> float:
            return actions[f"{name}_action"] if name in active else otherwise

        building._charging_constraint_penalty_kwh = building._charging_constraint_last_penalty_kwh = 0.0
        battery = asked("electrical_storage", 0.0)
        if battery < 0:
            building.update_electrical_storage(battery)
        for control, name, sign in demands:
            control(abs(max(sign * asked("cooling_or_heating_device", 0.0), 0.0)) if either else asked(name, np.nan))
        for device, tank, name in devices:
            action = asked(name, 0.0)
            if action < 0:
                tank(action)
                device()
            else:
                device()
                tank(action)
        building.update_non_shiftable_load()
        if not battery < 0:
            building.update_electrical_storage(battery)

    return apply_actions


def _clock(building: Any, idle: list[str]) -> Callable[[], None]:
    """`Building.next_time_step` with the devices listed once; those that only count the rows are not called."""
    parts = [getattr(building, f"{use}_device") for use in END_USES]
    parts += [building.non_shiftable_load_device, *(getattr(building, f"{use}_storage") for use in END_USES)]
    parts += [building.electrical_storage, building.pv, *(building.electric_vehicle_chargers or [])]
    parts += [*(building.deferrable_appliances or []), *(building.escalators or [])]
    parts += [building.occupant] if isinstance(building, OccupantInteractionBuilding) else []
    resting = [getattr(building, f"{use}_storage") for use in idle]
    counting = [part for part in parts if type(part).next_time_step is Environment.next_time_step] + resting
    moving = [part.next_time_step for part in parts if not any(part is other for other in counting)]
    counting.append(building)

    def next_time_step() -> None:
        for move in moving:
            move()
        for part in counting:
            part._Environment__time_step += 1

    return next_time_step


# -- networks --------------------------------------------------------------------------------------------------------


class _Window:
    """The rows that a building's network has read, as CityLearn's `_model_input`, for one episode.

    CityLearn gathers all observations of the building in every step and keeps lists of numbers. Here everything that
    the data give is normalised once.
    """

    def __init__(self, building: Any) -> None:
        dynamics = building.dynamics
        self.building, names = building, dynamics.input_observation_names
        self.low = np.array(dynamics.input_normalization_minimum, dtype=np.float64)
        self.span = np.array(dynamics.input_normalization_maximum, dtype=np.float64) - self.low
        self.inside = names.index("indoor_dry_bulb_temperature")
        self.rows = np.zeros((dynamics.lookback + 1, len(names)), dtype=np.float32)
        """(L + 1, I) normalised."""
        self.read = 0
        known = self._known()
        length = len(building.energy_simulation.indoor_dry_bulb_temperature)
        values = np.stack([known.get(name, np.zeros(length))[:length] for name in names], axis=-1).astype(np.float64)
        self._table = ((values - self.low) / self.span).astype(np.float32)
        """(T, I)."""
        self._changing = [(i, name) for i, name in enumerate(names) if name not in known]

    def _known(self) -> dict[str, Floats]:
        """Observations that the data give."""
        data, weather = self.building.energy_simulation, self.building.weather
        found = {name: getattr(data, name) for name in OF_BUILDING} | {name: getattr(weather, name) for name in OUTSIDE}
        if not isinstance(self.building, OccupantInteractionBuilding):
            found |= {name: getattr(data, name) for name in SET_POINTS}
        for name, values in self.building.get_periodic_observation_metadata().items():
            series = getattr(data, name, None)
            if series is not None:
                cycles = [PeriodicNormalization(x_max=max(values)).__rmul__(value) for value in np.unique(series)]
                each = np.array(cycles)[np.unique(series, return_inverse=True)[1]]
                found |= {f"{name}_sin": each[:, 0], f"{name}_cos": each[:, 1]}
        return found

    def add(self, t: int) -> None:
        """Read row t."""
        self.rows[:-1] = self.rows[1:]
        self.rows[-1] = self._table[t]
        for i, name in self._changing:
            self.rows[-1, i] = (self._value(name, t) - self.low[i]) / self.span[i]
        self.read += 1

    def _value(self, name: str, t: int) -> float:
        """An observation that depends on the step's actions, or on what the occupant did before."""
        building = self.building
        if name in SET_POINTS:
            return float(getattr(building.energy_simulation, name)[t])
        if name not in ("cooling_demand", "heating_demand"):
            return float(building.observations(include_all=True, observation_names=[name])[name])
        use = name.split("_")[0]
        balance = getattr(building, f"{use}_storage").energy_balance[t]
        return float(getattr(building, f"_Building__energy_from_{use}_device")[t] + abs(min(balance, 0.0)))

    def tensor(self) -> Tensor:
        """(L, 1, I) what the network reads next: of the temperature the rows one earlier."""
        found = self.rows[1:].copy()
        found[:, self.inside] = self.rows[:-1, self.inside]
        return torch.from_numpy(found).unsqueeze(1)


OUTSIDE = ("outdoor_dry_bulb_temperature", "direct_solar_irradiance", "diffuse_solar_irradiance")
OF_BUILDING = ("occupant_count", "indoor_dry_bulb_temperature")
SET_POINTS = tuple(f"indoor_dry_bulb_temperature_{use}_set_point" for use in ("cooling", "heating"))


def _update_dynamics_input(self: Any) -> None:
    """`LSTMDynamicsBuilding._update_dynamics_input` with the observations that the network reads, not with all."""
    if self.time_step == 0:
        self._window = _Window(self)
    self._window.add(self.time_step)
    if self._window.read == len(self._window.rows):
        self.dynamics._model_input = [[0.0]]  # CityLearn asks whether the first number is there


def _forward(dynamics: Any) -> Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, tuple[Tensor, ...]]]:
    """`LSTMDynamics.forward` for (L, 1, I), without PyTorch's checks around each layer."""
    lstm, linear = dynamics.l_lstm, dynamics.l_linear
    weights = [getattr(lstm, name) for names in lstm._all_weights for name in names]
    layers, training, weight, bias = lstm.num_layers, lstm.training, linear.weight, linear.bias

    def forward(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        found, *after = torch.lstm(x, state, weights, True, layers, 0.0, training, False, False)
        return torch.nn.functional.linear(found[-1], weight, bias), tuple(after)

    return forward


def _predict(self: Any) -> None:
    """`LSTMDynamicsBuilding.update_indoor_dry_bulb_temperature`, which is that of CityLearn but for PyTorch's way of
    setting attributes."""
    dynamics, window = self.dynamics, self._window
    ix = window.inside
    # As CityLearn calls it. PyTorch's kernel for inference rounds differently.
    with contextlib.nullcontext() if torch.is_grad_enabled() else _with_gradients():
        normal, state = self._network(window.tensor(), dynamics._hidden_state)
    vars(dynamics)["_hidden_state"] = state
    window.rows[-1, ix] = normal.item()
    low, high = dynamics.input_normalization_minimum[ix], dynamics.input_normalization_maximum[ix]
    series = self.energy_simulation.indoor_dry_bulb_temperature
    series[self.time_step] = window.rows[-1, ix] * np.float32(high - low) + np.float32(low)


@contextlib.contextmanager
def _with_gradients() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield
