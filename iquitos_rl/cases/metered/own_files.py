"""What an owner has: files, what is said about them, and what was read from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iquitos_rl.cases.metered.grid import Series, runs
from iquitos_rl.cases.metered.meter import load_series, open_meter, pv_series
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.sessions import ChargerOptions, Session, read_sessions
from iquitos_rl.cases.metered.weather_file import read_weather, weather_columns
from iquitos_rl.cases.metered.zone import Zone, fixed_zone
from iquitos_rl.errors import UserError


@dataclass(frozen=True)
class Files:
    """What an owner has."""

    load: Path | None = None
    pv: Path | None = None
    weather: Path | None = None
    sessions: Path | None = None
    carbon: Path | None = None
    """Hourly carbon intensity of the grid."""
    readings: Mapping[str, Reading] = field(default_factory=dict)
    """Role of a file to what its owner says about it."""
    tariff: str | None = None
    """A tariff.yaml, a rate of OpenEI as JSON, or the name of a kind of tariff."""
    zone: str | None = None
    minutes: int | None = None
    """Length of the case's rows; that of the load file by default."""
    chargers: ChargerOptions = field(default_factory=ChargerOptions)

    def reading(self, role: str) -> Reading:
        return self.readings.get(role, Reading())


@dataclass
class Gathered:
    """What the files say, before it is put on one calendar."""

    zone: Zone | None
    load: Series | None = None
    net: bool = False
    pv: Series | None = None
    weather: dict[str, Series] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)


def zone_of(site: Gathered) -> Zone:
    return site.zone or fixed_zone(0.0)


def gather(files: Files, zone: Zone | None, notes: list[str]) -> Gathered:
    site = Gathered(zone)
    if files.load is not None:
        file = open_meter(files.load, "load", site.zone, files.reading("load"), notes)
        site.zone = file.at.zone
        site.load, site.net = load_series(file)
        _note_zeros(files.load.name, site.load, site.zone, notes)
    if files.pv is not None:
        file = open_meter(files.pv, "pv", site.zone, files.reading("pv"), notes)
        site.zone = file.at.zone
        site.pv = pv_series(file)
        site.weather = weather_columns(file)
        if site.pv is None and not site.weather:
            raise UserError(
                f"{files.pv.name}: no column holds PV energy or weather; it has {', '.join(file.table.header)}; name "
                "one with --pv-column"
            )
    if files.weather is not None:
        site.weather |= read_weather(files.weather, site.zone, files.reading("weather"), notes)
    if files.sessions is not None:
        site.sessions = read_sessions(files.sessions, site.zone, files.reading("sessions"), notes)
    if site.zone is None:
        raise UserError("nothing tells the site's time zone; say it with --zone Europe/Berlin")
    return site


def _note_zeros(name: str, series: Series, zone: Zone, notes: list[str]) -> None:
    starts, lengths = runs(series.values == 0)
    if len(starts):
        longest, hour = int(np.argmax(lengths)), series.seconds / 3600
        at = str(zone.local(series.begin[starts[longest]][None])[0])[:16]
        where = f"longest {lengths[longest] * hour:g} h from {at}"
        notes.append(f"{name}: {lengths.sum() * hour:g} hours of exactly zero kept as metered ({where})")
