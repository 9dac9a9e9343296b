"""Checking the time series of a schema folder: columns, calendar, energy, weather and prices."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from iquitos_rl.cases.check_tables import Files, Report, Table, and_more
from iquitos_rl.cases.iquitos.write import WEATHER_NAMES
from iquitos_rl.cases.site import Bools, Floats

REQUIRED_COLUMNS = (
    "month",
    "hour",
    "day_type",
    "indoor_dry_bulb_temperature",
    "non_shiftable_load",
    "dhw_demand",
    "cooling_demand",
    "heating_demand",
    "solar_generation",
)
OPTIONAL_COLUMNS = (
    "minutes",
    "seconds",
    "daylight_savings_status",
    "average_unmet_cooling_setpoint_difference",
    "indoor_relative_humidity",
    "occupant_count",
    "indoor_dry_bulb_temperature_cooling_set_point",
    "indoor_dry_bulb_temperature_heating_set_point",
    "hvac_mode",
    "power_outage",
    "comfort_band",
)
PREDICTED = ("", "_predicted_1", "_predicted_2", "_predicted_3")
WEATHER_COLUMNS = tuple(name + suffix for name in WEATHER_NAMES for suffix in PREDICTED)
PRICING_COLUMNS = tuple("electricity_pricing" + suffix for suffix in PREDICTED)


def check_building_columns(table: Table, report: Report) -> bool:
    columns = set(table.frame.columns)
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    report.errors.extend(f"{table.name}: column {column} is missing" for column in missing)
    for column in table.frame.columns:
        if column not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS:
            report.errors.append(f"{table.name}: unknown column {column!r}, CityLearn stops at it")
    return not missing


def check_calendar(table: Table, step: float, report: Report) -> None:
    """Hours advance by the step, months change at midnight and have their days."""
    month, hour = table.numbers("month", report), table.numbers("hour", report)
    day_type = table.numbers("day_type", report)
    minutes = table.numbers("minutes", report) if "minutes" in table.frame.columns else np.zeros(table.rows)
    for name, values, low, high in (("month", month, 1, 12), ("hour", hour, 0, 24), ("day_type", day_type, 1, 8)):
        out = (values < low) | (values > high) | (values != np.round(values))
        if (out & np.isfinite(values)).any():
            row = int(np.argmax(out))
            report.errors.append(f"{table.at(row)}: {name} is {values[row]:g}, not a whole number from {low} to {high}")
            return
    if not (np.isfinite(month).all() and np.isfinite(hour).all() and np.isfinite(minutes).all()):
        return
    moment = hour * 3600 + minutes * 60
    passed = np.diff(moment) % 86400
    wrong = passed != step % 86400
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        rows_per_hour = round(table.rows / (1 + int((np.diff(hour) != 0).sum())))
        hint = f"; these look like {60 // rows_per_hour} minute rows read as hourly ones" if rows_per_hour > 1 else ""
        report.errors.append(
            f"{table.at(row)}: the clock goes on by {passed[row - 1] / 3600:g} h, seconds_per_time_step says "
            f"{step / 3600:g} h{hint}{and_more(wrong)}"
        )
        return
    midnight = np.concatenate(([False], np.diff(moment) < 0))
    changes = np.concatenate(([False], np.diff(month) != 0))
    early = changes & ~midnight
    if early.any():
        row = int(np.argmax(early))
        report.errors.append(
            f"{table.at(row)}: month changes to {month[row]:g} at hour {hour[row]:g}, not at midnight; is the month "
            f"column shifted against the data?{and_more(early)}"
        )
        return
    _check_months(table, month, changes, step, report)
    days = np.concatenate(([False], np.diff(day_type) != 0)) & ~midnight
    if days.any():
        row = int(np.argmax(days))
        report.errors.append(
            f"{table.at(row)}: day_type changes at hour {hour[row]:g}, not at midnight{and_more(days)}"
        )


def _check_months(table: Table, month: Floats, changes: Bools, step: float, report: Report) -> None:
    starts = np.flatnonzero(changes)
    lengths = {1: (31,), 2: (28, 29), 3: (31,), 4: (30,), 5: (31,), 6: (30,)}
    lengths |= {7: (31,), 8: (31,), 9: (30,), 10: (31,), 11: (30,), 12: (31,)}
    for row in starts:
        if month[row] != month[row - 1] % 12 + 1:
            report.errors.append(f"{table.at(row)}: month {month[row]:g} follows month {month[row - 1]:g}")
            return
    for row, end in pairwise(starts):
        days = (end - row) * step / 86400
        if days not in lengths[int(month[row])]:
            report.errors.append(
                f"{table.at(row)}: month {month[row]:g} lasts {days:g} days; is the month column shifted against the "
                "data?"
            )
            return
    if len(starts):
        days = starts[0] * step / 86400
        if days < max(lengths[int(month[0])]) - 1.0 and days not in lengths[int(month[0])]:
            report.warnings.append(
                f"{table.at(0)}: the data begin in month {month[0]:g}, {days:g} days before it ends; check that the "
                "month column is not shifted against the data"
            )


def check_same_calendar(reference: Table, table: Table, report: Report) -> None:
    for column in ("month", "hour", "day_type"):
        differ = reference.text(column) != table.text(column)
        if len(differ) and differ.any():
            row = int(np.argmax(differ))
            report.errors.append(
                f"{table.at(row)}: {column} is {table.text(column)[row]}, {reference.name} has "
                f"{reference.text(column)[row]}{and_more(differ)}"
            )


def check_energy(name: str, building: Mapping[str, Any], table: Table, step: float, report: Report) -> None:
    load = table.numbers("non_shiftable_load", report)
    generation = table.numbers("solar_generation", report)
    for column in ("dhw_demand", "cooling_demand", "heating_demand"):
        table.numbers(column, report)
    for column, values in (("non_shiftable_load", load), ("solar_generation", generation)):
        negative = values < 0
        if negative.any():
            row = int(np.argmax(negative))
            report.errors.append(f"{table.at(row)}: {column} is negative ({values[row]:g}){and_more(negative)}")
    year = table.rows * step / (8760 * 3600)
    report.figures[f"{name} load_kwh"] = float(np.nansum(load))
    report.figures[f"{name} load_max_kw"] = float(np.nanmax(load)) * 3600 / step
    pv = building.get("pv") or {}
    attributes = pv.get("attributes") or {}
    if not pv or attributes.get("generation_mode", "per_kw") != "per_kw" or not np.nanmax(generation) > 0:
        return
    peak, hours = float(np.nanmax(generation)), float(np.nansum(generation)) * step / 3600 / 1000
    if peak <= 2:
        report.errors.append(
            f"{table.name}: solar_generation peaks at {peak:.3g}: CityLearn wants W per kW of nameplate, this looks "
            "like kWh per kWp, 1000 times too small"
        )
    elif peak > 1500:
        row = int(np.nanargmax(generation))
        report.errors.append(
            f"{table.at(row)}: solar_generation is {peak:,.0f} W per kW, more than the nameplate gives; is it kW of "
            "the whole plant?"
        )
    elif not 300 <= hours / year <= 2600:
        report.warnings.append(f"{table.name}: solar_generation yields {hours / year:,.0f} kWh per kW and year")
    report.figures[f"{name} pv_kwh_per_kw"] = hours
    if isinstance(attributes.get("nominal_power"), (int, float)):
        report.figures[f"{name} pv_kwh"] = hours * attributes["nominal_power"]
    hour = table.numbers("hour", Report())
    night = np.nansum(generation[np.isin(hour % 24, (22, 23, 0, 1, 2, 3))])
    if night > 0.02 * np.nansum(generation):
        report.warnings.append(
            f"{table.name}: {100 * night / np.nansum(generation):.0f} % of solar_generation falls in the night"
        )


def check_shared_files(name: str, building: Mapping[str, Any], files: Files, report: Report) -> None:
    for key, columns in (
        ("weather", WEATHER_COLUMNS),
        ("pricing", PRICING_COLUMNS),
        ("carbon_intensity", ("carbon_intensity",)),
    ):
        if building.get(key) is None and key != "weather":
            report.warnings.append(f"schema.json: {name}: no {key}, CityLearn takes zeros")
            continue
        seen = len(report.errors)
        table = files.read(building.get(key), f"{key} of {name}")
        if table is None:
            continue
        for column in columns:
            if column not in table.frame.columns:
                report.errors.append(f"{table.name}: column {column} is missing")
        for column in table.frame.columns:
            if column not in columns:
                report.errors.append(f"{table.name}: unknown column {column!r}, CityLearn stops at it")
            else:
                table.numbers(column, report)
        # Buildings share these files: one mistake is told once.
        report.errors[seen:] = [text for text in report.errors[seen:] if text not in report.errors[:seen]]
