"""Writes a case folder: schema.json, the CSV files, tariff.json and case.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from iquitos_rl.cases.iquitos.presets import CaseSettings, TariffSettings
from iquitos_rl.cases.iquitos.solar import LEADS, Calendar
from iquitos_rl.cases.iquitos.visits import CHARGER_COLUMNS, Visits, charger_lines, socket_counts
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.machine.files import new_folder
from iquitos_rl.version import __version__

WEATHER_NAMES = (
    "outdoor_dry_bulb_temperature",
    "outdoor_relative_humidity",
    "diffuse_solar_irradiance",
    "direct_solar_irradiance",
)
SHARED_OBSERVATIONS = (
    "month",
    "day_type",
    "hour",
    *(f"{name}{suffix}" for name in WEATHER_NAMES for suffix in ("", "_predicted_1", "_predicted_2", "_predicted_3")),
    "carbon_intensity",
    "electricity_pricing",
    *(f"electricity_pricing_predicted_{number}" for number in (1, 2, 3)),
)
OWN_OBSERVATIONS = (
    "non_shiftable_load",
    "solar_generation",
    "electrical_storage_soc",
    "net_electricity_consumption",
)
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


@dataclass(frozen=True)
class CaseData:
    """The content of a case folder."""

    name: str
    year_seed: int
    settings: CaseSettings
    calendar: Calendar
    load_kwh: Floats
    """(T,) kWh per hour."""
    pv_kw: Floats
    """(T,) AC kW, the mean of the hour."""
    weather: Mapping[str, Floats]
    """The 16 columns of weather.csv."""
    visits: tuple[Visits, ...]
    provenance: Mapping[str, Any]
    """Further keys of case.json: warnings, key figures, assumptions."""


def write_case(data: CaseData, output: Path) -> Path:
    """Write the folder and return it.

    Raises:
        UserError: the output folder is not empty or not writable.
    """
    settings, calendar = data.settings, data.calendar
    with new_folder(output) as folder:
        zeros = np.zeros(calendar.rows, np.int64)
        _write_csv(
            folder / "Building_1.csv",
            {
                "month": calendar.month,
                "hour": calendar.hour + 1,
                "day_type": calendar.day_type,
                "daylight_savings_status": zeros,
                "indoor_dry_bulb_temperature": zeros + 25,
                "non_shiftable_load": data.load_kwh.round(3),
                "dhw_demand": zeros,
                "cooling_demand": zeros,
                "heating_demand": zeros,
                "solar_generation": (1000 * data.pv_kw / settings.pv.dc_kw).round(3),
            },
        )
        _write_csv(folder / "weather.csv", {name: values.round(2) for name, values in data.weather.items()})
        _write_csv(folder / "pricing.csv", price_columns(calendar.hour, settings.tariff))
        _write_csv(folder / "carbon_intensity.csv", {"carbon_intensity": zeros + settings.carbon.kg_per_kwh})
        for visits in data.visits:
            for socket in range(socket_counts(settings)[visits.kind][0]):
                lines = charger_lines(visits, socket, calendar.rows, vehicle_name(visits.kind, socket))
                text = ",".join(CHARGER_COLUMNS) + "\n" + "".join(lines)
                (folder / f"{socket_name(visits.kind, socket)}.csv").write_text(text, encoding="utf-8", newline="\n")
        _write_json(folder / "schema.json", schema(settings, calendar.rows))
        _write_json(folder / "tariff.json", tariff_file(settings.tariff))
        _write_json(
            folder / "case.json",
            {
                "preset": data.name,
                "year_seed": data.year_seed,
                "package_version": __version__,
                **data.provenance,
                "settings": settings.model_dump(mode="json"),
            },
        )
    return Path(output)


def socket_name(kind: str, socket: int) -> str:
    return f"{kind}_{socket + 1:03d}"


def vehicle_name(kind: str, socket: int) -> str:
    return f"ev_{kind}_{socket + 1:03d}"


def price_columns(hour: Ints, tariff: TariffSettings) -> dict[str, Floats]:
    """The four columns of pricing.csv; predictions are the exact tariff 6, 12 and 24 hours ahead."""

    def price(at: Ints) -> Floats:
        return np.where(np.isin(at, tariff.peak_hours), tariff.energy_peak, tariff.energy_off_peak)

    columns = {"electricity_pricing": price(hour)}
    for number, lead in enumerate(LEADS, start=1):
        columns[f"electricity_pricing_predicted_{number}"] = price((hour + lead) % 24)
    return columns


def tariff_file(tariff: TariffSettings) -> dict[str, Any]:
    """The content of tariff.json: what the bill needs besides the hourly price."""
    kept = {"currency", "peak_hours", "demand_charge_peak", "demand_charge_off_peak"}
    return tariff.model_dump(mode="json", include=kept)


def schema(settings: CaseSettings, rows: int) -> dict[str, Any]:
    """The content of schema.json for CityLearn 3.0.2: one building, one battery, one vehicle per socket."""
    bess, vehicles = settings.bess, settings.vehicles
    chargers: dict[str, Any] = {}
    vehicle_definitions: dict[str, Any] = {}
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
            vehicle_definitions[vehicle_name(kind, socket)] = {
                "include": True,
                "battery": battery_block(
                    capacity=capacity,
                    nominal_power=power,
                    initial_soc=vehicles.initial_soc,
                    depth_of_discharge=vehicles.depth_of_discharge,
                    efficiency=vehicles.round_trip_efficiency,
                    loss_coefficient=vehicles.loss_coefficient,
                    capacity_loss_coefficient=vehicles.capacity_loss_coefficient,
                ),
            }
    observations = (*SHARED_OBSERVATIONS, *OWN_OBSERVATIONS, *(SOCKET_OBSERVATIONS if chargers else ()))
    actions = ("electrical_storage", *(("electric_vehicle_storage",) if chargers else ()))
    building = {
        "include": True,
        "energy_simulation": "Building_1.csv",
        "weather": "weather.csv",
        "carbon_intensity": "carbon_intensity.csv",
        "pricing": "pricing.csv",
        "inactive_observations": [],
        "inactive_actions": [],
        "electrical_storage": battery_block(
            capacity=bess.capacity_kwh,
            nominal_power=bess.power_kw,
            initial_soc=max(bess.initial_soc, 1 - bess.depth_of_discharge),
            depth_of_discharge=bess.depth_of_discharge,
            efficiency=bess.round_trip_efficiency,
            loss_coefficient=bess.loss_coefficient,
            capacity_loss_coefficient=bess.capacity_loss_coefficient,
        ),
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
        "observations": {
            name: {"active": True, "shared_in_central_agent": name in SHARED_OBSERVATIONS} for name in observations
        },
        "actions": {name: {"active": True} for name in actions},
        "agent": {"type": "citylearn.agents.base.BaselineAgent", "attributes": {}},
        "reward_function": {"type": "citylearn.reward_function.RewardFunction", "attributes": {}},
        "electric_vehicles_def": vehicle_definitions,
        "buildings": {"Building_1": building},
    }


def battery_block(**attributes: float) -> dict[str, Any]:
    """A battery with all parameters and constant curves; `efficiency` is the round trip."""
    eta = attributes["efficiency"]
    return {
        "type": "citylearn.energy_model.Battery",
        "autosize": False,
        "attributes": {
            **attributes,
            "power_efficiency_curve": [[0.0, eta], [1.0, eta]],
            "capacity_power_curve": FULL_POWER,
        },
    }


def _write_csv(path: Path, columns: Mapping[str, Floats | Ints]) -> None:
    pd.DataFrame(columns).to_csv(path, index=False, encoding="utf-8", lineterminator="\n")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
