"""Cases made of metered files: what stands in the folder, and files that must be refused."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iquitos_rl.cases.metered.importer import Files, import_case
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.errors import UserError

SMALL = {"sockets.moto_count": 1, "sockets.mototaxi_count": 0}
START = datetime(2024, 1, 1)


def hourly_rows(hours: int = 8760) -> list[str]:
    """Stamped at the start, 29 February included, so 8,760 rows end on 30 December."""
    rows = ["datetime,mall_demand_kwh,mall_co2_indirect_kg,is_hora_punta,tarifa_soles_kwh,mall_cost_soles"]
    for hour in range(hours):
        kwh = 500 + hour % 24 * 10 + hour // 24
        rows.append(f"{START + timedelta(hours=hour)},{kwh},{kwh * 0.4521},0,0.3,{kwh * 0.3}")
    return rows


def quarter_rows(days: int = 61) -> list[str]:
    """15 minutes, stamped at the end, day first, in a leap year."""
    rows = ["FECHAHORA;kWh"]
    for quarter in range(days * 96):
        end = START + timedelta(minutes=15 * (quarter + 1))
        rows.append(f"{end.day}/{end.month:02d}/{end.year} {end.hour}:{end.minute:02d};{100 + quarter // 4 % 24}")
    return rows


def typical_rows(hours: int = 8760, year: int = 2024, offset: str = "-05:00") -> list[str]:
    header = "datetime,ghi_wm2,dni_wm2,dhi_wm2,temp_air_c,wind_speed_ms,dc_power_kw,ac_power_kw,dc_energy_kwh,"
    rows = [header + "ac_energy_kwh,is_hora_punta,ahorro_solar_soles,pv_kwh,pv_kw"]
    for hour in range(hours):
        sun = max(0.0, float(np.sin(np.pi * (hour % 24 - 5.9) / 12)))
        ghi, kw = 700 * sun, 2600 * sun
        stamp = datetime(year, 1, 1) + timedelta(hours=hour)
        cells = [ghi, 0.6 * ghi, 0.4 * ghi, 25 + 3 * sun, -0.04, kw / 0.9, kw, kw / 0.9, kw, 0, kw * 0.3, kw, kw]
        rows.append(f"{stamp}{offset}," + ",".join(f"{cell:.2f}" for cell in cells))
    return rows


def write(path: Path, rows: list[str], encoding: str = "utf-8") -> Path:
    path.write_text("\n".join(rows) + "\n", encoding=encoding)
    return path


def load_of(folder: Path) -> np.ndarray:
    return pd.read_csv(folder / "Building_1.csv")["non_shiftable_load"].to_numpy()


def test_hourly_file_is_taken_as_it_is(tmp_path: Path) -> None:
    rows = hourly_rows()
    rows[70 * 24 + 8 : 70 * 24 + 11] = [f"{START + timedelta(hours=70 * 24 + 7 + i)},0,0,0,0.3,0" for i in range(3)]
    file = write(tmp_path / "load.csv", rows)
    folder, notes = import_case(file, None, "iquitos-38", 0, tmp_path / "case", SMALL)
    expected = np.array([float(row.split(",")[1]) for row in rows[1:]])
    assert (load_of(folder) == expected).all()
    for sentence in (
        "load.csv: 8,760 rows of 60 minutes from 2024-01-01T00:00:00 to 2024-12-30T23:00:00, stamped at the start of "
        "the interval, for whole days",
        "load.csv: mall_demand_kwh read as kWh per interval",
        "load.csv: 3 hours of exactly zero kept as metered (longest 3 h from 2024-03-11T07:00)",
        "weather: no file with irradiance and temperature, the preset's synthetic year is used",
    ):
        assert sentence in notes
    building = pd.read_csv(folder / "Building_1.csv")
    assert (building["month"] == 2).sum() == 29 * 24
    assert building["day_type"][0] == 1
    assert check_case(folder).errors == []
    assert json.loads((folder / "case.json").read_text(encoding="utf-8"))["assumptions"] == notes


def test_quarter_hours_with_mark_semicolons_and_leap_day(tmp_path: Path) -> None:
    file = write(tmp_path / "load.csv", quarter_rows(), encoding="utf-8-sig")
    folder, notes = import_case(file, None, "iquitos-38", 0, tmp_path / "case", SMALL)
    load = load_of(folder)
    assert len(load) == 61 * 96
    assert (load == 100 + np.arange(61 * 96) // 4 % 24).all()
    assert json.loads((folder / "schema.json").read_text(encoding="utf-8"))["seconds_per_time_step"] == 900
    hours, _ = import_case(file, None, "iquitos-38", 0, tmp_path / "hours", SMALL, files=Files(minutes=60))
    # Four quarters of 100 + hour, not one and not the mean.
    assert (load_of(hours) == 4 * (100 + np.arange(61 * 24) % 24)).all()
    assert (pd.read_csv(hours / "Building_1.csv")["month"] == 2).sum() == 29 * 24
    for sentence in (
        "load.csv: byte-order mark skipped",
        "load.csv: columns are separated by semicolons",
        "load.csv: dates read as day/month/year",
        "load.csv: 5,856 rows of 15 minutes from 2024-01-01T00:15:00 to 2024-03-02T00:00:00, stamped at the end of "
        "the interval, for whole days",
    ):
        assert sentence in notes
    assert check_case(folder).errors == []


def test_power_is_averaged_where_energy_is_summed(tmp_path: Path) -> None:
    rows = quarter_rows(4)
    rows[0] = "FECHAHORA;demand_kW"
    folder, notes = import_case(
        write(tmp_path / "load.csv", rows), None, "iquitos-38", 0, tmp_path / "case", {**SMALL, "pv.dc_kw": 100.0}
    )
    assert (load_of(folder) == (100 + np.arange(384) // 4 % 24) / 4).all()
    assert "load.csv: demand_kW read as mean kW of the interval" in notes
    assert "load.csv: 4 days, the case is shorter than a year" in notes


def test_month_first_dates_are_told_by_their_span(tmp_path: Path) -> None:
    rows = ["time,kwh"]
    for hour in range(24 * 5):
        stamp = START + timedelta(hours=hour)
        rows.append(f"{stamp.month}/{stamp.day}/{stamp.year} {stamp.hour}:00,{hour * 7 % 11 + 1}")
    folder, notes = import_case(write(tmp_path / "load.csv", rows), None, "iquitos-38", 0, tmp_path / "case", SMALL)
    assert (load_of(folder) == np.arange(120) * 7 % 11 + 1).all()
    assert (pd.read_csv(folder / "Building_1.csv")["month"] == 1).all()
    assert "load.csv: dates read as month/day/year" in notes


def test_decimal_commas(tmp_path: Path) -> None:
    rows = [row + ",5" if number else row for number, row in enumerate(quarter_rows(3))]
    folder, notes = import_case(write(tmp_path / "load.csv", rows), None, "iquitos-38", 0, tmp_path / "case", SMALL)
    assert load_of(folder)[4 * 5] == 105.5
    assert "load.csv: numbers have a decimal comma" in notes


def test_typical_year_gives_pv_and_weather(tmp_path: Path) -> None:
    load, pv = write(tmp_path / "load.csv", hourly_rows(8784)), write(tmp_path / "pv.csv", typical_rows())
    folder, notes = import_case(load, pv, "iquitos-38", 0, tmp_path / "case", SMALL, files=Files(minutes=60))
    building, weather = pd.read_csv(folder / "Building_1.csv"), pd.read_csv(folder / "weather.csv")
    table = [row.split(",") for row in typical_rows()[1:]]
    assert len(building) == 8760
    assert np.allclose(building["solar_generation"] * 4050 / 1000, [float(row[12]) for row in table], atol=0.01)
    assert np.allclose(weather["direct_solar_irradiance"], [float(row[2]) for row in table], atol=0.01)
    assert np.allclose(weather["outdoor_dry_bulb_temperature"], [float(row[4]) for row in table], atol=0.01)
    for sentence in (
        "pv.csv: stamps state UTC-5, turned into local time (UTC-5)",
        "pv.csv: pv_kwh read as kWh per interval",
        "pv.csv: ghi from column ghi_wm2",
        "pv.csv: temperature from column temp_air_c",
        # The load file reaches to 31 December, the other one does not.
        "pv.csv: shares 365 of the 366 days of load.csv, the others are left out",
        "weather: no humidity, made from a dew point about 22.3 degC",
    ):
        assert sentence in notes
    assert check_case(folder).errors == []


def test_impossible_pv_is_warned_of_and_can_be_computed_instead(tmp_path: Path) -> None:
    rows = typical_rows(24 * 40)
    doubled = [rows[0]]
    for row in rows[1:]:
        cells = row.split(",")
        cells[12] = str(1.5 * float(cells[12]))
        doubled.append(",".join(cells))
    load, pv = write(tmp_path / "load.csv", hourly_rows(24 * 40)), write(tmp_path / "pv.csv", doubled)
    folder, _ = import_case(load, pv, "iquitos-38", 0, tmp_path / "metered", SMALL)
    warnings = json.loads((folder / "case.json").read_text(encoding="utf-8"))["warnings"]
    assert "which no plant reaches; --set pv.model=pvwatts computes it instead" in warnings[0]
    computed, notes = import_case(load, pv, "iquitos-38", 0, tmp_path / "computed", {**SMALL, "pv.model": "pvwatts"})
    record = json.loads((computed / "case.json").read_text(encoding="utf-8"))
    assert 0.5 < record["figures"]["pv_performance_ratio"] < 0.9
    assert any(note.startswith("PV computed by pv.model=pvwatts from the weather") for note in notes)


def test_another_years_typical_file_is_matched_by_date(tmp_path: Path) -> None:
    load = write(tmp_path / "load.csv", hourly_rows(8784))
    pv = write(tmp_path / "pv.csv", typical_rows(year=2019))
    folder, notes = import_case(load, pv, "iquitos-38", 0, tmp_path / "case", SMALL, files=Files(minutes=60))
    assert "pv.csv: other year than load.csv, matched by month, day and hour (a typical year)" in notes
    assert len(load_of(folder)) == 8784
    generation = pd.read_csv(folder / "Building_1.csv")["solar_generation"].to_numpy().reshape(-1, 24)
    assert (generation[59] == generation[58]).all()  # 29 February is the day before, the typical year has none
    assert check_case(folder).errors == []


def test_utc_stamps_become_local_time(tmp_path: Path) -> None:
    load = write(tmp_path / "load.csv", hourly_rows(24 * 6))
    local = typical_rows(24 * 7)
    utc = [local[0]] + [
        f"{datetime.fromisoformat(row.split(',')[0]) + timedelta(hours=5)}".replace("-05:00", "+00:00")
        + row[row.index(",") :]
        for row in local[1:]
    ]
    folder, notes = import_case(load, write(tmp_path / "pv.csv", utc), "iquitos-38", 0, tmp_path / "case", SMALL)
    assert "pv.csv: stamps state UTC+0, turned into local time (UTC-5)" in notes
    generation = pd.read_csv(folder / "Building_1.csv")["solar_generation"].to_numpy()[:24]
    assert np.allclose(generation * 4.05, [float(row.split(",")[12]) for row in local[1:25]], atol=0.01)


def test_unlabelled_utc_is_suspected(tmp_path: Path) -> None:
    load = write(tmp_path / "load.csv", hourly_rows(24 * 5))
    rows = typical_rows(24 * 6, offset="")
    shifted = [rows[0]] + [a.split(",")[0] + b[b.index(",") :] for a, b in zip(rows[6:], rows[1:])]
    files = Files(readings={"pv": Reading(stamps="start")})
    pv = write(tmp_path / "pv.csv", shifted)
    folder, _ = import_case(load, pv, "iquitos-38", 0, tmp_path / "case", SMALL, files=files)
    warnings = json.loads((folder / "case.json").read_text(encoding="utf-8"))["warnings"]
    assert any("PV is centred on 16.9" in text and "--clock pv=utc" in text for text in warnings)


def test_short_gaps_are_filled_and_told(tmp_path: Path) -> None:
    rows = quarter_rows(5)
    del rows[1 + 96 + 40 : 1 + 96 + 46]  # 10:00 to 11:30 of the second day
    folder, notes = import_case(write(tmp_path / "load.csv", rows), None, "iquitos-38", 0, tmp_path / "case", SMALL)
    assert (load_of(folder) == 100 + np.arange(480) // 4 % 24).all()
    assert (
        "load.csv: kWh: 6 missing values in 1 gaps (first 2024-01-02T15:00:00 UTC, longest 1.5 h) filled with those of "
        "the same times of the day before"
    ) in notes


def spoiled(rows: list[str], line: int, text: str) -> list[str]:
    return [*rows[: line - 1], text, *rows[line:]]


BAD_LOADS = {
    "not a number": (
        spoiled(hourly_rows(96), 5, "2024-01-01 03:00:00,many,0,0,0.3,0"),
        "load.csv, line 5: mall_demand_kwh 'many' is not a number",
    ),
    "negative": (
        spoiled(hourly_rows(96), 5, "2024-01-01 03:00:00,-3,0,0,0.3,0"),
        "load.csv: the load is negative (-3 kWh at 2024-01-01 03:00:00); if it is net of PV, give --pv FILE and "
        "--quantity load=net",
    ),
    "broken date": (
        spoiled(hourly_rows(96), 7, "2024-13-01 05:00:00,3,0,0,0.3,0"),
        "load.csv, line 7: '2024-13-01 05:00:00' is not a date and time",
    ),
    "broken slashed date": (
        spoiled(quarter_rows(30), 7, "31/02/2024 1:30;3"),
        "load.csv, line 7: '31/02/2024 1:30' is not a date and time",
    ),
    "ambiguous dates": (
        ["FECHAHORA;kWh", *(f"1/02/2024 {hour}:00;5" for hour in range(24))],
        "load.csv, line 2: 1/02/2024 does not tell day from month; say --dates dmy (day/month/year) or --dates mdy "
        "(month/day/year)",
    ),
    "repeated row": (
        [*hourly_rows(96)[:10], *hourly_rows(96)[9:]],
        "load.csv, line 11: its time repeats the row before",
    ),
    "out of order": (
        [*hourly_rows(96), hourly_rows(96)[3]],
        "load.csv, line 98: its time is earlier than the row before",
    ),
    "off the interval": (
        spoiled(hourly_rows(96), 8, "2024-01-01 06:10:00,3,0,0,0.3,0"),
        "load.csv, line 8: its time is off the 60 minute interval",
    ),
    "too few cells": (
        spoiled(hourly_rows(96), 9, "2024-01-01 07:00:00,3"),
        "load.csv, line 9: 2 cells under 6 column names",
    ),
    "daily rows": (
        ["fecha,kwh", *(f"{START + timedelta(days=day)},5" for day in range(90))],
        "load.csv: rows are 1440 minutes apart; an hour must hold a whole number of them",
    ),
    "no dates": (
        ["a,b", "1,2", "3,4"],
        "load.csv, line 2: no column holds a date and time (1, 2); if the rows follow each other evenly, say --start "
        "2024-01-01T00:00 --step 60",
    ),
    "no energy": (
        ["fecha,precio", *(f"{START + timedelta(hours=hour)},5" for hour in range(90))],
        "load.csv: no column holds energy; name one of fecha, precio with --load-column",
    ),
    "two energies": (
        ["fecha,a_kwh,b_kwh", *(f"{START + timedelta(hours=hour)},5,6" for hour in range(90))],
        "load.csv: several columns may hold the energy (a_kwh, b_kwh); name one of fecha, a_kwh, b_kwh with "
        "--load-column",
    ),
    "long gap": (
        [*hourly_rows(200)[:60], *hourly_rows(200)[100:]],
        "load.csv: mall_demand_kwh misses 40 hours from 2024-01-03T16:00:00 UTC; gaps up to 24 hours are filled with "
        "the same hours of the day before, --fill 40 fills this one too",
    ),
    "too short": (hourly_rows(40), "load.csv: covers 40 hours, at least two days are needed"),
    "empty": (["fecha,kwh"], "load.csv: holds 0 data rows"),
}


@pytest.mark.parametrize("name", BAD_LOADS)
def test_bad_load_files_name_file_and_line(name: str, tmp_path: Path) -> None:
    rows, message = BAD_LOADS[name]
    file = write(tmp_path / "load.csv", rows)
    with pytest.raises(UserError) as caught:
        import_case(file, None, "iquitos-38", 0, tmp_path / "case", SMALL)
    assert str(caught.value) == message
    assert not (tmp_path / "case").exists()


def test_bad_pv_files_are_refused(tmp_path: Path) -> None:
    load = write(tmp_path / "load.csv", hourly_rows(24 * 10))

    def message(rows: list[str]) -> str:
        with pytest.raises(UserError) as caught:
            import_case(load, write(tmp_path / "pv.csv", rows), "iquitos-38", 0, tmp_path / "case", SMALL)
        return str(caught.value)

    mixed = typical_rows(24 * 10)
    mixed[30] = mixed[30].replace("-05:00", "")
    assert message(mixed) == "pv.csv, line 31: no UTC offset, other rows have one"
    days = message([row.replace("2024-01", "2023-06") for row in typical_rows(24 * 6)])
    assert "they share fewer than two days, and it is no whole typical year" in days


def test_kilowatts_per_square_metre_are_told_by_their_peak(tmp_path: Path) -> None:
    load, rows = write(tmp_path / "load.csv", hourly_rows(24 * 10)), typical_rows(24 * 10)
    for line, row in enumerate(rows[1:], start=1):
        cells = row.split(",")
        cells[1] = f"{float(cells[1]) / 1000:.5f}"
        rows[line] = ",".join(cells)
    rows[0] = rows[0].replace("ghi_wm2", "ghi")
    _, notes = import_case(load, write(tmp_path / "pv.csv", rows), "iquitos-38", 0, tmp_path / "case", SMALL)
    assert "pv.csv: ghi from column ghi, read in kW/m2, because it peaks at 0.69976" in notes


def test_column_can_be_named(tmp_path: Path) -> None:
    rows = ["fecha,a_kwh,b_kwh", *(f"{START + timedelta(hours=hour)},5,6" for hour in range(72))]
    file = write(tmp_path / "load.csv", rows)
    folder, _ = import_case(file, None, "iquitos-38", 0, tmp_path / "case", SMALL, load_column="b_kwh")
    assert (load_of(folder) == 6).all()
    with pytest.raises(UserError, match=r"load\.csv has no column 'c'; it has fecha, a_kwh, b_kwh"):
        import_case(file, None, "iquitos-38", 0, tmp_path / "other", SMALL, load_column="c")


HOME = {"bess.capacity_kwh": 10, "bess.power_kw": 5, "tariff.energy_off_peak": 0.3, "tariff.currency": "EUR"}
BERLIN = Files(zone="Europe/Berlin")


def home_rows(days: int = 3, start: datetime = START) -> list[str]:
    moments = [start + timedelta(hours=hour) for hour in range(24 * days)]
    return ["time,kWh", *(f"{moment},{0.4 + moment.hour % 7 / 10:.1f}" for moment in moments)]


def test_what_is_not_given_is_not_there(tmp_path: Path) -> None:
    file = write(tmp_path / "load.csv", home_rows())
    prices = {name: value for name, value in HOME.items() if name.startswith("tariff")}
    folder, _ = import_case(file, None, None, 0, tmp_path / "case", prices, files=BERLIN)
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    building = schema["buildings"]["Building_1"]
    assert "electrical_storage" not in building
    assert "pv" not in building
    assert building["chargers"] == {}
    assert schema["actions"] == {}
    assert (pd.read_csv(folder / "pricing.csv")["electricity_pricing"] == 0.3).all()
    assert (pd.read_csv(folder / "carbon_intensity.csv")["carbon_intensity"] == 0).all()
    tariff = json.loads((folder / "tariff.json").read_text(encoding="utf-8"))
    assert tariff == {"currency": "EUR", "peak_hours": [], "demand_charge_peak": 0.0, "demand_charge_off_peak": 0.0}
    assert check_case(folder).errors == []
    assert read_site(folder).buildings[0].load.sum() == pytest.approx(
        sum(float(row.split(",")[1]) for row in home_rows()[1:])
    )


@pytest.mark.parametrize(
    ("changes", "question"),
    [
        ({}, "what does energy cost"),
        ({"tariff.energy_peak": 0.4, "tariff.peak_hours": (18,)}, "what does energy cost"),
        ({**HOME, "bess.power_kw": None}, "a battery of what power"),
        ({**HOME, "pv.dc_kw": 5}, "say where the site lies with --set site.latitude="),
    ],
)
def test_what_a_site_needs_is_asked(changes: dict[str, object], question: str, tmp_path: Path) -> None:
    file = write(tmp_path / "load.csv", home_rows())
    changes = {name: value for name, value in changes.items() if value is not None}
    with pytest.raises(UserError, match=question):
        import_case(file, None, None, 0, tmp_path / "case", changes, files=BERLIN)
    assert not (tmp_path / "case").exists()


def test_days_of_23_and_25_hours_stay_as_they_are(tmp_path: Path) -> None:
    for number, (start, rows) in enumerate([(datetime(2024, 3, 30), 71), (datetime(2024, 10, 26), 73)]):
        utc = [start - timedelta(hours=1 + (start.month == 10)) + timedelta(hours=hour) for hour in range(rows)]
        file = write(tmp_path / f"{number}.csv", ["time,kWh", *(f"{m}Z,{n % 5}" for n, m in enumerate(utc))])
        folder, _ = import_case(file, None, None, 0, tmp_path / f"case-{number}", HOME, files=BERLIN)
        table = pd.read_csv(folder / "Building_1.csv")
        assert len(table) == rows
        assert (table["non_shiftable_load"] == np.arange(rows) % 5).all()
        hours = table["hour"].to_numpy()[24:52].tolist()
        assert hours[:4] == ([1, 2, 4, 5] if rows == 71 else [1, 2, 3, 3])
        assert sorted(set(table["daylight_savings_status"])) == [0, 1]
        report = check_case(folder)
        assert report.errors == []
        assert not [text for text in map(str, report.warnings) if "hour" in text]


def test_two_years_become_two_cases(tmp_path: Path) -> None:
    file = write(tmp_path / "load.csv", home_rows(731, datetime(2023, 1, 1)))
    folder, _ = import_case(file, None, None, 0, tmp_path / "case", HOME, files=Files(zone="Etc/GMT-1"))
    assert sorted(path.name for path in folder.iterdir()) == ["2023", "2024"]
    assert len(load_of(folder / "2023")) == 8760
    assert len(load_of(folder / "2024")) == 8784


def test_load_is_net_plus_pv(tmp_path: Path) -> None:
    load = np.array([float(row.split(",")[1]) for row in home_rows()[1:]])
    pv = np.tile(np.maximum(0, 3 * np.sin((np.arange(24) - 6) * np.pi / 12)).round(2), 3)
    moments = [row.split(",")[0] for row in home_rows()[1:]]
    net = write(tmp_path / "net.csv", ["time,net_kWh", *(f"{m},{v:.2f}" for m, v in zip(moments, load - pv))])
    plant = write(tmp_path / "pv.csv", ["time,PV kWh", *(f"{m},{v:.2f}" for m, v in zip(moments, pv))])
    folder, notes = import_case(net, plant, None, 0, tmp_path / "case", HOME, files=BERLIN)
    assert np.allclose(load_of(folder), load)
    assert "net.csv: the load is net plus PV" in notes
    with pytest.raises(UserError, match=r"the meter is net of PV .* give the PV with --pv FILE"):
        import_case(net, None, None, 0, tmp_path / "alone", HOME, files=BERLIN)


def test_a_load_in_the_wrong_unit_is_suspected(tmp_path: Path) -> None:
    rows = [f"{row.split(',')[0]},{float(row.split(',')[1]) * 1000:.0f}" for row in home_rows()[1:]]
    file = write(tmp_path / "load.csv", ["time,kWh", *rows])
    folder, _ = import_case(file, None, None, 0, tmp_path / "case", HOME, files=BERLIN)
    warnings = json.loads((folder / "case.json").read_text(encoding="utf-8"))["warnings"]
    assert any("1,000 times too high: is it in W or Wh?" in text for text in warnings)


def test_a_presets_weather_stays_at_its_place(tmp_path: Path) -> None:
    file = write(tmp_path / "load.csv", home_rows())
    berlin = {**SMALL, "site.latitude": 52.5, "site.longitude": 13.4, "site.utc_offset": 1.0}
    _, notes = import_case(file, None, "iquitos-38", 0, tmp_path / "case", berlin)
    assert any("coarse climate by latitude" in note for note in notes)
