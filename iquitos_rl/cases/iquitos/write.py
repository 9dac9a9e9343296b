"""Writes a case folder: schema.json, the CSV files, tariff.json and case.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iquitos_rl.cases.iquitos.presets import BessSettings, CaseSettings, TariffSettings, VehicleSettings
from iquitos_rl.cases.iquitos.solar import LEADS, WEATHER_NAMES, Calendar
from iquitos_rl.cases.iquitos.visits import CHARGER_HEADER, Visits, charger_lines, socket_counts
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.machine.files import new_folder

SHARED_OBSERVATIONS = (
    "month",
    "day_type",
    "hour",
    *(f"{name}{suffix}" for name in WEATHER_NAMES for suffix in ("", "_predicted_1", "_predicted_2", "_predicted_3")),
    "carbon_intensity",
    "electricity_pricing",
    *(f"electricity_pricing_predicted_{number}" for number in (1, 2, 3)),
)
OWN_OBSERVATIONS = ("non_shiftable_load", "solar_generation", "electrical_storage_soc", "net_electricity_consumption")
SOCKET_OBSERVATIONS = (
    "electric_vehicle_charger_connected_state",
    "connected_electric_vehicle_at_charger_departure_time",
    "connected_electric_vehicle_at_charger_required_soc_departure",
    "connected_electric_vehicle_at_charger_soc",
    "connected_electric_vehicle_at_charger_battery_capacity",
    "electric_vehicle_charger_incoming_state",
    "incoming_electric_vehicle_at_charger_estimated_arrival_time",
    "incoming_electric_vehicle_at_charger_estimated_soc_arrival",
)
FULL_POWER = [[0.0, 1.0], [1.0, 1.0]]
"""Power curve without a taper: CityLearn applies the curve to discharging too, so a taper towards full charge would
also limit the discharge of a full battery."""


def write_case(
    output: Path,
    settings: CaseSettings,
    calendar: Calendar,
    load_kwh: Floats,
    pv_kw: Floats,
    weather: Mapping[str, Floats],
    visits: tuple[Visits, ...],
    provenance: Mapping[str, Any],
) -> Path:
    """Write the folder and return it.

    Args:
        load_kwh: (T,) kWh per hour.
        pv_kw: (T,) AC kW, the mean of the hour.
        weather: the 16 columns of weather.csv.
        provenance: what case.json says before the settings.

    Raises:
        UserError: the output folder is not empty or not writable.
    """
    # What the bill needs besides the hourly price.
    tariff = {"currency", "peak_hours", "demand_charge_peak", "demand_charge_off_peak"}
    with new_folder(output) as folder:
        zeros = np.zeros(calendar.rows, np.int64)
        columns: dict[str, Floats | Ints] = {
            "month": calendar.month,
            "hour": calendar.hour + 1,
            "day_type": calendar.day_type,
            "daylight_savings_status": zeros,
            "indoor_dry_bulb_temperature": zeros + 25,
            "non_shiftable_load": load_kwh.round(3),
            "dhw_demand": zeros,
            "cooling_demand": zeros,
            "heating_demand": zeros,
            "solar_generation": (1000 * pv_kw / settings.pv.dc_kw).round(3),
        }
        _write_csv(folder / "Building_1.csv", columns)
        _write_csv(folder / "weather.csv", {name: values.round(2) for name, values in weather.items()})
        _write_csv(folder / "pricing.csv", price_columns(calendar.hour, settings.tariff))
        _write_csv(folder / "carbon_intensity.csv", {"carbon_intensity": zeros + settings.carbon.kg_per_kwh})
        for kind in visits:
            for socket in range(socket_counts(settings)[kind.kind][0]):
                name = socket_name(kind.kind, socket)
                text = CHARGER_HEADER + "".join(charger_lines(kind, socket, calendar.rows, f"ev_{name}"))
                (folder / f"{name}.csv").write_text(text, encoding="utf-8", newline="\n")
        _write_json(folder / "schema.json", schema(settings, calendar.rows))
        _write_json(folder / "tariff.json", settings.tariff.model_dump(mode="json", include=tariff))
        _write_json(folder / "case.json", {**provenance, "settings": settings.model_dump(mode="json")})
    return Path(output)


def socket_name(kind: str, socket: int) -> str:
    return f"{kind}_{socket + 1:03d}"


def price_columns(hour: Ints, tariff: TariffSettings) -> dict[str, Floats]:
    """The four columns of pricing.csv; predictions are the exact tariff 6, 12 and 24 hours ahead."""

    def price(at: Ints) -> Floats:
        return np.where(np.isin(at, tariff.peak_hours), tariff.energy_peak, tariff.energy_off_peak)

    ahead = {f"electricity_pricing_predicted_{n}": price((hour + lead) % 24) for n, lead in enumerate(LEADS, start=1)}
    return {"electricity_pricing": price(hour)} | ahead


def schema(settings: CaseSettings, rows: int) -> dict[str, Any]:
    """The content of schema.json for CityLearn 3.0.2: one building, one battery, one vehicle per socket."""
    chargers: dict[str, Any] = {}
    vehicles: dict[str, Any] = {}
    for kind, (count, power, capacity, _) in socket_counts(settings).items():
        for socket in range(count):
            name = socket_name(kind, socket)
            chargers[name] = {
                "type": "citylearn.electric_vehicle_charger.Charger",
                "charger_simulation": f"{name}.csv",
                "attributes": {
                    "efficiency": settings.sockets.efficiency,
                    "max_charging_power": power,
                    "min_charging_power": 0.0,
                    "max_discharging_power": 0.0,
                    "min_discharging_power": 0.0,
                },
            }
            battery = battery_block(capacity, power, settings.vehicles)
            vehicles[f"ev_{name}"] = {"include": True, "battery": battery}
    seen = (*SHARED_OBSERVATIONS, *OWN_OBSERVATIONS, *(SOCKET_OBSERVATIONS if chargers else ()))
    observations = {n: {"active": True, "shared_in_central_agent": n in SHARED_OBSERVATIONS} for n in seen}
    actions = ("electrical_storage", *(("electric_vehicle_storage",) if chargers else ()))
    building = {
        "include": True,
        "energy_simulation": "Building_1.csv",
        "weather": "weather.csv",
        "carbon_intensity": "carbon_intensity.csv",
        "pricing": "pricing.csv",
        "inactive_observations": [],
        "inactive_actions": [],
        "electrical_storage": battery_block(settings.bess.capacity_kwh, settings.bess.power_kw, settings.bess),
        "pv": {
            "type": "citylearn.energy_model.PV",
            "autosize": False,
            "attributes": {"nominal_power": settings.pv.dc_kw},
        },
        "chargers": chargers,
    }
    return {
        "random_seed": 2024,
        "root_directory": None,
        "central_agent": True,
        "simulation_start_time_step": 0,
        "simulation_end_time_step": rows - 1,
        "episode_time_steps": None,
        "rolling_episode_split": False,
        "random_episode_split": False,
        "seconds_per_time_step": 3600,
        "observations": observations,
        "actions": {name: {"active": True} for name in actions},
        "agent": {"type": "citylearn.agents.base.BaselineAgent", "attributes": {}},
        "reward_function": {"type": "citylearn.reward_function.RewardFunction", "attributes": {}},
        "electric_vehicles_def": vehicles,
        "buildings": {"Building_1": building},
    }


def battery_block(capacity: float, power: float, settings: BessSettings | VehicleSettings) -> dict[str, Any]:
    """A battery of so many kWh and kW with all parameters and constant curves."""
    round_trip = settings.round_trip_efficiency
    return {
        "type": "citylearn.energy_model.Battery",
        "autosize": False,
        "attributes": {
            "capacity": capacity,
            "nominal_power": power,
            "initial_soc": settings.initial_soc,
            "depth_of_discharge": settings.depth_of_discharge,
            "efficiency": round_trip,
            "loss_coefficient": settings.loss_coefficient,
            "capacity_loss_coefficient": settings.capacity_loss_coefficient,
            "power_efficiency_curve": [[0.0, round_trip], [1.0, round_trip]],
            "capacity_power_curve": FULL_POWER,
        },
    }


def _write_csv(path: Path, columns: Mapping[str, Floats | Ints]) -> None:
    pd.DataFrame(columns).to_csv(path, index=False, encoding="utf-8", lineterminator="\n")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
