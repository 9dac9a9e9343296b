"""Tariffs of owners: every row has the price that the tariff says, and what the bill cannot hold is refused."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from owners import save

from iquitos_rl.cases.metered.importer import Files, import_case
from iquitos_rl.cases.metered.tariff_file import read_tariff_file
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.task.objective import read_tariff
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
    assert np.allclose(found, [max(0.0, value / 1000 * 1.2 + 0.1) for value in spot[: len(found)]])
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
REFUSED = {
    "feed-in": ("currency: EUR\nexport: 0.08\nenergy: [{price: 0.3}]\n", "does not pay for export yet"),
    "facility and peak demand": (TARIFF.replace(", hours: other", ""), "one price per kW for some hours"),
    "three demand charges": (TARIFF + "- {price: 1.0, hours: 0-6}\n", "demand has 3 entries"),
    "a gap": ("currency: EUR\nenergy: [{price: 0.3, hours: 6-22}]\n", "no price holds at 2024-03-25T00:00:00"),
    "a mistyped key": ("currency: EUR\nenergy: [{prize: 0.3}]\n", r"tariff\.yaml: energy\.0\.price: Field required"),
    "no currency": ("energy: [{price: 0.3}]\n", "currency: Field required"),
    "nothing": ("currency: EUR\n", "energy, or prices of a file"),
    "no tariff": ("- 1\n", "a tariff is a list of keys"),
    "no country": (TARIFF.replace("holidays: DE", "holidays: XX"), "XX is no country or region"),
    "no hours": (TARIFF.replace("22-6", "22-66"), "hours lie between 0 and 24"),
    "demand by day": (urdb(**TIMED), "differ by season or day"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_bill_cannot_hold_is_refused_by_name(name: str, tmp_path: Path) -> None:
    text, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as caught:
        case_of(tmp_path, text, "rate.json" if text.startswith("{") else "tariff.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "case").exists()


def test_demand_charges_of_openei_by_hour(tmp_path: Path) -> None:
    all_days = {**TIMED, "demandweekendschedule": TIMED["demandweekdayschedule"]}
    tariff = read_tariff_file(save(tmp_path / "rate.json", urdb(**all_days)), [])
    assert [(part.price, part.hours) for part in tariff.demand] == [(15.0, (17, 18, 19, 20)), (3.0, "other")]
