"""Which engine a run trains on, and what it says about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from schemas import Features, write_schema

from iquitos_rl.config import RunSettings
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.errors import UserError
from iquitos_rl.runs.engine import make_engine

CPU = torch.device("cpu")
FEATURE = "buildings.Building_1: noise_std"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_schema(tmp_path / "site", 3, Features(rows=30, buildings=(1, 1), sockets=(1, 1), omit=0))


@pytest.fixture
def noisy(folder: Path) -> Path:
    """The same site with a feature that only CityLearn has."""
    path = folder / "schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["buildings"]["Building_1"]["noise_std"] = 0.1
    path.write_text(json.dumps(schema), encoding="utf-8")
    return folder


def test_auto_takes_the_district_engine_where_it_can(folder: Path) -> None:
    engine = make_engine(RunSettings(num_envs=3), [folder], CPU)
    assert (engine.name, engine.env.num_envs, engine.steps_per_year) == ("district", 3, 29)
    assert isinstance(engine.env, DistrictSite)
    assert "reproduces this site" in engine.reason


def test_auto_falls_back_to_citylearn_and_says_why(noisy: Path) -> None:
    engine = make_engine(RunSettings(), [noisy], CPU)
    assert engine.name == "citylearn"
    assert f"the district engine cannot reproduce {FEATURE}" in engine.reason
    engine.env.reset(seed=0)
    engine.env.close()


def test_the_district_engine_asked_for_by_name_is_never_replaced(noisy: Path) -> None:
    with pytest.raises(UserError, match=f"cannot reproduce {FEATURE}.*use the citylearn engine"):
        make_engine(RunSettings(engine="district"), [noisy], CPU)


def test_citylearn_asked_for_by_name_is_not_called_a_fallback(folder: Path) -> None:
    engine = make_engine(RunSettings(engine="citylearn"), [folder], CPU)
    assert engine.name == "citylearn"
    assert engine.reason.startswith("asked for")
    engine.env.close()
