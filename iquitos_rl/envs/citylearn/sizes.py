"""Sizes of batteries and PV plants that only CityLearn computes, read from it after it has loaded a schema."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.schema.freeze import Sizes, sized_by_citylearn
from iquitos_rl.cases.site import Battery
from iquitos_rl.envs.citylearn.env import load_citylearn
from iquitos_rl.errors import UserError

NEEDS = (
    "CityLearn sizes {devices} with NREL PySAM (`pip install nrel-pysam`) and two tables that it fetches from GitHub "
    "or finds in the folder that CITYLEARN_LOCAL_MISC_PATH names: {reason}"
)


def citylearn_sizes(folder: Path) -> dict[str, Sizes]:
    """By building, what CityLearn sized; nothing where it sizes no battery and no PV plant.

    Raises:
        UserError: CityLearn lacks what it needs.
    """
    devices = sized_by_citylearn(folder)
    if not devices:
        return {}
    shown = f"{devices[0]} and {len(devices) - 1} more" if len(devices) > 1 else devices[0]
    plants = any(device.endswith(".pv") for device in devices)
    if plants and importlib.util.find_spec("PySAM") is None:
        raise UserError(f"{folder}: {NEEDS.format(devices=shown, reason='PySAM is not installed')}")
    try:
        env = load_citylearn(folder)
    except UserError as error:
        reason = str(error).removeprefix(f"{folder}: ")
        raise UserError(f"{folder}: {NEEDS.format(devices=shown, reason=reason)}") from None
    return {b.name: _sizes(b, set(devices)) for b in env.buildings}


def _sizes(building: Any, devices: set[str]) -> Sizes:
    plant, store = (f"{building.name}.{device}" in devices for device in ("pv", "electrical_storage"))
    generation = np.array(building.energy_simulation.__dict__["_solar_generation"], dtype=np.float64)
    return Sizes(
        battery=_battery(building.electrical_storage) if store else None,
        pv_power=float(building.pv.nominal_power) if plant else None,
        pv_generation=generation if plant else None,
    )


def _battery(battery: Any) -> Battery:
    """CityLearn's battery with every parameter as it stands."""
    return Battery(
        capacity=float(battery.capacity),
        nominal_power=float(battery.nominal_power),
        initial_soc=float(battery.initial_soc),
        depth_of_discharge=float(battery.depth_of_discharge),
        efficiency=float(battery.efficiency),
        loss_coefficient=float(battery.loss_coefficient),
        capacity_loss_coefficient=float(battery.capacity_loss_coefficient),
        power_efficiency_curve=np.array(battery.power_efficiency_curve, dtype=np.float64),
        capacity_power_curve=np.array(battery.capacity_power_curve, dtype=np.float64),
    )
