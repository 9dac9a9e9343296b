"""Owners' stories from their raw files to the report, by the commands that they type."""

from __future__ import annotations

import json

import numpy as np
import pytest
from short_case import shorten
from stories import STORIES

from iquitos_rl import case, train
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.tariff import read_tariff
from iquitos_rl.judging import references
from iquitos_rl.judging.summary import bill_terms
from iquitos_rl.report import describe
from iquitos_rl.runs import planning

QUICK = ["--steps", "128", "--num-envs", "2", "--set", "episode_hours=24", "--set", "agent.horizon=32"]
QUICK += ["--set", "agent.hidden=[16]"]


DRAWN = ("german_home", "depot")
"""Whose cases are drawn too, which takes as long as all the rest."""


@pytest.fixture(autouse=True)
def quick(request, monkeypatch, without_drawings):
    """Without what takes most of the time of a short run: tuning the rule, measuring memory, drawing every case."""
    monkeypatch.setattr(planning, "process_bytes", lambda device: 0)
    if request.node.callspec.params["name"] not in DRAWN:
        monkeypatch.setattr(describe, "render", lambda draw, name: (b"", "<svg></svg>"))

    def untuned(name, sites, task, on_share=None):
        return default_settings(name, fit_profiles(sites))

    monkeypatch.setattr(references, "tune", untuned)


@pytest.mark.parametrize("name", STORIES)
def test_from_raw_files_to_the_report(name, tmp_path, capsys):
    story = STORIES[name](tmp_path)
    assert case.main(["import", *story.words, "--output", str(tmp_path / "site")]) == 0
    assert "written to" in capsys.readouterr().out
    cases = [tmp_path / "site" / own for own in story.cases]
    site, tariff = read_site(cases[-1]), read_tariff(cases[-1])
    building = site.buildings[0]
    assert building.load.sum() == pytest.approx(story.load_kwh, rel=1e-3, abs=1e-6)
    assert building.pv.sum() == pytest.approx(story.pv_kwh, rel=1e-3, abs=1e-6)
    assert case.main(["check", str(cases[-1])]) == 0
    assert case.main(["describe", str(cases[-1]), "--output", str(tmp_path / "site.html")]) == 0
    assert "What is paid" in (tmp_path / "site.html").read_text(encoding="utf-8")
    if len(cases) > 1:  # a year of hours takes long
        shorten(cases[0], 110)
        site = read_site(shorten(cases[1], 73))
        building = site.buildings[0]
    words = [word for own in cases for word in ("--case", str(own))]
    run = tmp_path / "runs" / "run"
    assert train.main(["ppo", *words, *QUICK, "--output", str(run)]) == 0

    summary = json.loads((run / "simulation_summary.json").read_text(encoding="utf-8"))
    found = summary["controllers"]
    assert summary["left_out"] == {}
    assert summary["failed"] == {}
    assert summary["currency"] == tariff.currency
    for own in found.values():
        assert own["bill"] == pytest.approx(sum(own[term] for term in bill_terms(own)), abs=1e-9)
        assert found["optimum"]["bill"] <= own["bill"] + 1e-3
    assert summary["audit"]["district_largest_net_difference_kwh"] < 1e-3 * max(1.0, building.load.max())
    assert summary["audit"].get("district_bill_difference_percent", 0.0) < 0.05
    assert summary["audit"]["demand_charge_booked_minus_defined"] < 1e-6 * max(1.0, abs(found["ppo"]["bill"]))
    assert ("export_cost" in found["ppo"]) == story.earns
    assert (found["uncontrolled"]["demand_cost"] > 0) == story.charged
    assert found["ppo"].get("departures", 0) >= min(story.visits - 1, 1)
    price = building.price[: site.rows - 1]
    idle = np.maximum(building.load - building.pv, 0)[: site.rows - 1]
    if not site.sockets:
        assert found["uncontrolled"]["energy_cost"] == pytest.approx(float((idle * price).sum()), rel=1e-6, abs=1e-6)
    page = (run / "report.html").read_text(encoding="utf-8")
    days = round(len(price) * site.hours_per_step / 24)
    assert f"In {days} days, PPO is" in page
    assert f"saved, {tariff.currency}" in page
