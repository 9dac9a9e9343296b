"""The observation of a site: its columns, their bounds, and their encoding.

Every column has fixed bounds computed from the case and is mapped linearly to [-1, 1], clipped. CityLearn's own bounds
are too wide (a 12 h countdown on a scale of 8,760), and with running statistics the rows in a replay buffer would
change their meaning. The bounds are saved with the policy, so that training and evaluation encode alike.

A vector is [exogenous | endogenous]. Exogenous columns depend on (year, row) alone and are encoded once, as a table;
endogenous columns depend on actions: SOC, consumption, running peaks, what vehicles need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from iquitos_rl.cases.site import Building, Floats, Ints, Site
from iquitos_rl.cases.tariff import Tariff, counted, export_prices, is_month_start
from iquitos_rl.envs.task import appliances, thermal
from iquitos_rl.envs.task.ahead import ahead_columns
from iquitos_rl.envs.task.settings import Forecasts, Present, Sockets
from iquitos_rl.envs.task.sockets import EMPTY, SocketTables
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import shown

HEADROOM = 1.25
"""Bounds of load and weather exceed the case's extremes by this factor, since other years may exceed them."""
LONGEST_STAY_HOURS = 24.0
USUAL_DAYS = 14
"""Time constant, in days, of the average value of an hour of the day (`usual`)."""
LATELY_HOURS = 6.0
"""Time constant of the average over the last hours (`relative`)."""
RATIO_FLOOR = 0.05
"""Share of a series' highest usual value that is added to both sides of a ratio, so that small values count little."""
LOAD_SWING, PV_SWING = 0.3, 1.0
"""Bounds of load and PV relative to their usual values."""
BATTERY_REACH = 2.0
"""Bounds of surplus and headroom, in multiples of the battery's nominal power. On the scale of the site's load the
power that just follows a surplus, or just avoids a new peak, would be lost in rounding."""


class Column(NamedTuple):
    name: str
    low: float
    high: float


@dataclass(frozen=True)
class Encoding:
    """Names and bounds of the columns; the same for training, evaluation and both engines."""

    exogenous: tuple[Column, ...]
    endogenous: tuple[Column, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.exogenous + self.endogenous

    @property
    def size(self) -> int:
        return len(self.exogenous) + len(self.endogenous)

    def index(self, name: str) -> int:
        return [column.name for column in self.columns].index(name)

    def to_json(self) -> dict[str, Any]:
        return {kind: [list(column) for column in getattr(self, kind)] for kind in ("exogenous", "endogenous")}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Encoding:
        """Inverse of `to_json`; raises UserError for other data."""
        try:
            exogenous, endogenous = (
                tuple(Column(str(name), float(low), float(high)) for name, low, high in data[kind])
                for kind in ("exogenous", "endogenous")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the policy's observation encoding cannot be read: {error}") from None
        for column in (*exogenous, *endogenous):
            if not -math.inf < column.low < column.high < math.inf:
                raise UserError(f"the policy's observation encoding has no range for {shown(column.name)}")
        return Encoding(exogenous, endogenous)


def socket_names(site: Site) -> list[str]:
    """(N,) name of every socket, unique across buildings."""
    return [f"{site.buildings[b].name}/{charger.name}" for b, charger in site.sockets]


def sockets_by_building(site: Site) -> dict[int, list[int]]:
    """Maps each building that has sockets to the indices of its sockets."""
    found: dict[int, list[int]] = {}
    for n, (b, _) in enumerate(site.sockets):
        found.setdefault(b, []).append(n)
    return found


def socket_power(site: Site) -> Floats:
    """(N,) full charging power of every socket, kW."""
    return np.array([charger.max_charging_power for _, charger in site.sockets])


def discharging_power(site: Site) -> Floats:
    """(N,) full discharging power of every socket, kW; 0 where a charger cannot discharge."""
    return np.array([charger.max_discharging_power for _, charger in site.sockets])


def _month_elapsed(site: Site) -> Floats:
    """(T,) share of the month that has passed, from the number of its rows in the data."""
    month = np.cumsum(is_month_start(site))
    rows = np.bincount(month)
    first = np.concatenate([[0], np.cumsum(rows)])[month]
    return (np.arange(site.rows) - first) / rows[month]


Series = dict[str, tuple[Floats, float, float]]
"""Column name to (values (T,), low, high), in order."""


def _time_columns(site: Site, tariff: Tariff) -> Series:
    columns: Series = {}
    cycles = (("hour", site.hour, 24), ("weekday", np.minimum(site.day_type, 7), 7), ("month", site.month, 12))
    for name, values, period in cycles:
        angle = 2 * np.pi * values / period
        columns[f"{name}_sin"] = np.sin(angle), -1.0, 1.0
        columns[f"{name}_cos"] = np.cos(angle), -1.0, 1.0
    columns["holiday"] = (site.day_type == 8).astype(np.float64), 0.0, 1.0
    columns["month_elapsed"] = _month_elapsed(site), 0.0, 1.0
    counts = counted(site, tariff).astype(np.float64)
    if not tariff.demand:
        columns["demand_peak_period"] = counts[:, 0], 0.0, 1.0
    else:
        columns |= {f"demand_{n + 1}_period": (counts[:, n], 0.0, 1.0) for n in range(len(tariff.demand))}
    earned = export_prices(site, tariff)
    if isinstance(tariff.export_price, tuple) and earned is not None:
        low, high = HEADROOM * float(earned.min(initial=0)), HEADROOM * float(earned.max(initial=0))
        columns["export_price"] = earned, low, high
    return columns


def _outside_columns(building: Building) -> Series:
    """Prices, carbon intensity and weather from one building's files."""
    low, top = HEADROOM * float(building.price.min(initial=0)), HEADROOM * float(building.price.max(initial=0))
    columns: Series = {"price": (building.price, low, top)}
    for lead in range(building.price_predicted.shape[1]):
        columns[f"price_predicted_{lead + 1}"] = building.price_predicted[:, lead], low, top
    columns["carbon"] = building.carbon, 0.0, HEADROOM * float(building.carbon.max(initial=0))
    for name, values in building.weather.items():
        base = building.weather[name.split("_predicted_")[0]]
        least, most = float(base.min()), float(base.max())
        spread = (HEADROOM - 1) * (most - least)
        columns[name] = values, max(least - spread, 0.0) if least >= 0 else least - spread, most + spread
    return columns


def smoothed(values: Floats, share: float) -> Floats:
    """(T,) exponential average that begins at 0: each row counts for `share`, what came before for the rest."""
    average: Floats = pd.Series(np.concatenate([[0.0], values])).ewm(alpha=share, adjust=False).mean().to_numpy()[1:]
    return average


def usual(values: Floats, hour: Ints) -> Floats:
    """(T,) exponential average of the same hour of the day over the days before, without the present day.

    It uses no later row. On the first day it is the row's own value.
    """
    found = np.empty(len(values))
    for h in np.unique(hour):
        rows = np.flatnonzero(hour == h)
        seen = values[rows]
        average = smoothed(seen - seen[0], 1 / USUAL_DAYS) + seen[0]
        found[rows] = np.concatenate([seen[:1], average[:-1]])
    return found


def relative(values: Floats, hour: Ints, hours_per_step: float) -> tuple[Floats, Floats]:
    """(T,) ratio to the usual value of the hour, minus 1: of this row, and averaged over the last hours.

    A load that is high for its hour stays high for hours, more likely so if it has been high for long.
    """
    expected = usual(values, hour)
    least = RATIO_FLOOR * np.maximum.accumulate(np.maximum(expected, 1e-9))
    decay = np.exp(-hours_per_step / LATELY_HOURS)
    lately, usually = (smoothed(series, 1 - decay) for series in (values, expected))
    return (values + least) / (expected + least) - 1, (lately + least) / (usually + least) - 1


def _building_columns(building: Building, hour: Ints, hours: float) -> Series:
    name = building.name
    columns: Series = {
        f"{name}/load": (building.load, 0.0, HEADROOM * float(building.load.max(initial=0))),
        f"{name}/pv": (building.pv, 0.0, HEADROOM * float(building.pv.max(initial=0))),
    }
    for kind, series, reach in (("load", building.load, LOAD_SWING), ("pv", building.pv, PV_SWING)):
        now, lately = relative(series, hour, hours)
        columns[f"{name}/{kind}_now"] = now, -reach, reach
        columns[f"{name}/{kind}_lately"] = lately, -reach, reach
    if building.battery is not None:
        reach = BATTERY_REACH * building.battery.nominal_power * hours
        columns[f"{name}/surplus"] = -building.idle_net, -reach, reach
    return columns


def _socket_columns(site: Site, tables: SocketTables, sockets: Sockets) -> Series:
    connected = (tables.vehicle != EMPTY).astype(np.float64)
    columns: Series = {}
    if sockets == "fleet":
        for b, mine in sockets_by_building(site).items():
            name = site.buildings[b].name
            columns[f"{name}/any_connected"] = connected[:, mine].max(axis=1), 0.0, 1.0
            columns[f"{name}/connected"] = connected[:, mine].mean(axis=1), 0.0, 1.0
        return columns
    longest = LONGEST_STAY_HOURS / site.hours_per_step
    tabled = (("connected", connected, 1.0), ("required_soc", tables.required_soc, 1.0))
    for feature, table, high in (*tabled, ("steps_left", tables.steps_left, longest)):
        for n, name in enumerate(socket_names(site)):
            columns[f"{name}/{feature}"] = table[:, n], 0.0, high
    return columns


def is_weather_forecast(column: str) -> bool:
    """Whether a column of `outside_columns` is a forecast of the weather."""
    name = column.split("/")[-1]
    return "_predicted_" in name and not name.startswith("price_")


def outside_columns(site: Site) -> tuple[Series, list[dict[str, str]]]:
    """Prices, carbon intensity and weather of all buildings, and (B,) which column each building's are in.

    Buildings of a site usually share weather and tariff. A shared series is one column.
    """
    columns: Series = {}
    found: list[dict[str, str]] = []
    for building in site.buildings:
        mine: dict[str, str] = {}
        for name, series in _outside_columns(building).items():
            known = [other for other in columns if other.split("/")[-1] == name]
            same = (other for other in known if np.array_equal(series[0], columns[other][0]))
            mine[name] = next(same, f"{building.name}/{name}" if known else name)
            columns.setdefault(mine[name], series)
        found.append(mine)
    return columns, found


def last_row(values: Floats) -> Floats:
    """(T, ...) what was before each row, for columns of rows that are not known yet; the first row is itself."""
    return np.concatenate([values[:1], values[:-1]])


def exogenous_columns(
    site: Site,
    tariff: Tariff,
    tables: SocketTables,
    sockets: Sockets,
    forecasts: Forecasts = "weather",
    present: Present = "known",
) -> Series:
    """Every column that does not depend on actions, in order. Where the present is not known, load, PV, weather and
    forecasts are those of the row before.

    Raises:
        UserError: the present is not to be known of a site with thermal devices or appliances.
    """
    if present == "last" and (site.thermal or site.appliances):
        raise UserError(f"{site.path}: task.present=last is for sites without thermal devices and appliances")
    outside = outside_columns(site)[0]
    published = ("price", "carbon")
    if present == "last":
        outside = {
            name: own if name.split("/")[-1].startswith(published) else (last_row(own[0]), *own[1:])
            for name, own in outside.items()
        }
    if forecasts != "weather":
        outside = {name: own for name, own in outside.items() if not is_weather_forecast(name)}
    columns = _time_columns(site, tariff) | outside
    ahead = ahead_columns(site, forecasts) if forecasts in ("site", "perfect") else [{} for _ in site.buildings]
    for building, own in zip(site.buildings, ahead):
        mine = _building_columns(building, site.hour, site.hours_per_step)
        for name, values in own.items():
            mine[f"{building.name}/{name}"] = values, *mine[f"{building.name}/{name.split('_')[0]}"][1:]
        if present == "last":
            mine = {name: (last_row(values), low, high) for name, (values, low, high) in mine.items()}
        columns |= mine
        columns |= thermal.exogenous(building)
        columns |= appliances.exogenous(building)
    columns |= _socket_columns(site, tables, sockets)
    return {
        name: (values.astype(np.float64), low, high if high > low else low + 1.0)
        for name, (values, low, high) in columns.items()
    }


def endogenous_bounds(site: Site, tariff: Tariff, tables: SocketTables, sockets: Sockets) -> tuple[Column, ...]:
    """Columns that depend on actions, in the order of `SiteTask.observe`."""
    columns = [Column(f"{b.name}/battery_soc", 0, 1) for b in site.buildings if b.battery is not None]
    hours = site.hours_per_step
    for suffix in ("net", *tariff.meters):
        for building in site.buildings:
            devices = building.battery.nominal_power if building.battery is not None else 0.0
            chargers = sum(charger.max_charging_power for charger in building.chargers)
            heat = sum(use.device.nominal_power for use in building.end_uses)
            most = HEADROOM * float(building.load.max(initial=0)) + (devices + chargers + heat) * hours
            least = -HEADROOM * float(building.pv.max(initial=0)) - devices * hours
            if suffix == "net":
                columns.append(Column(f"{building.name}/net_consumption", least, most))
            else:
                columns.append(Column(f"{building.name}/{suffix}", 0, most / hours))
    for building in site.buildings:
        if building.battery is not None:
            reach = BATTERY_REACH * building.battery.nominal_power
            columns.append(Column(f"{building.name}/headroom", -reach, reach))
    if sockets == "fleet":
        power, back = socket_power(site), discharging_power(site)
        for suffix in ("fleet_least", "fleet_most", "fleet_needed"):
            for b, mine in sockets_by_building(site).items():
                in_batteries = float(tables.capacity[:, mine].max(axis=0).sum())
                high = in_batteries if suffix == "fleet_needed" else float(power[mine].sum())
                low = -float(back[mine].sum()) if suffix == "fleet_least" else 0
                columns.append(Column(f"{site.buildings[b].name}/{suffix}", low, high))
        return tuple(columns)
    names = socket_names(site)
    columns += [Column(f"{name}/soc", 0, 1) for name in names]
    columns += [Column(f"{name}/urgency", 0, 1) for name in names]
    return tuple(columns)


def make_encoding(
    site: Site,
    tariff: Tariff,
    exogenous: Series,
    tables: SocketTables,
    sockets: Sockets,
    extra: tuple[Column, ...] = (),
) -> Encoding:
    """The encoding of a site with these exogenous columns, with bounds from its data."""
    devices = (*thermal.endogenous(site), *appliances.endogenous(site))
    return Encoding(
        tuple(Column(name, low, high) for name, (_, low, high) in exogenous.items()),
        endogenous_bounds(site, tariff, tables, sockets) + tuple(Column(*own) for own in devices) + extra,
    )


def encode(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Affine map of [low, high] to [-1, 1], clipped, as float32."""
    return ((values - low) / (high - low) * 2 - 1).clamp(-1, 1).to(torch.float32)


def exogenous_table(site: Site, columns: Series, encoding: Encoding) -> Tensor:
    """(T, exogenous columns) float32, encoded.

    Raises:
        UserError: the site's columns differ from the encoding's, so a policy with that encoding cannot control it.
    """
    ours, theirs = list(columns), [column.name for column in encoding.exogenous]
    if ours != theirs:
        odd = sorted(set(ours) ^ set(theirs)) or [a for a, b in zip(ours, theirs, strict=True) if a != b]
        raise UserError(f"{site.path}: its observation columns differ from those in use, first at {odd[0]}")
    values = torch.from_numpy(np.stack([values for values, _, _ in columns.values()], axis=-1))
    return encode(values, *bounds(encoding.exogenous))


def bounds(columns: tuple[Column, ...]) -> tuple[Tensor, Tensor]:
    """Low and high, (columns,) float64 each."""
    low, high = torch.tensor([column[1:] for column in columns], dtype=torch.float64).reshape(-1, 2).unbind(-1)
    return low, high


def coarse_columns(encoding: Encoding) -> tuple[int, ...]:
    """See `Exogenous.coarse`: SOC and urgency of single sockets, each a small part of a site."""
    first = len(encoding.exogenous)
    endings = ("/soc", "/urgency")
    return tuple(i for i, column in enumerate(encoding.columns) if i >= first and column.name.endswith(endings))
