"""What `read_site` reads is what CityLearn uses; what it cannot read it names."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live
from schemas import Features, write_schema

from iquitos_rl.cases.schema.defaults import device_seed, stationary_battery, vehicle_battery
from iquitos_rl.cases.schema.reader import read_folder, read_site
from iquitos_rl.cases.schema.values import Block
from iquitos_rl.cases.site import Battery
from iquitos_rl.envs.district.physics import Physics
from iquitos_rl.errors import UserError

ROWS = 60
PLAIN = Features(rows=ROWS, buildings=(1, 1), sockets=(2, 2), roaming=0, offset=0, service=0, constraints=0, inactive=0)


def same_battery(ours: Battery, theirs: Any) -> None:
    for name in ("capacity", "nominal_power", "initial_soc", "depth_of_discharge", "capacity_loss_coefficient"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.loss_coefficient * (theirs.seconds_per_time_step / 3600) == theirs.loss_coefficient
    assert ours.efficiency == theirs.efficiency_history[0]
    assert np.array_equal(ours.power_efficiency_curve, theirs.power_efficiency_curve)
    assert np.array_equal(ours.capacity_power_curve, theirs.capacity_power_curve)


def same_charger(ours: Any, theirs: Any) -> None:
    for name in ("efficiency", "max_charging_power", "min_charging_power", "phase_connection"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("max_discharging_power", "min_discharging_power"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("charge_efficiency_curve", "discharge_efficiency_curve"):
        own, other = getattr(ours, name), getattr(theirs, name)
        assert (own is None) == (other is None)
        assert own is None or np.array_equal(own, other)
    required = theirs.charger_simulation.electric_vehicle_required_soc_departure
    assert np.array_equal(ours.required_soc, np.where(ours.vehicle >= 0, required, 0).clip(min=0))


@pytest.mark.parametrize("seed", range(12))
def test_reads_what_citylearn_reads(tmp_path: Path, seed: int) -> None:
    folder = write_schema(tmp_path, seed, Features(rows=ROWS, seconds=(3600, 900, 300)))
    site = read_site(folder)
    live = Live(folder, site)
    assert site.rows == live.env.time_steps == ROWS
    assert site.unsupported == ()
    energy = live.env.buildings[0].energy_simulation
    assert np.array_equal(site.month, energy.month)
    assert np.array_equal(site.hour, energy.hour - 1)
    assert np.array_equal(site.day_type, energy.day_type)
    for ours, theirs in zip(site.buildings, live.env.buildings, strict=True):
        ratio = theirs.time_step_ratio
        assert ours.name == theirs.name
        assert np.array_equal(ours.load, theirs.energy_simulation.non_shiftable_load * np.float32(ratio))
        assert np.array_equal(ours.pv, -theirs._Building__solar_generation)
        assert np.array_equal(ours.price, theirs.pricing.electricity_pricing)
        for lead, values in enumerate(ours.price_predicted.T):
            assert np.array_equal(values, getattr(theirs.pricing, f"electricity_pricing_predicted_{lead + 1}"))
        assert np.array_equal(ours.carbon, theirs.carbon_intensity.carbon_intensity)
        assert all(np.array_equal(values, getattr(theirs.weather, name)) for name, values in ours.weather.items())
        assert (ours.battery is not None) == (theirs.electrical_storage.capacity > 0)
        if ours.battery is not None:
            same_battery(ours.battery, theirs.electrical_storage)
        assert ours.battery_action == ("electrical_storage" in theirs.active_actions)
        sockets = [f"electric_vehicle_storage_{charger.name}" for charger in ours.chargers]
        assert [name for name in theirs.active_actions if name in sockets] == (sockets if ours.socket_action else [])
        for charger, other in zip(ours.chargers, theirs.electric_vehicle_chargers, strict=True):
            same_charger(charger, other)
    for vehicle, other in zip(site.vehicles, live.env.electric_vehicles, strict=True):
        assert vehicle.name == other.name
        same_battery(vehicle.battery, other.battery)


@pytest.mark.parametrize("seed", range(4))
def test_visits_are_what_citylearn_plugs_in(tmp_path: Path, seed: int) -> None:
    """Row by row: who is connected, and the SOC forced on arrival; countdowns against a row-by-row count."""
    folder = write_schema(tmp_path, seed, Features(rows=ROWS, sockets=(4, 6)))
    site = read_site(folder)
    live = Live(folder, site)
    for row in range(ROWS - 1):
        for n, name in enumerate(live.connected()):
            charger = site.sockets[n][1]
            assert (charger.vehicle[row] < 0) == (name is None)
            if name is not None:
                assert site.vehicles[charger.vehicle[row]].name == name
                if not np.isnan(charger.arrival_soc[row]):
                    assert live.socket_soc()[n] == charger.arrival_soc[row]
        live.step(np.zeros(len(site.buildings)), np.zeros(len(site.sockets)))
    for _, charger in site.sockets:
        left = -1.0
        for row in reversed(range(ROWS)):
            occupied = charger.vehicle[row] >= 0
            left = 0.0 if charger.departs[row] else left + 1 if occupied else -1.0
            assert charger.departure[row] == left
            last = row == ROWS - 1 or charger.vehicle[row + 1] != charger.vehicle[row]
            assert not (last and occupied) or charger.departs[row]


def test_every_omitted_parameter_is_drawn_as_citylearn_draws_it(tmp_path: Path) -> None:
    folder = write_schema(tmp_path, 1, PLAIN)
    schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
    block = schema["buildings"]["Building_1"]["electrical_storage"] = {"type": "citylearn.energy_model.Battery"}
    block["attributes"] = {"capacity": 6.4, "nominal_power": 5.0}
    for vehicle in schema["electric_vehicles_def"].values():
        vehicle["battery"]["attributes"] = {"capacity": 40, "nominal_power": 20}
    schema["buildings"]["Building_1"]["inactive_actions"] = []
    (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    site = read_site(folder)
    live = Live(folder, site)
    assert site.buildings[0].battery is not None
    same_battery(site.buildings[0].battery, live.env.buildings[0].electrical_storage)
    for vehicle, other in zip(site.vehicles, live.env.electric_vehicles, strict=True):
        same_battery(vehicle.battery, other.battery)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from([None, 0.85, 1.0]), st.sampled_from([None, 0.3, 0.9]))
def test_draws_of_any_seed(seed: int, efficiency: float | None, depth: float | None) -> None:
    from citylearn.energy_model import Battery as Theirs

    given_attributes = {"capacity": 10.0, "nominal_power": 5.0, "efficiency": efficiency, "depth_of_discharge": depth}
    ours = stationary_battery(Block(given_attributes), seed)
    same_battery(ours, Theirs(**given_attributes, random_seed=seed, seconds_per_time_step=3600))
    assert vehicle_battery(Block(given_attributes), "EV", seed).loss_coefficient == 0


def test_seeds_differ_by_building() -> None:
    seeds = {device_seed(name, "citylearn.citylearn.Building", "electrical_storage", "type", 5) for name in "abc"}
    assert len(seeds) == 3


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(st.none(), st.floats(-50, 200, width=32)), min_size=1, max_size=20))
def test_states_of_charge_in_per_cent_or_as_fractions(tmp_path_factory: pytest.TempPathFactory, values: Any) -> None:
    from citylearn.data import ChargerSimulation

    from iquitos_rl.cases.schema.report import Report
    from iquitos_rl.cases.schema.schedules import _soc
    from iquitos_rl.cases.schema.tables import DataFiles

    folder = tmp_path_factory.mktemp("soc")
    lines = ["soc,other", *("," if value is None else f"{value!r}," for value in values)]
    (folder / "soc.csv").write_text("\n".join(lines), encoding="utf-8")
    ours = _soc(DataFiles(folder, 0, len(values), Report()).read(Block({"file": "soc.csv"}), "file"), "soc")
    theirs = ChargerSimulation.normalize_soc_series(np.array(values, dtype=np.float64))
    assert np.array_equal(np.isnan(ours), theirs < 0)
    assert np.array_equal(ours[~np.isnan(ours)], theirs[theirs >= 0])


def edit_schema(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "schema.json"
        schema = json.loads(path.read_text(encoding="utf-8"))
        change(schema)
        path.write_text(json.dumps(schema), encoding="utf-8")

    return apply


def edit_building(**entries: Any) -> Callable[[Path], None]:
    return edit_schema(lambda schema: schema["buildings"]["Building_1"].update(entries))


def edit_cell(file: str, row: int, column: str, value: str) -> Callable[[Path], None]:
    """Overwrite a cell; row 0 is the first data row."""

    def apply(folder: Path) -> None:
        lines = (folder / file).read_text(encoding="utf-8").splitlines()
        cells = lines[row + 1].split(",")
        cells[lines[0].split(",").index(column)] = value
        lines[row + 1] = ",".join(cells)
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")

    return apply


def rename_column(file: str, column: str, name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        head, rest = (folder / file).read_text(encoding="utf-8").split("\n", 1)
        (folder / file).write_text(head.replace(column, name, 1) + "\n" + rest, encoding="utf-8")

    return apply


def connect_twice(folder: Path) -> None:
    (folder / "charger_1.csv").write_bytes((folder / "charger_0.csv").read_bytes())


def shorten(folder: Path) -> None:
    lines = (folder / "charger_0.csv").read_text(encoding="utf-8").splitlines()
    (folder / "charger_0.csv").write_text("\n".join(lines[:31]), encoding="utf-8")


def set_row(row: int, line: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        lines = (folder / "charger_0.csv").read_text(encoding="utf-8").splitlines()
        lines[row + 1] = line
        (folder / "charger_0.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    return apply


def announce_another(folder: Path) -> None:
    set_row(10, "3,EV 1,,,,0.5")(folder)
    set_row(11, "1,EV 0,0,0.8,,0.5")(folder)


def charger_attributes(**entries: Any) -> Callable[[Path], None]:
    return edit_schema(
        lambda schema: schema["buildings"]["Building_1"]["chargers"]["charger_0"]["attributes"].update(entries)
    )


def battery_attributes(**entries: Any) -> Callable[[Path], None]:
    def change(schema: dict[str, Any]) -> None:
        schema["buildings"]["Building_1"]["electrical_storage"] = {
            "type": "citylearn.energy_model.Battery",
            "attributes": {"capacity": 10, "nominal_power": 5, **entries},
        }

    return edit_schema(change)


STATE, VEHICLE = "electric_vehicle_charger_state", "electric_vehicle_id"
MISTAKES: list[tuple[Callable[[Path], None], str]] = [
    (lambda folder: (folder / "schema.json").unlink(), "schema.json cannot be read"),
    (lambda folder: (folder / "schema.json").write_text("{", encoding="utf-8"), "is not JSON in UTF-8"),
    (
        lambda folder: (folder / "pricing.csv").unlink(missing_ok=True),
        "buildings.Building_1: pricing names pricing.csv, which does not exist",
    ),
    (
        lambda folder: (folder / "weather.csv").write_text("", encoding="utf-8"),
        "weather.csv: not a readable CSV file",
    ),
    (shorten, "charger_0.csv: 30 data rows, the schema simulates 60"),
    (
        edit_cell("Building_1.csv", 3, "non_shiftable_load", "1,5kWh".replace(",", ".")),
        "line 5: non_shiftable_load: '1.5kWh' is not a number",
    ),
    (edit_cell("Building_1.csv", 3, "non_shiftable_load", ""), "line 5: non_shiftable_load: the cell is blank"),
    (edit_cell("Building_1.csv", 2, "month", "13"), "line 4: month: 13 is not a whole number from 1 to 12"),
    (edit_cell("Building_1.csv", 2, "day_type", "2.5"), "line 4: day_type: 2.5 is not a whole number"),
    (rename_column("Building_1.csv", "dhw_demand", "dhw"), "Building_1.csv: column dhw_demand is missing"),
    (
        rename_column("weather.csv", "outdoor_relative_humidity,", "humidity,"),
        "weather.csv: column outdoor_relative_",
    ),
    (edit_cell("charger_0.csv", 7, STATE, ""), f"charger_0.csv, line 9: {STATE}: the cell is blank"),
    (edit_cell("charger_0.csv", 7, STATE, "x"), f"charger_0.csv, line 9: {STATE}: 'x': it must be the whole number 1"),
    (set_row(8, "1,EV 7,0,0.8,,0.5"), f"line 10: {VEHICLE}: vehicle 'EV 7' is not in electric_vehicles_def"),
    (set_row(8, "1,,0,0.8,,0.5"), f"line 10: {VEHICLE}: a vehicle is connected but"),
    (announce_another, "line 13: electric_vehicle_id: EV 0 connects where EV 1 was announced"),
    (connect_twice, "'EV 0' is connected to chargers charger_0 and charger_1 at the same time"),
    (
        charger_attributes(max_charge_power=3, max_charging_power=None),
        "'max_charge_power', CityLearn ignores it; max_charging_power is probably meant",
    ),
    (charger_attributes(max_charging_power=-1), "max_charging_power must be a number of at least 0, not -1"),
    (charger_attributes(efficiency=1.2), "efficiency must be a number above 0 and at most 1, not 1.2"),
    (charger_attributes(charge_efficiency_curve=[[0, 1], [0, 2]]), "charge_efficiency_curve must rise"),
    (battery_attributes(capacty=3), "a battery has no attribute 'capacty'"),
    (battery_attributes(depth_of_discharge="all"), "depth_of_discharge must be a number between 0 and 1, not 'all'"),
    (battery_attributes(power_efficiency_curve=[[0, 1]]), "power_efficiency_curve must be a list of at least 2"),
    (battery_attributes(power_efficiency_curve=[[0, 0.9], [1, 1.1]]), "power_efficiency_curve must lie above 0"),
    (edit_building(electrical_storage=None, inactive_actions=[]), "the building has no battery"),
    (edit_building(include="perhaps"), "Building_1: include must be true or false, not 'perhaps'"),
    (edit_building(include=False), "buildings: none is included"),
    (
        edit_building(energy_simulation="load.parquet"),
        "buildings.Building_1: energy_simulation names load.parquet, a Parquet file",
    ),
    (edit_building(chargers=[1]), "buildings.Building_1: chargers must be a JSON object"),
    (edit_building(electrical_service={"mode": "two_phase"}), "mode must be single_phase or three_phase"),
    (
        edit_building(electrical_service={"limits": {"total": {"import_kw": -3}}}),
        "electrical_service.limits.total: import_kw must be a number of at least 0, not -3",
    ),
    (
        edit_building(electrical_service={"limits": {"per_phase": {"L2": {}}}}),
        "per_phase: single_phase has no phase L2",
    ),
    (
        edit_building(charging_constraints={"phases": [{"chargers": ["charger_9"]}]}),
        "phases[0]: chargers: the building has no charger charger_9",
    ),
    (edit_schema(lambda s: s.update(simulation_end_time_step=0)), "simulation_end_time_step must be a whole number"),
    (edit_schema(lambda s: s.update(seconds_per_time_step="1h")), "seconds_per_time_step must be a whole number"),
    (edit_schema(lambda s: s["electric_vehicles_def"]["EV 0"]["battery"]["attributes"].pop("capacity")), "is missing"),
]


@pytest.mark.parametrize(("mistake", "sentence"), MISTAKES, ids=[sentence[:40] for _, sentence in MISTAKES])
def test_names_the_file_and_the_place_of_a_mistake(
    tmp_path: Path, mistake: Callable[[Path], None], sentence: str
) -> None:
    folder = write_schema(tmp_path, 3, PLAIN)
    edit_building(pricing="pricing.csv")(folder)
    read_site(folder)
    mistake(folder)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        read_site(folder)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value inside a JSON document."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 10**6), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    features = Features(rows=12, service=1, omit=0, curves=1, offset=0, buildings=(2, 2), sockets=(3, 3))
    folder = write_schema(tmp_path_factory.mktemp("everything"), 6, features)
    shutil.copytree(folder, folder / "untouched")
    return folder


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_other_value_anywhere_in_a_schema_is_read_or_refused(everything: Path, data: st.DataObject) -> None:
    schema = json.loads((everything / "schema.json").read_text(encoding="utf-8"))
    *above, last = data.draw(st.sampled_from(places(schema)[1:]))
    parent = schema
    for key in above:
        parent = parent[key]
    parent[last] = data.draw(JSON)
    changed = everything / "changed.json"
    changed.write_text(json.dumps(schema), encoding="utf-8")
    with contextlib.suppress(UserError):
        read_site(changed)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_other_cell_in_a_data_file_is_read_or_refused(everything: Path, data: st.DataObject) -> None:
    path = everything / data.draw(st.sampled_from(sorted(file.name for file in everything.glob("*.csv"))))
    before = (everything / "untouched" / path.name).read_text(encoding="utf-8")
    lines = [line.split(",") for line in before.splitlines()]
    row, column = data.draw(st.integers(0, 13)), data.draw(st.integers(0, len(lines[0]) - 1))
    cell = st.one_of(st.text(max_size=4), st.sampled_from(["", "nan", "1e400", "-1", "1.5", "EV 0", '"', ",", "\n"]))
    lines[row % len(lines)][column] = data.draw(cell)
    path.write_text("\n".join(",".join(line) for line in lines), encoding="utf-8")
    with contextlib.suppress(UserError):
        read_site(everything)
    path.write_text(before, encoding="utf-8")


UNSUPPORTED: list[tuple[Callable[[Path], None], str]] = [
    (edit_building(dynamics={"type": "my.Dynamics"}), "Building_1.dynamics: type my.Dynamics"),
    (edit_building(escalators={"one": {}}), "Building_1: escalators"),
    (edit_building(noise_std=0.1), "Building_1: noise_std"),
    (
        edit_building(type="citylearn.building.OccupantInteractionBuilding"),
        "Building_1: building type citylearn.building.",
    ),
    (edit_building(pv={"type": "my.PV"}), "Building_1: pv type my.PV"),
    (edit_building(pv={"type": "citylearn.energy_model.PV", "autosize": True}), "Building_1: pv autosize"),
    (edit_building(dhw_device={"type": "my.Heater"}), "Building_1: dhw_device type my.Heater"),
    (edit_building(cooling_storage={"type": "my.Tank"}), "Building_1: cooling_storage type my.Tank"),
    *(
        (edit_schema(lambda s, key=key: s.update({key: {"enabled": True}})), key)
        for key in ("community_market", "demand_response", "robustness")
    ),
    (edit_schema(lambda s: s.update(terminal_observation_padding=True)), "terminal_observation_padding"),
    (
        edit_schema(lambda s: s["electric_vehicles_def"]["EV 0"].update(type="my.Vehicle")),
        "electric_vehicles_def.EV 0: vehicle type my.Vehicle",
    ),
    (
        edit_schema(lambda s: s["buildings"]["Building_1"]["chargers"]["charger_0"].update(type="my.Charger")),
        "chargers.charger_0: charger type my.Charger",
    ),
    (
        edit_schema(lambda s: s["buildings"]["Building_1"]["electrical_storage"].update(autosize=True)),
        "Building_1: electrical_storage autosize",
    ),
    (
        edit_schema(lambda s: s["buildings"]["Building_1"]["electrical_storage"].update(type="my.Battery")),
        "Building_1: electrical_storage type my.Battery",
    ),
    (edit_schema(lambda s: s.update(topology_mode="dynamic")), "topology_mode dynamic"),
    (edit_schema(lambda s: s.update(random_seed=None)), "omitted and no random_seed"),
    (
        edit_schema(lambda s: s["buildings"]["Building_1"]["chargers"]["charger_0"].update(noise_std=1)),
        "chargers.charger_0: noise_std",
    ),
]


@pytest.mark.parametrize(("feature", "name"), UNSUPPORTED, ids=[name for _, name in UNSUPPORTED])
def test_lists_what_only_citylearn_simulates(tmp_path: Path, feature: Callable[[Path], None], name: str) -> None:
    folder = write_schema(tmp_path, 3, PLAIN)
    battery_attributes()(folder)
    assert read_site(folder).unsupported == ()
    feature(folder)
    site = read_site(folder)
    assert any(name in entry for entry in site.unsupported)
    with pytest.raises(UserError, match=f"cannot reproduce .*{re.escape(name)}"):
        Physics([site], 1)


def test_an_arrival_without_a_state_of_charge_needs_the_drift(tmp_path: Path) -> None:
    """CityLearn lets a vehicle that is away drift by seeded draws; a SOC at its arrival makes that harmless."""
    folder = write_schema(tmp_path, 3, PLAIN)
    file = folder / "charger_0.csv"
    header, *rows = file.read_text(encoding="utf-8").splitlines()
    rows = ["3,,,,,"] * len(rows)
    rows[20] = "1,EV 0,0,0.8,,"
    file.write_text("\n".join([header, *rows]), encoding="utf-8")
    reading = read_folder(folder)
    assert reading.site is not None
    assert reading.site.unsupported == ()
    drift = reading.site.drift
    assert drift is not None
    assert drift.shape == (ROWS, 2)
    assert np.isnan(drift[[0, 19, 20, -1], 0]).all()  # it comes at row 20, and nobody moves at either end
    assert not np.isnan(drift[1:19, 0]).any()
    warning = (
        "line 21: electric_vehicle_estimated_soc_arrival: blank where a vehicle connects next: it comes with the SOC"
    )
    assert any(f"charger_0.csv, {warning}" in text for text in reading.report.warnings)
    edit_schema(lambda schema: schema.pop("random_seed"))(folder)
    assert any(
        "SOCs of arriving vehicles omitted and no random_seed" in entry for entry in read_site(folder).unsupported
    )
    rows[19] = "3,,,,,40"
    file.write_text("\n".join([header, *rows]), encoding="utf-8")
    site = read_site(folder)
    assert site.drift is None
    assert site.buildings[0].chargers[0].arrival_soc[20] == np.float32(0.4)


@pytest.mark.parametrize("own_soc", ["", "70"])
@pytest.mark.parametrize("before", ["", "90"])
def test_a_visit_of_one_row_before_another_at_an_earlier_socket(tmp_path: Path, own_soc: str, before: str) -> None:
    """The earlier socket announces the vehicle while it stands at the later one, and so sets its SOC a row early."""
    folder = write_schema(tmp_path, 3, PLAIN)
    for charger, rows in (
        (0, {20: "3,,,,,", 21: "1,EV 1,1,0.8,,40"}),
        (1, {19: f"3,,,,,{before}", 20: f"1,EV 1,0,0.8,,{own_soc}"}),
    ):
        file = folder / f"charger_{charger}.csv"
        lines = [file.read_text(encoding="utf-8").splitlines()[0], *["3,,,,,"] * (ROWS + 3)]
        for row, line in rows.items():
            lines[row + 1] = line
        file.write_text("\n".join(lines), encoding="utf-8")
    site = read_site(folder)
    live = Live(folder, site)
    engine = Physics([site], 1, exact=True)
    for _ in range(24):
        assert np.array_equal(engine.socket_soc[0].numpy(), live.socket_soc())
        zero = np.zeros(len(site.buildings)), np.zeros(len(site.sockets))
        live.step(*zero)
        engine.step(*(torch.from_numpy(actions).unsqueeze(0) for actions in zero))


def test_a_vehicle_that_the_schema_excludes_leaves_its_socket_empty(tmp_path: Path) -> None:
    folder = write_schema(tmp_path, 3, PLAIN)
    edit_schema(lambda schema: schema["electric_vehicles_def"]["EV 0"].update(include=False))(folder)
    site = read_site(folder)
    assert [vehicle.name for vehicle in site.vehicles] == ["EV 1"]
    assert (site.buildings[0].chargers[0].vehicle == -1).all()
    assert (site.buildings[0].chargers[1].vehicle == 0).any()


def test_the_fingerprint_follows_the_data(tmp_path: Path) -> None:
    a, b = (write_schema(tmp_path / name, 3, PLAIN) for name in "ab")
    assert read_site(a).fingerprint == read_site(b).fingerprint
    edit_cell("charger_1.csv", ROWS - 1, "electric_vehicle_estimated_arrival_time", "3")(b)
    assert read_site(a).fingerprint != read_site(b).fingerprint


def test_hours_from_0_to_23_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = write_schema(tmp_path, 3, PLAIN)
    expected = read_site(folder).hour
    path = folder / "Building_1.csv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    place = header.split(",").index("hour")
    changed = [header]
    for line in lines:
        cells = line.split(",")
        cells[place] = str(int(cells[place]) - 1)
        changed.append(",".join(cells))
    path.write_text("\n".join(changed), encoding="utf-8")
    assert np.array_equal(read_site(folder).hour, expected)


def test_a_first_hour_0_before_hours_1_to_24_is_the_last_of_its_day(tmp_path: Path) -> None:
    """So the public data set with vehicles begins."""
    folder = write_schema(tmp_path, 3, PLAIN)
    expected = read_site(folder).hour
    assert expected.max() == 23
    edit_cell("Building_1.csv", 0, "hour", "0")(folder)
    assert read_site(folder).hour.tolist() == [23, *expected[1:].tolist()]
