"""The Iquitos case: a synthetic year of the Mall de Iquitos, written as a CityLearn 3.0.2 schema folder."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iquitos_rl.cases.iquitos import solar
from iquitos_rl.cases.iquitos.calendar import YEARS, Calendar, calendar_year, drawn_year
from iquitos_rl.cases.iquitos.events import draw_events
from iquitos_rl.cases.iquitos.load import synthetic_load
from iquitos_rl.cases.iquitos.noise import stream
from iquitos_rl.cases.iquitos.outlook import weather_columns
from iquitos_rl.cases.iquitos.presets import (
    IQUITOS,
    CaseSettings,
    Overrides,
    PvSettings,
    SiteSettings,
    case_settings,
)
from iquitos_rl.cases.iquitos.solar import Sun, Weather
from iquitos_rl.cases.iquitos.visits import KINDS, Visits, draw_visits, socket_counts, usual_visits
from iquitos_rl.cases.iquitos.weather import synthetic_weather
from iquitos_rl.cases.iquitos.write import preset_sockets, write_case
from iquitos_rl.cases.presets import Preset
from iquitos_rl.cases.site import Floats
from iquitos_rl.errors import UserError
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.inputs import read_json, read_text
from iquitos_rl.version import __version__

JANUARY_HOURS = 744
VERSION = 2
"""See `Preset.version`."""


class Year(NamedTuple):
    """The series of one synthetic year."""

    calendar: Calendar
    sun: Sun
    weather: Weather
    load: Floats
    """(T,) kWh."""
    pv: Floats
    """(T,) AC kW."""
    busy: Floats
    """(days,) visits as a multiple of the mean day's."""
    warnings: list[str]


def draw_year(settings: CaseSettings, year_seed: int) -> Year:
    """One year of the site; each concept has a random stream of its own."""
    calendar = drawn_year(stream(year_seed, "calendar"))
    sun = _sun(calendar, settings.site, settings.weather.linke_turbidity)
    climate = synthetic_weather(calendar, sun, settings.weather, year_seed)
    events = draw_events(calendar, settings.load.events, stream(year_seed, "events"))
    load = synthetic_load(calendar, settings.load, climate.warmth, events, year_seed)
    sunny = float(climate.weather.ghi.sum()) / 1000 / sum(settings.weather.monthly_ghi)
    pv, warnings = modelled_pv(climate.weather, sun, settings, share=sunny)
    pv = np.minimum(pv, working_inverters(calendar, settings.pv))
    busy = usual_visits(calendar, load.activity, climate.clearness, events.visits)
    return Year(calendar, sun, climate.weather, load.kwh, pv, busy, warnings)


def _sun(calendar: Calendar, site: SiteSettings, turbidity: float) -> Sun:
    return _known_sun(int(calendar.begin[0].astype("datetime64[Y]").astype(int)) + 1970, site, turbidity)


@lru_cache(maxsize=len(YEARS))
def _known_sun(year: int, site: SiteSettings, turbidity: float) -> Sun:
    """The sun of a year: there are few of them, and it takes longer than all else."""
    return solar.sun_position(calendar_year(year), site, turbidity)


def working_inverters(calendar: Calendar, pv: PvSettings) -> Floats:
    """(T,) kW that the inverters can give; some may stand still from May to September."""
    standing = (calendar.month >= 5) & (calendar.month <= 9)
    return np.asarray(pv.ac_kw * (1 - standing * min(pv.broken / pv.inverters, 1.0)), dtype=np.float64)


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
    return finish_case(output, preset, year_seed, settings, draw_year(settings, year_seed))


def build_january(year_seed: int, output: Path, settings: Overrides = None) -> Path:
    """iquitos-38 cut to January: for a first look that takes a minute."""
    build_case("iquitos-38", year_seed, output, settings)
    for table in output.glob("*.csv"):
        write_text(table, "".join(read_text(table).splitlines(keepends=True)[: 1 + JANUARY_HOURS]))
    path = output / "schema.json"
    schema = read_json(path)
    schema["simulation_end_time_step"] = schema["simulation_start_time_step"] + JANUARY_HOURS - 1
    write_json(path, schema)
    return output


IQUITOS_128, IQUITOS_38 = (
    Preset(partial(build_case, name), IQUITOS[name], VERSION) for name in ("iquitos-128", "iquitos-38")
)
IQUITOS_38_JANUARY = Preset(build_january, IQUITOS["iquitos-38"], VERSION + 1)


def modelled_pv(
    weather: Weather,
    sun: Sun,
    settings: CaseSettings,
    wind_speed: Floats | None = None,
    share: float | None = None,
) -> tuple[Floats, list[str]]:
    """(T,) AC kW by `pv.model`, and warnings.

    Args:
        wind_speed: (T,) m/s; the mean of the settings by default.
        share: of `pv.annual_kwh` that the documented model gives; that of the rows in a year by default.
    """
    kw = solar.pvwatts_kw(weather, sun, settings.pv, settings.weather.wind_speed if wind_speed is None else wind_speed)
    if settings.pv.model == "pvwatts":
        return kw, []
    share = len(kw) / 8760 if share is None else share
    scaled = solar.scaled_to_energy(kw, settings.pv.annual_kwh * share, settings.pv.ac_kw)
    ratio = performance_ratio(scaled, weather, settings)
    warning = (
        f"pv.model=documented: PV scaled from {kw.sum() / 1e6:.2f} to {scaled.sum() / 1e6:.2f} GWh, the design files' "
        f"figure; with {weather.ghi.sum() / 1000:,.0f} kWh/m2 that is a performance ratio of {ratio:.2f}"
    )
    return scaled, [warning + (", which no plant reaches" if ratio > 1 else "")]


def performance_ratio(pv_kw: Floats, weather: Weather, settings: CaseSettings) -> float:
    """Energy per kW of DC nameplate, divided by the horizontal irradiation in kWh/m2."""
    return float(pv_kw.sum() / max(settings.pv.dc_kw, 1e-9) / max(weather.ghi.sum() / 1000, 1e-9))


def finish_case(output: Path, preset: str, year_seed: int, settings: CaseSettings, year: Year) -> Path:
    """Add forecasts, visits and key figures to the series of a case, and write it."""
    calendar = year.calendar
    columns = forecast_columns(calendar, year.sun, year.weather, settings, year_seed)
    visits = drawn_visits(calendar, settings, year_seed, year.busy)
    figures = series_figures(calendar, settings, year.weather, year.load, year.pv) | visit_figures(
        visits, settings, calendar.rows / 24
    )
    provenance = {
        "preset": preset,
        "year_seed": year_seed,
        "package_version": __version__,
        "calendar_year": int(str(calendar.begin[0])[:4]),
        "warnings": year.warnings,
        "assumptions": [],
        "figures": figures,
    }
    sockets = preset_sockets(settings, visits, calendar.rows)
    return write_case(output, settings, calendar, year.load, year.pv, columns, sockets, provenance)


def forecast_columns(
    calendar: Calendar, sun: Sun, weather: Weather, settings: CaseSettings, year_seed: int
) -> dict[str, Floats]:
    """The 16 columns of weather.csv."""
    skills = settings.weather.forecast_skill
    return weather_columns(calendar, weather, sun, skills, stream(year_seed, "weather forecast"))


def drawn_visits(
    calendar: Calendar, settings: CaseSettings, year_seed: int, busy: Floats | None = None
) -> tuple[Visits, ...]:
    """Random visits at every kind of socket; on a calendar of hours.

    Args:
        busy: (days,) see `draw_visits`.
    """
    return tuple(
        draw_visits(calendar, settings.visits, kind, count, per_socket, busy, stream(year_seed, "visits", number))
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
