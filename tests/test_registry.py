"""Named entries: built-in ones imported late, plugins found by a variable or an entry point."""

import importlib
import sys
from functools import partial
from typing import Annotated

import pytest
from pydantic import BaseModel, ValidationError

from iquitos_rl import registry
from iquitos_rl.errors import UserError
from iquitos_rl.registry import VARIABLE, Registry, plugin_source

NUMBERS: Registry[float] = Registry("number", {"pi": "math:pi", "late": "no_such_module:thing"})


def test_a_builtin_entry_is_imported_when_it_is_asked_for():
    assert list(NUMBERS)[:2] == ["pi", "late"]
    assert NUMBERS["pi"] == pytest.approx(3.14159, abs=1e-5)
    with pytest.raises(ModuleNotFoundError):
        NUMBERS["late"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match="there is no number 'tau'; there are pi, late"):
        NUMBERS.require("tau")


@pytest.mark.parametrize("name", ["pi", "", "a b", "a/b", "a,b"])
def test_a_name_that_is_taken_or_no_word_is_refused(name):
    with pytest.raises(UserError):
        Registry("number", {"pi": "math:pi"}).add(name, 1.0)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A file that adds a number, named after the test, and a registry as an importable module's attribute."""
    monkeypatch.setattr(registry, "_loaded", set())
    path = tmp_path / "added_number.py"
    path.write_text("from test_registry import NUMBERS\nNUMBERS.add('added', 7.0)\n", encoding="utf-8")
    yield path
    sys.modules.pop("added_number", None)
    NUMBERS._entries.pop("added", None)


def test_a_plugin_is_found_by_its_path(plugin, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(plugin))
    assert "added" in NUMBERS
    assert NUMBERS.require("added") == 7.0


def test_a_plugin_is_found_by_its_module(plugin, monkeypatch):
    monkeypatch.syspath_prepend(plugin.parent)
    monkeypatch.setenv(VARIABLE, "added_number")
    assert NUMBERS["added"] == 7.0


def test_an_installed_plugin_is_found_by_its_entry_point(plugin, monkeypatch):
    info = plugin.parent / "added-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[iquitos_rl.plugins]\nadded = added_number\n", encoding="utf-8")
    monkeypatch.syspath_prepend(plugin.parent)
    registry._installed.cache_clear()
    assert NUMBERS["added"] == 7.0
    registry._installed.cache_clear()


def test_a_plugin_that_cannot_be_imported_is_named(plugin, monkeypatch):
    monkeypatch.setenv(VARIABLE, "no_such_plugin")
    with pytest.raises(UserError, match="plugin no_such_plugin cannot be imported"):
        len(NUMBERS)


class Setting(BaseModel):
    number: Annotated[str, NUMBERS.named("none", only=lambda value: value > 3)] = "none"


def test_a_setting_takes_the_names_of_a_registry(plugin, monkeypatch):
    monkeypatch.setitem(NUMBERS._entries, "late", 1.0)
    monkeypatch.setenv(VARIABLE, str(plugin))
    assert [Setting(number=name).number for name in ("none", "pi", "added")] == ["none", "pi", "added"]
    for wrong in ("late", "tau"):
        with pytest.raises(ValidationError, match="there is no such number; there are none, pi, added"):
            Setting(number=wrong)


def test_a_plugins_functions_are_told_from_before_a_change(plugin, monkeypatch):
    monkeypatch.syspath_prepend(plugin.parent)
    plugin.write_text("def f():\n    pass\n", encoding="utf-8")
    function = importlib.import_module("added_number").f
    before = plugin_source(function)
    assert before == plugin_source(partial(function)) != []
    plugin.write_text("def f():\n    return 1\n", encoding="utf-8")
    assert plugin_source(function) != before
    assert plugin_source(registry.load_plugins, None) == [], "the package's version stands for its own functions"
