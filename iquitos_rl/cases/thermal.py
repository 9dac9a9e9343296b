"""What a building needs besides electricity: the devices of its end uses, and how its temperature follows."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

END_USES = ("cooling", "heating", "dhw")
THERMAL_ACTIONS = (
    *("cooling_device", "heating_device", "cooling_or_heating_device"),
    *("cooling_storage", "heating_storage", "dhw_storage"),
)
"""CityLearn's names."""
MOST_COP = 20.0
"""CityLearn sets every COP that is negative or larger to this."""


@dataclass(frozen=True)
class ThermalDevice:
    """A heat pump, or an electric heater (`citylearn/energy_model.py`)."""

    nominal_power: float
    """kW electric; 0 where the building has no such device."""
    efficiency: float
    """Technical efficiency: of Carnot's for a heat pump."""
    target_temperature: float | None
    """C that a heat pump supplies; None for a heater."""


@dataclass(frozen=True)
class Tank:
    """A hot or cold water tank (`citylearn/energy_model.py`, StorageTank); without capacity where there is none."""

    capacity: float = 0.0
    efficiency: float = 1.0
    """Round trip."""
    loss_coefficient: float = 0.0
    """Share of the SOC that is lost in an hour."""
    initial_soc: float = 0.0
    max_input_power: float = inf
    max_output_power: float = inf


@dataclass(frozen=True)
class EndUse:
    """Cooling, heating or hot water of one building."""

    device: ThermalDevice
    tank: Tank
    demand: Floats
    """(T,) kWh thermal per step."""
    cop: Floats
    """(T,) of the device; a heater's efficiency."""
    tank_action: bool
    device_action: bool


def cop(device: ThermalDevice, outdoor: Floats, heating: bool) -> Floats:
    """(T,) coefficient of performance at outdoor temperatures (T,) in C: a share of Carnot's.

    Source: `HeatPump.get_cop`, in its order of operations for one row.
    """
    if device.target_temperature is None:
        return np.full(len(outdoor), device.efficiency)
    target = device.target_temperature
    difference = (target - outdoor) if heating else (outdoor - target)
    with np.errstate(divide="ignore"):
        found = np.where(difference == 0, np.inf, device.efficiency * (target + 273.15) / difference)
    return np.where((found < 0) | (found > MOST_COP), MOST_COP, found)


@dataclass(frozen=True)
class Dynamics:
    """A recurrent network that predicts a building's temperature (`citylearn/dynamics.py`, LSTMDynamics).

    I inputs, H units in each layer.
    """

    inputs: tuple[str, ...]
    """Names of the inputs, in the network's order."""
    low: Floats
    """(I,) value of each input that the network sees as 0."""
    high: Floats
    """(I,) and as 1."""
    lookback: int
    """Rows that the network reads for one prediction."""
    layers: tuple[tuple[Floats, Floats, Floats, Floats], ...]
    """Of each layer: weights of its input (4H, I or H), of its own output (4H, H), and two biases (4H,), gates in
    PyTorch's order."""
    head: Floats
    """(H,) weights of the last layer's output."""
    head_bias: float
    series: Floats
    """(T, I) values of the inputs as the data give them; those of demands and temperature are replaced."""
