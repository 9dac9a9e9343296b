"""Reading a CityLearn schema folder into a `Site`, with the values that CityLearn 3.0.2 would use.

This is the only reader of such folders: engines, planner, comparison and `case check` all come here. It collects what
is wrong instead of stopping at the first mistake. Nothing of citylearn is imported, so it also works where citylearn
cannot be installed. What only CityLearn simulates is no problem of the folder: it is listed in `Site.unsupported`, and
the citylearn engine can still run it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.schema import defaults
from iquitos_rl.cases.schema.appliances import read_appliances
from iquitos_rl.cases.schema.names import (
    BUILDING_COLUMNS,
    CARBON_COLUMN,
    OPTIONAL_COLUMNS,
    PRICE_COLUMNS,
    WEATHER_COLUMNS,
    knows_action,
    knows_observation,
)
from iquitos_rl.cases.schema.occupants import has_occupant, read_occupant
from iquitos_rl.cases.schema.report import SCHEMA, Report
from iquitos_rl.cases.schema.schedules import (
    NONE,
    Schedule,
    departures,
    drift_factors,
    forced_socs,
    read_schedule,
)
from iquitos_rl.cases.schema.service import charging_limits, service_scopes
from iquitos_rl.cases.schema.tables import DataFiles, Table
from iquitos_rl.cases.schema.thermal import read_dynamics, read_end_uses, read_outage
from iquitos_rl.cases.schema.unsupported import DEVICE_TYPES, building_features, site_features
from iquitos_rl.cases.schema.upgrade import old_signs
from iquitos_rl.cases.schema.values import LARGEST_SEED, Block
from iquitos_rl.cases.site import Battery, Building, Charger, ElectricalService, Floats, Ints, Site, Vehicle
from iquitos_rl.cases.thermal import END_USES, THERMAL_ACTIONS
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import JSON_BYTES, InputError, read_bytes, read_json

CHARGER_POWERS = {
    "max_charging_power": 50.0,
    "min_charging_power": 0.0,
    "max_discharging_power": 50.0,
    "min_discharging_power": 0.0,
}
"""kW, with CityLearn's defaults (`electric_vehicle_charger.py`)."""
CHARGER_CURVES = ("charge_efficiency_curve", "discharge_efficiency_curve")
CHARGER_ATTRIBUTES = (*CHARGER_POWERS, "efficiency", *CHARGER_CURVES, "phase_connection")
CHARGER_KEYS = ("type", "charger_simulation", "attributes", "noise_std", "autosize")
PV_ABSOLUTE = ("absolute", "absolute_kwh", "kwh", "kwh_step", "energy")
PV_PER_KW = ("per_kw", "w_per_kw", "profile")
BATTERY_ACTION, SOCKET_ACTION = "electrical_storage", "electric_vehicle_storage"
MOST_ROWS = 10_000_000


@dataclass(frozen=True)
class Reading:
    """What was read of a folder: the site, and what a closer look at the files needs."""

    report: Report
    schema: Block
    site: Site | None
    """None where the report has errors."""
    blocks: dict[str, Block]
    """The included buildings."""
    energy: dict[str, Table]
    weather: dict[str, Table]
    schedules: tuple[Schedule, ...]
    """In the order of `Site.sockets`."""


def read_site(folder: Path) -> Site:
    """Read `schema.json` of a folder (or a schema file of another name) and every data file that it names.

    The site's T rows are `simulation_start_time_step` to `simulation_end_time_step`, both included.

    Raises:
        UserError: CityLearn cannot run the folder, or would compute something else than the files say. The sentence
            names the first error's file and key, or line and column, and says how many more there are.
    """
    reading = read_folder(folder)
    if reading.site is not None:
        return reading.site
    first, *more = reading.report.errors
    rest = f" ({len(more)} more: see `python -m iquitos_rl.case check`)" if more else ""
    raise UserError(f"{folder if folder.is_dir() else folder.parent}: {first}{rest}")


def read_folder(folder: Path) -> Reading:
    """Read a folder and collect every problem.

    Raises:
        UserError: there is no schema.json, or it is not JSON.
    """
    path = folder if folder.is_file() else folder / SCHEMA
    content = load_json(path)
    report = Report()
    return _SchemaReader(path, Block(content, report)).read()


def load_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UserError: the file cannot be read, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(path, "must hold one JSON object")
    return content


class _SchemaReader:
    """One schema while it is read: what its parts share."""

    def __init__(self, path: Path, schema: Block) -> None:
        self.path, self.schema, self.report = path, schema, schema.report
        start = schema.whole("simulation_start_time_step", 0, high=MOST_ROWS)
        self.rows = max(schema.whole("simulation_end_time_step", start + 1, high=start + MOST_ROWS) - start + 1, 2)
        self.seconds = schema.whole("seconds_per_time_step", 1, high=366 * 86_400)
        root = schema.get("root_directory", "")
        if not isinstance(root, str):
            schema.error(f"root_directory must be a folder, not {root!r}")
        elif not (path.parent / root).is_dir():
            schema.error(f"root_directory names {root}, which is no folder")
        self.unsupported = list(site_features(schema))
        self.thermal = False
        """Whether any building has thermal devices or outages."""
        self.seed = self._seed()
        padded = "terminal_observation_padding" in self.unsupported
        self.files = DataFiles(path.parent / str(root), start, self.rows, self.report, padded)
        self.files.digest.update(read_bytes(path, JSON_BYTES))

    def read(self) -> Reading:
        if signs := old_signs(self.schema.content, self.files.root):
            return self._too_old(signs)
        self._check_top()
        vehicles, excluded = self._vehicles()
        index = {vehicle.name: v for v, vehicle in enumerate(vehicles)} | dict.fromkeys(excluded, NONE)
        blocks = {name: b for name, b in self.schema.child("buildings").children() if b.flag("include", default=True)}
        if not blocks and isinstance(self.schema.get("buildings"), dict):
            self.schema.child("buildings").error("none is included")
        for block in list(blocks.values())[:1]:
            self.files.read(block, "energy_simulation")  # the order of reading is part of the fingerprint
        schedules = {name: self._schedules(block, index) for name, block in blocks.items()}
        every = [schedule for own in schedules.values() for schedule in own]
        forced, moves = forced_socs(
            every,
            np.array([1.0 - vehicle.battery.depth_of_discharge for vehicle in vehicles]).clip(0, 1),
            np.array([vehicle.battery.loss_coefficient for vehicle in vehicles]) * self.seconds / 3600,
        )
        if moves is not None and self.seed is None:
            self.unsupported.append("SOCs of arriving vehicles omitted and no random_seed to draw from")
        remaining = iter(forced)
        energy: dict[str, Table] = {}
        weather: dict[str, Table] = {}
        buildings = []
        for name, block in blocks.items():
            energy[name], weather[name] = self._energy(block), self._weather(block)
            buildings.append(self._building(name, block, energy[name], weather[name], schedules[name], remaining))
        if not self.thermal:
            buildings = [replace(b, end_uses=(), dynamics=None, outage=None, occupant=None) for b in buildings]
        site = None
        if blocks and not self.report.errors:
            month, hour, day_type = self._calendar(next(iter(energy.values())))
            site = Site(
                path=self.path.parent,
                name=self.path.parent.resolve().name,
                seconds_per_time_step=self.seconds,
                month=month,
                # CityLearn counts 1 to 24; files that hold an hour 0 and no 24 count 0 to 23.
                hour=hour if (hour == 0).any() and hour.max() < 24 else (hour - 1) % 24,
                day_type=day_type,
                buildings=tuple(buildings),
                vehicles=tuple(vehicles),
                drift=None if moves is None or self.seed is None else drift_factors(moves, self.seed, self.seconds),
                unsupported=tuple(self.unsupported),
                fingerprint=self.files.digest.hexdigest(),
            )
        return Reading(self.report, self.schema, site, blocks, energy, weather, tuple(every))

    def _too_old(self, signs: list[str]) -> Reading:
        """One sentence instead of an error for every name that has changed since."""
        more = f" and {len(signs) - 1} more" if len(signs) > 1 else ""
        convert = f"iquitos-rl case upgrade {self.path.parent} --output NEW"
        self.report.problems.clear()
        self.schema.error(f"written for an older CityLearn ({signs[0]}{more}); `{convert}` converts it")
        return Reading(self.report, self.schema, None, {}, {}, {}, ())

    def _check_top(self) -> None:
        """Check what stands outside of buildings and vehicles."""
        schema = self.schema
        for key in ("central_agent", "reward_function", "observations", "actions", "buildings"):
            if key not in schema:
                schema.error(f"key {key} is missing")
        schema.flag("central_agent")
        if "reward_function" in schema:
            reward = schema.child("reward_function")
            reward.child("attributes")
            if not isinstance(reward.get("type"), dict):
                reward.check_class("type")
            for name in reward.child("type").content if isinstance(reward.get("type"), dict) else ():
                reward.child("type").check_class(name)
            if reward.get("type") == {}:
                reward.error("type names no class")
        self._check_episodes()
        self.actions = [name for name, action in schema.child("actions").children() if action.flag("active")]
        for name, observation in schema.child("observations").children():
            observation.flag("active")
            if "electric_vehicle_" not in name:
                observation.flag("shared_in_central_agent")
            if not knows_observation(name):  # it looks at the inactive ones too
                schema.child("observations").error(
                    f"CityLearn 3.0.2 fails on the unknown observation {name}: delete it"
                )

    def _check_episodes(self) -> None:
        """Episodes of CityLearn may be parts of the data; here every episode of a year is all of it."""
        length = self.schema.get("episode_time_steps")
        if length is None:
            return
        if isinstance(length, list):
            parts = f"{len(length)} episodes" if len(length) > 1 else "one episode"
        else:
            steps = self.schema.whole("episode_time_steps", 1)
            if steps > self.rows:
                self.schema.error(f"episode_time_steps is {length}, the schema simulates {self.rows} rows")
            if steps >= self.rows:
                return
            parts = f"episodes of {steps} rows"
        self.schema.warning(
            f"episode_time_steps makes {parts} of the data in CityLearn; here an episode is all {self.rows} rows, or "
            "those of simulation_start_time_step to simulation_end_time_step in a schema for each part"
        )

    def _seed(self) -> int | None:
        if "random_seed" not in self.schema:
            self.schema.warning("no random_seed, CityLearn draws another one each run")
            return None
        seed = self.schema.whole("random_seed", 0, high=LARGEST_SEED)
        if seed == 0:
            self.schema.warning("random_seed 0 makes every random episode start at the same row")
        return seed

    def _vehicles(self) -> tuple[list[Vehicle], list[str]]:
        """The vehicles that take part, and the names of those that the schema excludes."""
        vehicles, excluded = [], []
        for name, block in self.schema.child("electric_vehicles_def").children():
            if not block.flag("include", default=True):
                excluded.append(name)
                continue
            block.check_class("type", required=False)
            attributes = block.child("battery", required=True).child("attributes", required=True)
            self._note_drawn(attributes, stationary=False)
            vehicles.append(Vehicle(name, defaults.vehicle_battery(attributes, name, self.seed or 0)))
        return vehicles, excluded

    def _energy(self, block: Block) -> Table:
        table = self.files.read(block, "energy_simulation")
        table.check_columns(BUILDING_COLUMNS, OPTIONAL_COLUMNS)
        self._calendar(table)
        for column in BUILDING_COLUMNS + OPTIONAL_COLUMNS:
            if column in table:
                # Only the load, PV and demands enter the energy balance; elsewhere CityLearn takes a blank as it is.
                table.numbers(column, blank_allowed=column in OPTIONAL_COLUMNS or column.startswith("indoor"))
        both = table.numbers("cooling_demand") * table.numbers("heating_demand") != 0
        table.note("error", "cooling_demand", both, "cooling and heating in one row, CityLearn stops at it")
        if "hvac_mode" in table:
            wrong = ~np.isin(table.numbers("hvac_mode", blank_allowed=True), (0, 1, 2, 3))
            table.note("error", "hvac_mode", wrong, "not 0, 1, 2 or 3, CityLearn stops at it")
        return table

    def _calendar(self, table: Table) -> tuple[Ints, Ints, Ints]:
        """Month, hour and day_type of every row, (T,) each."""
        return table.integers("month", 1, 12), table.integers("hour", 0, 24), table.integers("day_type", 1, 8)

    def _time_step_ratio(self, table: Table) -> float:
        """Schema step over data step, by the first two rows (`data.py`, EnergySimulation)."""
        units = {"hour": 3600, "minutes": 60, "seconds": 1}
        given = [column for column in units if column in table] if "minutes" in table else ["hour"]
        moments = sum(table.numbers(column)[:2].astype(np.int64) * units[column] for column in given)
        step = int(np.diff(moments)[0])
        step += 24 * 3600 if step < 0 else 0
        if step == 0 and self.seconds >= units[given[-1]] and "hour" in table:
            still = np.append(False, np.diff(table.numbers("hour")) == 0)
            hours = 1 + int((~still[1:]).sum())
            hint = f"; these look like {60 * hours // table.rows} minute rows read as hourly ones"
            message = f"the clock goes on by 0 h, seconds_per_time_step says {self.seconds / 3600:g} h"
            table.note("error", "hour", still, message + (hint if table.rows >= 2 * hours else ""))
        return self.seconds / step if step > 0 else 1.0

    def _weather(self, block: Block) -> Table:
        table = self.files.read(block, "weather")
        table.check_columns(WEATHER_COLUMNS)
        return table

    def _building(
        self,
        name: str,
        block: Block,
        energy: Table,
        weather: Table,
        schedules: list[Schedule],
        forced: Iterator[Floats],
    ) -> Building:
        block.check_class("type", required=False)
        if not isinstance(block.get("inactive_observations", []), (list, str)):
            block.error("inactive_observations must be a list of names")
        actions = self._active_actions(block)
        if block.get("washing_machines"):
            block.warning(
                "CityLearn 3.0.2 ignores washing_machines; `iquitos-rl case upgrade` makes appliances of them"
            )
        self.unsupported += building_features(block, actions)
        if has_occupant(block) and self.seed is None:
            self.unsupported.append(f"{block.path}: an occupant and no random_seed to draw from")
        for device in ("electrical_storage", "pv"):
            if device in block:
                block.child(device).check_class("type")
                if block.child(device).flag("autosize"):
                    block.warning(f"{device} is autosized, its size is CityLearn's draw")
        ratio = np.float32(self._time_step_ratio(energy))
        prices = self._shared(block, "pricing", PRICE_COLUMNS)
        carbon = self._shared(block, "carbon_intensity", (CARBON_COLUMN,))
        battery = self._battery(name, block)
        if BATTERY_ACTION in actions and battery is None:
            block.error(
                f"action {BATTERY_ACTION} is active but the building has no battery with capacity and nominal_power"
            )
        chargers = tuple(
            self._charger(config, charger, schedule, next(forced))
            for (charger, config), schedule in zip(block.child("chargers").children(), schedules, strict=True)
        )
        return Building(
            name=name,
            load=(energy.numbers("non_shiftable_load") * ratio).astype(np.float64),
            pv=self._pv(block.child("pv"), "pv" in block, energy.numbers("solar_generation"), ratio),
            price=prices[:, 0] if prices.shape[1] else np.zeros(self.rows),
            price_predicted=prices[:, 1:],
            carbon=carbon[:, 0] if carbon.shape[1] else np.zeros(self.rows),
            weather={column: weather.numbers(column).astype(np.float64) for column in WEATHER_COLUMNS},
            battery=battery,
            battery_action=BATTERY_ACTION in actions,
            socket_action=bool(chargers) and SOCKET_ACTION in actions,
            chargers=chargers,
            service=self._service(block, chargers),
            appliances=read_appliances(block, self.files, actions, self.seconds / 3600),
            **self._thermal(name, block, energy, weather, actions),
        )

    def _thermal(self, name: str, block: Block, energy: Table, weather: Table, actions: list[str]) -> dict[str, Any]:
        """What a building has besides electrical devices."""
        outage = read_outage(block, energy, self.rows, self.seconds)
        demands = any(energy.numbers(f"{use}_demand").any() for use in END_USES)
        needed = demands or outage.any() or "dynamics" in block or any(action in THERMAL_ACTIONS for action in actions)
        self.thermal |= bool(needed)
        if needed and self._time_step_ratio(energy) != 1:
            self.unsupported.append(f"{block.path}: thermal devices with another time step than the data's")
        outdoor = weather.numbers("outdoor_dry_bulb_temperature").astype(np.float64)
        count = energy.numbers("occupant_count", blank_allowed=True).astype(np.float64)
        points = [f"indoor_dry_bulb_temperature_{use}_set_point" for use in ("cooling", "heating")]
        return {
            "end_uses": read_end_uses(name, block, energy, outdoor, actions, self.seed or 0),
            "dynamics": read_dynamics(block, self.files, energy, weather),
            "occupant": read_occupant(block, self.files, energy, self.seed or 0),
            "outage": outage,
            "hvac_mode": energy.integers("hvac_mode", 0, 3) if "hvac_mode" in energy else np.ones(self.rows, np.int64),
            "indoor_temperature": energy.numbers("indoor_dry_bulb_temperature", blank_allowed=True).astype(np.float64),
            "set_points": np.stack([energy.numbers(p, blank_allowed=True).astype(np.float64) for p in points], axis=-1),
            "occupants": count,
        }

    def _active_actions(self, block: Block) -> list[str]:
        names = [name for name in self.actions if name not in block.names("inactive_actions")]
        for name in names:
            if not knows_action(name):
                hint = "delete it or set it inactive"
                self.schema.child("actions").error(f"CityLearn 3.0.2 fails on the unknown action {name}: {hint}")
        return names

    def _shared(self, block: Block, key: str, columns: tuple[str, ...]) -> Floats:
        """(T, columns) of a file of prices or carbon; no columns where the schema names none."""
        if key not in block:
            block.warning(f"no {key}, CityLearn takes zeros")
            return np.zeros((self.rows, 0))
        table = self.files.read(block, key)
        table.check_columns(columns)
        return np.stack([table.numbers(column).astype(np.float64) for column in columns], axis=-1)

    def _pv(
        self, pv: Block, there: bool, generation: np.ndarray[Any, np.dtype[np.float32]], ratio: np.float32
    ) -> Floats:
        """(T,) kWh per step, rounded as CityLearn rounds (`building.py`, _pv_generation_to_control_step)."""
        attributes = pv.child("attributes")
        for key in attributes.content:
            if key not in ("nominal_power", "generation_mode", "efficiency", *defaults.IGNORED):
                attributes.error(f"a PV plant has no attribute {key!r}")
        mode = str(attributes.get("generation_mode", "per_kw")).strip().lower().replace("-", "_")
        nominal_power = attributes.number("nominal_power", 0, math.inf, default=0.0)
        if not there:
            return np.zeros(self.rows)
        if mode in PV_ABSOLUTE:
            return (generation * ratio).astype(np.float64)
        if mode not in PV_PER_KW:
            attributes.error(f"generation_mode must be per_kw or absolute, not {mode!r}")
        hours = np.float32(self.seconds / 3600)
        return (np.float32(nominal_power) * generation / np.float32(1000) * hours).astype(np.float64)

    def _battery(self, name: str, block: Block) -> Battery | None:
        storage = block.child("electrical_storage")
        if "electrical_storage" not in block:
            return None
        attributes = storage.child("attributes")
        sized = storage.get("type") in DEVICE_TYPES["electrical_storage"] and not storage.flag("autosize")
        if sized:
            self._note_drawn(attributes, stationary=True)
        building_type = str(block.get("type", defaults.BUILDING_TYPE))
        seed = defaults.device_seed(name, building_type, "electrical_storage", str(storage.get("type")), self.seed or 0)
        battery = defaults.stationary_battery(attributes, seed)
        return battery if not sized or (battery.capacity > 0 and battery.nominal_power > 0) else None

    def _note_drawn(self, attributes: Block, stationary: bool) -> None:
        names = ", ".join(defaults.drawn(attributes, stationary))
        if names and self.seed is None and not (stationary and "random_seed" in attributes):
            self.unsupported.append(f"{attributes.path}: {names} omitted and no random_seed to draw from")
        if names:
            attributes.warning(f"CityLearn draws at random what is omitted: {names}")

    def _schedules(self, block: Block, vehicles: dict[str, int]) -> list[Schedule]:
        return [
            read_schedule(name, self.files.read(config, "charger_simulation"), vehicles)
            for name, config in block.child("chargers").children()
        ]

    def _charger(self, block: Block, name: str, schedule: Schedule, forced: Floats) -> Charger:
        block.check_known(CHARGER_KEYS, "key")
        block.check_class("type")
        attributes = block.child("attributes")
        attributes.check_known(CHARGER_ATTRIBUTES, "attribute")
        for key, default in (("max_charging_power", "50 kW"), ("max_discharging_power", "50 kW"), ("efficiency", "1")):
            if key not in attributes:
                attributes.warning(f"no {key}, CityLearn takes {default}")
        powers = {key: attributes.number(key, 0, math.inf, default=default) for key, default in CHARGER_POWERS.items()}
        curves = [attributes.curve(key, fewest=1) if key in attributes else None for key in CHARGER_CURVES]
        phase = attributes.get("phase_connection")
        departure, departs = departures(schedule.vehicle, schedule.starts)
        return Charger(
            name=name,
            efficiency=attributes.number("efficiency", 0, 1, default=1.0, above=True),
            charge_efficiency_curve=curves[0],
            discharge_efficiency_curve=curves[1],
            phase_connection=None if phase is None else str(phase),
            vehicle=schedule.vehicle,
            departure=departure,
            # A vehicle that states no wish wants nothing.
            required_soc=np.where(schedule.vehicle == NONE, 0.0, np.nan_to_num(schedule.required_soc)),
            arrival_soc=forced,
            departs=departs,
            **powers,
        )

    def _service(self, block: Block, chargers: tuple[Charger, ...]) -> ElectricalService | None:
        phases = {charger.name: charger.phase_connection for charger in chargers}
        for kind, parse in (("electrical_service", service_scopes), ("charging_constraints", charging_limits)):
            if block.get(kind):
                limits = block.child(kind)
                phase = block.child("electrical_storage").child("attributes").get("phase_connection")
                service = ElectricalService(kind, dict(limits.content), None if phase is None else str(phase))
                parse(service, phases, limits)
                return service
        return None
