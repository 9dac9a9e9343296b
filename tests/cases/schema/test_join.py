"""Cases joined to one: each building is what it was, in our reader and in CityLearn, and pays what it paid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from stories import STORIES

from iquitos_rl import case
from iquitos_rl.baselines.bill import run_year
from iquitos_rl.baselines.controller import uncontrolled
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.schema.join import join
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import simulate_year
from iquitos_rl.judging.summary import figures


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> list[Path]:
    """The home with a wallbox twice, the second with a battery and a connection of 3 kW."""
    folder = tmp_path_factory.mktemp("homes")
    words = STORIES["no_battery"](folder).words
    more = ["--set", "bess.capacity_kwh=8", "--set", "bess.power_kw=4", "--set", "site.connection_kw=3"]
    assert case.main(["import", *words, "--output", str(folder / "one")]) == 0
    assert case.main(["import", *words, *more, "--output", str(folder / "two")]) == 0
    return [folder / "one", folder / "two"]


def test_a_street_is_its_homes(homes, tmp_path):
    assert case.main(["join", *map(str, homes), "--output", str(tmp_path / "street")]) == 0
    street, own = read_site(tmp_path / "street"), [read_site(home) for home in homes]
    assert check_case(tmp_path / "street").errors == []
    assert [building.name for building in street.buildings] == ["one", "two"]
    for building, site in zip(street.buildings, own):
        for name in ("load", "pv", "price", "carbon"):
            np.testing.assert_array_equal(getattr(building, name), getattr(site.buildings[0], name))
    assert len(street.sockets) == len(street.vehicles) == 2
    years = []
    for folder in (*homes, tmp_path / "street"):
        env = CityLearnSite([folder])
        years.append(figures(simulate_year(env, uncontrolled(env))))
    for term in ("bill", "energy_cost", "export_cost", "ev_kwh"):
        assert years[2][term] == pytest.approx(years[0][term] + years[1][term], rel=1e-6)
    assert years[2]["departures"] == 2 * years[0]["departures"]


def test_what_a_connection_carries_is_not_exceeded_by_battery_and_charger(homes):
    site = read_site(homes[1])
    env, reference = DistrictSite([site], exact=True), CityLearnSite([homes[1]])
    everything = np.ones(env.action_dim, dtype=np.float32)
    flows = simulate_year(reference, lambda obs: everything).flows
    idle = site.buildings[0].idle_net[: len(flows.net)]
    assert flows.net.max() <= max(3.0, float(idle.max())) + 1e-4
    free = simulate_year(CityLearnSite([homes[0]]), lambda obs: np.ones(1, dtype=np.float32)).flows
    assert free.net.max() > 3.5
    run_year(env, lambda obs: obs.new_ones((1, env.action_dim)))
    assert env.last_flows is not None


def test_what_does_not_fit_together_is_refused(homes, tmp_path):
    with pytest.raises(UserError, match="two folders or more"):
        join(homes[:1], tmp_path / "a")
    with pytest.raises(UserError, match="same name"):
        join([homes[0], homes[0]], tmp_path / "b")
    other = tmp_path / "three"
    other.mkdir()
    for file in homes[0].iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    tariff = json.loads((other / "tariff.json").read_text())
    (other / "tariff.json").write_text(json.dumps({**tariff, "standing_per_day": 1.0}))
    with pytest.raises(UserError, match=r"has another tariff\.json"):
        join([homes[0], other], tmp_path / "c")
    assert not (tmp_path / "c").exists()
