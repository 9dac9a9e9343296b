"""Which columns of an observation and which actions belong to which building: what lets one network serve them all.

A site's observation and action stay flat vectors. The map says where in them each building's own are, under names that
hold for every building (`load`, `battery_soc`; `battery`, `cooling_storage`), so a policy can be taken to another site:
its columns are found by name (`Buildings.arranged`). Energies are in units of the building's battery, and so are
the sizes of its devices (`facts`): the same number means the same on another site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iquitos_rl.cases.site import Building, Floats, Site
from iquitos_rl.cases.thermal import END_USES, EndUse
from iquitos_rl.envs.task import ahead, appliances, thermal
from iquitos_rl.envs.task.observation import (
    Column,
    Encoding,
    outside_columns,
    socket_names,
    sockets_by_building,
)
from iquitos_rl.envs.task.settings import Sockets
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import first_problem, shown

NOWHERE = -1
"""In the place of a column or an action that a building does not have."""
KEY = "buildings"
"""Of a `policy_spec`."""
TINY = 1e-9
ENERGIES = ("load", "pv", "net_consumption", "peak_running", "off_peak_running", *ahead.NAMES)
"""Columns of a building that are measured in its unit, see `units`."""

Place = Annotated[int, Field(ge=NOWHERE, lt=10_000_000)]
Number = Annotated[float, Field(ge=-1e12, le=1e12)]


class Buildings(BaseModel):
    """The map of a site: B buildings, G common columns, F columns and S devices of a building, K facts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    names: tuple[str, ...] = Field(min_length=1)
    common: tuple[str, ...]
    """(G,) names of the columns that belong to no building, such as the hour."""
    features: tuple[str, ...]
    """(F,) names of a building's columns, without the building's name."""
    devices: tuple[str, ...]
    """(S,) names of a building's actions."""
    facts: tuple[str, ...]
    common_columns: tuple[Place, ...]
    """(G,)."""
    columns: tuple[tuple[Place, ...], ...]
    """(B, F)."""
    actions: tuple[tuple[Place, ...], ...]
    """(B, S)."""
    values: tuple[tuple[Number, ...], ...]
    """(B, K) of the facts, in [-1, 1]."""
    sizes: tuple[tuple[Number, ...], ...]
    """(B, Z) kWh and kW of the devices: by these and the names a site is known again in another year."""
    units: tuple[Annotated[float, Field(gt=0, le=1e12)], ...]
    """(B,) kWh, see `units`."""

    @model_validator(mode="after")
    def _fits(self) -> Buildings:
        b, rows = len(self.names), (self.columns, self.actions, self.values, self.sizes, self.units)
        if any(len(table) != b for table in rows) or len({len(sizes) for sizes in self.sizes}) > 1:
            raise ValueError("every table must have a row for each building")
        named = ((self.columns, self.features), (self.actions, self.devices), (self.values, self.facts))
        if any(len(row) != len(names) for table, names in named for row in table):
            raise ValueError("every row must have as many entries as there are names")
        if len(self.common_columns) != len(self.common):
            raise ValueError("common_columns must have a column for each name")
        acting = [place for row in self.actions for place in row if place != NOWHERE]
        if sorted(acting) != list(range(len(acting))):
            raise ValueError("every action must belong to one building")
        return self

    @property
    def several(self) -> bool:
        """Whether there is more than one building, and anything to do."""
        return len(self.names) > 1 and bool(self.devices)

    @property
    def width(self) -> int:
        """Columns of an observation that the map needs at least."""
        return 1 + max((*self.common_columns, *(place for row in self.columns for place in row)), default=NOWHERE)

    @property
    def num_actions(self) -> int:
        """A."""
        return sum(place != NOWHERE for row in self.actions for place in row)

    @staticmethod
    def read(spec: Mapping[str, Any]) -> Buildings | None:
        """The map in a `policy_spec`, None where it has none. Raises UserError: it is not a map."""
        if KEY not in spec:
            return None
        try:
            return Buildings.model_validate(spec[KEY])
        except ValidationError as error:
            raise UserError(f"the policy's map of buildings cannot be read: {first_problem(error)}") from None

    def same_site(self, other: Buildings) -> bool:
        """Whether the other map is of these buildings with these devices, perhaps in another year."""
        return self.names == other.names and self.sizes == other.sizes

    def shares_a_building(self, site: Site) -> bool:
        """Whether the site has a building of this map, of the same name and with the same devices."""
        mine = set(zip(self.names, self.sizes))
        return any((building.name, sizes(building)) in mine for building in site.buildings)

    def arranged(self, like: Buildings) -> Buildings:
        """This site's map in the order of the names of another, which a policy was trained with. What only this site
        has in columns is left out; a column that only some buildings have stays missing for the others.

        Raises:
            UserError: no building has a column that the policy reads, or one has a device that it cannot move.
        """
        unknown = next((name for name in self.devices if name not in like.devices), None)
        if unknown is not None:
            known = ", ".join(like.devices)
            raise UserError(f"this site has the device {shown(unknown)}, and the policy was trained to move {known}")
        lacking = [name for name in like.features if name not in self.features]
        lacking += [name for name in like.common if name not in self.common]
        if lacking:
            raise UserError(f"the policy reads the column {shown(lacking[0])}, and this site has none of that name")
        if self.facts != like.facts:
            raise UserError("the policy knows buildings by other facts than this version")
        columns = [_picked(row, self.features, like.features) for row in self.columns]
        actions = [_picked(row, self.devices, like.devices) for row in self.actions]
        common = _picked(self.common_columns, self.common, like.common)
        names = {name: getattr(like, name) for name in ("common", "features", "devices")}
        return self.model_copy(
            update={**names, "common_columns": common, "columns": tuple(columns), "actions": tuple(actions)}
        )

    def with_columns(self, more: Mapping[str, Sequence[int]]) -> Buildings:
        """With further columns of a building by name, (B,) places each."""
        columns = [(*row, *own) for row, own in zip(self.columns, zip(*more.values()))]
        return self.model_copy(update={"features": (*self.features, *more), "columns": tuple(columns)})


def _picked(row: Sequence[int], names: Sequence[str], wanted: Sequence[str]) -> tuple[int, ...]:
    found = dict(zip(names, row))
    return tuple(found.get(name, NOWHERE) for name in wanted)


def action_names(site: Site, sockets: Sockets) -> list[str]:
    """(A,) name of every action, the building's first: `Building_1/battery`, `Building_1/cooling_storage`."""
    names = [f"{b.name}/battery" for b in site.buildings if b.battery is not None and b.battery_action]
    names += thermal.action_names(site) if site.thermal else []
    names += appliances.action_names(site)
    fleets = [f"{site.buildings[b].name}/sockets" for b in sockets_by_building(site)]
    return names + (fleets if sockets == "fleet" else socket_names(site))


def buildings_of(site: Site, encoding: Encoding, sockets: Sockets) -> Buildings:
    """The map of a site whose observation has this encoding."""
    names = [building.name for building in site.buildings]
    outside = outside_columns(site)[1]
    place = {column.name: i for i, column in enumerate(encoding.columns)}
    own: list[dict[str, int]] = [
        {feature: place[column] for feature, column in mine.items() if column in place} for mine in outside
    ]
    taken = {column for mine in outside for column in mine.values()}
    common: dict[str, int] = {}
    for column, i in place.items():
        b = _owner(column, names)
        if column in taken:
            continue
        if b is None:
            common[column] = i
        else:
            own[b][column[len(names[b]) + 1 :]] = i
    acting: list[dict[str, int]] = [{} for _ in names]
    for i, action in enumerate(action_names(site, sockets)):
        b = _owner(action, names)
        assert b is not None
        acting[b][action[len(names[b]) + 1 :]] = i
    features, devices = (list(dict.fromkeys(name for row in rows for name in row)) for rows in (own, acting))
    found = facts(site)
    return Buildings(
        names=tuple(names),
        common=tuple(common),
        features=tuple(features),
        devices=tuple(devices),
        facts=tuple(found),
        common_columns=tuple(common.values()),
        columns=tuple(tuple(row.get(name, NOWHERE) for name in features) for row in own),
        actions=tuple(tuple(row.get(name, NOWHERE) for name in devices) for row in acting),
        values=tuple(zip(*found.values())),
        sizes=tuple(sizes(building) for building in site.buildings),
        units=tuple(units(site).tolist()),
    )


def _owner(name: str, buildings: Sequence[str]) -> int | None:
    """Index of the building whose name begins this one; of several, which hold slashes themselves, the longest."""
    found = [b for b, building in enumerate(buildings) if name.startswith(f"{building}/")]
    return max(found, key=lambda b: len(buildings[b]), default=None)


def facts(site: Site) -> dict[str, list[float]]:
    """(B,) of each fact: device sizes in the building's `unit`, mapped from 0 to infinity onto [-1, 1), 1 onto 0.

    Habits, such as the load of a season, are left out: with a handful of buildings a network learns by heart which
    building has which, and does worse on others (`docs/buildings.md`).
    """
    table = np.array([sizes(building) for building in site.buildings]) / units(site)[:, None]
    heat = (f"{use}_{what}" for use in END_USES for what in ("tank", "power"))
    names = ("battery", "battery_power", *heat, "chargers")
    return {name: ((x - 1) / (x + 1)).tolist() for name, x in zip(names, table.T)}


def units(site: Site) -> Floats:
    """(B,) kWh of a step at the battery's nominal power, or of the highest load where there is no battery: what loads,
    generation and imports are measured in, so that the same number asks the same of every battery."""
    power = np.array([sizes(building)[1] * site.hours_per_step for building in site.buildings])
    load = np.array([(building.load + building.heat_kwh).max(initial=0.0) for building in site.buildings])
    found: Floats = np.where(power > TINY, power, load)
    return np.where(found > TINY, found, 1.0)


def in_units(encoding: Encoding, site: Site) -> Encoding:
    """With the same bounds, in units, for all buildings' columns of a name in `ENERGIES`: the widest."""
    of = dict(zip((building.name for building in site.buildings), units(site)))
    widest: dict[str, tuple[float, float]] = {}
    for column in encoding.columns:
        building, name = _split(column)
        if name in ENERGIES and building in of:
            low, high = widest.get(name, (np.inf, -np.inf))
            widest[name] = min(low, column.low / of[building]), max(high, column.high / of[building])
    return _scaled(encoding, widest, of)


def carried(here: Encoding, trained: Encoding, site: Site, map_: Buildings) -> Encoding:
    """A site's encoding for a policy that was trained elsewhere, at a site with this map: energies have the bounds of
    the training in units, and weather in degrees and W/m2; the rest has the site's own bounds."""
    before, of = dict(zip(map_.names, map_.units)), dict(zip((b.name for b in site.buildings), units(site)))
    known: dict[str, tuple[float, float]] = {}
    for column in trained.columns:
        building, name = _split(column)
        if name in ENERGIES and building in before:
            known[name] = column.low / before[building], column.high / before[building]
    weather = {name for building in site.buildings for name in building.weather}
    scale = {_split(column)[1]: column for column in reversed(trained.exogenous) if _split(column)[1] in weather}
    columns = (scale.get(_split(own)[1], own)._replace(name=own.name) for own in here.exogenous)
    return _scaled(Encoding(tuple(columns), here.endogenous), known, of)


def _scaled(encoding: Encoding, bounds: Mapping[str, tuple[float, float]], of: Mapping[str, float]) -> Encoding:
    """With bounds by name, in units of the buildings."""

    def own(column: Column) -> Column:
        building, name = _split(column)
        if name not in bounds or building not in of:
            return column
        low, high = (float(bound * of[building]) for bound in bounds[name])
        return Column(column.name, low, high)

    return Encoding(tuple(map(own, encoding.exogenous)), tuple(map(own, encoding.endogenous)))


def _split(column: Column) -> tuple[str, str]:
    """Building and name of a column; no building for one of the district."""
    building, _, name = column.name.rpartition("/")
    return building, name


def sizes(building: Building) -> tuple[float, ...]:
    """(Z,) kWh and kW of battery, tanks, thermal devices and chargers."""
    battery = building.battery
    own = (0.0, 0.0) if battery is None else (battery.capacity, battery.nominal_power)
    uses = dict(zip(END_USES, building.end_uses))
    heat = [x for use in END_USES for x in _heat_sizes(uses.get(use))]
    return (*own, *heat, sum(charger.max_charging_power for charger in building.chargers))


def _heat_sizes(use: EndUse | None) -> tuple[float, float]:
    return (0.0, 0.0) if use is None else (float(use.tank.capacity), float(use.device.nominal_power))
