"""What a schema asks for that only CityLearn simulates, feature by feature, for the district engine to refuse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from iquitos_rl.cases.schema.tables import Table
from iquitos_rl.cases.schema.values import flag, mapping

DEMANDS = ("dhw_demand", "cooling_demand", "heating_demand")
BUILDING_PARTS = ("dynamics", "occupant", "deferrable_appliances", "escalators", "washing_machines")
BUILDING_TYPES = (None, "citylearn.citylearn.Building", "citylearn.building.Building")
DEVICE_TYPES = {"electrical_storage": "citylearn.energy_model.Battery", "pv": "citylearn.energy_model.PV"}
CHARGER_TYPE = "citylearn.electric_vehicle_charger.Charger"
VEHICLE_TYPES = (None, "citylearn.citylearn.ElectricVehicle", "citylearn.electric_vehicle.ElectricVehicle")
ELECTRICAL_ACTIONS = ("electrical_storage", "electric_vehicle_storage")


def site_features(schema: Mapping[str, Any], where: str) -> Iterator[str]:
    """Features of the whole district."""
    for key in ("community_market", "demand_response", "robustness"):
        block = mapping(schema.get(key) or {}, f"{where}: {key}")
        if flag(block.get("enabled"), f"{where}: {key}.enabled"):
            yield key
    if schema.get("topology_mode") == "dynamic":
        yield "topology_mode dynamic"
    if flag(schema.get("terminal_observation_padding"), f"{where}: terminal_observation_padding"):
        yield "terminal_observation_padding"
    vehicles = mapping(schema.get("electric_vehicles_def") or {}, f"{where}: electric_vehicles_def")
    for name, block in vehicles.items():
        vehicle = mapping(block, f"{where}: electric_vehicles_def.{name}")
        if vehicle.get("type") not in VEHICLE_TYPES:
            yield f"electric_vehicles_def.{name}: vehicle type {vehicle['type']}"


def building_features(
    name: str, block: Mapping[str, Any], energy: Table, actions: list[str], where: str
) -> Iterator[str]:
    """Features of one building.

    Args:
        energy: its `energy_simulation` file.
        actions: its active actions.
        where: the schema file, for messages.
    """
    key = f"buildings.{name}"
    if block.get("type") not in BUILDING_TYPES:
        yield f"{key}: building type {block['type']}"
    yield from (f"{key}: {demand}" for demand in DEMANDS if energy.numbers(demand).any())
    yield from (f"{key}: {part}" for part in BUILDING_PARTS if block.get(part))
    yield from (f"{key}: action {action}" for action in actions if action not in ELECTRICAL_ACTIONS)
    if _noisy(block):
        yield f"{key}: noise_std"
    outage = mapping(block.get("power_outage") or {}, f"{where}: {key}.power_outage")
    if flag(outage.get("simulate_power_outage"), f"{where}: {key}.power_outage.simulate_power_outage"):
        yield f"{key}: power outages"
    for device, known in DEVICE_TYPES.items():
        if block.get(device) is not None:
            config = mapping(block[device], f"{where}: {key}.{device}")
            if config.get("type") != known:
                yield f"{key}: {device} type {config.get('type')}"
            if flag(config.get("autosize"), f"{where}: {key}.{device}.autosize"):
                yield f"{key}: {device} autosize"
    for charger, config in (block.get("chargers") or {}).items():
        if config.get("type") != CHARGER_TYPE:
            yield f"{key}.chargers.{charger}: charger type {config.get('type')}"
        if _noisy(config):
            yield f"{key}.chargers.{charger}: noise_std"


def _noisy(block: Mapping[str, Any]) -> bool:
    value = block.get("noise_std")
    return isinstance(value, (int, float)) and value > 0
