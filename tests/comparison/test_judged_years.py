"""Years that are judged once: drawn once, refused with other settings, told when asked for again."""

import json
import shutil

import pytest
from short_case import shorten

import iquitos_rl.comparison.plan as module
from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.comparison.judged_years import FEWEST, SEEDS, claim, draw
from iquitos_rl.comparison.plan import ComparisonRequest, plan
from iquitos_rl.errors import UserError
from iquitos_rl.runs import years


@pytest.fixture
def path(tmp_path):
    draw(tmp_path / "years.json")
    return tmp_path / "years.json"


def test_years_are_drawn_once(path):
    before = path.read_bytes()
    seeds = json.loads(before)["seeds"]
    assert len(set(seeds)) == FEWEST
    assert all(seed in SEEDS for seed in seeds)
    with pytest.raises(UserError, match="drawn before"):
        draw(path)
    assert path.read_bytes() == before
    with pytest.raises(UserError, match="at least 10"):
        draw(path.with_name("few.json"), 9)


def test_other_settings_are_refused_until_they_are_asked_for_again(path):
    assert claim(path, "site", {"steps": 1}, again=False) is None
    assert claim(path, "site", {"steps": 1}, again=False) is None, "the same comparison goes on"
    assert claim(path, "other site", {"steps": 2}, again=False) is None
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"site was judged on these years with other settings \(1 before\)"):
        claim(path, "site", {"steps": 2}, again=False)
    assert path.read_bytes() == before
    assert "not the first look" in claim(path, "site", {"steps": 2}, again=True)
    assert "with 2 other settings" in claim(path, "site", {"steps": 3}, again=True)
    assert "not the first look" in claim(path, "site", {"steps": 1}, again=True), "the first ones are told too now"


def test_a_file_that_is_none_is_one_sentence(tmp_path):
    path = tmp_path / "years.json"
    for text in ("{", '{"seeds": [1, 2]}', '{"seeds": "many"}', json.dumps({"seeds": [10_001] * 10, "more": 1})):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"years\.json"):
            claim(path, "site", {}, again=False)


def test_a_comparison_is_planned_on_the_years_of_the_file(path, tmp_path, monkeypatch):
    small = {"sockets.moto_count": 1, "sockets.mototaxi_count": 1}
    case = build_case("iquitos-38", 0, tmp_path / "year", small)
    days = [shorten(shutil.copytree(case, tmp_path / f"days-{first}"), 40, first) for first in (24, 64)]
    built = []

    def preset_year(preset, seed, overrides, cache, check=None):
        built.append(seed)
        return days[seed in SEEDS]

    monkeypatch.setattr(module, "preset_year", preset_year)
    monkeypatch.setattr(years, "preset_year", preset_year)
    flags = {"case": "iquitos-38", "years": 1}
    request = ComparisonRequest(("a2c",), 1, judged=path, flags=flags, output=tmp_path / "out" / "comparison")
    seeds = json.loads(path.read_text(encoding="utf-8"))["seeds"]
    comparison = plan(request)
    assert list(comparison.years) == [f"iquitos-38-{seed}" for seed in seeds]
    assert [seed for seed in built if seed in SEEDS] == seeds
    assert comparison.settings.run.eval_case == str(next(iter(comparison.years.values())))
    assert comparison.warnings == plan(request).warnings, "the same settings once more"
    other = ComparisonRequest(**{**vars(request), "flags": {**flags, "steps": 77}})
    with pytest.raises(UserError, match="other settings"):
        plan(other)
    told = plan(ComparisonRequest(**{**vars(other), "again": True}))
    assert told.warnings[0].startswith("not the first look")
    shifted = plan(ComparisonRequest(**{**vars(request), "eval_cases": ("iquitos-38-load", "iquitos-38-tenant")}))
    assert len(shifted.years) == 2 * len(seeds)
    assert shifted.warnings == comparison.warnings, "other years are another question"
    with pytest.raises(UserError, match="a is none"):
        plan(ComparisonRequest(**{**vars(request), "eval_cases": ("a",)}))
