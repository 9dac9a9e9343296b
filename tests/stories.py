"""Ten owners: the raw files that each has, what each says on the command line, and the sums that must come out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

DAYS = 3


class Story(NamedTuple):
    words: list[str]
    """After `case import`, without the output."""
    load_kwh: float
    pv_kwh: float
    cases: tuple[str, ...] = ("",)
    """Folders below the output, the last to be judged on."""
    visits: int = 0
    earns: bool = False
    """Whether exports earn something."""
    charged: bool = False
    """Whether there are demand charges."""


def clock(zone: str, start: str, minutes: int, days: int = DAYS) -> pd.DatetimeIndex:
    first = pd.Timestamp(start, tz=zone)
    return pd.date_range(first, first + pd.DateOffset(days=days), freq=f"{minutes}min", inclusive="left")


def home_kw(at: pd.DatetimeIndex) -> np.ndarray:
    """A home's mean power."""
    hour, day = np.asarray(at.hour + at.minute / 60), np.asarray(at.day)
    return 0.25 + 0.5 * np.exp(-((hour - 7.5) ** 2) / 2) + 1.1 * np.exp(-((hour - 19) ** 2) / 4) + 0.05 * (day % 3)


def sun_kw(at: pd.DatetimeIndex, peak: float) -> np.ndarray:
    """PV of a plant, by the sun of UTC + 1."""
    hour, day = np.asarray(at.tz_convert("UTC").hour + 1 + at.minute / 60) % 24, np.asarray(at.day)
    return peak * np.maximum(0.0, np.sin((hour - 6) / 12 * np.pi)) * (0.6 + 0.1 * (day % 4))


def write(path: Path, head: str, rows: list[str], encoding: str = "utf-8") -> str:
    path.write_text("\n".join([head, *rows]) + "\n", encoding=encoding)
    return str(path)


def iso(path: Path, head: str, at: pd.DatetimeIndex, values: np.ndarray) -> str:
    """A table of times with their offsets and one column."""
    return write(path, head, [f"{t.isoformat()},{x:.4f}" for t, x in zip(at, values)])


BATTERY = ["--set", "bess.capacity_kwh=10", "--set", "bess.power_kw=5"]
BERLIN = ["--zone", "Europe/Berlin", "--set", "site.latitude=52.5", "--set", "site.longitude=13.4"]


def german_home(folder: Path) -> Story:
    """PV and battery, quarters of an hour with a decimal comma across the change of the clocks, feed-in tariff."""
    at = clock("Europe/Berlin", "2024-03-30", 15)
    load, pv = home_kw(at) / 4, sun_kw(at, 7.0) / 4
    comma = [f"{t:%d.%m.%Y %H:%M};" + f"{kwh:.4f}".replace(".", ",") for t, kwh in zip(at, load)]
    tariff = "currency: EUR\nholidays: DE\nexport: 0.082\nstanding: {month: 12}\ntax: 0.19\n"
    tariff += "energy:\n- {price: 0.30, hours: 17-21, days: workdays}\n- {price: 0.23}\n"
    words = ["--load", write(folder / "zaehler.csv", "Zeitstempel;Verbrauch [kWh]", comma, "cp1252")]
    watts = [f"{t.isoformat()},{4000 * kwh:.1f}" for t, kwh in zip(at, pv)]
    words += ["--pv", write(folder / "inverter.csv", "time,PV power (W)", watts)]
    words += ["--tariff", write(folder / "tariff.yaml", tariff, []), *BERLIN, *BATTERY]
    return Story(words, load.sum(), pv.sum(), earns=True)


def spot_home(folder: Path) -> Story:
    """Prices of the exchange that fall below 0, exports at the same price, the grid's hourly carbon."""
    at = clock("Europe/Berlin", "2024-05-10", 60)
    load, pv = home_kw(at), sun_kw(at, 5.0)
    spot = 80 - 130 * (at.hour == 13) + 60 * (at.hour == 19)
    rows = [f"{t.tz_convert('UTC'):%Y-%m-%dT%H:%M:%SZ},{price}" for t, price in zip(at, spot)]
    write(folder / "spot.csv", "time,Day-ahead [EUR/MWh]", rows)
    carbon = [f"{t.tz_convert('UTC'):%Y-%m-%d %H:%M},{300 + 10 * t.hour}" for t in at]
    tariff = "currency: EUR\nprices: {file: spot.csv, add: 0.02}\nexport: {file: spot.csv}\n"
    words = [
        "--load",
        iso(folder / "load.csv", "time,load (kW)", at, load),
    ]
    words += ["--pv", iso(folder / "pv.csv", "time,pv kW", at, pv)]
    words += ["--carbon", write(folder / "co2.csv", "Datetime (UTC),Carbon intensity gCO2eq/kWh (direct)", carbon)]
    words += ["--tariff", write(folder / "tariff.yaml", tariff, []), *BERLIN, *BATTERY]
    return Story(words, load.sum(), pv.sum(), earns=True)


def depot(folder: Path) -> Story:
    """Vans that charge overnight, from the log of the charging stations; no other load."""
    first = datetime(2024, 6, 3, tzinfo=timezone.utc)
    rows = []
    for day in range(DAYS):
        for van in range(3):
            begin = first + timedelta(days=day, hours=15 + van)
            rows.append(f"{begin:%Y-%m-%d %H:%M},{begin + timedelta(hours=12):%Y-%m-%d %H:%M},{20 + 4 * van},dock{van}")
    words = ["--sessions", write(folder / "sessions.csv", "plug_in,plug_out,kWh,socket", rows)]
    words += ["--zone", "UTC", "--minutes", "60", "--charger-kw", "11", "--vehicle-kwh", "60"]
    tariff = "currency: EUR\nenergy:\n- {price: 0.18, hours: 22-6}\n- {price: 0.31}\ndemand: [{price: 8.0}]\n"
    words += ["--tariff", write(folder / "tariff.yaml", tariff, [])]
    return Story(words, 0.0, 0.0, visits=3 * DAYS, charged=True)


def mall(folder: Path) -> Story:
    """Megawatts, sockets and tariff of the preset."""
    at = clock("America/Lima", "2023-01-09", 60)
    hour = np.asarray(at.hour)
    load = 600 + 1500 * ((hour >= 10) & (hour < 22)) + 40 * np.cos(hour)
    pv = 3000 * np.maximum(0.0, np.sin((hour + 0.5 - 6) / 12 * np.pi))
    words = [
        "--load",
        write(folder / "mall.csv", "datetime,kWh", [f"{t:%Y-%m-%d %H:%M},{x}" for t, x in zip(at, load)]),
    ]
    words += ["--pv", write(folder / "pv.csv", "datetime,kWh", [f"{t:%Y-%m-%d %H:%M},{x:.2f}" for t, x in zip(at, pv)])]
    words += ["--preset", "iquitos-38", "--tariff", "mt3", "--zone", "America/Lima"]
    return Story(
        [*words, "--set", "sockets.moto_count=3", "--set", "sockets.mototaxi_count=2"],
        load.sum(),
        pv.sum(),
        charged=True,
    )


def emhass(folder: Path) -> Story:
    """Half hours in W, as EMHASS keeps them, with load and PV in one file."""
    at = clock("Europe/Paris", "2024-04-08", 30)
    load, pv = home_kw(at), sun_kw(at, 3.0)
    rows = [f"{t.isoformat(sep=' ')},{1000 * x:.1f},{1000 * y:.1f}" for t, x, y in zip(at, load, pv)]
    file = write(folder / "data.csv", "timestamp,sensor.power_load_no_var_loads,sensor.power_photovoltaics", rows)
    words = ["--load", file, "--load-column", "sensor.power_load_no_var_loads", "--unit", "W"]
    words += ["--pv", file, "--pv-column", "sensor.power_photovoltaics", "--zone", "Europe/Paris", *BATTERY]
    words += [
        "--set",
        "tariff.energy_off_peak=0.21",
        "--set",
        "tariff.energy_peak=0.28",
        "--set",
        "tariff.currency=EUR",
    ]
    return Story([*words, "--set", "tariff.peak_hours=[7,8,18,19,20]"], load.sum() / 2, pv.sum() / 2)


def net_meter(folder: Path) -> Story:
    """A meter that counts import and export, and the inverter's file: the load is their sum."""
    at = clock("Europe/Berlin", "2024-06-10", 60)
    load, pv = home_kw(at), sun_kw(at, 4.0)
    rows = [f"{t.isoformat()},{x:.4f}" for t, x in zip(at, load - pv)]
    words = ["--load", write(folder / "net.csv", "time,net kWh", rows), "--quantity", "load=net"]
    words += ["--pv", iso(folder / "pv.csv", "time,PV kWh", at, pv)]
    tariff = "currency: EUR\nenergy: [{price: 0.34}]\nexport: 0.08\nexport_limit_kw: 2\n"
    words += ["--tariff", write(folder / "tariff.yaml", tariff, []), *BERLIN, *BATTERY]
    return Story(words, load.sum(), pv.sum(), earns=True)


def no_pv(folder: Path) -> Story:
    """A battery at two prices, from a register of the meter."""
    at = clock("Europe/Berlin", "2024-02-05", 60)
    load = home_kw(at)
    register = np.concatenate([[0.0], np.cumsum(load)]) + 5120.3
    stamps = [*at, at[-1] + pd.Timedelta(hours=1)]
    rows = [f"{t.isoformat()},{x:.4f}" for t, x in zip(stamps, register)]
    tariff = "currency: EUR\nenergy:\n- {price: 0.19, hours: 0-6}\n- {price: 0.33}\n"
    words = ["--load", write(folder / "meter.csv", "time,Total energy import (kWh)", rows), *BERLIN, *BATTERY]
    return Story([*words, "--tariff", write(folder / "tariff.yaml", tariff, [])], load.sum(), 0.0)


def no_battery(folder: Path) -> Story:
    """PV and one wallbox at home."""
    at = clock("Europe/Berlin", "2024-06-10", 60)
    load, pv = home_kw(at), sun_kw(at, 6.0)
    words = ["--load", iso(folder / "load.csv", "time,kWh", at, load)]
    words += ["--pv", iso(folder / "pv.csv", "time,PV kWh", at, pv)]
    rows = [f"2024-06-{10 + day} 09:00,2024-06-{10 + day} 20:00,12.5,wallbox" for day in range(DAYS)]
    words += ["--sessions", write(folder / "wallbox.csv", "start,end,energy_kwh,station", rows), "--charger-kw", "11"]
    tariff = "currency: EUR\nenergy: [{price: 0.30}]\nexport: 0.08\n"
    return Story(
        [*words, "--tariff", write(folder / "tariff.yaml", tariff, []), *BERLIN],
        load.sum(),
        pv.sum(),
        visits=DAYS,
        earns=True,
    )


def two_years(folder: Path) -> Story:
    """A year and the first weeks of the next: a case each."""
    at = pd.date_range("2022-01-01", "2023-01-30", freq="h", tz="Europe/Berlin", inclusive="left")
    load = home_kw(at)
    rows = [f"{t.isoformat()},{x:.4f}" for t, x in zip(at, load)]
    words = ["--load", write(folder / "load.csv", "time,kWh", rows), *BERLIN, *BATTERY]
    tariff = "currency: EUR\nenergy:\n- {price: 0.22, hours: 22-6}\n- {price: 0.36}\n"
    words += ["--tariff", write(folder / "tariff.yaml", tariff, [])]
    return Story(words, load[np.asarray(at.year) == 2023].sum(), 0.0, cases=("2022", "2023"))


def us_demand_charge(folder: Path) -> Story:
    """A shop in California: AM and PM, a rate of OpenEI with demand charges by season and in all hours, a ratchet."""
    at = clock("America/Los_Angeles", "2024-06-29", 60)
    hour = np.asarray(at.hour)
    load = 30 + 50 * ((hour >= 9) & (hour < 20)) + np.asarray(at.day) % 7
    rows = [f'{t:%m/%d/%Y %I:%M %p},"{x:,.1f}"' for t, x in zip(at, load)]
    summer, winter = [0] * 16 + [1] * 5 + [0] * 3, [0] * 24
    rate = {
        "energyratestructure": [[{"rate": 0.18}], [{"rate": 0.42, "sell": 0.05}]],
        "energyweekdayschedule": [summer if 5 <= m <= 8 else winter for m in range(12)],
        "energyweekendschedule": [winter] * 12,
        "demandratestructure": [[{"rate": 0.0}], [{"rate": 21.0}]],
        "demandweekdayschedule": [summer if 5 <= m <= 8 else winter for m in range(12)],
        "demandweekendschedule": [winter] * 12,
        "flatdemandstructure": [[{"rate": 9.5}]],
        "flatdemandmonths": [0] * 12,
        "lookbackPercent": 80,
        "fixedchargefirstmeter": 140.0,
        "fixedchargeunits": "$/month",
    }
    (folder / "rate.json").write_text(json.dumps({"items": [rate]}), encoding="utf-8")
    words = ["--load", write(folder / "meter.csv", "Date,Usage (kWh)", rows), "--tariff", str(folder / "rate.json")]
    words += ["--dates", "mdy", "--zone", "America/Los_Angeles"]
    words += ["--set", "bess.capacity_kwh=100", "--set", "bess.power_kw=50"]
    return Story(words, float(load.sum()), 0.0, earns=True, charged=True)


STORIES: dict[str, Callable[[Path], Story]] = {
    story.__name__: story
    for story in (
        *(german_home, spot_home, depot, mall, emhass),
        *(net_meter, no_pv, no_battery, two_years, us_demand_charge),
    )
}
