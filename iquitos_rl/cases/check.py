"""Validating a CityLearn 3.0.2 schema folder before anything is trained on it.

CityLearn reads most mistakes without a word: a blank state disconnects a charger, a misspelled attribute becomes 50 kW,
an omitted battery parameter is drawn at random. Each of them is named here, with file and line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.check_series import (
    WEATHER_COLUMNS,
    check_building_columns,
    check_calendar,
    check_energy,
    check_same_calendar,
    check_shared_files,
)
from iquitos_rl.cases.check_sockets import Schedule, check_chargers, check_shared_vehicles
from iquitos_rl.cases.check_tables import Files, Report, Table
from iquitos_rl.cases.iquitos.calibration import horizontal_irradiance
from iquitos_rl.cases.iquitos.presets import SiteSettings
from iquitos_rl.cases.iquitos.solar import Calendar, sun_position
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError

SCHEMA_KEYS = (
    "central_agent",
    "simulation_start_time_step",
    "simulation_end_time_step",
    "seconds_per_time_step",
    "observations",
    "actions",
    "reward_function",
    "buildings",
)
BATTERY_PARAMETERS = (
    "efficiency",
    "loss_coefficient",
    "capacity_loss_coefficient",
    "depth_of_discharge",
    "initial_soc",
    "power_efficiency_curve",
    "capacity_power_curve",
)
VEHICLE_DEFAULTS = {"loss_coefficient": 0.0, "depth_of_discharge": 1.0}
"""What CityLearn takes for a vehicle battery without drawing."""


def check_case(folder: Path) -> Report:
    """Check every file of a schema folder.

    Returns:
        Report of errors (the folder must not be used), warnings (it may, knowing this) and figures.

    Raises:
        UserError: there is no schema.json, or it is not JSON.
    """
    report = Report()
    schema = _read_json(folder / "schema.json")
    if not _check_schema(schema, report):
        return report
    first, last = schema["simulation_start_time_step"], schema["simulation_end_time_step"]
    files = Files(folder / str(schema.get("root_directory") or ""), first, last, report)
    vehicles = _check_vehicles(schema.get("electric_vehicles_def") or {}, report)
    schedules: list[tuple[Schedule, Mapping[str, Any]]] = []
    reference: Table | None = None
    for name, building in schema["buildings"].items():
        if not isinstance(building, Mapping) or building.get("include") is False:
            continue
        table = files.read(building.get("energy_simulation"), f"energy_simulation of {name}")
        if table is not None and check_building_columns(table, report):
            step = float(schema["seconds_per_time_step"])
            if reference is None:
                check_calendar(table, step, report)
            else:
                check_same_calendar(reference, table, report)
            reference = reference or table
            check_energy(name, building, table, step, report)
        check_shared_files(name, building, files, report)
        _check_devices(name, building, schema["actions"], report)
        chargers = building.get("chargers") or {}
        read = check_chargers(name, chargers, vehicles, files, report)
        schedules += [(schedule, chargers[schedule.charger].get("attributes") or {}) for schedule in read]
    if reference is not None:
        report.figures["rows"] = reference.rows
        report.figures["days"] = reference.rows * float(schema["seconds_per_time_step"]) / 86400
    check_shared_vehicles([schedule for schedule, _ in schedules], report)
    _visit_figures(schedules, vehicles, report)
    _check_performance_ratio(folder, schema, files, report)
    _check_tariff(folder, report)
    return report


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON in UTF-8: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold one object")
    return content


def _check_schema(schema: Mapping[str, Any], report: Report) -> bool:
    """False where the rest of the check would have nothing to go by."""
    missing = [key for key in SCHEMA_KEYS if key not in schema]
    report.errors.extend(f"schema.json: key {key} is missing" for key in missing)
    seed = schema.get("random_seed")
    if seed is None:
        report.warnings.append("schema.json: no random_seed, CityLearn draws another one each run")
    elif seed == 0:
        report.warnings.append("schema.json: random_seed 0 makes every random episode start at the same row")
    for section in ("observations", "actions"):
        for key in schema.get(section) or {}:
            if key.startswith("washing_machine") and schema[section][key].get("active"):
                report.errors.append(
                    f"schema.json: {section} {key}: CityLearn 3.0.2 fails on washing machines, delete it"
                )
    first, last = schema.get("simulation_start_time_step"), schema.get("simulation_end_time_step")
    step = schema.get("seconds_per_time_step", 3600)
    if isinstance(step, bool) or not isinstance(step, int | float) or not step > 0:
        report.errors.append(f"schema.json: seconds_per_time_step {step!r} is not a number of seconds")
        return False
    if not (type(first) is int and type(last) is int and 0 <= first < last):  # a bool is an int, and no row
        report.errors.append(
            f"schema.json: simulation_start_time_step {first!r} and _end_time_step {last!r} span no rows"
        )
        return False
    if not isinstance(schema.get("buildings"), Mapping) or not schema["buildings"]:
        report.errors.append("schema.json: buildings must hold at least one building")
        return False
    return not missing


def _check_vehicles(vehicles: Mapping[str, Any], report: Report) -> dict[str, Mapping[str, Any]]:
    """Name to battery attributes of the vehicles that CityLearn includes."""
    included = {}
    for name, vehicle in vehicles.items():
        if vehicle.get("include") is False:
            continue
        attributes = (vehicle.get("battery") or {}).get("attributes") or {}
        _check_battery(f"vehicle {name}", attributes, set(VEHICLE_DEFAULTS), report)
        included[name] = attributes
    return included


def _check_battery(where: str, attributes: Mapping[str, Any], defaulted: set[str], report: Report) -> None:
    for key in ("capacity", "nominal_power"):
        if not (isinstance(attributes.get(key), (int, float)) and attributes[key] > 0):
            report.errors.append(f"schema.json: {where}: {key} must be a number above 0, not {attributes.get(key)!r}")
    unknown = set(attributes) - {"capacity", "nominal_power", "phase_connection", "random_seed", *BATTERY_PARAMETERS}
    for key in sorted(unknown):
        report.errors.append(f"schema.json: {where}: unknown battery attribute {key!r}")
    omitted = [key for key in BATTERY_PARAMETERS if attributes.get(key) is None and key not in defaulted]
    if omitted:
        report.warnings.append(f"schema.json: {where}: CityLearn draws at random what is omitted: {', '.join(omitted)}")
    for key in ("efficiency", "depth_of_discharge", "initial_soc"):
        value = attributes.get(key)
        if isinstance(value, (int, float)) and not 0 <= value <= 1:
            report.errors.append(f"schema.json: {where}: {key} is {value:g}, it must lie between 0 and 1")
    curve = attributes.get("capacity_power_curve")
    if curve and curve[-1][1] < 0.5:
        report.warnings.append(
            f"schema.json: {where}: capacity_power_curve ends at {curve[-1][1]:g}, CityLearn applies it to "
            "discharge too, so a full battery delivers no more"
        )


def _check_devices(name: str, building: Mapping[str, Any], actions: Mapping[str, Any], report: Report) -> None:
    if building.get("washing_machines"):
        report.errors.append(f"schema.json: {name}: CityLearn 3.0.2 fails on washing_machines, delete the block")
    for device in ("electrical_storage", "pv"):
        if (building.get(device) or {}).get("autosize"):
            report.warnings.append(f"schema.json: {name}: {device} is autosized, its size is CityLearn's draw")
    storage = building.get("electrical_storage")
    if storage:
        if not storage.get("autosize"):
            _check_battery(f"{name} electrical_storage", storage.get("attributes") or {}, set(), report)
    elif (actions.get("electrical_storage") or {}).get("active") and "electrical_storage" not in (
        building.get("inactive_actions") or []
    ):
        report.errors.append(f"schema.json: {name}: action electrical_storage is active but there is no such device")


def _visit_figures(
    schedules: list[tuple[Schedule, Mapping[str, Any]]], vehicles: Mapping[str, Mapping[str, Any]], report: Report
) -> None:
    """Visits, energy, and the share that full power during the whole stay does not bring to the wanted SOC."""
    visits, needed, beyond = 0, 0.0, 0
    for schedule, attributes in schedules:
        rows = np.flatnonzero(schedule.begins)
        power = attributes.get("max_charging_power", 50.0) * attributes.get("efficiency", 1.0)
        for row in rows.tolist():
            battery = vehicles.get(str(schedule.vehicle[row]), {})
            capacity, efficiency = battery.get("capacity", 0.0), battery.get("efficiency") or 1.0
            arrival = schedule.arrival_soc[row]
            if np.isnan(arrival) and row > 0:
                arrival = schedule.arrival_soc[row - 1]
            missing = max(schedule.required_soc[row] - arrival, 0.0) * capacity
            visits += 1
            needed += missing if np.isfinite(missing) else 0.0
            reach = min(power, battery.get("nominal_power", power)) * schedule.stay[row] * efficiency**0.5
            beyond += bool(missing > reach * (1 + 1e-6))
    if visits and report.figures.get("days"):
        report.figures["visits_per_day"] = visits / report.figures["days"]
        report.figures["ev_needed_kwh_per_day"] = needed / report.figures["days"]
        report.figures["share_of_visits_out_of_reach"] = beyond / visits
        if beyond > 0.05 * visits:
            report.warnings.append(
                f"{100 * beyond / visits:.0f} % of the visits cannot reach their wanted SOC at full power in the stay"
            )


def _check_performance_ratio(folder: Path, schema: Mapping[str, Any], files: Files, report: Report) -> None:
    """PV energy against the irradiation; exact where case.json tells the place, else against diffuse plus direct."""
    place = _place(folder, report)
    for name, building in schema["buildings"].items():
        produced = report.figures.get(f"{name} pv_kwh_per_kw")
        unread = Report()
        weather = None if produced is None else files.read(building.get("weather"), "weather")
        series = None if produced is None else files.read(building.get("energy_simulation"), "energy_simulation")
        if produced is None or weather is None or series is None:
            continue
        if not set(WEATHER_COLUMNS) <= set(weather.frame.columns):
            continue
        dhi = np.nan_to_num(weather.numbers("diffuse_solar_irradiance", unread))
        dni = np.nan_to_num(weather.numbers("direct_solar_irradiance", unread))
        hours_per_row = float(schema["seconds_per_time_step"]) / 3600
        if place is not None and hours_per_row == 1:
            month, hour = series.numbers("month", unread), series.numbers("hour", unread)
            irradiation = horizontal_irradiance(dhi, dni, _zenith(month, hour, place)).sum() / 1000
            kind = "global irradiation"
        else:
            irradiation = (dhi + dni).sum() * hours_per_row / 1000
            kind = "diffuse and direct irradiation"
        if irradiation <= 0:
            report.warnings.append(f"{weather.name}: no solar irradiance, but solar_generation is not zero")
            continue
        report.figures[f"{name} pv_performance_ratio"] = produced / irradiation
        if produced > irradiation:
            report.warnings.append(
                f"{series.name}: PV of {produced:,.0f} kWh per kW from {irradiation:,.0f} kWh/m2 of {kind} is a "
                f"performance ratio of {produced / irradiation:.2f}, which no plant reaches"
            )


def _place(folder: Path, report: Report) -> SiteSettings | None:
    """Where the case lies, from case.json; its recorded warnings stay warnings."""
    if not (folder / "case.json").exists():
        return None
    record = _read_json(folder / "case.json")
    try:
        report.warnings.extend(f"case.json: {text}" for text in record.get("warnings", []))
        return SiteSettings.model_validate(record["settings"]["site"])
    except (KeyError, TypeError, ValueError):
        report.errors.append("case.json: settings.site is missing or not as this package writes it")
        return None


def _zenith(month: Floats, hour: Floats, place: SiteSettings) -> Floats:
    """(T,) sun zenith, degrees, of consecutive hours that begin on the first of their first month."""
    year = 2024 if (month == 2).sum() > 28 * 24 else 2018
    first = np.datetime64(f"{year}-{int(month[0]):02d}-01", "h") + (int(hour[0]) - 1) % 24
    return sun_position(Calendar(first + np.arange(len(month))), place, turbidity=4.0).zenith


def _check_tariff(folder: Path, report: Report) -> None:
    path = folder / "tariff.json"
    if not path.exists():
        return
    tariff = _read_json(path)
    hours = tariff.get("peak_hours")
    if not isinstance(hours, list) or not all(isinstance(hour, int) and 0 <= hour <= 23 for hour in hours):
        report.errors.append(f"tariff.json: peak_hours must be hours from 0 to 23, not {hours!r}")
    for key in ("demand_charge_peak", "demand_charge_off_peak"):
        if not isinstance(tariff.get(key), (int, float)) or tariff[key] < 0:
            report.errors.append(f"tariff.json: {key} must be a price per kW and month, not {tariff.get(key)!r}")
    if not isinstance(tariff.get("currency"), str):
        report.errors.append(f"tariff.json: currency must be a text, not {tariff.get('currency')!r}")
