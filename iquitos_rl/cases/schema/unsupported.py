"""What a schema asks for that only CityLearn simulates, feature by feature, for the district engine to refuse."""

from __future__ import annotations

from collections.abc import Iterator

from iquitos_rl.cases.schema.appliances import ACTION, APPLIANCE
from iquitos_rl.cases.schema.occupants import OCCUPANT, OCCUPANT_BUILDING, TREES, has_occupant
from iquitos_rl.cases.schema.thermal import DEVICE_TYPES as THERMAL_TYPES
from iquitos_rl.cases.schema.thermal import LSTM, LSTM_BUILDING, RELIABILITY
from iquitos_rl.cases.schema.values import Block, is_number
from iquitos_rl.cases.thermal import THERMAL_ACTIONS

BUILDING_PARTS = ("escalators",)
BUILDING_TYPES = (
    *(None, "citylearn.citylearn.Building", "citylearn.building.Building"),
    *(LSTM_BUILDING, OCCUPANT_BUILDING),
)
DEVICE_TYPES = {
    "electrical_storage": ("citylearn.energy_model.Battery",),
    "pv": ("citylearn.energy_model.PV",),
    **THERMAL_TYPES,
}
CHARGER_TYPE = "citylearn.electric_vehicle_charger.Charger"
VEHICLE_TYPES = (None, "citylearn.citylearn.ElectricVehicle", "citylearn.electric_vehicle.ElectricVehicle")
PICKLES = "trees that are pickles"
ACTIONS = ("electrical_storage", "electric_vehicle_storage", ACTION, *THERMAL_ACTIONS)


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


def building_features(building: Block, actions: list[str]) -> Iterator[str]:
    """Features of one building.

    Args:
        actions: its active actions.
    """
    key = building.path
    if building.get("type") not in BUILDING_TYPES:
        yield f"{key}: building type {building.get('type')}"
    yield from (f"{key}: {part}" for part in BUILDING_PARTS if building.get(part))
    yield from (f"{key}: action {action}" for action in actions if action not in ACTIONS)
    if _noisy(building):
        yield f"{key}: noise_std"
    yield from _outage_features(building)
    yield from _occupant_features(building)
    yield from _network_features(building)
    for name, known in DEVICE_TYPES.items():
        device = building.child(name)
        if name in building and device.get("type") not in known:
            yield f"{key}: {name} type {device.get('type')}"
        if name not in THERMAL_TYPES and device.flag("autosize"):
            yield f"{key}: {name} autosize"
    for charger, config in building.child("chargers").children():
        if config.get("type") != CHARGER_TYPE:
            yield f"{key}.chargers.{charger}: charger type {config.get('type')}"
        if _noisy(config):
            yield f"{key}.chargers.{charger}: noise_std"
    for _, appliance in building.child("deferrable_appliances").children():
        if appliance.get("type", APPLIANCE) != APPLIANCE:
            yield f"{appliance.path}: appliance type {appliance.get('type')}"


def _outage_features(building: Block) -> Iterator[str]:
    outage = building.child("power_outage")
    if outage.flag("simulate_power_outage") and outage.flag("stochastic_power_outage"):
        model = outage.child("stochastic_power_outage_model")
        if model.get("type") != RELIABILITY or "random_seed" not in model.child("attributes"):
            yield f"{building.path}: power outages without the seeded model {RELIABILITY}"


def _occupant_features(building: Block) -> Iterator[str]:
    occupant = building.child("occupant")
    if has_occupant(building) and occupant.get("type") != OCCUPANT:
        yield f"{occupant.path}: type {occupant.get('type')}"
    elif has_occupant(building) and TREES not in occupant:
        yield f"{occupant.path}: {PICKLES}"


def _network_features(building: Block) -> Iterator[str]:
    network = building.child("dynamics")
    if "dynamics" in building and network.get("type") != LSTM:
        yield f"{network.path}: type {network.get('type')}"


def _noisy(block: Block) -> bool:
    value = block.get("noise_std", 0.0)
    if not is_number(value):
        block.error(f"noise_std must be a number, not {value!r}")
        return False
    return value > 0
