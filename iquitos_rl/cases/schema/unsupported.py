"""What a schema asks for that only CityLearn simulates, feature by feature, for the district engine to refuse."""

from __future__ import annotations

from collections.abc import Iterator

from iquitos_rl.cases.schema.tables import Table
from iquitos_rl.cases.schema.values import Block, is_number

DEMANDS = ("dhw_demand", "cooling_demand", "heating_demand")
BUILDING_PARTS = ("dynamics", "occupant", "deferrable_appliances", "escalators")
BUILDING_TYPES = (None, "citylearn.citylearn.Building", "citylearn.building.Building")
DEVICE_TYPES = {"electrical_storage": "citylearn.energy_model.Battery", "pv": "citylearn.energy_model.PV"}
CHARGER_TYPE = "citylearn.electric_vehicle_charger.Charger"
VEHICLE_TYPES = (None, "citylearn.citylearn.ElectricVehicle", "citylearn.electric_vehicle.ElectricVehicle")
ELECTRICAL_ACTIONS = ("electrical_storage", "electric_vehicle_storage")


def site_features(schema: Block) -> Iterator[str]:
    """Features of the whole district."""
    for key in ("community_market", "demand_response", "robustness"):
        if schema.child(key).flag("enabled"):
            yield key
    if schema.get("topology_mode") == "dynamic":
        yield "topology_mode dynamic"
    if schema.flag("terminal_observation_padding"):
        yield "terminal_observation_padding"
    for name, vehicle in schema.child("electric_vehicles_def").children():
        if vehicle.get("type") not in VEHICLE_TYPES:
            yield f"electric_vehicles_def.{name}: vehicle type {vehicle.get('type')}"


def building_features(building: Block, energy: Table, actions: list[str]) -> Iterator[str]:
    """Features of one building.

    Args:
        energy: its `energy_simulation` file.
        actions: its active actions.
    """
    key = building.path
    if building.get("type") not in BUILDING_TYPES:
        yield f"{key}: building type {building.get('type')}"
    yield from (f"{key}: {demand}" for demand in DEMANDS if energy.numbers(demand).any())
    yield from (f"{key}: {part}" for part in BUILDING_PARTS if building.get(part))
    yield from (f"{key}: action {action}" for action in actions if action not in ELECTRICAL_ACTIONS)
    if _noisy(building):
        yield f"{key}: noise_std"
    if building.child("power_outage").flag("simulate_power_outage"):
        yield f"{key}: power outages"
    for name, known in DEVICE_TYPES.items():
        device = building.child(name)
        if name in building and device.get("type") != known:
            yield f"{key}: {name} type {device.get('type')}"
        if device.flag("autosize"):
            yield f"{key}: {name} autosize"
    for charger, config in building.child("chargers").children():
        if config.get("type") != CHARGER_TYPE:
            yield f"{key}.chargers.{charger}: charger type {config.get('type')}"
        if _noisy(config):
            yield f"{key}.chargers.{charger}: noise_std"


def _noisy(block: Block) -> bool:
    value = block.get("noise_std", 0.0)
    if not is_number(value):
        block.error(f"noise_std must be a number, not {value!r}")
        return False
    return value > 0
