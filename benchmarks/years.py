"""The synthetic years of the Iquitos site against its documented figures, and against the metered year.

The first table has what the mean of many years must be; the second sets statistics of single synthetic years beside
those of the metered one; the figure has their quantiles. `--fit` prints the numbers that were fitted.

    python benchmarks/years.py --metered FOLDER --output benchmarks/results
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from iquitos_rl.cases.forecasts import usual
from iquitos_rl.cases.iquitos.build import Year, draw_year
from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.calibration import DOCUMENTED_HIGHEST_KW
from iquitos_rl.cases.iquitos.load import WEEK
from iquitos_rl.cases.iquitos.presets import case_settings
from iquitos_rl.cases.site import Bools, Floats, Ints

LOAD_FILE, WEATHER_FILE = "demandamallhorakwh.csv", "pv_generation_hourly_citylearn_v2.csv"
LEADS = (1, 3, 6, 12, 24, 48)
OPEN = slice(10, 22)
RIDGE = 10.0


class Series(NamedTuple):
    """A year of load, without the days on which the meter read nothing."""

    load: Floats
    """(days, 24) kWh."""
    month: Ints
    """(days,)"""
    kind: Ints
    """(days,) 0 Monday to Thursday, 1 Friday, 2 Saturday, 3 Sunday."""
    usual: Bools
    """(days,) no holiday."""


def metered_load(folder: Path) -> Series:
    table = pd.read_csv(folder / LOAD_FILE, parse_dates=["datetime"])
    begin = table["datetime"].to_numpy().astype("datetime64[h]")
    import holidays

    free = np.array(sorted(holidays.country_holidays("PE", years=2024)), dtype="datetime64[D]")
    calendar = Calendar(begin, holiday=np.isin(begin.astype("datetime64[D]"), free))
    found = series(table["mall_demand_kwh"].to_numpy(float), calendar)
    whole = (found.load > 0).all(axis=1)
    return Series(*(values[whole] for values in found))


def series(load: Floats, calendar: Calendar) -> Series:
    holiday = np.zeros(calendar.rows, bool) if calendar.holiday is None else calendar.holiday
    kind = np.maximum(calendar.weekday - 4, 0)
    return Series(load.reshape(-1, 24), calendar.month[::24], kind[::24], ~holiday[::24])


def expected(year: Series) -> tuple[Floats, Floats]:
    """(days, 24) usual load by hour, month and kind of day, by medians; and (4, 24) the kinds' multiples."""
    week, month = np.ones((4, 24)), np.ones(12)
    shape = np.ones(24)
    for _ in range(20):
        base = week[year.kind] * month[year.month - 1][:, None]
        shape = year.load[year.usual].sum(axis=0) / base[year.usual].sum(axis=0)
        relative = year.load / (shape * week[year.kind])
        month = np.array([np.median(relative[year.usual & (year.month == m + 1)]) for m in range(12)])
        relative = year.load / (shape * month[year.month - 1][:, None])
        week = np.array([np.median(relative[year.usual & (year.kind == k)], axis=0) for k in range(4)])
        week /= (4 * week[0] + week[1] + week[2] + week[3]) / 7
    return shape * week[year.kind] * month[year.month - 1][:, None], week


def statistics(year: Series) -> dict[str, float]:
    """What two years of load are compared by."""
    usual_load, week = expected(year)
    departure = year.load / usual_load - 1
    day = departure.mean(axis=1)
    hours = (departure - day[:, None])[year.usual]
    scaled = (hours / hours.std(axis=0)).ravel()
    kept = np.where(year.usual, day, np.nan)
    peaks = np.array([year.load[year.month == m].max() for m in range(1, 13)])
    ramp = np.diff(year.load, axis=1)
    return {
        "highest hour, kW": year.load.max(),
        "mean of the months' highest hours, kW": peaks.mean(),
        "the same, deviation within a year, kW": peaks.std(),
        "days about their usual load, deviation": float(np.nanstd(kept)),
        "the same, correlation after a day": correlation(kept, 1),
        "the same, after two days": correlation(kept, 2),
        "the same, after a week": correlation(kept, 7),
        "the same, excess kurtosis": kurtosis(kept[~np.isnan(kept)]),
        "hours about their day, 10 to 22 h, deviation": hours[:, OPEN].std(),
        "the same, 0 to 6 h": hours[:, :6].std(),
        "the same, 22 to 24 h": hours[:, 22:].std(),
        "hours, correlation after an hour": correlation(scaled, 1),
        "the same, after 3 hours": correlation(scaled, 3),
        "the same, after a day": correlation(scaled, 24),
        "the same, excess kurtosis ": kurtosis(scaled),
        "ramp within a day, 1 % quantile, kW": float(np.quantile(ramp, 0.01)),
        "the same, 99 %": float(np.quantile(ramp, 0.99)),
        "Sundays from 7 to 9 h, of the week's mean": week[3, 7:9].mean(),
        "Fridays and Saturdays at 22 h, of the week's mean": week[1:3, 22].mean(),
    }


def correlation(values: Floats, lag: int) -> float:
    a, b = values[:-lag], values[lag:]
    both = ~np.isnan(a) & ~np.isnan(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def kurtosis(values: Floats) -> float:
    centred = values - values.mean()
    return float(np.mean(centred**4) / np.mean(centred**2) ** 2 - 3)


def weather_statistics(ghi: Floats, temperature: Floats, month: Ints) -> dict[str, float]:
    """Days of irradiation and temperature about the mean of their month."""

    def about(values: Floats, divide: bool) -> Floats:
        day = values.reshape(-1, 24).mean(axis=1)
        mean = np.array([day[month[::24] == m].mean() for m in range(1, 13)])[month[::24] - 1]
        return np.asarray(day / mean - 1 if divide else day - mean)

    sun, warm = about(ghi, True), about(temperature, False)
    return {
        "irradiation of days about their month, deviation": sun.std(),
        "the same, 1 % quantile": float(np.quantile(sun, 0.01)),
        "the same, correlation after a day": correlation(sun, 1),
        "temperature of days about their month, deviation, K": warm.std(),
        "the same, correlation after a day ": correlation(warm, 1),
        "correlation of both": float(np.corrcoef(sun, warm)[0, 1]),
    }


def skill_of_regression(load: Floats, hour: Ints, day_type: Ints) -> list[float]:
    """Share of the variance about the usual value that a regression on the load's past explains in the half year that
    it was not fitted to, by lead; a mean of both halves."""
    departure = load - usual(load, hour, day_type, 48)
    scaled = departure / np.sqrt(np.bincount(hour, departure**2) / np.bincount(hour))[hour]
    rows = np.arange(200, len(load) - 48)
    day_mean = np.convolve(scaled, np.ones(24) / 24)[: len(scaled)]
    found = []
    for lead in LEADS:
        past = [scaled[rows - back] for back in (0, 1, 2, 3, 5, 7, 11)]
        past += [scaled[rows + lead - back] for back in (24, 48, 72) if lead <= back]
        inputs, wanted = np.stack([np.ones(len(rows)), day_mean[rows], *past], axis=1), scaled[rows + lead]
        shares = []
        for late in (False, True):
            tested = (rows >= len(load) // 2) == late
            error = np.zeros(len(rows))
            for h in range(24):
                own = hour[rows + lead] == h
                x = inputs[own & ~tested]
                weight = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ wanted[own & ~tested])
                error[own] = wanted[own] - inputs[own] @ weight
            shares.append(1 - np.sum(error[tested] ** 2) / np.sum(wanted[tested] ** 2))
        found.append(float(np.mean(shares)))
    return found


def ghi_of(year: Year) -> Floats:
    return year.weather.ghi


def mean_year(years: Sequence[Year]) -> list[str]:
    """Rows of the table of documented figures: mean and deviation of the years, and how far the mean is."""
    settings = case_settings("iquitos-38")
    load, weather = settings.load, settings.weather
    months = np.array(load.monthly_mwh) * load.annual_kwh / sum(load.monthly_mwh) / 1000

    def of_month(values: Callable[[Year], Floats], m: int) -> Floats:
        return np.array([values(y)[y.calendar.month == m].sum() / 1000 for y in years])

    figures: list[tuple[str, Floats, float | None]] = [
        ("load, year, MWh", np.array([y.load.sum() / 1000 for y in years]), load.annual_kwh / 1000),
        *((f"load, month {m}, MWh", of_month(lambda y: y.load, m), months[m - 1]) for m in (1, 4, 7, 10, 12)),
        ("load, mean at 3 h, kW", np.array([y.load[3::24].mean() for y in years]), hourly(load.hourly_kw, 3)),
        ("load, mean at 15 h, kW", np.array([y.load[15::24].mean() for y in years]), hourly(load.hourly_kw, 15)),
        ("load, highest hour, kW", np.array([y.load.max() for y in years]), DOCUMENTED_HIGHEST_KW),
        ("GHI, year, kWh/m2", np.array([y.weather.ghi.sum() / 1000 for y in years]), sum(weather.monthly_ghi)),
        *(
            (f"GHI, month {m}, kWh/m2", of_month(lambda y: y.weather.ghi, m), weather.monthly_ghi[m - 1])
            for m in (2, 6, 10)
        ),
        ("temperature, mean, degC", np.array([y.weather.temperature.mean() for y in years]), 25.7),
        ("PV, year, MWh", np.array([y.pv.sum() / 1000 for y in years]), None),
        ("visits, of the mean", np.array([y.busy.mean() for y in years]), 1.0),
    ]
    rows = []
    for name, values, documented in figures:
        error = values.std(ddof=1) / np.sqrt(len(values))
        away = "" if documented is None else f"{(values.mean() - documented) / error:+.1f}"
        told = f"{documented:,.5g}" if documented is not None else "5,300 to 5,700"
        spread = f"{values.std(ddof=1) / values.mean():.1%}"
        least, most = f"{values.min():,.5g}", f"{values.max():,.5g}"
        rows.append(f"| {name} | {values.mean():,.5g} | {spread} | {least} to {most} | {told} | {away} |")
    return rows


def hourly(shape: Sequence[float], hour: int) -> float:
    return shape[hour] / sum(shape) * case_settings("iquitos-38").load.annual_kwh / 365


def beside(metered: dict[str, float], years: Sequence[dict[str, float]]) -> list[str]:
    """Rows of the table of a metered year beside single synthetic ones, with the share of these that lie below it."""
    rows = []
    for name, value in metered.items():
        own = np.array([year[name] for year in years])
        low, high = np.quantile(own, [0.05, 0.95])
        below = f"{(own < value).mean():.0%}"
        rows.append(f"| {name.strip()} | {value:,.3g} | {own.mean():,.3g} | {low:,.3g} to {high:,.3g} | {below} |")
    return rows


def draw(metered: Series, years: Sequence[Series]) -> Figure:
    """Quantiles of the metered year over those of synthetic years, whose fifth to 95th percentile is shaded."""

    def peaks(year: Series) -> Floats:
        return np.array([year.load[year.month == m].max() for m in range(1, 13)])

    kinds: tuple[tuple[str, str, Callable[[Series], Floats]], ...] = (
        ("energy of days", "MWh", lambda y: y.load.sum(axis=1) / 1000),
        ("highest hours of months", "kW", peaks),
        ("ramps within a day", "kW", lambda y: np.diff(y.load, axis=1).ravel()),
        ("load duration", "kW", lambda y: y.load.ravel()),
    )
    figure = Figure(figsize=(9, 7.6), layout="constrained")
    for axis, (title, unit, of) in zip(figure.subplots(2, 2).flat, kinds):
        share = (np.arange(12) + 0.5) / 12 if of is peaks else np.linspace(0.001, 0.999, 400)
        own = np.array([np.quantile(of(year), share) for year in years])
        real, middle = np.quantile(of(metered), share), np.median(own, axis=0)
        low, high = np.quantile(own, [0.05, 0.95], axis=0)
        if title == "load duration":
            x, label = 100 * (1 - share), "share of the hours with more, %"
        else:
            x, label = middle, f"synthetic, {unit}"
            axis.plot(x, x, color="#888888", lw=0.8, label="equal")
        axis.fill_between(x, low, high, color="#56B4E9", alpha=0.4, lw=0, label="90 % of synthetic years")
        style = {"marker": "o", "ms": 4, "lw": 0} if of is peaks else {"lw": 1.4}
        axis.plot(x, real, color="#D55E00", label="metered, 2024", **style)
        axis.set(title=title, xlabel=label, ylabel=f"metered, {unit}" if title != "load duration" else unit)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=8)
    return figure


def print_fit(metered: Series, folder: Path) -> None:
    """The fitted numbers of `load.py`, unrounded."""
    usual_load, week = expected(metered)
    departure = metered.load / usual_load - 1
    hours = departure - departure.mean(axis=1)[:, None]
    for name, values in zip(WEEK, week):
        print(name, values.round(3).tolist())
    spread = hours[metered.usual].std(axis=0)
    print("spread of hours over that of 10 to 22 h", (spread / spread[OPEN].mean()).round(2).tolist())
    free = departure[~metered.usual]
    shut = free[:, OPEN].mean(axis=1) < -0.3
    for name, own in (("shut", free[shut]), ("other holidays", free[~shut])):
        print(name, "from 6 h", 1 + own[:, 6:10].mean().round(3), "from 10 h", 1 + own[:, OPEN].mean().round(3))
    print((folder / WEATHER_FILE).name, "temperature of months about their mean, K")
    table = pd.read_csv(folder / WEATHER_FILE)
    month = table["datetime"].str[5:7].astype(int)
    temperature = table["temp_air_c"].groupby(month).mean()
    print((temperature - temperature.mean()).round(2).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metered", type=Path, required=True, help=f"folder with {LOAD_FILE} and {WEATHER_FILE}")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--years", type=int, default=200)
    parser.add_argument("--fit", action="store_true")
    asked = parser.parse_args()
    settings = case_settings("iquitos-38")
    years = [draw_year(settings, seed) for seed in range(asked.years)]
    metered = metered_load(asked.metered)
    if asked.fit:
        print_fit(metered, asked.metered)
    made = [series(year.load, year.calendar) for year in years]
    table = pd.read_csv(asked.metered / WEATHER_FILE)
    month = table["datetime"].str[5:7].astype(int).to_numpy().astype(np.int64)
    typical = weather_statistics(table["ghi_wm2"].to_numpy(float), table["temp_air_c"].to_numpy(float), month)
    weather = [weather_statistics(y.weather.ghi, y.weather.temperature, y.calendar.month) for y in years]
    raw = pd.read_csv(asked.metered / LOAD_FILE, parse_dates=["datetime"])
    whole = raw["mall_demand_kwh"].where(raw["mall_demand_kwh"] > 0).interpolate().to_numpy(float)
    begin = Calendar(raw["datetime"].to_numpy().astype("datetime64[h]"))
    explained = skill_of_regression(whole, begin.hour, begin.weekday)
    own = [skill_of_regression(y.load, y.calendar.hour, y.calendar.day_type) for y in years[:10]]
    text = [
        f"# {asked.years} synthetic years of the Iquitos site",
        "",
        "`python benchmarks/years.py --metered FOLDER`, seeds 0 on. The documented figures are those of the mean year.",
        "",
        "| figure | mean | deviation | least to most | documented | away, standard errors |",
        "|---|---|---|---|---|---|",
        *mean_year(years),
        "",
        "The highest hour is that of one metered year, and is not calibrated.",
        "",
        "## One metered year beside single synthetic ones",
        "",
        f"Load of 2024 without the {365 - len(metered.load)} days on which the meter read zero, and the typical year "
        "of weather, which is no real year. The last column is the share of synthetic years that lie below: between "
        "5 and 95 % a synthetic year could have been the metered one. Spreads, correlations, tails and events were set "
        "by hand, in six rounds, to match these same figures of this one year: the match shows what the generator can "
        "and cannot do, and is no test on data that it has not seen.",
        "",
        "| statistic | metered | synthetic, mean | 90 % of years | below |",
        "|---|---|---|---|---|",
        *beside(statistics(metered), [statistics(year) for year in made]),
        *beside(typical, weather),
        "",
        "![Quantiles of synthetic and metered load](years.png)",
        "",
        "## What the load's own past tells of its next hours",
        "",
        "Share of the variance about the usual value that a regression explains in the half year that it was not "
        "fitted to.",
        "",
        "| hours ahead | " + " | ".join(map(str, LEADS)) + " |",
        "|---" * (len(LEADS) + 1) + "|",
        "| metered, 2024 | " + " | ".join(f"{share:.2f}" for share in explained) + " |",
        "| synthetic, mean of 10 years | " + " | ".join(f"{share:.2f}" for share in np.mean(own, axis=0)) + " |",
    ]
    (asked.output / "years.md").write_text("\n".join(text) + "\n", encoding="utf-8")
    draw(metered, made).savefig(asked.output / "years.png", dpi=110)
    print("\n".join(text))


if __name__ == "__main__":
    main()
