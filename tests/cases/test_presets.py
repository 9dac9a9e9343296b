"""Years of presets are written whole or not at all."""

import pytest

from iquitos_rl.cases.presets import PRESETS, Preset, build_preset
from iquitos_rl.errors import UserError


def write_schema(year_seed, folder, overrides):
    (folder / "schema.json").write_text(f"{year_seed} {dict(overrides)}", encoding="utf-8")


def write_notes(year_seed, folder, overrides):
    (folder / "notes.txt").write_text("no schema", encoding="utf-8")


def fail(year_seed, folder, overrides):
    write_schema(year_seed, folder, overrides)
    raise UserError("it broke half-way")


@pytest.fixture
def add(monkeypatch):
    """Adds a preset for a test."""
    return lambda preset: monkeypatch.setitem(PRESETS._entries, "mine", preset)


def test_a_preset_is_built_for_a_year_seed(add, tmp_path):
    add(Preset(write_schema, PRESETS["iquitos-38"].settings))
    folder = build_preset("mine", 7, tmp_path / "year", {"a": 1})
    assert (folder / "schema.json").read_text(encoding="utf-8") == "7 {'a': 1}"


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        (Preset(write_notes), {}, "the preset mine wrote no schema.json"),
        (Preset(fail), {}, "it broke half-way"),
        (Preset(write_schema), {"a": 1}, "the preset mine has no settings: a"),
    ],
)
def test_what_fails_leaves_nothing(add, tmp_path, preset, overrides, message):
    add(preset)
    with pytest.raises(UserError, match=message):
        build_preset("mine", 0, tmp_path / "year", overrides)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_preset_lists_the_known_ones(tmp_path):
    with pytest.raises(UserError, match="unknown preset 'x': choose one of iquitos-128, iquitos-38"):
        build_preset("x", 0, tmp_path / "year", {})
