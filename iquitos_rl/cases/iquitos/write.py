"""Writes a case folder: schema.json, the CSV files, tariff.json and case.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.outlook import LEADS, WEATHER_NAMES
from iquitos_rl.cases.iquitos.presets import BessSettings, CaseSettings, TariffSettings, VehicleSettings
from iquitos_rl.cases.iquitos.visits import CHARGER_HEADER, Visits, charger_lines, socket_counts
from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.cases.tariff import Tariff
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


class Rates(NamedTuple):
    """What the settings do not say about a bill; None leaves it to them."""

    price: Floats | None = None
    """(T,) currency per kWh."""
    carbon: Floats | None = None
    """(T,) kg of CO2 per kWh."""
    tariff: Tariff | None = None
    """Everything else that is paid."""


@dataclass(frozen=True)
class Socket:
    """One socket with the vehicles that come to it."""

    name: str
    power_kw: float
    discharge_kw: float
    vehicles: Mapping[str, float]
    """Name to battery capacity, kWh."""
    lines: Sequence[str]
    """Of its charger file, one per row; none where no vehicle ever comes."""


def preset_sockets(settings: CaseSettings, visits: Sequence[Visits], rows: int) -> list[Socket]:
    """The sockets of the settings with the visits that were drawn for them, one vehicle each."""
    drawn = {kind.kind: kind for kind in visits}
    sockets = []
    for kind, (count, power, capacity, _) in socket_counts(settings).items():
        for number in range(count):
            name = f"{kind}_{number + 1:03d}"
            lines = charger_lines(drawn[kind], number, rows, f"ev_{name}") if kind in drawn else ()
            sockets.append(Socket(name, power, 0.0, {f"ev_{name}": capacity}, lines))
    return sockets


def write_case(
    output: Path,
    settings: CaseSettings,
    calendar: Calendar,
    load_kwh: Floats,
    pv_kw: Floats,
    weather: Mapping[str, Floats],
    sockets: Sequence[Socket],
    provenance: Mapping[str, Any],
    rates: Rates = Rates(),
    daylight: Ints | None = None,
) -> Path:
    """Write the folder and return it.

    Args:
        load_kwh: (T,) kWh per row.
        pv_kw: (T,) AC kW, the mean of the row.
        weather: the 16 columns of weather.csv.
        provenance: what case.json says before the settings.
        rates: prices and charges; those of the settings by default.
        daylight: (T,) 1 where daylight saving holds; nowhere by default.

    Raises:
        UserError: the output folder is not empty or not writable.
    """
    price, carbon = rates.price, rates.carbon
    # What the bill needs besides the hourly price.
    short = {"currency", "peak_hours", "demand_charge_peak", "demand_charge_off_peak"}
    tariff = settings.tariff.model_dump(mode="json", include=short)
    if rates.tariff is not None:
        tariff |= rates.tariff.model_dump(mode="json", include=short)
        tariff |= rates.tariff.model_dump(mode="json", exclude=short, exclude_defaults=True)
    with new_folder(output) as folder:
        zeros = np.zeros(calendar.rows, np.int64)
        intensity = zeros + settings.carbon.kg_per_kwh if carbon is None else carbon
        digits = 3 if load_kwh.mean() > 100 else 6  # a home's quarter hour is some tens of Wh
        # CityLearn tells the data's step by the first two rows, and knows no half hours without minutes.
        minutes = {} if calendar.seconds == 3600 else {"minutes": (calendar.clock_hours * 60 % 60).astype(np.int64)}
        columns: dict[str, Floats | Ints] = {
            "month": calendar.month,
            "hour": calendar.hour + 1,
            **minutes,
            "day_type": calendar.day_type,
            "daylight_savings_status": zeros if daylight is None else daylight,
            "indoor_dry_bulb_temperature": zeros + 25,
            "non_shiftable_load": load_kwh.round(digits),
            "dhw_demand": zeros,
            "cooling_demand": zeros,
            "heating_demand": zeros,
            "solar_generation": (1000 * pv_kw / settings.pv.dc_kw).round(3) if settings.pv.dc_kw else zeros,
        }
        _write_csv(folder / "Building_1.csv", columns)
        _write_csv(folder / "weather.csv", {name: values.round(2) for name, values in weather.items()})
        _write_csv(
            folder / "pricing.csv",
            price_columns(calendar, tariff_price(calendar.hour, settings.tariff) if price is None else price),
        )
        _write_csv(
            folder / "carbon_intensity.csv",
            {"carbon_intensity": intensity},
        )
        for socket in sockets:
            if socket.lines:
                text = CHARGER_HEADER + "".join(socket.lines)
                (folder / f"{socket.name}.csv").write_text(text, encoding="utf-8", newline="\n")
        _write_json(folder / "schema.json", schema(settings, calendar, sockets))
        _write_json(folder / "tariff.json", tariff)
        _write_json(folder / "case.json", {**provenance, "settings": settings.model_dump(mode="json")})
    return Path(output)


def tariff_price(hour: Ints, tariff: TariffSettings) -> Floats:
    """(T,) currency per kWh of rows in these hours of the day."""
    return np.where(np.isin(hour, tariff.peak_hours), tariff.energy_peak, tariff.energy_off_peak)


def price_columns(calendar: Calendar, price: Floats) -> dict[str, Floats]:
    """The four columns of pricing.csv; predictions are the exact prices 6, 12 and 24 hours ahead."""
    ahead = {
        f"electricity_pricing_predicted_{n}": np.roll(price, -calendar.steps(lead))
        for n, lead in enumerate(LEADS, start=1)
    }
    return {"electricity_pricing": price} | ahead


def schema(settings: CaseSettings, calendar: Calendar, sockets: Sequence[Socket]) -> dict[str, Any]:
    """The content of schema.json for CityLearn 3.0.2: one building; a device that is not there is left out."""
    chargers: dict[str, Any] = {}
    vehicles: dict[str, Any] = {}
    for socket in sockets:
        chargers[socket.name] = {
            "type": "citylearn.electric_vehicle_charger.Charger",
            "charger_simulation": f"{socket.name}.csv",
            "attributes": {
                "efficiency": settings.sockets.efficiency,
                "max_charging_power": socket.power_kw,
                "min_charging_power": 0.0,
                "max_discharging_power": socket.discharge_kw,
                "min_discharging_power": 0.0,
            },
        }
        for vehicle, capacity in socket.vehicles.items():
            battery = battery_block(capacity, socket.power_kw, settings.vehicles)
            vehicles[vehicle] = {"include": True, "battery": battery}
    seen = (*SHARED_OBSERVATIONS, *OWN_OBSERVATIONS, *(SOCKET_OBSERVATIONS if chargers else ()))
    stores, produces = settings.bess.capacity_kwh > 0, settings.pv.dc_kw > 0
    absent = set() if stores else {"electrical_storage_soc"}
    observations = {
        n: {"active": True, "shared_in_central_agent": n in SHARED_OBSERVATIONS} for n in seen if n not in absent
    }
    storage = {"electrical_storage": battery_block(settings.bess.capacity_kwh, settings.bess.power_kw, settings.bess)}
    plant = {
        "pv": {
            "type": "citylearn.energy_model.PV",
            "autosize": False,
            "attributes": {"nominal_power": settings.pv.dc_kw},
        }
    }
    building = {
        "include": True,
        "energy_simulation": "Building_1.csv",
        "weather": "weather.csv",
        "carbon_intensity": "carbon_intensity.csv",
        "pricing": "pricing.csv",
        "inactive_observations": [],
        "inactive_actions": [],
        **(storage if stores else {}),
        **(plant if produces else {}),
        "chargers": chargers,
    }
    if settings.site.connection_kw is not None:
        limits = {"total": {"import_kw": settings.site.connection_kw}}
        building["electrical_service"] = {"mode": "single_phase", "limits": limits}
    actions = [
        *(["electrical_storage"] if stores else []),
        *(["electric_vehicle_storage"] if chargers else []),
    ]
    return {
        "random_seed": 2024,
        "root_directory": None,
        "central_agent": True,
        "simulation_start_time_step": 0,
        "simulation_end_time_step": calendar.rows - 1,
        "episode_time_steps": None,
        "rolling_episode_split": False,
        "random_episode_split": False,
        "seconds_per_time_step": calendar.seconds,
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
