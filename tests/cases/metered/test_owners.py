"""Loads and PV in the forms that owners have: each gives the right energy at the right hour, or a named question."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from owners import KWH, PV, START, comma, hours, save, table

from iquitos_rl.cases.metered.meter import load_series, open_meter, pv_series
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.zone import Zone, fixed_zone, named_zone
from iquitos_rl.errors import UserError

QUARTERS = np.repeat(KWH, 4)
REGISTER = 48210.5 + np.append(0, np.cumsum(KWH[:-1]))
UTC1 = fixed_zone(1.0)


def read_load(path: Path, zone: Zone | None = UTC1, **said: str) -> tuple[np.ndarray, np.datetime64, list[str]]:
    """kWh per step, local begin of the first, and the notes."""
    notes: list[str] = []
    file = open_meter(path, "load", zone, Reading(**said), notes)  # type: ignore[arg-type]
    series, _ = load_series(file)
    return series.values, file.local(series.begin[:1])[0], notes


def two_columns(first: str, second: str) -> str:
    """Date and time apart."""
    return table(f"{first};{second};Wert kWh", KWH, "%d.%m.%Y;%H:%M", separator=";")


def one_day_a_row(labels: list[str], unit: str = "kWh") -> str:
    rows = [f"Meter 1, {unit}", ",".join(["Date", *labels])]
    for day in range(3):
        values = ",".join(f"{value:.2f}" for value in KWH[24 * day : 24 * day + 24])
        rows.append(f"{(START + timedelta(days=day)).date()},{values}")
    return "\n".join(rows) + "\n"


def excel_days(moment: datetime) -> str:
    return f"{(moment - datetime(1899, 12, 30)) / timedelta(days=1):.9f}"


def unix(moment: datetime, factor: int = 1) -> str:
    return str(round((moment - datetime(1970, 1, 1, 1)).total_seconds()) * factor)


def jittered(moment: datetime) -> str:
    return str(moment + timedelta(seconds=(moment.hour * 7) % 5))


def with_lines(text: str, *, before: str = "", after: str = "") -> str:
    return before + text + after


RIGHT = {
    "mean power in W": table("time,Wirkleistung [W]", 1000 * KWH, number="{:.0f}"),
    "quarter hours in kilowatts": table("time,Active Power (kilowatts)", QUARTERS, step=15),
    "MW": table("time,Load MW", KWH / 1000, number="{:.5f}"),
    "GW": table("time,Load (GW)", KWH / 1e6, number="{:.8f}"),
    "MJ": table("time,Energy MJ", 3.6 * KWH),
    "Wh in quarter hours": table("time;Consumo Wh", QUARTERS * 250, number="{:.0f}", separator=";", step=15),
    "Wh, spelt": table("time,energy in watt-hours", 1000 * KWH, number="{:.0f}"),
    "unit in a row of its own": table("time,Load\n,[kWh]", KWH),
    "unit above the table": with_lines(table("time,value", KWH), before="Site,A\nUnit: kWh\n\n"),
    "unit behind figures": table("time,value", KWH, number="{:.2f} kWh"),
    "unit in a column": table("time,state,unit_of_measurement", KWH, number="{:.2f},kWh"),
    "register": table("time,energy_total_kwh", REGISTER),
    "register without a name": table("time,kWh", REGISTER),
    "register in Wh": table("Zeit;Zaehlerstand Wh", 1000 * REGISTER, number="{:.0f}", separator=";"),
    "dotted dates, decimal commas": comma(table("Datum;Bezug kWh", KWH, separator=";")).replace("-", "."),
    "days first, quarter hours": table("Fecha,kWh", QUARTERS / 4, "%d/%m/%Y %H:%M", step=15, number="{:.3f}"),
    "slashed ISO": table("FECHA-HORA;Consumo Wh", 1000 * KWH, "%Y/%m/%d %H:%M", "{:.0f}", ";"),
    "AM and PM": table("Start,Usage (kWh)", KWH, "%m/%d/%Y %I:%M %p"),
    "two-digit years": table("Zeit;kWh", KWH, "%d.%m.%y %H:%M", separator=";"),
    "month names": table("time,kWh", KWH, "%d-%b-%Y %H:%M"),
    "month first by name": table("time;kWh", KWH, "%b %d, %Y %H:%M", separator=";"),
    "compact": table("time,kWh", KWH, "%Y%m%d:%H%M"),
    "compact, one number": table("timestamp,kWh", KWH, "%Y%m%d%H%M"),
    "T and seconds": table("time,kWh", KWH, "%Y-%m-%dT%H:%M:%S"),
    "offset": table("time,kWh", KWH, "%Y-%m-%dT%H:%M:%S+01:00"),
    "Z": table("time,kWh", KWH, "%Y-%m-%dT%H:%M:%SZ", shift=-1),
    "UTC in the title": table("time (UTC),kWh", KWH, shift=-1),
    "zone behind": table("time,kWh", KWH, "%Y-%m-%d %H:%M CET"),
    "Unix seconds": table("timestamp,kWh", KWH, unix),
    "Unix milliseconds": table("ts,kWh", KWH, lambda moment: unix(moment, 1000)),
    "spreadsheet days": table("Date,kWh", KWH, excel_days),
    "date and time apart": two_columns("Datum", "Uhrzeit"),
    "begin and end": table(
        "Von;Bis;kWh", KWH, lambda m: f"{m:%d.%m.%Y %H:%M};{m + timedelta(hours=1):%d.%m.%Y %H:%M}", separator=";"
    ),
    "range in a cell": table(
        "MTU (CET),Actual Total Load [kW]",
        KWH,
        lambda m: f"{m:%d.%m.%Y %H:%M} - {m + timedelta(hours=1):%d.%m.%Y %H:%M}",
    ),
    "range of times": table("Date,Time,kWh", KWH, lambda m: f"{m:%Y-%m-%d},{m:%H:%M}-{m + timedelta(hours=1):%H:%M}"),
    "hours 1 to 24": table("Date,Hour,kWh", KWH, lambda m: f"{m:%Y-%m-%d},{m.hour + 1}"),
    "hours 0 to 23": table("Date,Hour,kWh", KWH, lambda m: f"{m:%Y-%m-%d},{m.hour}"),
    "year, month, day, hour": table("Year,Month,Day,Hour,kWh", KWH, lambda m: f"{m.year},{m.month},{m.day},{m.hour}"),
    "stamped at the end": table("time,kWh", KWH, end=True),
    "24:00": table("time,kWh", KWH, end=True).replace("2024-03-05 00:00", "2024-03-04 24:00"),
    "one minute before the end": table("time,kWh", KWH, lambda m: f"{m + timedelta(minutes=59):%Y-%m-%d %H:%M}"),
    "half past": table("time,kWh", KWH, "%Y-%m-%d %H:30"),
    "newest first": "\n".join([(rows := table("time,kWh", KWH).splitlines())[0], *rows[:0:-1]]) + "\n",
    "jitter of seconds": table("time,kWh", KWH, jittered),
    "one day a row, by hours": one_day_a_row([str(hour) for hour in range(1, 25)]),
    "one day a row, H01": one_day_a_row([f"H{hour:02d}" for hour in range(1, 25)]),
    "one day a row, by begins": one_day_a_row([f"{hour:02d}:00" for hour in range(24)]),
    "one day a row, by ends": one_day_a_row([f"{hour:02d}:00" for hour in range(1, 25)]),
    "sep=": "sep=;\n" + comma(table("time;kWh", KWH, separator=";")),
    "tabs": table("time\tkWh", KWH, separator="\t"),
    "bars": table("time|kWh", KWH, separator="|"),
    "blanks": table("time kWh", KWH, "%Y-%m-%dT%H:%M", separator=" "),
    "thousands and decimals": table("time;W", 1000 * KWH, number="{:,.1f}", separator=";"),
    "Swiss thousands": table("time;W", 1000 * KWH, number="{:,.0f}", separator=";").replace(",", "'"),
    "preamble": with_lines(
        table(
            "TYPE,DATE,START TIME,END TIME,USAGE (kWh),COST",
            KWH,
            lambda m: f"Electric usage,{m:%Y-%m-%d},{m:%H:%M},{m:%H}:59",
            "{:.2f},$0.1",
        ),
        before="Name,A SITE\nAddress,A STREET\n\n",
    ),
    "preamble as wide as the table": with_lines(table("time,kWh", KWH), before="Name,A SITE\nPeriod,March\n"),
    "total": table("time,kWh", KWH) + "Total,96.0\n",
    "total in another language": table("Zeit;kWh", KWH, separator=";") + "Summe;96.0\nEnde des Berichts\n",
    "a missing hour": table("time,kWh", KWH).replace("2024-03-05 05:00,1.20", "2024-03-05 05:00,unavailable"),
    "a row left out": table("time,kWh", KWH).replace("2024-03-05 05:00,1.20\n", ""),
    "repeated header": table("time,kWh", KWH).replace("2024-03-05 00:00", "time,kWh\n2024-03-05 00:00"),
    "price beside it": table("time,price EUR/kWh,kWh,temperature", KWH, number="0.3,{:.2f},9"),
    "factory": table("time,Factory kWh", KWH),
    "trailing separators": table("time;kWh;", KWH, number="{:.2f};", separator=";"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_every_form_holds_the_same_load(name: str, tmp_path: Path) -> None:
    kwh, first, _ = read_load(save(tmp_path / "load.csv", RIGHT[name]))
    per_hour = len(kwh) // (71 if "register" in name else 72)
    hourly = kwh.reshape(-1, per_hour).sum(1)
    assert np.allclose(hourly, KWH[: len(hourly)], rtol=1e-4)
    assert first == np.datetime64(START)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    kwh, _, _ = read_load(save(tmp_path / "load.csv", table("Zeit;Energía kWh", KWH, separator=";"), encoding))
    assert kwh.sum() == pytest.approx(96.0)


def test_workbook(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["Report"])
    book.active.append(["Zeit", "kWh"])
    for moment, value in zip(hours(), KWH):
        book.active.append([moment, float(value)])
    book.save(tmp_path / "load.xlsx")
    kwh, first, _ = read_load(tmp_path / "load.xlsx")
    assert (kwh == KWH).all()
    assert first == np.datetime64(START)


ASKED = {
    "thousands or decimals, comma": (
        table("time;kWh", 1000 * KWH, number="{:,.0f}", separator=";"),
        "--decimal",
        {"decimal": "point"},
        1000,
    ),
    "thousands or decimals, point": (
        table("time;kWh", KWH + 1, number="{:.3f}", separator=";"),
        "--decimal",
        {"decimal": "point"},
        168 / 96,
    ),
    "no unit": (table("time,load", KWH), "--unit load=", {"unit": "kWh"}, 1),
    "no unit, just power": (table("time,power", 1000 * KWH, number="{:.0f}"), "--unit load=", {"unit": "W"}, 1),
    "another unit": (table("time,Energy [BTU]", KWH), "--unit load=", {"unit": "kWh"}, 1),
    "apparent power": (table("time,Leistung [kVA]", KWH), "--unit load=", {"unit": "kW"}, 1),
    "milli or mega": (table("time,Leistung [mW]", KWH), "--unit load=", {"unit": "kW"}, 1),
    "values only": (
        "kW\n" + "\n".join(f"{value:.2f}" for value in KWH),
        "--start",
        {"start": "2024-03-04T00:00", "step": "60"},
        1,
    ),
    "begin or end": (
        "\n".join([(rows := table("time,kWh", KWH).splitlines())[0], *rows[6:-5]]) + "\n",
        "--stamps",
        {"stamps": "start"},
        None,
    ),
    "several columns": (table("time,a_kWh,b_kWh", KWH, number="{:.2f},7"), "--load-column", {"column": "a_kWh"}, 1),
    "a counter of the day": (
        table("time,kWh", np.tile(np.arange(24) * 0.5, 3)),
        "--quantity",
        {"quantity": "interval"},
        24 * 23 / 4 * 3 / 96,
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_what_only_the_owner_knows_is_asked(name: str, tmp_path: Path) -> None:
    text, option, said, times = ASKED[name]
    path = save(tmp_path / "load.csv", text)
    with pytest.raises(UserError, match=option) as caught:
        read_load(path)
    assert "\n" not in str(caught.value)
    kwh, _, _ = read_load(path, **said)
    if times is not None:
        assert kwh.sum() == pytest.approx(96.0 * times, rel=1e-4)


def test_day_and_month_of_one_day_are_asked(tmp_path: Path) -> None:
    path = save(tmp_path / "load.csv", table("time,kWh", KWH, lambda m: f"03/04/2024 {m:%H:%M}")[: 25 * 22])
    with pytest.raises(UserError, match="--dates dmy"):
        read_load(path)


def test_utc_of_whole_days_lies_an_hour_later_at_home(tmp_path: Path) -> None:
    """The guess at begins is made on the clock that wrote the file."""
    values = np.where(np.arange(72) % 24 == 17, 10.0, 1.0)
    notes: list[str] = []
    file = open_meter(
        save(tmp_path / "load.csv", table("time,kWh", values, "%Y-%m-%dT%H:%M:%SZ")), "load", UTC1, Reading(), notes
    )
    series, _ = load_series(file)
    assert str(file.local(series.begin)[series.values.argmax()]) == "2024-03-04T18:00:00"


def autumn(kw: str = "1,5") -> str:
    """Three days of hours on a clock that is put back in the second."""
    rows = ["Datum;kW"]
    for hour in range(73):
        moment = datetime(2023, 10, 28) + timedelta(hours=hour - (hour > 26))
        rows.append(f"{moment:%d.%m.%Y %H:%M};{kw}")
    return "\n".join(rows)


@pytest.mark.parametrize("zone", [UTC1, named_zone("Europe/Berlin")])
def test_a_day_of_25_hours(zone: Zone, tmp_path: Path) -> None:
    kwh, first, notes = read_load(save(tmp_path / "load.csv", autumn()), zone)
    assert kwh.sum() == pytest.approx(109.5)
    assert first == np.datetime64("2023-10-28T00:00")
    assert any("Europe/Berlin" in note for note in notes)


def test_standard_time_all_year_is_told_from_daylight_saving(tmp_path: Path) -> None:
    moments = [datetime(2024, 3, 30) + timedelta(hours=hour) for hour in range(72)]
    every = "\n".join(["time,kWh", *(f"{m},1" for m in moments)])
    jumps = "\n".join(["time,kWh", *(f"{m},1" for m in moments if m != datetime(2024, 3, 31, 2))])
    berlin = named_zone("Europe/Berlin")
    kwh, _, notes = read_load(save(tmp_path / "every.csv", every), berlin)
    assert len(kwh) == 72
    assert any("standard time all year" in note for note in notes)
    kwh, _, _ = read_load(save(tmp_path / "jumps.csv", jumps), berlin)
    assert len(kwh) == 71
    # A constant offset does not hide that the file's clock is changed.
    kwh, _, notes = read_load(save(tmp_path / "jumps.csv", jumps), UTC1)
    assert len(kwh) == 71
    assert any("Europe/Berlin" in note for note in notes)


def test_an_hour_that_comes_once_in_autumn_is_asked(tmp_path: Path) -> None:
    rows = [f"{datetime(2024, 10, 26) + timedelta(hours=hour)},1" for hour in range(72)]
    path = save(tmp_path / "load.csv", "\n".join(["time,kWh", *rows]))
    berlin = named_zone("Europe/Berlin")
    with pytest.raises(UserError, match="--clock standard"):
        read_load(path, berlin)
    assert len(read_load(path, berlin, clock="standard")[0]) == 72
    assert len(read_load(path, berlin, clock="daylight")[0]) == 73


def test_without_a_zone_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--zone Europe/Berlin"):
        read_load(save(tmp_path / "load.csv", RIGHT["total"]), None)
    _, first, notes = read_load(save(tmp_path / "load.csv", RIGHT["offset"]), None)
    assert first == np.datetime64(START)
    assert any("UTC+1 all year" in note for note in notes)


def test_import_and_export_are_a_net_meter(tmp_path: Path) -> None:
    net = KWH - PV
    text = table("time,Bezug kWh,Einspeisung kWh", net, number="{0:.2f}").splitlines()
    rows = [text[0], *(f"{row.split(',')[0]},{max(v, 0):.2f},{max(-v, 0):.2f}" for row, v in zip(text[1:], net))]
    file = open_meter(save(tmp_path / "net.csv", "\n".join(rows)), "load", UTC1, Reading(), [])
    series, is_net = load_series(file)
    assert is_net
    assert np.allclose(series.values, net)


PV_RIGHT = {
    "Zeitstempel": table("Zeitstempel;PV kWh", PV, "%d.%m.%Y %H:%M", separator=";"),
    "Temps": table("Temps,PV kWh", PV),
    "Tempo": table("Tempo;Produção kWh", PV, separator=";"),
    "generated": table("time,Generated kWh,ghi,temp", PV, number="{:.2f},0,9"),
    "DC and AC": table("time,dc_power_kw,ac_power_kw", PV, number="9,{:.2f}"),
    "counter of the day": table("time,E_today kWh", np.cumsum(PV.reshape(3, 24), axis=1).ravel(), end=True),
    "PVGIS": table(
        "time,P,G(i),H_sun,T2m,WS10m,Int", 1000 * PV, "%Y%m%d:%H10", "{:.1f},0.0,20.0,9.0,2.0,0.0", shift=-1
    ),
}


@pytest.mark.parametrize("name", PV_RIGHT)
def test_every_form_holds_the_same_pv(name: str, tmp_path: Path) -> None:
    file = open_meter(save(tmp_path / "pv.csv", PV_RIGHT[name]), "pv", UTC1, Reading(), [])
    series = pv_series(file)
    assert series is not None
    shown = {str(t): v for t, v in zip(file.local(series.begin), series.values)}
    expected = {f"{moment:%Y-%m-%dT%H:%M:%S}": value for moment, value in zip(hours(), PV)}
    assert series.values.sum() == pytest.approx(54.0)
    assert all(shown[moment] == pytest.approx(expected[moment]) for moment in shown)


def test_a_register_may_be_read_at_any_time(tmp_path: Path) -> None:
    """As a home automation records it: whenever it changed."""
    rng = np.random.default_rng(0)
    minutes = np.sort(rng.choice(np.arange(1, 72 * 60 - 1), 400, replace=False))
    minutes = np.concatenate(([0], minutes, [72 * 60]))
    reading = 500 + np.interp(minutes, np.arange(73) * 60, np.append(0, np.cumsum(KWH)))
    rows = [
        f"sensor.total,{value:.4f},{START + timedelta(minutes=int(minute)):%Y-%m-%dT%H:%M:%S}.123+01:00"
        for minute, value in zip(minutes, reading)
    ]
    path = save(tmp_path / "load.csv", "\n".join(["entity_id,energy_total_kwh,last_changed", *rows]))
    kwh, first, _ = read_load(path)
    assert first == np.datetime64(START)
    assert kwh.sum() == pytest.approx(96.0, abs=0.01)
    assert np.allclose(kwh.reshape(-1, 4).sum(1), KWH, atol=0.2)
    with pytest.raises(UserError, match="minutes apart"):
        read_load(save(tmp_path / "load.csv", path.read_text().replace("energy_total_kwh", "power_kW")))
