"""Whether what a schema folder says can be true: on top of what `cases/schema` reads, all of it warnings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.calibration import horizontal_irradiance
from iquitos_rl.cases.iquitos.presets import SiteSettings
from iquitos_rl.cases.iquitos.solar import sun_position
from iquitos_rl.cases.schema.reader import Reading, load_json, read_folder
from iquitos_rl.cases.schema.report import Report
from iquitos_rl.cases.schema.schedules import ARRIVAL_SOC, DEPARTURE, NONE, REQUIRED, Schedule
from iquitos_rl.cases.schema.tables import Table
from iquitos_rl.cases.schema.values import Block, is_number
from iquitos_rl.cases.site import CONNECTED, Floats, Site
from iquitos_rl.cases.tariff import read_tariff
from iquitos_rl.errors import UserError

DAYS = {month: (28, 29) if month == 2 else (30,) if month in (4, 6, 9, 11) else (31,) for month in range(1, 13)}

SHIFTED = "is the month column shifted against the data?"


def check_case(folder: Path) -> Report:
    """Read a schema folder and look at what it says.

    Its errors are those for which `read_site` raises, and those of tariff.json and case.json, which only this package
    reads. Where the folder has errors, what is only implausible is not looked for.

    Raises:
        UserError: there is no schema.json, or a JSON file is not JSON.
    """
    reading = read_folder(folder)
    report = reading.report
    place = _place(folder, report)
    if reading.site is not None:
        site, hours = reading.site, reading.site.hours_per_step
        record = _record(folder)
        report.figures |= {"rows": site.rows, "days": site.rows * hours / 24}
        first, *others = reading.energy.values()
        _check_clock(first, hours, dated="first" in record)
        for table in others:
            _check_same_calendar(first, table)
        for name, table in reading.energy.items():
            _check_energy(name, reading.blocks[name], table, hours, report)
            if record.get("weather") != "made up":
                _check_irradiation(name, table, reading.weather[name], hours, place, report)
        _check_tapers(reading)
        for schedule in reading.schedules:
            _check_schedule(schedule)
        _check_copies(reading.schedules)
        _visit_figures(site, reading.schedules, report)
    _check_tariff(folder, report)
    return report


def _record(folder: Path) -> dict[str, Any]:
    """What case.json says, nothing where there is none."""
    return load_json(folder / "case.json") if (folder / "case.json").exists() else {}


def _check_clock(table: Table, hours: float, dated: bool) -> None:
    """Hours advance by the step, months change at midnight and have their days.

    Args:
        dated: whether the folder says on which day it begins, which need not be the first of a month.
    """
    month, hour, day_type, minutes = (numbers(table, name) for name in ("month", "hour", "day_type", "minutes"))
    clock = hour + minutes / 60
    # A clock that is put forward or back says so in this column.
    daylight = numbers(table, "daylight_savings_status") if "daylight_savings_status" in table else np.zeros(len(clock))
    passed = (np.diff(clock) - np.diff(daylight)) % 24
    wrong = np.append(False, np.abs(passed - hours % 24) > 1e-6)
    if wrong.any():
        goes = passed[int(np.argmax(wrong)) - 1]
        message = f"the clock goes on by {goes:g} h, seconds_per_time_step says {hours:g} h"
        return table.note("warning", "hour", wrong, message)
    midnight, changes = np.append(False, np.diff(clock) < 0), np.append(False, np.diff(month) != 0)
    early = changes & ~midnight
    if early.any():
        row = int(np.argmax(early))
        message = f"it changes to {month[row]:g} at hour {hour[row]:g}, not at midnight; {SHIFTED}"
        return table.note("warning", "month", early, message)
    _check_months(table, month, np.flatnonzero(changes).tolist(), hours, dated)
    noon = np.append(False, np.diff(day_type) != 0) & ~midnight
    table.note("warning", "day_type", noon, f"it changes at hour {hour[int(np.argmax(noon))]:g}, not at midnight")
    return None


def numbers(table: Table, column: str) -> Floats:
    return table.numbers(column).astype(np.float64)


def _check_months(table: Table, month: Floats, starts: list[int], hours: float, dated: bool) -> None:
    def warn(row: int, message: str) -> None:
        table.report.add("warning", table.name, message, "month", table.line(row))

    for row in starts:
        if month[row] != month[row - 1] % 12 + 1:
            return warn(row, f"month {month[row]:g} follows month {month[row - 1]:g}")
    for row, end in pairwise(starts):
        days = round((end - row) * hours / 24 * 8) / 8  # an hour more or less where the clock is changed
        if days not in DAYS[int(month[row])]:
            return warn(row, f"month {month[row]:g} lasts {days:g} days; {SHIFTED}")
    if starts and not dated:
        days, whole = starts[0] * hours / 24, DAYS[int(month[0])]
        if days < max(whole) - 1.0 and days not in whole:
            warn(0, f"the data begin in month {month[0]:g}, {days:g} days before it ends; {SHIFTED}")
    return None


def _check_same_calendar(reference: Table, table: Table) -> None:
    for column in ("month", "hour", "day_type"):
        own, other = table.numbers(column), reference.numbers(column)
        row = int(np.argmax(own != other))
        message = f"{own[row]:g}, {reference.name} has {other[row]:g}; the first building's calendar is used"
        table.note("warning", column, own != other, message, kind="calendar")


def _check_energy(name: str, block: Block, table: Table, hours: float, report: Report) -> None:
    load, generation = numbers(table, "non_shiftable_load"), numbers(table, "solar_generation")
    for column, values in (("non_shiftable_load", load), ("solar_generation", generation)):
        table.note("warning", column, values < 0, f"negative ({values.min():g} at least)", kind="negative")
    report.figures[f"{name} load_kwh"] = float(load.sum())
    report.figures[f"{name} load_max_kw"] = float(load.max()) / hours
    attributes = block.child("pv").child("attributes")
    peak, produced = float(generation.max()), float(generation.sum()) * hours / 1000
    if "pv" not in block or attributes.get("generation_mode", "per_kw") != "per_kw" or not peak > 0:
        return

    def warn(message: str, kind: str) -> None:
        report.add("warning", table.name, message, "solar_generation", kind=kind)

    per_year = produced / (table.rows * hours / 8760)
    if peak <= 2:
        warn(
            f"it peaks at {peak:.3g}: CityLearn wants W per kW of nameplate, this looks like kWh per kWp, 1000 times "
            "too small",
            "kWh",
        )
    elif peak > 1500:
        many = "W per kW, more than the nameplate gives; is it kW of the whole plant?"
        table.note("warning", "solar_generation", generation > 1500, f"{peak:,.0f} {many}", kind="kW")
    elif not 300 <= per_year <= 2600:
        warn(f"it yields {per_year:,.0f} kWh per kW and year", "yield")
    night = generation[np.isin(table.numbers("hour") % 24, (22, 23, 0, 1, 2, 3))].sum() / generation.sum()
    if night > 0.02:
        warn(f"{100 * night:.0f} % of solar_generation falls in the night", "night")
    report.figures[f"{name} pv_kwh_per_kw"] = produced
    report.figures[f"{name} pv_kwh"] = produced * attributes.number("nominal_power", 0, np.inf, default=0.0)


def _check_irradiation(
    name: str, series: Table, weather: Table, hours: float, place: SiteSettings | None, report: Report
) -> None:
    """PV energy against the irradiation; exact where case.json tells the place, else against diffuse plus direct."""
    produced = report.figures.get(f"{name} pv_kwh_per_kw")
    if produced is None:
        return
    dhi, dni = (numbers(weather, f"{part}_solar_irradiance") for part in ("diffuse", "direct"))
    if place is not None and hours == 1:
        zenith = _zenith(numbers(series, "month"), numbers(series, "hour"), place)
        irradiation = horizontal_irradiance(dhi, dni, zenith).sum() / 1000
        what = "global irradiation"
    else:
        irradiation, what = (dhi + dni).sum() * hours / 1000, "diffuse and direct irradiation"
    if irradiation <= 0:
        report.add("warning", weather.name, "no solar irradiance, but solar_generation is not zero")
        return
    report.figures[f"{name} pv_performance_ratio"] = produced / irradiation
    if produced > irradiation:
        message = (
            f"PV of {produced:,.0f} kWh per kW from {irradiation:,.0f} kWh/m2 of {what} is a performance ratio of "
            f"{produced / irradiation:.2f}, which no plant reaches"
        )
        report.add("warning", series.name, message, kind="performance ratio")


def _place(folder: Path, report: Report) -> SiteSettings | None:
    """Where the case lies, from case.json; its recorded warnings stay warnings."""
    record = _record(folder)
    if not record:
        return None
    try:
        place = SiteSettings.model_validate(record["settings"]["site"])
        for text in record.get("warnings", []):
            report.add("warning", "case.json", str(text))
    except (KeyError, TypeError, ValueError):
        report.add("error", "case.json", "settings.site is missing or not as this package writes it")
        return None
    return place


def _zenith(month: Floats, hour: Floats, place: SiteSettings) -> Floats:
    """(T,) sun zenith, degrees, of consecutive hours that begin on the first of their first month."""
    year = 2024 if (month == 2).sum() > 28 * 24 else 2018
    first = np.datetime64(f"{year}-{int(month[0]):02d}-01", "h") + (int(hour[0]) - 1) % 24
    return sun_position(Calendar(first + np.arange(len(month))), place, turbidity=4.0).zenith


def _check_tapers(reading: Reading) -> None:
    owners = [block.child("electrical_storage") for block in reading.blocks.values()]
    owners += [vehicle.child("battery") for _, vehicle in reading.schema.child("electric_vehicles_def").children()]
    for attributes in (owner.child("attributes") for owner in owners):
        curve = attributes.curve("capacity_power_curve") if "capacity_power_curve" in attributes else None
        if curve is not None and curve[1, -1] < 0.5:
            effect = "CityLearn applies it to discharge too, so a full battery delivers no more"
            attributes.warning(f"capacity_power_curve ends at {curve[1, -1]:g}, {effect}", kind="taper")


def _check_schedule(schedule: Schedule) -> None:
    table, countdown, begins = schedule.table, schedule.countdown, schedule.starts
    connected = schedule.vehicle != NONE
    blank = "blank while a vehicle is connected"
    table.note("warning", DEPARTURE, connected & np.isnan(countdown), blank)
    table.note("warning", REQUIRED, connected & np.isnan(schedule.required_soc), blank)
    for column in (REQUIRED, ARRIVAL_SOC):
        raw = table.numbers(column, blank_allowed=True)
        table.note("warning", column, raw > 100, f"{np.nanmax(raw, initial=0):g} %, CityLearn takes 100 %", kind="over")
        fraction = (raw > 0) & (raw <= 1) & (raw > 1).any()
        value = raw[int(np.argmax(fraction))]
        message = f"{value:g} in a file of percentages, CityLearn reads it as {100 * value:g} %"
        table.note("warning", column, fraction, message, kind="fraction")
    soc = schedule.soc_at_arrival
    differ = np.append(False, begins[1:] & (schedule.state[:-1] != CONNECTED) & (np.abs(soc[:-1] - soc[1:]) > 1e-6))
    row = int(np.argmax(differ))
    message = f"{soc[row]:g}, but {soc[row - 1]:g} on the line before, which CityLearn takes"
    table.note("warning", ARRIVAL_SOC, differ, message, kind="two arrival SOCs")
    jumps = np.append(False, connected[1:] & ~begins[1:] & (np.abs(np.diff(countdown) + 1) > 0.5))
    row = int(np.argmax(jumps))
    message = f"it goes from {countdown[row - 1]:g} to {countdown[row]:g}, it should count down by 1"
    table.note("warning", DEPARTURE, jumps, message, kind="jump")
    last = np.append(connected[:-1] & (begins[1:] | ~connected[1:]) & (countdown[:-1] > 0), False)
    message = f"{countdown[int(np.argmax(last))]:g} on the last connected row, it should end at 0"
    table.note("warning", DEPARTURE, last, message)


def _check_copies(schedules: tuple[Schedule, ...]) -> None:
    seen: dict[bytes, str] = {}
    for schedule in schedules:
        connected = schedule.vehicle != NONE
        content = np.concatenate((connected, np.nan_to_num(schedule.soc_at_arrival))).tobytes()
        if connected.any() and content in seen:
            message = f"it repeats the visits of {seen[content]}: its vehicles come and go as copies"
            schedule.table.report.add("warning", schedule.table.name, message, kind="copy")
        seen.setdefault(content, schedule.table.name)


def _visit_figures(site: Site, schedules: tuple[Schedule, ...], report: Report) -> None:
    """Visits, energy, and the share that full power during the whole stay does not bring to the wanted SOC."""
    visits, needed, beyond = 0, 0.0, 0
    for (_, charger), schedule in zip(site.sockets, schedules, strict=True):
        rows = np.flatnonzero(schedule.starts)
        batteries = [site.vehicles[v].battery for v in charger.vehicle[rows]]
        attributes = [(battery.capacity, battery.efficiency, battery.nominal_power) for battery in batteries]
        capacity, efficiency, nominal = np.array(attributes).reshape(-1, 3).T
        arrival = schedule.soc_at_arrival[rows]
        arrival = np.where(np.isnan(arrival), schedule.soc_at_arrival[np.maximum(rows - 1, 0)], arrival)
        missing = np.nan_to_num((charger.required_soc[rows] - arrival).clip(min=0)) * capacity
        power = np.minimum(charger.max_charging_power * charger.efficiency, nominal) * efficiency**0.5
        visits += len(rows)
        needed += float(missing.sum())
        beyond += int((missing > power * (charger.departure[rows] + 1) * site.hours_per_step * (1 + 1e-6)).sum())
    if visits:
        report.figures["visits_per_day"] = visits / report.figures["days"]
        report.figures["ev_needed_kwh_per_day"] = needed / report.figures["days"]
        report.figures["share_of_visits_out_of_reach"] = beyond / visits
        if beyond > 0.05 * visits:
            share = f"{100 * beyond / visits:.0f} % of the visits"
            report.add("warning", "schema.json", f"{share} cannot reach their wanted SOC at full power in the stay")


def _check_tariff(folder: Path, report: Report) -> None:
    if not (folder / "tariff.json").exists():
        return
    tariff = load_json(folder / "tariff.json")
    hours = tariff.get("peak_hours")
    if not isinstance(hours, list) or not all(isinstance(hour, int) and 0 <= hour <= 23 for hour in hours):
        report.add("error", "tariff.json", f"peak_hours must be hours from 0 to 23, not {hours!r}")
    for key in ("demand_charge_peak", "demand_charge_off_peak"):
        value = tariff.get(key)
        if not is_number(value) or value < 0:
            report.add("error", "tariff.json", f"{key} must be a price per kW and month, not {value!r}")
    if not isinstance(tariff.get("currency"), str):
        report.add("error", "tariff.json", f"currency must be a text, not {tariff.get('currency')!r}")
    try:
        read_tariff(folder)
    except UserError as error:
        if not any(problem.file == "tariff.json" for problem in report.problems):
            report.add("error", "tariff.json", str(error))
