"""The names that CityLearn 3.0.2 knows: columns of its files, observations and actions."""

from __future__ import annotations

from iquitos_rl.cases.thermal import END_USES

CALENDAR = ("month", "hour", "day_type")
DEMANDS = tuple(f"{use}_demand" for use in END_USES)
BUILDING_COLUMNS = (*CALENDAR, "indoor_dry_bulb_temperature", "non_shiftable_load", *DEMANDS, "solar_generation")
OPTIONAL_COLUMNS = (
    "daylight_savings_status",
    "average_unmet_cooling_setpoint_difference",
    "indoor_relative_humidity",
    "occupant_count",
    "indoor_dry_bulb_temperature_cooling_set_point",
    "indoor_dry_bulb_temperature_heating_set_point",
    "hvac_mode",
    "power_outage",
    "comfort_band",
    "minutes",
    "seconds",
)
LEADS = ("", "_predicted_1", "_predicted_2", "_predicted_3")
WEATHER_COLUMNS = tuple(
    f"{quantity}{lead}"
    for quantity in (
        "outdoor_dry_bulb_temperature",
        "outdoor_relative_humidity",
        "diffuse_solar_irradiance",
        "direct_solar_irradiance",
    )
    for lead in LEADS
)
PRICE_COLUMNS = tuple(f"electricity_pricing{lead}" for lead in LEADS)
CARBON_COLUMN = "carbon_intensity"
STORAGES = (*(f"{use}_storage" for use in END_USES), "electrical_storage")
ACTIONS = (*STORAGES, "cooling_device", "heating_device", "cooling_or_heating_device")
WITHOUT_STORAGE = "net_electricity_consumption_without_storage"
OBSERVATIONS = frozenset(
    (
        *(BUILDING_COLUMNS + OPTIONAL_COLUMNS + WEATHER_COLUMNS + PRICE_COLUMNS),
        CARBON_COLUMN,
        *(f"{storage}_{what}" for storage in STORAGES for what in ("soc", "electricity_consumption")),
        *(f"{use}_{what}" for use in END_USES for what in ("device_efficiency", "electricity_consumption")),
        *(f"indoor_dry_bulb_temperature_{use}_delta" for use in ("cooling", "heating")),
        *("net_electricity_consumption", WITHOUT_STORAGE, f"{WITHOUT_STORAGE}_and_partial_load"),
        f"{WITHOUT_STORAGE}_and_partial_load_and_pv",
        "occupant_interaction_indoor_dry_bulb_temperature_set_point_delta",
    )
)
"""Those of a building alone (`building.py`, estimate_observation_space_limits)."""


def knows_observation(name: str) -> bool:
    """Whether CityLearn can show it. What is named after chargers and appliances is only made where there are some."""
    made = name.startswith(("deferrable_appliance_", "escalator_", "charging_")) or "electric_vehicle_" in name
    return made or name in OBSERVATIONS


def knows_action(name: str) -> bool:
    made = name.startswith(("deferrable_appliance", "escalator")) or "electric_vehicle_" in name
    return made or name in ACTIONS
