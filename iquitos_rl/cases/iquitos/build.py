"""The Iquitos case: a synthetic year of the Mall de Iquitos, written as a CityLearn 3.0.2 schema folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from iquitos_rl.cases.iquitos import solar
from iquitos_rl.cases.iquitos.presets import IQUITOS, CaseSettings, LoadSettings, Overrides, case_settings
from iquitos_rl.cases.iquitos.solar import Calendar, Sun, Weather
from iquitos_rl.cases.iquitos.visits import KINDS, Visits, draw_visits, socket_counts
from iquitos_rl.cases.iquitos.write import preset_sockets, write_case
from iquitos_rl.cases.presets import Preset
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.inputs import read_json
from iquitos_rl.version import __version__

WEATHER_STREAM, FORECAST_STREAM, LOAD_STREAM, VISIT_STREAM = range(4)
JANUARY_HOURS = 744
LARGEST_DEVIATION = 0.13
"""Largest relative deviation. Metered hours exceed their mean day by at most 21 %, seasons included."""


def stream(year_seed: int, number: int, *more: int) -> np.random.Generator:
    """One random stream per purpose, so that changing the sockets does not change the weather."""
    return np.random.default_rng([year_seed, number, *more])


def build_case(preset: str, year_seed: int, output: Path, settings: Overrides = None) -> Path:
    """Write a case folder and return its path. Equal arguments give byte-identical files.

    Args:
        preset: "iquitos-128" or "iquitos-38".
        year_seed: seed of weather, forecast errors, load variation and visits; >= 0.
        output: a folder that does not exist yet or is empty.
        settings: `{"group.key": value}` overrides of the preset, or complete settings that replace it.

    Raises:
        UserError: an unknown preset or key, an invalid value, or an output folder that is not empty.
    """
    settings = case_settings(preset, settings)
    if settings.pv.model == "metered":
        raise UserError("setting pv.model: 'metered' needs a PV file, use the import command")
    if year_seed < 0:
        raise UserError(f"year seed {year_seed}: must not be negative")
    calendar = solar.generic_year()
    sun = solar.sun_position(calendar, settings.site, settings.weather.linke_turbidity)
    weather = solar.synthetic_weather(calendar, sun, settings.weather, stream(year_seed, WEATHER_STREAM))
    load = synthetic_load(calendar, settings.load, stream(year_seed, LOAD_STREAM))
    pv, warnings = modelled_pv(weather, sun, settings)
    return finish_case(output, preset, year_seed, settings, calendar, sun, weather, load, pv, warnings)


def build_january(year_seed: int, output: Path, settings: Overrides = None) -> Path:
    """iquitos-38 with a schema that simulates January only: for a first look that takes a minute."""
    build_case("iquitos-38", year_seed, output, settings)
    path = output / "schema.json"
    schema = read_json(path)
    schema["simulation_end_time_step"] = schema["simulation_start_time_step"] + JANUARY_HOURS - 1
    write_json(path, schema)
    return output


IQUITOS_128, IQUITOS_38 = (Preset(partial(build_case, name), IQUITOS[name]) for name in ("iquitos-128", "iquitos-38"))
IQUITOS_38_JANUARY = Preset(build_january, IQUITOS["iquitos-38"])


def synthetic_load(calendar: Calendar, settings: LoadSettings, rng: np.random.Generator) -> Floats:
    """(T,) kWh per hour with the documented monthly sums and mean day, and correlated random variation.

    The 8,760 metered hours of 2024 include 29 February and lack 31 December, so the documented February has 29 days and
    December 30. The generic year spreads the same energy over 28 and 31 days. The 28 metered hours of zero are outages
    and are not reproduced.
    """
    daily = settings.daily_std * solar.daily_ar1(calendar, rng, 0.57)
    hourly = settings.hourly_std * solar.ar1(rng, calendar.rows, 0.8)
    deviation = LARGEST_DEVIATION * np.tanh((daily + hourly) / LARGEST_DEVIATION)
    shape = np.array(settings.hourly_kw)
    load = shape[calendar.hour] * (1 + deviation)
    share = solar.month_share(calendar)
    by_month = np.array(settings.monthly_mwh) * (settings.annual_kwh / sum(settings.monthly_mwh)) * share
    by_hour = shape * (by_month.sum() / shape.sum())
    # Iterative proportional fitting (Deming and Stephan 1940); months are scaled last, so they are met exactly.
    for _ in range(20):
        load = load * (by_hour / np.maximum(np.bincount(calendar.hour, load, minlength=24), 1e-9))[calendar.hour]
        month = calendar.month - 1
        load = load * (by_month / np.maximum(np.bincount(month, load, minlength=12), 1e-9))[month]
    return np.asarray(load, dtype=np.float64)


def modelled_pv(
    weather: Weather, sun: Sun, settings: CaseSettings, wind_speed: Floats | None = None
) -> tuple[Floats, list[str]]:
    """(T,) AC kW by `pv.model`, and warnings. Without a `wind_speed` series (m/s) the mean of the settings is used."""
    kw = solar.pvwatts_kw(weather, sun, settings.pv, settings.weather.wind_speed if wind_speed is None else wind_speed)
    if settings.pv.model == "pvwatts":
        return kw, []
    scaled = solar.scaled_to_energy(kw, settings.pv.annual_kwh * (len(kw) / 8760), settings.pv.ac_kw)
    ratio = performance_ratio(scaled, weather, settings)
    warning = (
        f"pv.model=documented: PV scaled from {kw.sum() / 1e6:.2f} to {scaled.sum() / 1e6:.2f} GWh, the design files' "
        f"figure; with {weather.ghi.sum() / 1000:,.0f} kWh/m2 that is a performance ratio of {ratio:.2f}"
    )
    return scaled, [warning + (", which no plant reaches" if ratio > 1 else "")]


def performance_ratio(pv_kw: Floats, weather: Weather, settings: CaseSettings) -> float:
    """Energy per kW of DC nameplate, divided by the horizontal irradiation in kWh/m2."""
    return float(pv_kw.sum() / max(settings.pv.dc_kw, 1e-9) / max(weather.ghi.sum() / 1000, 1e-9))


def finish_case(
    output: Path,
    preset: str,
    year_seed: int,
    settings: CaseSettings,
    calendar: Calendar,
    sun: Sun,
    weather: Weather,
    load: Floats,
    pv: Floats,
    warnings: list[str],
) -> Path:
    """Add forecasts, visits and key figures to the series of a case, and write it."""
    columns = forecast_columns(calendar, sun, weather, settings, year_seed)
    visits = drawn_visits(calendar, settings, year_seed)
    figures = series_figures(calendar, settings, weather, load, pv) | visit_figures(
        visits, settings, calendar.rows / 24
    )
    provenance = {
        "preset": preset,
        "year_seed": year_seed,
        "package_version": __version__,
        "warnings": warnings,
        "assumptions": [],
        "figures": figures,
    }
    sockets = preset_sockets(settings, visits, calendar.rows)
    return write_case(output, settings, calendar, load, pv, columns, sockets, provenance)


def forecast_columns(
    calendar: Calendar, sun: Sun, weather: Weather, settings: CaseSettings, year_seed: int
) -> dict[str, Floats]:
    """The 16 columns of weather.csv."""
    skills = settings.weather.forecast_skill
    return solar.weather_columns(calendar, weather, sun, skills, stream(year_seed, FORECAST_STREAM))


def drawn_visits(calendar: Calendar, settings: CaseSettings, year_seed: int) -> tuple[Visits, ...]:
    """Random visits at every kind of socket; on a calendar of hours."""
    return tuple(
        draw_visits(calendar, settings.visits, kind, count, per_socket, stream(year_seed, VISIT_STREAM, number))
        for number, (kind, (count, _, _, per_socket)) in enumerate(socket_counts(settings).items())
        if kind in KINDS and count > 0
    )


def series_figures(
    calendar: Calendar, settings: CaseSettings, weather: Weather, load: Floats, pv: Floats
) -> dict[str, float]:
    """Key figures of load (kWh per row), PV (mean kW) and weather."""
    hours = calendar.seconds / 3600
    return {
        "load_kwh": round(float(load.sum()), 1),
        "load_max_kw": round(float(load.max()) / hours, 1),
        "pv_kwh": round(float(pv.sum()) * hours, 1),
        "ghi_kwh_m2": round(float(weather.ghi.sum()) * hours / 1000, 2),
        "pv_performance_ratio": round(performance_ratio(pv, weather, settings) if settings.pv.dc_kw else 0.0, 4),
    }


def visit_figures(visits: tuple[Visits, ...], settings: CaseSettings, days: float) -> dict[str, float]:
    """Visits and energy per day: `needed` is energy into the batteries, `at_sockets` what that draws from the grid."""
    one_way = settings.sockets.efficiency * settings.vehicles.round_trip_efficiency**0.5
    counts = socket_counts(settings)
    number, needed, missed = sum(len(v.row) for v in visits), 0.0, 0
    for v in visits:
        _, power, capacity, _ = counts[v.kind]
        wanted = (v.required_soc - v.arrival_soc) * capacity
        needed += float(wanted.sum())
        missed += int((wanted > v.stay * power * one_way + 1e-9).sum())
    return {f"{v.kind}_visits_per_day": round(len(v.row) / days, 2) for v in visits} | {
        "visits_per_day": round(number / days, 2),
        "mean_stay_hours": round(sum(int(v.stay.sum()) for v in visits) / max(number, 1), 3),
        "ev_needed_kwh_per_day": round(needed / days, 1),
        "ev_at_sockets_kwh_per_day": round(needed / one_way / days, 1),
        "share_of_visits_out_of_reach": round(missed / max(number, 1), 5),
        "share_of_visits_without_free_row_before": round(sum(int(v.follows.sum()) for v in visits) / max(number, 1), 4),
    }
