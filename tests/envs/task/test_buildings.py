"""The map of buildings against names written out, the engine's own physics, and sites in another order."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from schemas import Features, write_schema
from street import street
from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.buildings import NOWHERE, Buildings
from iquitos_rl.envs.task.thermal import exogenous
from iquitos_rl.errors import UserError


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_column_is_the_buildings_whose_name_it_has_or_everybodys(tmp_path, seed):
    write = write_thermal_schema if seed else lambda f, s: write_schema(f, s, Features(rows=60, buildings=(3, 3)))
    write(tmp_path / "s", seed)
    task = DistrictSite([read_site(tmp_path / "s")]).task
    found, names = task.buildings, [column.name for column in task.encoding.columns]
    assert [names[i] for i in found.common_columns] == list(found.common)
    reached = set(found.common_columns)
    for b, building in enumerate(found.names):
        for feature, place in zip(found.features, found.columns[b]):
            if place == NOWHERE:
                assert f"{building}/{feature}" not in names
            else:
                assert names[place] in (feature, f"{building}/{feature}") or names[place].endswith(f"/{feature}")
        reached |= {*found.columns[b]} - {NOWHERE}
    assert reached == set(range(len(names)))


def test_weather_that_differs_is_each_buildings_own(tmp_path):
    site = street(tmp_path / "s", 3)
    warm = {"outdoor_dry_bulb_temperature": site.buildings[0].weather["outdoor_dry_bulb_temperature"] + 7}
    site = replace(site, buildings=(*(replace(b, weather=warm) for b in site.buildings[:2]), site.buildings[2]))
    task = DistrictSite([site]).task
    at = task.buildings.features.index("outdoor_dry_bulb_temperature")
    first, second, third = (row[at] for row in task.buildings.columns)
    assert first == second != third
    assert task.encoding.columns[third].name == "House 2/outdoor_dry_bulb_temperature"


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_an_action_moves_the_building_that_the_map_says(tmp_path, seed):
    write_thermal_schema(tmp_path / "s", seed, networks=seed == 0)
    site = read_site(tmp_path / "s")
    env = DistrictSite([site], 2)
    found = env.task.buildings
    assert found.num_actions == env.action_dim
    for b, row in enumerate(found.actions):
        for place in (place for place in row if place != NOWHERE):
            action = torch.zeros(2, env.action_dim)
            action[0, place] = 1.0
            env.reset(seed=0)
            for _ in range(8):
                env.step(action)
                own = env.last_flows.net[0] - env.last_flows.net[1]
                assert (own[torch.arange(len(own)) != b] == 0).all()


def test_both_engines_have_the_same_map(tmp_path):
    write_thermal_schema(tmp_path / "s", 1)
    assert CityLearnSite([tmp_path / "s"]).task.buildings == DistrictSite([tmp_path / "s"]).task.buildings


def scaled(site: Site, by: float) -> Site:
    def building(own):
        battery = replace(own.battery, capacity=by * own.battery.capacity, nominal_power=by * own.battery.nominal_power)
        return replace(own, load=by * own.load, pv=by * own.pv, battery=battery)

    return replace(site, buildings=tuple(building(own) for own in site.buildings))


def test_facts_have_no_unit(tmp_path):
    site = street(tmp_path / "s", 3)
    small, large = (DistrictSite([own]).task.buildings for own in (site, scaled(site, 10.0)))
    np.testing.assert_allclose(small.values, large.values, atol=1e-12)
    assert len({row for row in small.values}) == 3
    assert not small.same_site(large)


def test_a_map_in_another_order_finds_columns_and_devices_by_name(tmp_path):
    found = DistrictSite([street(tmp_path / "s", 3, without_battery=(1,))]).task.buildings
    assert found.actions[1] == (NOWHERE,)
    order = found.model_copy(update={"features": found.features[::-1], "devices": ("tank", *found.devices)})
    moved = found.arranged(order)
    assert moved.columns == tuple(row[::-1] for row in found.columns)
    assert moved.actions == tuple((NOWHERE, *row) for row in found.actions)
    with pytest.raises(UserError, match="this site has the device battery, and the policy was trained to move tank"):
        found.arranged(found.model_copy(update={"devices": ("tank",)}))
    with pytest.raises(UserError, match="reads the column moonlight, and this site has none"):
        found.arranged(found.model_copy(update={"features": (*found.features, "moonlight")}))


def test_a_map_from_a_file_is_whole_or_refused(tmp_path):
    spec = DistrictSite([street(tmp_path / "s", 2)]).policy_spec
    assert Buildings.read(json.loads(json.dumps(spec))).model_dump() == Buildings.read(spec).model_dump()
    assert Buildings.read({}) is None
    for damage in ({"actions": [[0], [0]]}, {"columns": [[0]]}, {"values": [[1.0], [1.0]]}, {"names": []}):
        with pytest.raises(UserError, match="map of buildings cannot be read"):
            Buildings.read({"buildings": {**spec["buildings"], **damage}})


def test_columns_of_a_heated_site_do_not_depend_on_what_happened(tmp_path):
    """Without an outage or a demand the same buildings have the same columns, so a policy fits both periods."""
    site = read_site(write_thermal_schema(tmp_path / "site", 2))
    quiet = [
        replace(
            building,
            outage=np.zeros_like(building.outage),
            end_uses=tuple(replace(use, demand=np.zeros_like(use.demand)) for use in building.end_uses),
        )
        for building in site.buildings
    ]
    for building, without in zip(site.buildings, quiet):
        simulated = [use.device.nominal_power > 0 for use in building.end_uses]
        found, other = exogenous(building), exogenous(without)
        assert building.dynamics is None or (set(found) == set(other) and any(simulated))
        assert all(low < high for _, low, high in other.values())
    assert any(building.dynamics is not None for building in site.buildings)
