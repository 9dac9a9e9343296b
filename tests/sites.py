"""Small sites to plan for: generated schemas with a tariff, and one building with given hours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from schemas import Features, write_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Battery, Building, Charger, Site
from iquitos_rl.cases.tariff import TARIFF_FILE
from iquitos_rl.envs.task.objective import Objective, ObjectiveSettings, Tariff, read_tariff

TARIFF = {"currency": "EUR", "peak_hours": [0, 1, 2, 7, 8], "demand_charge_peak": 3.0, "demand_charge_off_peak": 1.0}


def generated_site(folder: Path, seed: int, **features: object) -> Site:
    """A random schema with demand charges."""
    write_schema(folder, seed, Features(**{"rows": 60, **features}))
    (folder / TARIFF_FILE).write_text(json.dumps(TARIFF), encoding="utf-8")
    return read_site(folder)


def objective_of(site: Site, preset: str = "bill", shortfall_price: float = 5.0) -> Objective:
    settings = ObjectiveSettings(preset=preset, shortfall_price=shortfall_price)
    return Objective(read_tariff(site.path), settings)


def plain_battery(capacity: float, power: float, soc: float, efficiency: float = 0.81) -> Battery:
    return Battery(
        capacity=capacity,
        nominal_power=power,
        initial_soc=soc,
        depth_of_discharge=1.0,
        efficiency=efficiency,
        loss_coefficient=0.0,
        capacity_loss_coefficient=0.0,
        power_efficiency_curve=np.array([[0.0, 1.0], [efficiency, efficiency]]),
        capacity_power_curve=np.array([[0.0, 1.0], [1.0, 1.0]]),
    )


def unused_charger(rows: int) -> Charger:
    return Charger(
        name="empty",
        efficiency=1.0,
        charge_efficiency_curve=None,
        discharge_efficiency_curve=None,
        max_charging_power=1.0,
        min_charging_power=0.0,
        max_discharging_power=0.0,
        min_discharging_power=0.0,
        phase_connection=None,
        vehicle=np.full(rows, -1),
        departure=np.full(rows, -1.0),
        required_soc=np.zeros(rows),
        arrival_soc=np.full(rows, np.nan),
        departs=np.zeros(rows, dtype=bool),
    )


def site_of(
    folder: Path,
    load: list[float],
    price: list[float],
    battery: Battery | None,
    tariff: Tariff,
    chargers: tuple[Charger, ...] = (),
) -> Site:
    """One building, one row an hour from midnight; the last row is never simulated."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TARIFF_FILE).write_text(tariff.model_dump_json(), encoding="utf-8")
    rows = len(load)
    building = Building(
        name="B",
        load=np.array(load, dtype=np.float64),
        pv=np.zeros(rows),
        price=np.array(price, dtype=np.float64),
        price_predicted=np.zeros((rows, 0)),
        carbon=np.full(rows, 0.5),
        weather={},
        battery=battery,
        battery_action=battery is not None,
        socket_action=False,
        chargers=chargers,
        service=None,
    )
    hours = np.arange(rows)
    return Site(
        path=folder,
        name="tiny",
        seconds_per_time_step=3600,
        month=np.ones(rows, dtype=np.int64),
        hour=hours % 24,
        day_type=1 + hours // 24 % 7,
        buildings=(building,),
        vehicles=(),
        drift=None,
        unsupported=(),
        fingerprint="",
    )
