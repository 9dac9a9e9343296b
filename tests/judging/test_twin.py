"""The comparison of the engine with CityLearn: what is equal is found equal, and what was changed is found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from precision import needs_double
from thermal_schemas import write_thermal_schema

from iquitos_rl.case import main
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.judging import twin


@pytest.fixture(autouse=True)
def short_timing(monkeypatch):
    monkeypatch.setattr(twin, "MEASURED_SECONDS", 0.001)
    monkeypatch.setattr(twin, "ENVIRONMENTS", 4)


@pytest.fixture(scope="module")
def thermal(tmp_path_factory):
    return write_thermal_schema(tmp_path_factory.mktemp("thermal"), 5)


def test_the_engine_equals_citylearn_on_the_shipped_case(week_38, capsys):
    assert main(["parity", str(week_38), "--steps", "50", "--seed", "3"]) == 0
    printed = capsys.readouterr().out
    assert "50 steps" in printed
    assert f"{week_38}: equal within the bars" in printed


def test_a_thermal_site_is_equal_in_every_quantity(thermal):
    found = twin.compare(thermal, seed=1)
    assert found.failures() == []
    assert found.steps == 71
    assert {name for name in found.exact if name.endswith("SOC")} >= {"cooling tank SOC", "dhw tank SOC", "battery SOC"}
    assert 0 < found.fast["temperature (C)"] < 0.02
    assert min(found.stock_speed, found.speed, found.bytes_per_env) > 0


def with_losses(site):
    def battery(own):
        return None if own is None else replace(own, loss_coefficient=own.loss_coefficient + 1e-6)

    return replace(site, buildings=tuple(replace(b, battery=battery(b.battery)) for b in site.buildings))


def with_weaker_pumps(site):
    def uses(own):
        return tuple(replace(use, cop=use.cop * 0.999) for use in own)

    return replace(site, buildings=tuple(replace(b, end_uses=uses(b.end_uses)) for b in site.buildings))


def with_another_network(site):
    def network(own):
        return None if own is None else replace(own, head_bias=own.head_bias + 0.002)

    return replace(site, buildings=tuple(replace(b, dynamics=network(b.dynamics)) for b in site.buildings))


@needs_double
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (with_losses, "battery SOC"),
        (with_weaker_pumps, "cooling device (kWh)"),
        (with_another_network, "temperature (C)"),
    ],
)
def test_a_changed_engine_ends_with_1(thermal, change, named, monkeypatch, capsys):
    monkeypatch.setattr(twin, "read_site", lambda folder: change(read_site(folder)))
    assert main(["parity", str(thermal), "--steps", "25"]) == 1
    assert f"differs: {named} differs by" in capsys.readouterr().err


def test_a_number_that_is_none_is_a_difference(thermal):
    broken = replace(
        read_site(thermal),
        buildings=tuple(replace(b, load=b.load * float("nan")) for b in read_site(thermal).buildings),
    )
    assert "net (kWh) differs by nan in exact mode" in twin.compare(thermal, 5, site=broken).failures()


def test_a_folder_that_only_citylearn_runs_is_one_sentence(tmp_path, capsys):
    folder = write_thermal_schema(tmp_path, 5)
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["buildings"]["Building_1"]["noise_std"] = 0.1
    path.write_text(json.dumps(schema), encoding="utf-8")
    assert main(["parity", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "cannot reproduce buildings.Building_1: noise_std" in error
    assert error.count("\n") == 1
