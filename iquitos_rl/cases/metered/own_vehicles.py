"""The sockets of an owner's site with their visits."""

from __future__ import annotations

from dataclasses import replace

from iquitos_rl.cases.iquitos.build import drawn_visits, visit_figures
from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.iquitos.presets import CaseSettings
from iquitos_rl.cases.iquitos.visits import Visits
from iquitos_rl.cases.iquitos.write import Socket, preset_sockets
from iquitos_rl.cases.metered.own_files import Files, Gathered
from iquitos_rl.cases.metered.sessions import fleet


def own_sockets(
    site: Gathered, calendar: Calendar, settings: CaseSettings, year_seed: int, files: Files, notes: list[str]
) -> tuple[list[Socket], dict[str, float]]:
    """The sockets with their visits: those of the sessions, else those that the settings draw."""
    if site.sessions:
        efficiency = settings.sockets.efficiency * settings.vehicles.round_trip_efficiency**0.5
        return fleet(site.sessions, calendar, files.chargers, efficiency, notes)
    ratio = 3600 // calendar.seconds
    hourly = replace(calendar, begin=calendar.begin[::ratio], seconds=3600, utc=None, holiday=None)
    visits = drawn_visits(hourly, settings, year_seed)
    if not visits:
        return [], {}
    figures = visit_figures(visits, settings, hourly.rows / 24)
    fine = tuple(_finer(kind, ratio) for kind in visits)
    notes.append("sockets and visits are those of the settings")
    return preset_sockets(settings, fine, calendar.rows), figures


def _finer(visits: Visits, ratio: int) -> Visits:
    return replace(visits, row=visits.row * ratio, stay=visits.stay * ratio)
