"""Reading a CityLearn schema folder into a `Site`, with the values that CityLearn 3.0.2 would use.

Nothing of citylearn is imported, so this also works where it cannot be installed. What only CityLearn simulates is
not an error here: it is listed in `Site.unsupported`, and the citylearn engine can still run the folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from iquitos_rl.cases.schema import defaults
from iquitos_rl.cases.schema.schedules import ARRIVAL_SOC, NONE, Schedule, departures, forced_socs, read_schedule
from iquitos_rl.cases.schema.service import check_service
from iquitos_rl.cases.schema.tables import DataFiles, Table
from iquitos_rl.cases.schema.unsupported import DEMANDS, building_features, site_features
from iquitos_rl.cases.schema.values import curve, flag, mapping, number, whole
from iquitos_rl.cases.site import Battery, Building, Charger, ElectricalService, Floats, Site, Vehicle
from iquitos_rl.errors import UserError

CALENDAR = ("month", "hour", "day_type")
BUILDING_COLUMNS = (*CALENDAR, "indoor_dry_bulb_temperature", "non_shiftable_load", *DEMANDS, "solar_generation")
OPTIONAL_COLUMNS = (
    "daylight_savings_status",
    "average_unmet_cooling_setpoint_difference",
    "indoor_relative_humidity",
    "occupant_count",
    "indoor_dry_bulb_temperature_cooling_set_point",
    "indoor_dry_bulb_temperature_heating_set_point",
    "hvac_mode",
    "power_outage",
    "comfort_band",
    "minutes",
    "seconds",
)
LEADS = ("", "_predicted_1", "_predicted_2", "_predicted_3")
WEATHER_COLUMNS = tuple(
    f"{quantity}{lead}"
    for quantity in (
        "outdoor_dry_bulb_temperature",
        "outdoor_relative_humidity",
        "diffuse_solar_irradiance",
        "direct_solar_irradiance",
    )
    for lead in LEADS
)
PRICE_COLUMNS = tuple(f"electricity_pricing{lead}" for lead in LEADS)
CARBON_COLUMN = "carbon_intensity"
CHARGER_POWERS = {
    "max_charging_power": 50.0,
    "min_charging_power": 0.0,
    "max_discharging_power": 50.0,
    "min_discharging_power": 0.0,
}
"""kW, with CityLearn's defaults (`electric_vehicle_charger.py`)."""
CHARGER_ATTRIBUTES = (
    *CHARGER_POWERS,
    "efficiency",
    "charge_efficiency_curve",
    "discharge_efficiency_curve",
    "phase_connection",
)
PV_ABSOLUTE = ("absolute", "absolute_kwh", "kwh", "kwh_step", "energy")
PV_PER_KW = ("per_kw", "w_per_kw", "profile")
BATTERY_ACTION, SOCKET_ACTION = "electrical_storage", "electric_vehicle_storage"


def read_site(folder: Path) -> Site:
    """Read `schema.json` of a folder and every data file that it names.

    The site's T rows are `simulation_start_time_step` to `simulation_end_time_step`, both included.

    Raises:
        UserError: the folder, a file or a cell is missing or wrong; the sentence names the file and the key, or the
            line and column.
    """
    path = folder if folder.is_file() else folder / "schema.json"
    schema, content = _load_schema(path)
    return _SchemaReader(path, schema, content).site()


class _SchemaReader:
    """One schema while it is read: what its parts share."""

    def __init__(self, path: Path, schema: dict[str, Any], content: bytes) -> None:
        self.path, self.schema = path, schema
        start = whole(schema, "simulation_start_time_step", str(path), 0)
        end = whole(schema, "simulation_end_time_step", str(path), start + 1)
        self.seconds = whole(schema, "seconds_per_time_step", str(path), 1)
        self.rows = end - start + 1
        root = path.parent if schema.get("root_directory") is None else path.parent / str(schema["root_directory"])
        self.files = DataFiles(root, start, self.rows)
        self.files.digest.update(content)
        self.unsupported = list(site_features(schema, str(path)))
        if schema.get("random_seed") is not None:
            whole(schema, "random_seed", str(path), 0)
        self.ratio = 1.0

    def site(self) -> Site:
        all_vehicles, excluded = self._vehicles()
        index = {vehicle.name: v for v, vehicle in enumerate(all_vehicles)} | dict.fromkeys(excluded, NONE)
        blocks = [(name, block) for name, block in self._blocks("buildings") if self._included(name, block)]
        if not blocks:
            raise UserError(f"{self.path}: buildings: none is included")
        calendar = self._energy_table(*blocks[0])
        self.ratio = self._time_step_ratio(calendar)
        schedules = {name: self._schedules(name, block, index) for name, block in blocks}
        every = [file for files in schedules.values() for file in files]
        hours = self.seconds / 3600
        forced, random = forced_socs(
            every,
            np.array([1.0 - vehicle.battery.depth_of_discharge for vehicle in all_vehicles]).clip(0, 1),
            np.array([vehicle.battery.loss_coefficient for vehicle in all_vehicles]) * hours,
        )
        for n, row in random[:1]:
            place = every[n].table.place(row, ARRIVAL_SOC)
            self.unsupported.append(
                f"SOC at {len(random)} arrival(s) is not given but drawn at random, first at {place}"
            )
        remaining = iter(forced)
        buildings = tuple(self._building(name, block, schedules[name], remaining) for name, block in blocks)
        hour = calendar.integers("hour", 0, 24, point_allowed=True)
        return Site(
            path=self.path.parent,
            name=self.path.parent.resolve().name,
            seconds_per_time_step=self.seconds,
            month=calendar.integers("month", 1, 12, point_allowed=True),
            # CityLearn counts 1 to 24; files that hold an hour 0 count 0 to 23.
            hour=hour if (hour == 0).any() else hour - 1,
            day_type=calendar.integers("day_type", 1, 8, point_allowed=True),
            buildings=buildings,
            vehicles=tuple(all_vehicles),
            unsupported=tuple(self.unsupported),
            fingerprint=self.files.digest.hexdigest(),
        )

    def _building(
        self, name: str, block: dict[str, Any], schedules: list[Schedule], forced: Iterator[Floats]
    ) -> Building:
        energy = self._energy_table(name, block)
        known = mapping(self.schema.get("actions"), f"{self.path}: actions")
        active = [action for action in known if self._active(action, block)]
        self.unsupported += building_features(name, block, energy, active, str(self.path))
        load = energy.numbers("non_shiftable_load")
        weather = self.files.read(block.get("weather"), f"buildings.{name}.weather")
        weather.check_columns(WEATHER_COLUMNS)
        price, predicted = np.zeros(self.rows), np.zeros((self.rows, 0))
        if block.get("pricing") is not None:
            table = self.files.read(block["pricing"], f"buildings.{name}.pricing")
            table.check_columns(PRICE_COLUMNS)
            columns = [table.numbers(column).astype(np.float64) for column in PRICE_COLUMNS]
            price, predicted = columns[0], np.stack(columns[1:], axis=-1)
        carbon = np.zeros(self.rows)
        if block.get("carbon_intensity") is not None:
            table = self.files.read(block["carbon_intensity"], f"buildings.{name}.carbon_intensity")
            table.check_columns((CARBON_COLUMN,))
            carbon = table.numbers(CARBON_COLUMN).astype(np.float64)
        battery = self._battery(name, block)
        battery_action = BATTERY_ACTION in active
        if battery_action and battery is None and not self.unsupported:
            raise UserError(
                f"{self.path}: buildings.{name}: {BATTERY_ACTION} is an active action, but the building has no battery "
                "with capacity and power"
            )
        configs = mapping(block.get("chargers") or {}, f"{self.path}: buildings.{name}.chargers")
        chargers = tuple(
            self._charger(f"buildings.{name}.chargers.{charger}", charger, config, file, next(forced))
            for (charger, config), file in zip(configs.items(), schedules, strict=True)
        )
        return Building(
            name=name,
            load=(load * np.float32(self.ratio)).astype(np.float64),
            pv=self._pv(name, block, energy),
            price=price,
            price_predicted=predicted,
            carbon=carbon,
            weather={column: weather.numbers(column).astype(np.float64) for column in WEATHER_COLUMNS},
            battery=battery,
            battery_action=battery_action,
            socket_action=bool(chargers) and SOCKET_ACTION in active,
            chargers=chargers,
            service=self._service(name, block, [charger.name for charger in chargers]),
        )

    def _energy_table(self, name: str, block: dict[str, Any]) -> Table:
        table = self.files.read(block.get("energy_simulation"), f"buildings.{name}.energy_simulation")
        table.check_columns(BUILDING_COLUMNS, OPTIONAL_COLUMNS)
        return table

    def _time_step_ratio(self, table: Table) -> float:
        """Schema step over data step, by the first two rows of the first building (`data.py`, EnergySimulation)."""

        def second_of_day(row: int) -> int:
            factors = {"hour": 3600, "minutes": 60, "seconds": 1}
            given = [column for column in factors if column in table]
            given = given if "minutes" in given else ["hour"]
            return sum(int(table.numbers(column)[row]) * factors[column] for column in given)

        step = second_of_day(1) - second_of_day(0)
        step += 24 * 3600 if step < 0 else 0
        return self.seconds / step if step > 0 else 1.0

    def _pv(self, name: str, block: dict[str, Any], energy: Table) -> Floats:
        """(T,) kWh per step, rounded as CityLearn rounds (`building.py`, _pv_generation_to_control_step)."""
        generation = energy.numbers("solar_generation")
        config = block.get("pv")
        if config is None:
            return np.zeros(self.rows)
        where = f"{self.path}: buildings.{name}.pv"
        attributes = mapping(mapping(config, where).get("attributes") or {}, f"{where}.attributes")
        mode = str(attributes.get("generation_mode") or "per_kw").strip().lower().replace("-", "_")
        if mode in PV_ABSOLUTE:
            return (generation * np.float32(self.ratio)).astype(np.float64)
        if mode not in PV_PER_KW:
            raise UserError(f"{where}: generation_mode must be per_kw or absolute, not {mode!r}")
        nominal_power = number(attributes, "nominal_power", where, 0, math.inf, default=0.0)
        hours = np.float32(self.seconds / 3600)
        return (np.float32(nominal_power) * generation / np.float32(1000) * hours).astype(np.float64)

    def _battery(self, name: str, block: dict[str, Any]) -> Battery | None:
        config = block.get("electrical_storage")
        if config is None:
            return None
        where = f"{self.path}: buildings.{name}.electrical_storage"
        attributes = mapping(config.get("attributes") or {}, f"{where}.attributes")
        seed = self.schema.get("random_seed")
        if seed is None and attributes.get("random_seed") is None:
            self._note_omitted(f"buildings.{name}.electrical_storage", attributes, stationary=True)
        building_type = block.get("type") or defaults.BUILDING_TYPE
        seed = defaults.device_seed(name, building_type, "electrical_storage", str(config.get("type")), seed or 0)
        battery = defaults.stationary_battery(attributes, seed, where)
        return battery if battery.capacity > 0 and battery.nominal_power > 0 else None

    def _vehicles(self) -> tuple[list[Vehicle], list[str]]:
        """The vehicles that take part, and the names of those that the schema excludes."""
        vehicles, excluded = [], []
        for name, block in self._blocks("electric_vehicles_def"):
            if not self._included(name, block):
                excluded.append(name)
                continue
            where = f"{self.path}: electric_vehicles_def.{name}.battery"
            attributes = mapping(mapping(block.get("battery"), where).get("attributes"), f"{where}.attributes")
            seed = self.schema.get("random_seed")
            if seed is None:
                self._note_omitted(f"electric_vehicles_def.{name}", attributes, stationary=False)
            battery = defaults.vehicle_battery(attributes, name, seed or 0, where)
            if battery.capacity <= 0 or battery.nominal_power <= 0:
                raise UserError(f"{where}: capacity and nominal_power must be greater than 0")
            vehicles.append(Vehicle(name, battery))
        return vehicles, excluded

    def _schedules(self, name: str, block: dict[str, Any], vehicles: dict[str, int]) -> list[Schedule]:
        where = f"{self.path}: buildings.{name}.chargers"
        schedules = []
        for charger, config in mapping(block.get("chargers") or {}, where).items():
            config = mapping(config, f"{where}.{charger}")
            table = self.files.read(config.get("charger_simulation"), f"chargers.{charger}.charger_simulation")
            schedules.append(read_schedule(table, vehicles))
        return schedules

    def _charger(self, key: str, name: str, config: dict[str, Any], file: Schedule, forced: Floats) -> Charger:
        where = f"{self.path}: {key}"
        attributes = mapping(config.get("attributes") or {}, f"{where}.attributes")
        for attribute in set(attributes) - set(CHARGER_ATTRIBUTES):
            # CityLearn ignores what it does not know, so a misspelt power limit would silently become 50 kW.
            if near := get_close_matches(attribute, CHARGER_ATTRIBUTES, n=1, cutoff=0.8):
                raise UserError(f"{where}: a charger has no attribute {attribute}; {near[0]} is probably meant")

        def power(key: str) -> float:
            return number(attributes, key, where, 0, math.inf, default=CHARGER_POWERS[key])

        def efficiency_curve(key: str) -> Floats | None:
            value = attributes.get(key)
            return None if value is None else curve(value, key, where, fewest=1)

        efficiency = number(attributes, "efficiency", where, 0, 1, default=1.0)
        if efficiency == 0:
            raise UserError(f"{where}: efficiency must be greater than 0")
        phase = attributes.get("phase_connection")
        vehicle = file.vehicle
        departure, departs = departures(vehicle, file.starts)
        # A vehicle that states no wish wants nothing.
        required = np.where(vehicle == NONE, 0.0, np.nan_to_num(file.required_soc))
        return Charger(
            name=name,
            efficiency=efficiency,
            phase_connection=None if phase is None else str(phase),
            vehicle=vehicle,
            departure=departure,
            required_soc=required,
            arrival_soc=forced,
            departs=departs,
            max_charging_power=power("max_charging_power"),
            min_charging_power=power("min_charging_power"),
            max_discharging_power=power("max_discharging_power"),
            min_discharging_power=power("min_discharging_power"),
            charge_efficiency_curve=efficiency_curve("charge_efficiency_curve"),
            discharge_efficiency_curve=efficiency_curve("discharge_efficiency_curve"),
        )

    def _service(self, name: str, block: dict[str, Any], chargers: list[str]) -> ElectricalService | None:
        for kind in ("electrical_service", "charging_constraints"):
            if block.get(kind):
                raw = mapping(block[kind], f"{self.path}: buildings.{name}.{kind}")
                storage = block.get("electrical_storage") or {}
                phase = (storage.get("attributes") or {}).get("phase_connection")
                service = ElectricalService(kind, raw, None if phase is None else str(phase))
                configs = block.get("chargers") or {}
                phases = {key: (configs[key].get("attributes") or {}).get("phase_connection") for key in chargers}
                check_service(service, phases, f"{self.path}: buildings.{name}.{kind}")
                return service
        return None

    def _note_omitted(self, where: str, attributes: dict[str, Any], stationary: bool) -> None:
        if names := defaults.omits_random(attributes, stationary):
            self.unsupported.append(f"{where}: {', '.join(names)} omitted and no random_seed to draw from")

    def _active(self, action: str, block: dict[str, Any]) -> bool:
        config = mapping(self.schema["actions"][action], f"{self.path}: actions.{action}")
        inactive = block.get("inactive_actions") or []
        inactive = inactive if isinstance(inactive, list) else [inactive]
        return flag(config.get("active"), f"{self.path}: actions.{action}.active") and action not in inactive

    def _included(self, name: str, block: dict[str, Any]) -> bool:
        return flag(block.get("include", True), f"{self.path}: {name}.include")

    def _blocks(self, key: str) -> list[tuple[str, dict[str, Any]]]:
        blocks = mapping(self.schema.get(key) or {}, f"{self.path}: {key}")
        return [(name, mapping(block, f"{self.path}: {key}.{name}")) for name, block in blocks.items()]


def _load_schema(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        content = path.read_bytes()
        schema = json.loads(content)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    return mapping(schema, str(path)), content
