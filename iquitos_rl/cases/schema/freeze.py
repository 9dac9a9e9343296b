"""Everything that CityLearn draws or computes when it loads a schema, written into the schema as numbers.

Sizes of heat pumps, heaters and tanks follow from the data, omitted parameters from seeds: the reader has both. Sizes
of batteries and PV plants only CityLearn computes, from tables and weather files; they come from outside, and so do the
trees of occupants, which are pickles. A frozen folder needs neither tables nor seeds, and has the same devices whatever
rows it is cut to. Its networks have no dropout.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from iquitos_rl.cases.schema.occupants import TREES
from iquitos_rl.cases.schema.reader import load_json, read_folder
from iquitos_rl.cases.schema.report import SCHEMA
from iquitos_rl.cases.schema.values import Block
from iquitos_rl.cases.site import Battery, Building, Floats
from iquitos_rl.cases.thermal import END_USES, EndUse
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import copy_folder, new_folder, write_json
from iquitos_rl.machine.inputs import read_bytes, shown

SIZED_BY_CITYLEARN = ("electrical_storage", "pv")


@dataclass(frozen=True)
class Sizes:
    """What CityLearn made of the battery and the PV plant of one building; None for what it did not size."""

    battery: Battery | None
    pv_power: float | None
    """kW."""
    pv_generation: Floats | None
    """(T,) W per kW."""


def sized_by_citylearn(folder: Path) -> list[str]:
    """Devices whose sizes only CityLearn can compute: `Building_1.pv`."""
    return [
        f"{name}.{device}"
        for name, own in included(Block(load_json(folder / SCHEMA)))
        for device in SIZED_BY_CITYLEARN
        if device in own and own.child(device).flag("autosize")
    ]


def occupied(folder: Path) -> list[str]:
    """Buildings with an occupant, whose trees are pickles that CityLearn opens."""
    return [name for name, own in included(Block(load_json(folder / SCHEMA))) if "occupant" in own]


def included(schema: Block) -> Iterator[tuple[str, Block]]:
    """Name and block of every building that takes part."""
    children = schema.child("buildings").children()
    return ((name, own) for name, own in children if own.flag("include", default=True))


def freeze(
    folder: Path, output: Path, sizes: Mapping[str, Sizes], trees: Mapping[str, Mapping[str, Any]] | None = None
) -> int:
    """Write a folder without anything to be drawn or computed; returns how many devices it froze.

    Args:
        sizes: by building, for every device in `sized_by_citylearn`.
        trees: by building whose occupant acts, what its file of trees is to hold; by default those files stay.

    Raises:
        UserError: the folder has errors, a size is missing, or `output` is not empty.
    """
    reading = read_folder(folder)
    site = reading.site
    if site is None:
        raise UserError(f"{folder}: {reading.report.errors[0]}")
    schema = copy.deepcopy(dict(reading.schema.content))
    root = folder / str(schema.get("root_directory") or "")
    start, count = int(schema["simulation_start_time_step"]), 0
    with new_folder(output) as target:
        copy_folder(root, target)
        for n, building in enumerate(site.buildings, start=1):
            block, own = schema["buildings"][building.name], sizes.get(building.name)
            count += _freeze_thermal(block, building)
            if (block.get("dynamics") or {}).get("attributes"):
                block["dynamics"]["attributes"]["dropout"] = 0.0
            if trees and building.name in trees:
                block["occupant"][TREES] = f"occupant-trees-{n}.json"
                write_json(target / block["occupant"][TREES], dict(trees[building.name]))
                count += 1
            if "electrical_storage" in block:
                sized = Block(block).child("electrical_storage").flag("autosize")
                battery = own.battery if sized and own is not None else building.battery
                if sized and battery is None:
                    raise UserError(f"{folder}: the size of {building.name}'s battery is missing")
                if battery is not None:
                    _set(block["electrical_storage"], battery_attributes(battery))
                    count += 1
            if "pv" in block and Block(block).child("pv").flag("autosize"):
                if own is None or own.pv_power is None or own.pv_generation is None:
                    raise UserError(f"{folder}: the size of {building.name}'s PV plant is missing")
                _set(block["pv"], {"nominal_power": own.pv_power, "generation_mode": "per_kw"})
                block["energy_simulation"] = _write_generation(target, building.name, block, own.pv_generation, start)
                count += 1
        for vehicle in site.vehicles:
            _set(schema["electric_vehicles_def"][vehicle.name]["battery"], battery_attributes(vehicle.battery))
            count += 1
        schema["root_directory"] = None
        write_json(target / SCHEMA, schema)
    return count


def battery_attributes(battery: Battery) -> dict[str, Any]:
    """Every parameter of a battery under its name in a schema."""
    curves = ("power_efficiency_curve", "capacity_power_curve")
    values = {name: getattr(battery, name) for name in Battery.__dataclass_fields__ if name not in curves}
    return values | {name: getattr(battery, name).T.tolist() for name in curves}


def _freeze_thermal(block: dict[str, Any], building: Building) -> int:
    count = 0
    for name, use in zip(END_USES, building.end_uses):
        for key, attributes in ((f"{name}_device", _device(name, use)), (f"{name}_storage", _tank(use))):
            if block.get(key) is not None:
                _set(block[key], attributes)
                count += 1
    return count


def _device(name: str, use: EndUse) -> dict[str, float]:
    device = use.device
    found = {"nominal_power": device.nominal_power, "efficiency": device.efficiency}
    if device.target_temperature is None:
        return found
    return found | {f"target_{'cooling' if name == 'cooling' else 'heating'}_temperature": device.target_temperature}


def _tank(use: EndUse) -> dict[str, float]:
    names = ("capacity", "efficiency", "loss_coefficient", "initial_soc")
    return {name: getattr(use.tank, name) for name in names}


def _set(device: dict[str, Any], attributes: dict[str, Any]) -> None:
    """Give a device these attributes and no size to be computed."""
    device.pop("autosize_attributes", None)
    device["autosize"] = False
    device["attributes"] = {**(device.get("attributes") or {}), **attributes}


def _write_generation(target: Path, name: str, block: dict[str, Any], generation: Floats, start: int) -> str:
    """A building's data file with other generation, as a file of its own; returns its name."""
    content = read_bytes(target / block["energy_simulation"])
    table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
    column = table["solar_generation"].to_numpy(dtype=object)
    column[start : start + len(generation)] = [repr(float(value)) for value in generation][: len(column) - start]
    file = f"{name}-frozen.csv"
    if Path(file).name != file:
        raise UserError(f"{shown(name)} cannot be part of a file's name: give the building another")
    table.assign(solar_generation=column).to_csv(target / file, index=False)
    return file
