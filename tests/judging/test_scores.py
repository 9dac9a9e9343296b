"""KPIs and scores among a controller's figures, and what tables say of sites without vehicles or without a grid."""

import json

import numpy as np
import pandas as pd
import pytest
from schemas import Features, write_schema
from short_case import shorten
from thermal_schemas import write_thermal_schema

from iquitos_rl.baselines.controller import uncontrolled
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.envs.citylearn.booked import Booked
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.judging.scores import KPI, fitting_score, judged_figures, official_2021
from iquitos_rl.judging.simulate import AuditError, balance_residual, curtailed, simulate_year
from iquitos_rl.judging.summary import figures, grid_only
from iquitos_rl.judging.table import figure_rows, kpi_rows, period, score_rows

NORMALISED = (
    *("cost_total", "carbon_emissions_total", "electricity_consumption_total", "zero_net_energy", "ramping_average"),
    *("daily_one_minus_load_factor_average", "daily_peak_average", "all_time_peak_average"),
)
ELECTRICAL = Features(rows=60, sockets=(0, 0), buildings=(2, 2), omit=0.0)


@pytest.fixture(scope="module", params=[True, False], ids=["thermal", "electrical"])
def idle(request, tmp_path_factory):
    """An uncontrolled period of a site without vehicles."""
    folder = tmp_path_factory.mktemp("site") / "site"
    if request.param:
        write_thermal_schema(folder, 10, networks=True, outages=False)
        schema = json.loads((folder / "schema.json").read_text(encoding="utf-8"))
        for name, building in schema["buildings"].items():
            building.pop("chargers", None)
            data = pd.read_csv(folder / f"{name}.csv")
            data.assign(hvac_mode=3).to_csv(folder / f"{name}.csv", index=False)  # the data's demand can always be met
        (folder / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
        shorten(folder, 40)
    else:
        write_schema(folder, 1, ELECTRICAL)
    env = CityLearnSite([folder])
    return simulate_year(env, uncontrolled(env))


def test_where_the_data_decide_every_normalised_kpi_is_one(idle):
    found = figures(idle)
    for name in NORMALISED:
        assert found[f"{KPI}{name}"] == pytest.approx(1.0, abs=5e-5), name


def test_a_site_has_the_score_of_its_challenge(idle):
    found = figures(idle)
    thermal = any(building.dynamics is not None for building in idle.site.buildings)
    assert fitting_score(idle.site) == ("2023" if thermal else "2022")
    scores = {key for key in found if key.startswith("score_")}
    assert scores == ({"score_2023", "score_2023_wide"} if thermal else {"score_2022", "score_2022_official"})
    assert len(score_rows({"uncontrolled": found})) == 2
    names = [row[0] for row in kpi_rows({"uncontrolled": found})]
    assert set(NORMALISED) <= set(names)
    assert ("discomfort_proportion" in names) == thermal


def test_a_site_without_vehicles_is_told_without_them(idle):
    labels = [row[0] for row in figure_rows({"uncontrolled": figures(idle)})]
    assert not any("EV" in label for label in labels)
    assert "bill" in labels


def test_no_score_fits_vehicles(week_38):
    site = read_site(week_38)
    assert fitting_score(site) is None
    env = CityLearnSite([week_38])
    year = simulate_year(env, uncontrolled(env))
    found = judged_figures(site, year.series)
    assert all(key.startswith(KPI) for key in found)
    assert not any("discomfort" in key for key in found)


def test_the_organisers_rule_has_one_on_its_own_scale():
    rule = {"score_2021": 1.03, "term_2021/ramping": 4.0, "term_2021/carbon emissions": 8.0}
    rule |= {f"term_2021/{name}": 2.0 for name in ("1 - load factor", "average daily peak", "peak demand")}
    rule |= {"term_2021/net electricity consumption": 2.0}
    assert official_2021(rule, rule) == {"score_2021_official": pytest.approx(1.0)}
    halved = {key: value / 2 for key, value in rule.items()}
    assert official_2021(halved, rule) == {"score_2021_official": pytest.approx(0.5)}
    assert official_2021(halved, {}) == {}
    assert official_2021({"bill": 1.0}, rule) == {}


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (8759.0, "per year"),
        (8783.0, "per year"),
        (719.0, "in 30 days"),
        (35039.0, "in 1460 days"),
        (23.0, "in 23 hours"),
    ],
)
def test_a_period_is_named(hours, text):
    assert period({"grid_only": {}, "uncontrolled": {"hours": hours}}) == text


def test_an_outage_may_waste_pv_but_not_make_energy(tmp_path):
    folder = write_thermal_schema(tmp_path / "site", 5)
    env = CityLearnSite([folder])
    year = simulate_year(env, uncontrolled(env))
    site, flows = year.site, year.flows
    out = np.stack([building.outage[: year.hours] for building in site.buildings], axis=-1)
    assert out.any()
    assert curtailed(site, flows)[out].max() > 1
    assert not curtailed(site, flows)[~out].any()
    assert np.abs(balance_residual(site, flows)).max() < 1e-3
    more = flows._replace(load=flows.load + out * (curtailed(site, flows) + 1.0))
    assert balance_residual(site, more)[out].max() == pytest.approx(-1.0, abs=1e-3)
    alone = grid_only(year, env.task.objective)
    used = flows.load + flows.other
    for n, (b, _) in enumerate(site.sockets):
        used[:, b] += flows.sockets[:, n]
    assert alone["import_kwh"] == pytest.approx(used[~out].sum())


def test_an_outage_that_makes_energy_fails_the_run(tmp_path, monkeypatch):
    folder = write_thermal_schema(tmp_path / "site", 5)
    env = CityLearnSite([folder])
    honest = Booked.flows

    def tampered(booked, t):
        flows = honest(booked, t)
        return flows._replace(load=flows.load + 1e4 * (flows.net == 0))

    monkeypatch.setattr(Booked, "flows", tampered)
    with pytest.raises(AuditError):
        simulate_year(env, uncontrolled(env))
