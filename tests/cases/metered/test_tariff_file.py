"""Tariffs of owners: every row has the price that the tariff says, every charge its rows, and mistakes are told."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from owners import save

from iquitos_rl.cases.metered.importer import Files, import_case
from iquitos_rl.cases.metered.tariff_file import demand_charges, read_tariff_file
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.tariff import Tariff, Window, read_tariff
from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.errors import UserError

START = datetime(2024, 3, 25)
DAYS = 14
"""With Good Friday, Easter Monday and the change of the clocks on 31 March."""
TARIFF = """
currency: EUR
holidays: DE
energy:
- {price: 0.40, hours: 17-20, days: workdays, months: [3]}
- {price: 0.35, hours: 17-20, days: workdays}
- {price: 0.25, days: weekends, hours: [12, 13]}
- {price: 0.20, hours: 22-6}
- {price: 0.30}
demand:
- {price: 9.0, hours: 17-21}
- {price: 4.0, hours: other}
"""


def load_file(folder: Path) -> Path:
    """UTC hours that make up whole days in Berlin."""
    first, count = START - timedelta(hours=1), 24 * DAYS - 1
    rows = [f"{first + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ},{1 + hour % 5}" for hour in range(count)]
    return save(folder / "load.csv", "\n".join(["time,kWh", *rows]))


def case_of(folder: Path, tariff: str, name: str = "tariff.yaml") -> Path:
    files = Files(load=load_file(folder), tariff=str(save(folder / name, tariff)), zone="Europe/Berlin")
    return import_case(None, None, None, 0, folder / "case", {}, files=files)[0]


def by_hand(hour: int, day: date) -> float:
    free = day.weekday() >= 5 or day in (date(2024, 3, 29), date(2024, 4, 1))
    if 17 <= hour < 20 and not free:
        return 0.40 if day.month == 3 else 0.35
    if free and hour in (12, 13):
        return 0.25
    return 0.20 if hour >= 22 or hour < 6 else 0.30


def test_every_row_has_its_price(tmp_path: Path) -> None:
    folder = case_of(tmp_path, TARIFF)
    assert check_case(folder).errors == []
    clock = pd.date_range(START, periods=24 * DAYS - 1, freq="h", tz="Europe/Berlin")
    site = read_site(folder)
    assert site.hour.tolist() == [moment.hour for moment in clock]
    assert np.allclose(site.buildings[0].price, [by_hand(moment.hour, moment.date()) for moment in clock])
    charges = read_tariff(folder)
    assert charges.peak_hours == (17, 18, 19, 20)
    assert (charges.demand_charge_peak, charges.demand_charge_off_peak) == (9.0, 4.0)


def test_prices_of_a_file_with_taxes(tmp_path: Path) -> None:
    first = START - timedelta(hours=1)
    spot = [20.0 + hour % 24 * 5 - 60 * (hour == 40) for hour in range(24 * DAYS)]
    rows = [f"{first + timedelta(hours=h):%Y-%m-%dT%H:%M:%SZ},{value}" for h, value in enumerate(spot)]
    save(tmp_path / "spot.csv", "\n".join(["time,Day-ahead [EUR/MWh]", *rows]))
    folder = case_of(tmp_path, "currency: EUR\nprices: {file: spot.csv, factor: 1.2, add: 0.1}\n")
    found = read_site(folder).buildings[0].price
    assert np.allclose(found, [value / 1000 * 1.2 + 0.1 for value in spot[: len(found)]], atol=1e-6)
    short = "\n".join(["time,Day-ahead [EUR/MWh]", *rows[:100]])
    save(tmp_path / "spot.csv", short)
    with pytest.raises(UserError, match=r"spot\.csv: has no price for 235 rows"):
        import_case(
            None,
            None,
            None,
            0,
            tmp_path / "other",
            {},
            files=Files(load=tmp_path / "load.csv", tariff=str(tmp_path / "tariff.yaml"), zone="Europe/Berlin"),
        )


def urdb(**more: object) -> str:
    """Two seasons, weekdays and weekends, as OpenEI writes them."""
    summer, winter = [0] * 16 + [1] * 5 + [0] * 3, [0] * 24
    rate: dict[str, object] = {
        "energyratestructure": [[{"rate": 0.20, "adj": 0.01, "unit": "kWh"}], [{"rate": 0.45}]],
        "energyweekdayschedule": [summer if 5 <= month <= 8 or month == 2 else winter for month in range(12)],
        "energyweekendschedule": [winter] * 12,
    }
    return json.dumps({"items": [rate | more]})


def test_openei(tmp_path: Path) -> None:
    folder = case_of(tmp_path, urdb(flatdemandstructure=[[{"rate": 12.5}]], flatdemandmonths=[0] * 12), "rate.json")
    clock = pd.date_range(START, periods=24 * DAYS - 1, freq="h", tz="Europe/Berlin")
    peak = [m.month == 3 and m.weekday() < 5 and 16 <= m.hour < 21 for m in clock]
    assert np.allclose(read_site(folder).buildings[0].price, np.where(peak, 0.45, 0.21))
    assert read_tariff(folder).demand_charge_off_peak == 12.5
    assert read_tariff(folder).peak_hours == ()


TIMED = {
    "demandratestructure": [[{"rate": 3.0}], [{"rate": 15.0}]],
    "demandweekdayschedule": [[0] * 17 + [1] * 4 + [0] * 3] * 12,
    "demandweekendschedule": [[0] * 24] * 12,
}
FLAT = {"flatdemandstructure": [[{"rate": 12.5}], [{"rate": 8.0}]], "flatdemandmonths": [0] * 6 + [1] * 6}
REFUSED = {
    "other hours than none": (TARIFF + "- {price: 1.0}\n", "the other demand charges hold in all hours"),
    "a tax in per cent": (TARIFF + "tax: 19\n", "tax: Input should be less than 1"),
    "a gap": ("currency: EUR\nenergy: [{price: 0.3, hours: 6-22}]\n", "no price holds at 2024-03-25T00:00:00"),
    "a gap in export": (
        "currency: EUR\nenergy: [{price: 0.3}]\nexport: [{price: 0.1, hours: 6-22}]\n",
        "export: no price holds at 2024-03-25T00:00:00",
    ),
    "a mistyped key": ("currency: EUR\nenergy: [{prize: 0.3}]\n", r"tariff\.yaml: energy\.0\.price: Field required"),
    "no currency": ("energy: [{price: 0.3}]\n", "currency: Field required"),
    "nothing": ("currency: EUR\n", "energy, or prices of a file"),
    "no tariff": ("- 1\n", "a tariff is a list of keys"),
    "no country": (TARIFF.replace("holidays: DE", "holidays: XX"), "XX is no country or region"),
    "no hours": (TARIFF.replace("22-6", "22-66"), "hours lie between 0 and 24"),
    "a ratchet of summer": (
        urdb(**FLAT, lookbackPercent=0.8, lookbackRange=0, lookbackMonths=[0] * 5 + [1] * 4 + [0] * 3),
        "looks at some months alone",
    ),
    "demand per kVA": (urdb(**FLAT, flatdemandunit="kVA"), "flatdemandunit is kVA"),
    "the utility's peak": (urdb(coincidentratestructure=[[{"rate": 5.0}]]), "the utility's own peak"),
    "a short ratchet": (urdb(**FLAT, lookbackPercent=80, lookbackRange=3), "looks back 3 months"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mistake_is_told_in_one_sentence(name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as caught:
        case_of(tmp_path, text, "rate.json" if text.startswith("{") else "tariff.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "case").exists()


def test_export_tax_and_standing_charge(tmp_path: Path) -> None:
    more = "export: 0.082\nexport_limit_kw: 7\ntax: 0.19\nstanding: {month: 10, year: 26}\n"
    folder = case_of(tmp_path, TARIFF + more)
    tariff = read_tariff(folder)
    assert check_case(folder).errors == []
    assert (tariff.export_price, tariff.export_limit_kw) == (0.082, 7.0)
    assert tariff.standing_per_day == pytest.approx(1.19 * 146 / 365)
    assert tariff.demand_charge_peak == pytest.approx(1.19 * 9.0)
    assert read_site(folder).buildings[0].price.max() == pytest.approx(1.19 * 0.40)


def test_exports_earn_the_price_of_a_file_and_holidays_are_days_of_their_own(tmp_path: Path) -> None:
    first = START - timedelta(hours=1)
    spot = [20.0 + hour % 24 * 5 - 60 * (hour == 40) for hour in range(24 * DAYS)]
    rows = [f"{first + timedelta(hours=h):%Y-%m-%dT%H:%M:%SZ},{value}" for h, value in enumerate(spot)]
    save(tmp_path / "spot.csv", "\n".join(["time,Day-ahead [EUR/MWh]", *rows]))
    folder = case_of(tmp_path, TARIFF + "export: {file: spot.csv, add: -0.01}\n")
    site = read_site(folder)
    assert np.allclose(read_tariff(folder).export_price, [value / 1000 - 0.01 for value in spot[: site.rows]])
    clock = pd.date_range(START, periods=site.rows, freq="h", tz="Europe/Berlin")
    assert {clock[row].date() for row in np.flatnonzero(site.day_type == 8)} == {date(2024, 3, 29), date(2024, 4, 1)}
    assert "export_price" in [column.name for column in SiteTask([site]).encoding.columns]


SEASONS = """
currency: USD
energy: [{price: 0.2}]
demand:
- {price: 21, hours: 12-18, days: workdays, months: [6, 7, 8, 9]}
- {price: 4, hours: other}
- {price: 9, ratchet: 0.8}
"""


def test_demand_charges_by_season_with_a_ratchet(tmp_path: Path) -> None:
    tariff = read_tariff(case_of(tmp_path, SEASONS.replace("- {price: 9,", "- {price: 9, hours: 0-18,")))
    summer, other, ratchet = tariff.demand
    assert summer.when == (Window(hours=tuple(range(12, 18)), days="workdays", months=(6, 7, 8, 9)),)
    assert other.when[0].hours == tuple(range(18, 24))
    assert (ratchet.price, ratchet.ratchet) == (9.0, 0.8)
    assert tariff.meters == ("demand_1_running", "demand_2_running", "demand_3_running", "demand_3_highest")


def openei_month(rate: dict[str, object], month: int, imports: np.ndarray) -> float:
    """Demand charges of a month as OpenEI explains them: imports (days, 24) of days from a Monday on, in kW."""
    total = 0.0
    if "flatdemandstructure" in rate:
        total += rate["flatdemandstructure"][rate["flatdemandmonths"][month]][0]["rate"] * imports.max()
    for period, tiers in enumerate(rate.get("demandratestructure", [])):
        highest = 0.0
        for day, row in enumerate(imports):
            schedule = rate["demandweekendschedule" if day % 7 >= 5 else "demandweekdayschedule"][month]
            highest = max([highest, *(kw for kw, own in zip(row, schedule) if own == period)])
        total += tiers[0]["rate"] * highest
    return total


@pytest.mark.parametrize("parts", [FLAT, TIMED, FLAT | TIMED])
def test_demand_charges_of_openei(tmp_path: Path, parts: dict[str, object]) -> None:
    rate = json.loads(urdb(**parts))["items"][0]
    found = read_tariff_file(save(tmp_path / "rate.json", urdb(**parts)), [])
    tariff = Tariff(**demand_charges(found, "rate.json"))
    rng = np.random.default_rng(0)
    for month in (0, 6, 8):
        imports = rng.uniform(0, 100, (14, 24))
        day_type, hour = 1 + np.arange(14).repeat(24) % 7, np.tile(np.arange(24), 14)
        peaks = [
            imports.ravel()[charge.counts(np.full(14 * 24, month + 1), day_type, hour)].max(initial=0.0) * charge.price
            for charge in tariff.charges
        ]
        assert sum(peaks) == pytest.approx(openei_month(rate, month, imports))


def test_what_openei_says_about_export_and_standing_charges(tmp_path: Path) -> None:
    text = urdb(fixedchargefirstmeter=12.0, fixedchargeunits="$/month", lookbackPercent=80, **FLAT)
    text = text.replace('"rate": 0.45', '"rate": 0.45, "sell": 0.05')
    found = read_tariff_file(save(tmp_path / "rate.json", text), [])
    assert found.standing.per_day == pytest.approx(144 / 365)
    assert {part.ratchet for part in found.demand} == {0.8}
    assert {part.price for part in found.export} == {0.0, 0.05}


@pytest.mark.parametrize(
    ("title", "factor"),
    [
        ("Carbon intensity gCO\u2082eq/kWh (direct)", 1e-3),
        ("co2 kg/MWh", 1e-3),
        ("value lbs_co2_per_mwh", 0.45359237e-3),
    ],
)
def test_carbon_intensity_of_a_file(tmp_path: Path, title: str, factor: float) -> None:
    first = START - timedelta(hours=1)
    values = [300.0 + hour % 24 * 5 for hour in range(24 * DAYS)]
    rows = [f"{first + timedelta(hours=h):%Y-%m-%dT%H:%M:%SZ},{v},{v + 50}" for h, v in enumerate(values)]
    other = title.replace("direct", "Life cycle") if "direct" in title else "share of renewables"
    carbon = save(tmp_path / "carbon.csv", "\n".join([f"Datetime (UTC),{title},{other}", *rows]))
    tariff = save(tmp_path / "tariff.yaml", TARIFF)
    files = Files(load=load_file(tmp_path), tariff=str(tariff), zone="Europe/Berlin", carbon=carbon)
    folder = import_case(None, None, None, 0, tmp_path / "case", {}, files=files)[0]
    found = read_site(folder).buildings[0].carbon
    assert np.allclose(found, np.array(values[: len(found)]) * factor)


def test_a_carbon_file_without_a_unit_is_a_question(tmp_path: Path) -> None:
    first = START - timedelta(hours=1)
    rows = [f"{first + timedelta(hours=h):%Y-%m-%dT%H:%M:%SZ},{300 + h % 24}" for h in range(24 * DAYS)]
    carbon = save(tmp_path / "carbon.csv", "\n".join(["time,intensity", *rows]))
    files = Files(load=load_file(tmp_path), tariff="flat", zone="Europe/Berlin", carbon=carbon)
    with pytest.raises(UserError, match="--unit carbon=g/kWh"):
        import_case(None, None, None, 0, tmp_path / "case", {}, files=files)
