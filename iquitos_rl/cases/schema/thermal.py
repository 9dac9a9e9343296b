"""The thermal side of a building in a schema: devices, tanks, networks, outages.

Omitted parameters are drawn from the device's seed, sizes follow from the data (`energy_model.py`, autosize). Networks'
weights are read as tensors; nothing in the file is executed.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np
import torch

from iquitos_rl.cases.schema.defaults import BUILDING_TYPE, device_seed, draw
from iquitos_rl.cases.schema.occupants import OCCUPANT_BUILDING
from iquitos_rl.cases.schema.tables import DataFiles, Table
from iquitos_rl.cases.schema.values import LARGEST_SEED, Block, is_number
from iquitos_rl.cases.site import Bools, Floats
from iquitos_rl.cases.thermal import END_USES, MOST_COP, Dynamics, EndUse, Tank, ThermalDevice, cop
from iquitos_rl.machine.inputs import InputError, read_bytes, shown

HEAT_PUMP, HEATER = "citylearn.energy_model.HeatPump", "citylearn.energy_model.ElectricHeater"
TANK = "citylearn.energy_model.StorageTank"
LSTM, LSTM_BUILDING = "citylearn.dynamics.LSTMDynamics", "citylearn.building.LSTMDynamicsBuilding"
NETWORK_BUILDINGS = (LSTM_BUILDING, OCCUPANT_BUILDING)
RELIABILITY = "citylearn.power_outage.ReliabilityMetricsPowerOutage"
LARGEST_NETWORK = 64 << 20
"""Most bytes of a building's dynamics, packed or not."""
DEVICE_TYPES = {
    **{f"{use}_device": (HEAT_PUMP,) if use == "cooling" else (HEAT_PUMP, HEATER) for use in END_USES},
    **{f"{use}_storage": (TANK,) for use in END_USES},
}
"""Classes of CityLearn that the district engine knows, by key of a building."""
TEMPERATURE = "indoor_dry_bulb_temperature"
PERIODS = {"hour": 24, "day_type": 7, "month": 12}
"""A network sees these as sine and cosine; CityLearn lets day type 8, a holiday, fall on Monday."""
SAIFI, CAIDI = 1.436, 331.2
"""CityLearn's defaults: outages a year, and minutes that one lasts."""
NO_DEVICE = ThermalDevice(nominal_power=0.0, efficiency=1.0, target_temperature=None)


def read_end_uses(
    name: str, block: Block, energy: Table, outdoor: Floats, actions: list[str], schema_seed: int
) -> tuple[EndUse, ...]:
    """Cooling, heating and hot water of a building.

    Args:
        outdoor: (T,) C.
        actions: the building's active actions.
    """
    building_type = str(block.get("type", BUILDING_TYPE))
    uses = []
    for use in END_USES:
        demand = energy.numbers(f"{use}_demand")

        def seed(device: str) -> int:
            config = block.child(device)
            own = device_seed(name, building_type, device, str(config.get("type")), schema_seed)
            return config.child("attributes").whole("random_seed", 0, own, LARGEST_SEED)

        device = _device(block, use, demand, outdoor, seed(f"{use}_device"))
        tank = _tank(block, f"{use}_storage", demand, seed(f"{use}_storage"))
        either = use != "dhw" and "cooling_or_heating_device" in actions
        uses.append(
            EndUse(
                device=device,
                tank=tank,
                demand=demand.astype(np.float64),
                cop=cop(device, outdoor, heating=use != "cooling"),
                tank_action=f"{use}_storage" in actions,
                device_action=f"{use}_device" in actions or either,
            )
        )
    return tuple(uses)


def _device(block: Block, use: str, demand: np.ndarray[Any, Any], outdoor: Floats, seed: int) -> ThermalDevice:
    key = f"{use}_device"
    if key not in block:
        return NO_DEVICE
    config = block.child(key)
    attributes = config.child("attributes")
    pump = config.get("type") == HEAT_PUMP
    target = "target_cooling_temperature" if use == "cooling" else "target_heating_temperature"
    low, high = (7.0, 10.0) if use == "cooling" else (45.0, 50.0)
    spread = (0.2, 0.3) if pump else (0.9, 0.99)
    device = ThermalDevice(
        nominal_power=attributes.number("nominal_power", 0, math.inf, default=0.0),
        efficiency=attributes.number("efficiency", 0, math.inf, default=draw(seed, *spread), above=True),
        target_temperature=attributes.number(target, -273.15, 1000, default=draw(seed, low, high)) if pump else None,
    )
    if not config.flag("autosize"):
        return device
    factor = _safety_factor(config, 1.0)
    if device.target_temperature is None:
        power = np.nanmax(demand / device.efficiency)
    else:
        power = np.nanmax(demand / _cop_for_sizing(device, outdoor.astype(np.float32), use != "cooling"))
    return ThermalDevice(float(power) * factor, device.efficiency, device.target_temperature)


def _cop_for_sizing(device: ThermalDevice, outdoor: np.ndarray[Any, Any], heating: bool) -> np.ndarray[Any, Any]:
    """(T,) float32: for sizes CityLearn computes the COPs of all rows at once, in single precision."""
    assert device.target_temperature is not None
    target = device.target_temperature
    with np.errstate(divide="ignore"):
        difference = target - outdoor if heating else outdoor - target
        found = device.efficiency * (target + 273.15) / difference
    return np.where((found < 0) | (found > MOST_COP), np.float32(MOST_COP), found)


def _tank(block: Block, key: str, demand: np.ndarray[Any, Any], seed: int) -> Tank:
    if key not in block:
        return Tank()
    config = block.child(key)
    attributes = config.child("attributes")
    capacity = attributes.number("capacity", 0, math.inf, default=0.0)
    if config.flag("autosize"):
        capacity = float(np.nanmax(demand)) * _safety_factor(config, draw(seed, 1.0, 2.0))
    return Tank(
        capacity=capacity,
        efficiency=attributes.number("efficiency", 0, 1, default=draw(seed, 0.90, 0.98), above=True),
        loss_coefficient=attributes.number("loss_coefficient", 0, 1, default=draw(seed, 0.001, 0.009)),
        initial_soc=attributes.number("initial_soc", 0, 1, default=0.0),
        max_input_power=attributes.number("max_input_power", 0, math.inf, default=math.inf)
        if "max_input_power" in attributes
        else math.inf,
        max_output_power=attributes.number("max_output_power", 0, math.inf, default=math.inf)
        if "max_output_power" in attributes
        else math.inf,
    )


def _safety_factor(config: Block, default: float) -> float:
    return config.child("autosize_attributes").number("safety_factor", 0, math.inf, default=default)


def read_dynamics(block: Block, files: DataFiles, energy: Table, weather: Table) -> Dynamics | None:
    """The network that predicts a building's temperature; None where it has none."""
    if "dynamics" not in block or block.get("type") not in NETWORK_BUILDINGS:
        return None
    attributes = block.child("dynamics").child("attributes", required=True)
    if attributes.number("dropout", 0, 1, default=0.0) > 0:
        attributes.warning(
            "dropout is taken as 0: CityLearn leaves it on, and every step draws from torch's global generator",
            kind="dropout",
        )
    names = tuple(attributes.names("input_observation_names"))
    low, high = (attributes.numbers(f"input_normalization_{end}") for end in ("minimum", "maximum"))
    if not names or not len(names) == len(low) == len(high):
        attributes.error("input_observation_names and both lists of input_normalization must be of one length")
        return None
    if TEMPERATURE not in names:
        attributes.error(f"input_observation_names must hold {TEMPERATURE}, which the network predicts")
        return None
    series = [_input(name, energy, weather) for name in names]
    for name, values in zip(names, series):
        if values is None:
            attributes.error(f"input_observation_names: no data for {name}")
    weights = _weights(attributes, files)
    if weights is None or any(values is None for values in series):
        return None
    layers = attributes.whole("num_layers", 1, high=64)
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    width = attributes.whole("hidden_size", 1, high=100_000)
    into = [len(names), *[width] * (layers - 1)]
    shapes = [((4 * width, k), (4 * width, width), (4 * width,), (4 * width,)) for k in into]
    try:
        found = [tuple(weights[f"l_lstm.{part}_l{k}"] for part in parts) for k in range(layers)]
        head = weights["l_linear.weight"], weights["l_linear.bias"]
        sizes = [tuple(weight.shape for weight in own) for own in found]
        if sizes != shapes or [own.shape for own in head] != [(1, width), (1,)]:
            attributes.error(f"filename: the network is not of {len(names)} inputs, {layers} layers and {width} units")
            return None
        return Dynamics(
            inputs=names,
            low=low,
            high=high,
            lookback=attributes.whole("lookback", 1, high=100_000),
            layers=tuple(found),  # type: ignore[arg-type]
            head=head[0][0],
            head_bias=float(head[1][0]),
            series=np.stack([values for values in series if values is not None], axis=1),
        )
    except KeyError as error:
        attributes.error(f"filename: the network has no weights {error}")
        return None


def _input(name: str, energy: Table, weather: Table) -> Floats | None:
    """(T,) values of a network's input, None where no file has them."""
    for source, period in PERIODS.items():
        if name in (f"{source}_sin", f"{source}_cos"):
            angle = 2 * np.pi * energy.numbers(source).astype(np.float64) / period
            return np.sin(angle) if name.endswith("sin") else np.cos(angle)
    for table in (energy, weather):
        if name in table:
            return table.numbers(name, blank_allowed=True).astype(np.float64)
    return None


def _weights(attributes: Block, files: DataFiles) -> dict[str, np.ndarray[Any, Any]] | None:
    name = attributes.text("filename", "the name of a file")
    if not name:
        return None
    try:
        stored = read_bytes(files.root / name, LARGEST_NETWORK)
        files.digest.update(stored)
        _require_small(stored)
        content = torch.load(io.BytesIO(stored), map_location="cpu", weights_only=True)
    except InputError as error:
        attributes.error(f"filename names {shown(name)}, which {error.reason}")
        return None
    except Exception as error:  # whatever a damaged or foreign file makes torch's reader raise
        attributes.error(f"filename names {name}, which holds no network ({type(error).__name__})")
        return None
    content = content.get("model_state_dict", content) if isinstance(content, dict) else {}
    return {key: value.numpy() for key, value in content.items() if isinstance(value, torch.Tensor)}


def _require_small(stored: bytes) -> None:
    """Raise ValueError where an archive would unpack to more than a network can be."""
    if zipfile.is_zipfile(io.BytesIO(stored)):
        with zipfile.ZipFile(io.BytesIO(stored)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_NETWORK:
                raise ValueError("unpacked it is too large")


def read_outage(block: Block, energy: Table, rows: int, seconds: int) -> Bools:
    """(T,) whether a building has no grid in a row, as CityLearn's seeded model draws it.

    Source: `power_outage.py`, ReliabilityMetricsPowerOutage.get_signals.
    """
    config = block.child("power_outage")
    if not config.flag("simulate_power_outage"):
        return np.zeros(rows, dtype=bool)
    if not config.flag("stochastic_power_outage"):
        return energy.numbers("power_outage", blank_allowed=True).astype(bool)
    attributes = config.child("stochastic_power_outage_model").child("attributes")
    if "random_seed" not in attributes:
        return np.zeros(rows, dtype=bool)  # CityLearn draws others in every run: `unsupported` says so
    per_day = 86_400 / seconds
    if rows % per_day:
        config.error(f"CityLearn's outages need whole days, and the schema simulates {rows} rows")
        return np.zeros(rows, dtype=bool)
    days = int(rows / per_day)
    random = np.random.RandomState(attributes.whole("random_seed", 0, high=LARGEST_SEED))
    saifi = attributes.number("saifi", 0, 365, default=SAIFI)
    caidi = attributes.number("caidi", 0, math.inf, default=CAIDI)
    drawn = random.binomial(n=1, p=saifi / 365.0, size=days)
    struck = drawn * np.arange(float(days))
    struck = struck[struck != 0]  # CityLearn loses an outage on the first day here
    count = int(drawn.sum())
    hours = attributes.get("start_time_steps", list(range(int(per_day))))
    if not isinstance(hours, list) or not hours or not all(is_number(hour) and 0 <= hour < per_day for hour in hours):
        config.error(f"start_time_steps must be a list of time steps of a day, not {shown(repr(hours))}")
        return np.zeros(rows, dtype=bool)
    starts = random.choice(hours, size=count)
    lengths = random.exponential(scale=caidi, size=count) * (60.0 / seconds)
    outage = np.zeros(rows, dtype=bool)
    for day, start, length in zip(struck, starts, lengths):
        first = day * per_day + start
        outage[int(first) : int(first + length)] = True
    return outage
