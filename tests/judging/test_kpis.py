"""The KPIs against CityLearn's own table: from CityLearn's records, and from those of the district engine."""

import numpy as np
import pytest
import torch
from schemas import Features, write_schema
from thermal_schemas import write_thermal_schema

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs import CityLearnSite, DistrictSite
from iquitos_rl.envs.district.states import from_names, named_tensors
from iquitos_rl.judging.kpis import evaluate
from iquitos_rl.judging.series import engine_series, simulated_series

TABLE = 21
"""Cost functions that `evaluate()` has for the district, five of them for the district alone."""
MOST_KELVIN = 2e-5
"""By which the engines' networks differ."""


def run_both(folder, seed=0):
    """CityLearn after an episode of random actions, and what the district engine did in the same."""
    simulator, engine = CityLearnSite([folder]), DistrictSite([folder], 1, exact=True)
    simulator.reset()
    engine.reset()
    rng = np.random.default_rng(seed)
    flows, ended = [], False
    while not ended:
        action = rng.uniform(-1, 1, engine.action_dim).astype(np.float32)
        *_, ended, _ = simulator.step(action)
        engine.step(torch.from_numpy(action)[None])
        flows.append(engine.last_flows)
    return simulator.simulator, flows


def compare(simulator, kpis, band=2.0, kelvin=1e-9):
    """Every value of CityLearn's table against ours, at most 1e-9 apart; temperatures at most `kelvin`."""
    names = [building.name for building in simulator.buildings]
    table = simulator.evaluate(comfort_band=band)
    known = table[table.cost_function.isin(set(kpis.district))]
    for row in known.itertuples():
        if row.level == "district":
            ours = kpis.district[row.cost_function]
        else:
            ours = kpis.building[row.cost_function][..., names.index(row.name)]
        theirs = np.nan if row.value is None else float(row.value)
        apart = kelvin if "delta" in row.cost_function else 1e-9
        assert float(ours.squeeze()) == pytest.approx(theirs, rel=1e-9, abs=apart, nan_ok=True), row
    assert len(known) == len(kpis.district) + len(names) * len(kpis.building)


@pytest.mark.parametrize("seed", [None, 4, 8])  # 4: a building without a tariff
def test_an_electrical_site_equals_citylearn(week_38, tmp_path, seed):
    several = Features(rows=60, buildings=(2, 3), sockets=(3, 5), omit=0.0)
    folder = week_38 if seed is None else write_schema(tmp_path / "site", seed, several)
    simulator, flows = run_both(folder)
    kpis = evaluate(simulated_series(simulator))
    assert len(kpis.district) == TABLE
    compare(simulator, kpis)
    compare(simulator, evaluate(engine_series(read_site(folder), flows)))


@pytest.mark.parametrize("seed", range(4))
def test_a_random_thermal_site_equals_citylearn(tmp_path, seed):
    folder = write_thermal_schema(tmp_path, seed)
    simulator, flows = run_both(folder, seed)
    theirs, ours = simulated_series(simulator), engine_series(read_site(folder), flows)
    for band in (1.0, 2.0):
        compare(simulator, evaluate(theirs, band), band)
        kpis = evaluate(ours, band)
        assert len(kpis.district) == TABLE
        compare(simulator, kpis, band, MOST_KELVIN)


def test_many_environments_have_the_kpis_that_each_has_alone(tmp_path):
    """The leading axis of the series changes nothing."""
    folder = write_thermal_schema(tmp_path, 1)
    site, env = read_site(folder), DistrictSite([folder], 3)
    env.reset()
    flows = []
    for _ in range(site.rows - 1):
        env.step(torch.rand(3, env.action_dim) * 2 - 1)
        flows.append(env.last_flows)
    together = evaluate(engine_series(site, flows))
    for e in range(3):
        own = [from_names(step, {k: x[e : e + 1] for k, x in named_tensors(step).items()}) for step in flows]
        alone = evaluate(engine_series(site, own))
        for level in ("building", "district"):
            for name, value in getattr(alone, level).items():
                np.testing.assert_array_equal(value[0], getattr(together, level)[name][e], err_msg=name)
