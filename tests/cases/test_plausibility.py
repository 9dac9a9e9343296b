"""The checker: sound folders pass, and every known trap in a file is named with file and line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.errors import UserError

STATE, VEHICLE, DEPARTURE, REQUIRED, ARRIVAL_TIME, ARRIVAL, SESSION = range(7)


class Folder:
    """A copy of a sound case that a test spoils. Lines count from 1, the header's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self, name: str) -> list[list[str]]:
        return [line.split(",") for line in (self.path / name).read_text(encoding="utf-8").splitlines()]

    def write(self, name: str, rows: list[list[str]]) -> None:
        (self.path / name).write_text("\n".join(map(",".join, rows)) + "\n", encoding="utf-8")

    def cell(self, name: str, line: int, column: int | str, text: str) -> None:
        rows = self.rows(name)
        rows[line - 1][column if isinstance(column, int) else rows[0].index(column)] = text
        self.write(name, rows)

    def column(self, name: str, column: str, change: Callable[[str], str]) -> None:
        rows = self.rows(name)
        place = rows[0].index(column)
        for row in rows[1:]:
            row[place] = change(row[place])
        self.write(name, rows)

    def schema(self, change: Callable[[dict[str, Any]], object]) -> None:
        path = self.path / "schema.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    def building(self, change: Callable[[dict[str, Any]], object]) -> None:
        self.schema(lambda schema: change(schema["buildings"]["Building_1"]))

    def arrival_line(self, name: str = "moto_001.csv", number: int = 10) -> int:
        """Line of the first connected row of a visit that comes after a free row."""
        rows = self.rows(name)
        found = [i + 1 for i in range(2, len(rows)) if rows[i][STATE] == "1" and rows[i - 1][STATE] == "2"]
        return found[number]


@pytest.fixture
def folder(small_case: Path, tmp_path: Path) -> Folder:
    shutil.copytree(small_case, tmp_path / "case")
    return Folder(tmp_path / "case")


def test_built_cases_pass(case_128: Path, case_38: Path) -> None:
    for path, visits in ((case_128, 370), (case_38, 309)):
        report = check_case(path)
        assert report.errors == []
        assert report.figures["visits_per_day"] == pytest.approx(visits, rel=0.02)
        recorded = json.loads((path / "case.json").read_text(encoding="utf-8"))
        assert report.warnings == [f"case.json: {text}" for text in recorded["warnings"]]
        for checked, built in (
            ("Building_1 load_kwh", "load_kwh"),
            ("Building_1 pv_kwh", "pv_kwh"),
            ("Building_1 pv_performance_ratio", "pv_performance_ratio"),
            ("ev_needed_kwh_per_day", "ev_needed_kwh_per_day"),
            ("visits_per_day", "visits_per_day"),
        ):
            assert report.figures[checked] == pytest.approx(recorded["figures"][built], rel=1e-3)


def drop_last_rows(name: str, count: int) -> Callable[[Folder], None]:
    return lambda folder: folder.write(name, folder.rows(name)[:-count])


def rename_attribute(folder: Folder) -> None:
    def change(building: dict[str, Any]) -> None:
        attributes = building["chargers"]["moto_002"]["attributes"]
        attributes["max_charge_power"] = attributes.pop("max_charging_power")

    folder.building(change)


def leap_year(folder: Folder) -> None:
    for name in ("Building_1.csv", "weather.csv", "pricing.csv", "carbon_intensity.csv"):
        rows = folder.rows(name)
        folder.write(name, rows + rows[-24:])


def repeat_hours(folder: Folder) -> None:
    """Every hour four times, as quarter-hour rows are."""
    rows = folder.rows("Building_1.csv")
    folder.write("Building_1.csv", [rows[0], *(row for row in rows[1:2191] for _ in range(4))])


def shift_months(hours: int) -> Callable[[Folder], None]:
    def shift(folder: Folder) -> None:
        rows = folder.rows("Building_1.csv")
        months = [row[0] for row in rows[1:]]
        for row, month in zip(rows[1:], months[-hours:] + months[:-hours]):
            row[0] = month
        folder.write("Building_1.csv", rows)

    return shift


def semicolons(folder: Folder) -> None:
    path = folder.path / "pricing.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")


def code_page(folder: Folder) -> None:
    path = folder.path / "weather.csv"
    path.write_bytes(path.read_bytes().replace(b"outdoor_dry", "tempér".encode("cp1252"), 1))


ERRORS: dict[str, tuple[Callable[[Folder], object], str]] = {
    "short weather": (drop_last_rows("weather.csv", 1), "weather.csv: 8759 data rows, the schema simulates 8760"),
    "short charger": (drop_last_rows("moto_001.csv", 24), "moto_001.csv: 8736 data rows, the schema simulates 8760"),
    "blank state": (
        lambda f: f.cell("moto_001.csv", 100, STATE, ""),
        "moto_001.csv, line 100: electric_vehicle_charger_state: the cell is blank, CityLearn would then disconnect "
        "every "
        "vehicle of this charger",
    ),
    "state with a point": (
        lambda f: f.cell("moto_001.csv", 100, STATE, "1.0"),
        "moto_001.csv, line 100: electric_vehicle_charger_state: '1.0': it must be the whole number 1 (connected), 2 "
        "(incoming) or 3 (away)",
    ),
    "unknown vehicle": (
        lambda f: f.cell("moto_001.csv", f.arrival_line(), VEHICLE, "ev_moto_1"),
        "vehicle 'ev_moto_1' is not in electric_vehicles_def, CityLearn leaves the charger empty",
    ),
    "misspelled attribute": (
        rename_attribute,
        "schema.json: buildings.Building_1.chargers.moto_002.attributes: unknown attribute 'max_charge_power', "
        "CityLearn "
        "ignores it; max_charging_power is probably meant",
    ),
    "another vehicle announced": (
        lambda f: f.cell("moto_001.csv", f.arrival_line() - 1, VEHICLE, "ev_moto_002"),
        "ev_moto_001 connects where ev_moto_002 was announced, CityLearn stops",
    ),
    "copied chargers": (
        lambda f: shutil.copy(f.path / "moto_001.csv", f.path / "moto_002.csv"),
        "vehicle 'ev_moto_001' is connected to chargers moto_001 and moto_002 at the same time",
    ),
    "unknown building column": (
        lambda f: f.cell("Building_1.csv", 1, "daylight_savings_status", "solar_kwh"),
        "Building_1.csv: unknown column 'solar_kwh', CityLearn stops at it",
    ),
    "missing building column": (
        lambda f: f.cell("Building_1.csv", 1, "dhw_demand", "minutes"),
        "Building_1.csv: column dhw_demand is missing",
    ),
    "missing weather column": (
        lambda f: f.cell("weather.csv", 1, "outdoor_dry_bulb_temperature_predicted_3", "outdoor_temperature"),
        "weather.csv: column outdoor_dry_bulb_temperature_predicted_3 is missing",
    ),
    "blank weather": (
        lambda f: f.cell("weather.csv", 50, "direct_solar_irradiance", ""),
        "weather.csv, line 50: direct_solar_irradiance: the cell is blank",
    ),
    "nan load": (
        lambda f: f.cell("Building_1.csv", 51, "non_shiftable_load", "NaN"),
        "Building_1.csv, line 51: non_shiftable_load: the cell is blank",
    ),
    "text in prices": (
        lambda f: f.cell("pricing.csv", 52, "electricity_pricing", "0,45".replace(",", "'")),
        'pricing.csv, line 52: electricity_pricing: "0\'45" is not a number',
    ),
    "infinite carbon": (
        lambda f: f.cell("carbon_intensity.csv", 53, "carbon_intensity", "inf"),
        "carbon_intensity.csv, line 53: carbon_intensity: inf is not a finite number",
    ),
    "quarter hours read as hours": (
        repeat_hours,
        "Building_1.csv, line 3: hour: the clock goes on by 0 h, seconds_per_time_step says 1 h; these look like 15 "
        "minute "
        "rows read as hourly ones (and 6569 more)",
    ),
    "hour out of range": (
        lambda f: f.cell("Building_1.csv", 60, "hour", "25"),
        "Building_1.csv, line 60: hour: 25 is not a whole number from 0 to 24",
    ),
    "washing machine action": (
        lambda f: f.schema(lambda s: s["actions"].update(washing_machine={"active": True})),
        "schema.json: written for an older CityLearn (action washing_machine); `iquitos-rl case upgrade ",
    ),
    "missing file": (
        lambda f: (f.path / "moto_002.csv").unlink(),
        "buildings.Building_1.chargers.moto_002: charger_simulation names moto_002.csv, which does not exist",
    ),
    "semicolons": (semicolons, "pricing.csv, line 1: columns are separated by semicolons, CityLearn reads commas"),
    "code page": (code_page, "weather.csv: not a readable CSV file in UTF-8: "),
    "battery action without battery": (
        lambda f: f.building(lambda b: b.pop("electrical_storage")),
        "schema.json: buildings.Building_1: action electrical_storage is active but the building has no battery",
    ),
    "battery typo": (
        lambda f: f.building(lambda b: b["electrical_storage"]["attributes"].update(eficiency=0.9)),
        "schema.json: buildings.Building_1.electrical_storage.attributes: a battery has no attribute 'eficiency'",
    ),
    "efficiency in percent": (
        lambda f: f.building(lambda b: b["electrical_storage"]["attributes"].update(efficiency=90)),
        "buildings.Building_1.electrical_storage.attributes: efficiency must be a number above 0 and at most 1, not 90",
    ),
    "missing key": (lambda f: f.schema(lambda s: s.pop("actions")), "schema.json: key actions is missing"),
    "tariff": (
        lambda f: (f.path / "tariff.json").write_text('{"currency": "PEN", "peak_hours": [24]}', encoding="utf-8"),
        "tariff.json: peak_hours must be hours from 0 to 23, not [24]",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_named(name: str, folder: Folder) -> None:
    spoil, message = ERRORS[name]
    spoil(folder)
    errors = check_case(folder.path).errors
    assert any(message in text for text in errors), errors
    # One mistake must not drown in its consequences.
    assert len(errors) <= 4, errors


def test_a_warning_at_an_arrival_names_its_line(folder: Folder) -> None:
    line = folder.arrival_line()
    before = folder.rows("moto_001.csv")[line - 1][ARRIVAL]
    folder.cell("moto_001.csv", line, ARRIVAL, "0.9")
    report = check_case(folder.path)
    assert report.errors == []
    assert report.warnings == [
        f"moto_001.csv, line {line}: electric_vehicle_estimated_soc_arrival: 0.9, but {float(before):g} on the line "
        "before, which CityLearn takes"
    ]


def omit_parameters(folder: Folder) -> None:
    def change(schema: dict[str, Any]) -> None:
        storage = schema["buildings"]["Building_1"]["electrical_storage"]["attributes"]
        for key in ("loss_coefficient", "power_efficiency_curve"):
            del storage[key]
        del schema["electric_vehicles_def"]["ev_moto_001"]["battery"]["attributes"]["efficiency"]

    folder.schema(change)


def autosize(folder: Folder) -> None:
    folder.building(lambda b: b["pv"].update(autosize=True))


def generate_at_night(folder: Folder) -> None:
    rows = folder.rows("Building_1.csv")
    generation = [row[-1] for row in rows[1:]]
    for row, value in zip(rows[1:], generation[10:] + generation[:10]):
        row[-1] = value
    folder.write("Building_1.csv", rows)


def all_leap(folder: Folder) -> None:
    for path in folder.path.glob("*.csv"):
        rows = folder.rows(path.name)
        folder.write(path.name, rows + rows[-24:])


WARNINGS: dict[str, tuple[Callable[[Folder], object], str]] = {
    "leap year in one place": (
        leap_year,
        "Building_1.csv: 8784 data rows, the schema simulates only 8760 (a leap year: drop 29 February from every "
        "file)",
    ),
    "arrival cells disagree": (
        lambda f: f.cell("moto_001.csv", f.arrival_line(), ARRIVAL, "0.9"),
        "on the line before, which CityLearn takes",
    ),
    "arrival missing before": (
        lambda f: f.cell("moto_001.csv", f.arrival_line() - 1, ARRIVAL, ""),
        "electric_vehicle_estimated_soc_arrival: blank where a vehicle connects",
    ),
    "soc beyond": (
        lambda f: f.cell("moto_001.csv", f.arrival_line(), REQUIRED, "140"),
        "electric_vehicle_required_soc_departure: 140 %, CityLearn takes 100 %",
    ),
    "soc as fraction among percentages": (
        lambda f: (
            f.column("moto_001.csv", "electric_vehicle_required_soc_departure", lambda c: c and f"{100 * float(c)}")
            or f.cell("moto_001.csv", f.arrival_line(), REQUIRED, "0.8")
        ),
        "electric_vehicle_required_soc_departure: 0.8 in a file of percentages, CityLearn reads it as 80 %",
    ),
    "negative load": (
        lambda f: f.cell("Building_1.csv", 54, "non_shiftable_load", "-1.5"),
        "Building_1.csv, line 54: non_shiftable_load: negative (-1.5 at least)",
    ),
    "kWh per kWp": (
        lambda f: f.column("Building_1.csv", "solar_generation", lambda c: f"{float(c) / 1000:.6f}"),
        "CityLearn wants W per kW of nameplate, this looks like kWh per kWp, 1000 times too small",
    ),
    "kW of the plant": (
        lambda f: f.column("Building_1.csv", "solar_generation", lambda c: f"{4.05 * float(c):.3f}"),
        "W per kW, more than the nameplate gives; is it kW of the whole plant?",
    ),
    "month shifted by hours": (
        shift_months(5),
        "month: it changes to 1 at hour 6, not at midnight; is the month column shifted against the data? (and 11 "
        "more)",
    ),
    "month shifted against its days": (
        lambda f: f.column("Building_1.csv", "month", lambda c: str(int(c) % 12 + 1)),
        "Building_1.csv, line 746: month: month 3 lasts 28 days; is the month column shifted against the data?",
    ),
    "weekday at noon": (
        lambda f: f.cell("Building_1.csv", 62, "day_type", "7"),
        "Building_1.csv, line 62: day_type: it changes at hour 13, not at midnight (and 1 more)",
    ),
    "washing machine": (
        lambda f: f.building(lambda b: b.update(washing_machines={"wm": {}})),
        "schema.json: buildings.Building_1: CityLearn 3.0.2 ignores washing_machines; `iquitos-rl case "
        "upgrade` makes appliances of them",
    ),
    "no departure time": (
        lambda f: f.cell("moto_001.csv", f.arrival_line(), DEPARTURE, ""),
        "electric_vehicle_departure_time: blank while a vehicle is connected",
    ),
    "omitted parameters": (
        omit_parameters,
        "schema.json: buildings.Building_1.electrical_storage.attributes: CityLearn draws at random what is omitted: "
        "power_efficiency_curve, loss_coefficient",
    ),
    "omitted vehicle parameter": (
        omit_parameters,
        "schema.json: electric_vehicles_def.ev_moto_001.battery.attributes: CityLearn draws at random what is "
        "omitted: efficiency",
    ),
    "autosize": (autosize, "schema.json: buildings.Building_1: pv is autosized, its size is CityLearn's draw"),
    "leap year everywhere": (
        all_leap,
        "Building_1.csv: 8784 data rows, the schema simulates only 8760 (a leap year: drop 29 February from every "
        "file) (and ",
    ),
    "seed zero": (
        lambda f: f.schema(lambda s: s.update(random_seed=0)),
        "schema.json: random_seed 0 makes every random episode start at the same row",
    ),
    "no seed": (
        lambda f: f.schema(lambda s: s.pop("random_seed")),
        "schema.json: no random_seed, CityLearn draws another one each run",
    ),
    "steep taper": (
        lambda f: f.building(
            lambda b: b["electrical_storage"]["attributes"].update(capacity_power_curve=[[0, 1], [0.8, 1], [1, 0.2]])
        ),
        "schema.json: buildings.Building_1.electrical_storage.attributes: capacity_power_curve ends at 0.2, "
        "CityLearn applies it to "
        "discharge too, so a full battery delivers no more",
    ),
    "month shifted by days": (
        shift_months(48),
        "Building_1.csv, line 2: month: the data begin in month 12, 2 days before it ends; is the month column shifted "
        "against the data?",
    ),
    "too much sun": (
        lambda f: f.column("Building_1.csv", "solar_generation", lambda c: f"{min(1.5 * float(c), 1000):.3f}"),
        "which no plant reaches",
    ),
    "charger default": (
        lambda f: f.building(lambda b: b["chargers"]["moto_001"]["attributes"].pop("max_charging_power")),
        "schema.json: buildings.Building_1.chargers.moto_001.attributes: no max_charging_power, CityLearn takes 50 kW",
    ),
    "countdown": (
        lambda f: f.cell("moto_001.csv", f.arrival_line(), DEPARTURE, "9"),
        "it should count down by 1",
    ),
    "night generation": (generate_at_night, "% of solar_generation falls in the night"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_warnings_are_given_and_are_no_errors(name: str, folder: Folder) -> None:
    spoil, message = WARNINGS[name]
    spoil(folder)
    report = check_case(folder.path)
    assert report.errors == []
    assert any(message in text for text in report.warnings), report.warnings


def test_two_buildings_should_share_their_calendar(folder: Folder) -> None:
    rows = folder.rows("Building_1.csv")
    rows[100][2] = "3"
    folder.write("Building_2.csv", rows)

    def second(schema: dict[str, Any]) -> None:
        building = json.loads(json.dumps(schema["buildings"]["Building_1"]))
        building.update(energy_simulation="Building_2.csv", chargers={})
        schema["buildings"]["Building_2"] = building

    folder.schema(second)
    own = rows[100][2]
    expected = folder.rows("Building_1.csv")[100][2]
    report = check_case(folder.path)
    assert report.errors == []
    message = (
        f"Building_2.csv, line 101: day_type: {own}, Building_1.csv has {expected}; the first building's calendar "
    )
    assert report.warnings == [f"{message}is used"]


def test_back_to_back_visits_need_their_own_arrival_soc(tmp_path: Path) -> None:
    overrides = {"sockets.moto_count": 1, "sockets.mototaxi_count": 0}
    folder = Folder(build_case("iquitos-38", 0, tmp_path / "case", overrides))
    rows = folder.rows("moto_001.csv")
    line = next(
        i + 1
        for i in range(2, 8760)
        if rows[i][STATE] == rows[i - 1][STATE] == "1" and rows[i][SESSION] != rows[i - 1][SESSION]
    )
    visits = check_case(folder.path).figures["visits_per_day"]
    folder.cell("moto_001.csv", line, ARRIVAL, "")
    report = check_case(folder.path)
    assert report.errors == []
    message = "electric_vehicle_estimated_soc_arrival: blank where a vehicle connects: it keeps the SOC that it had"
    assert f"moto_001.csv, line {line}: {message}" in report.warnings
    # Without session ids, visits of one hour that follow each other merge: the countdown stays at 0.
    folder.column("moto_001.csv", "electric_vehicle_session_id", lambda cell: "")
    assert check_case(folder.path).figures["visits_per_day"] < 0.9 * visits


def test_copied_visits_of_other_vehicles_are_warned_of(folder: Folder) -> None:
    text = (folder.path / "moto_001.csv").read_text(encoding="utf-8").replace("ev_moto_001", "ev_moto_002")
    (folder.path / "moto_002.csv").write_text(text, encoding="utf-8")
    report = check_case(folder.path)
    assert report.errors == []
    assert report.warnings == [
        "moto_002.csv: it repeats the visits of moto_001.csv: its vehicles come and go as copies"
    ]


def test_no_schema_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"schema\.json cannot be read: No such file"):
        check_case(tmp_path)
    (tmp_path / "schema.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"schema\.json is not JSON in UTF-8"):
        check_case(tmp_path)
