"""Two runs that need the same year or rule at once make it once: one waits for the other."""

import threading
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from iquitos_rl.baselines.profiles import PROFILE_ROWS, Profiles
from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging import references
from iquitos_rl.machine import locks
from iquitos_rl.machine.files import write_json
from iquitos_rl.machine.locks import only_process
from iquitos_rl.runs import years


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.01)


def test_one_waits_for_the_other(tmp_path):
    order, waiting = [], threading.Event()

    def second():
        with only_process(tmp_path / "cache" / "product", waiting.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with only_process(tmp_path / "cache" / "product"):
        thread.start()
        assert waiting.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


def test_other_products_do_not_wait(tmp_path):
    def refuse():
        raise AssertionError("it waited")

    with only_process(tmp_path / "one"), only_process(tmp_path / "two"):
        pass
    with only_process(tmp_path / "one"), pytest.raises(AssertionError), only_process(tmp_path / "one", refuse):
        pass


def test_a_year_that_another_run_has_built_meanwhile_is_not_built_again(tmp_path, monkeypatch):
    def build(preset, seed, folder, overrides):
        raise AssertionError("built a second time")

    found, waiting = [], threading.Event()
    monkeypatch.setattr(years, "build_preset", build)
    folder = years.preset_folder("iquitos-38", {}, tmp_path)
    find = partial(years.preset_year, "iquitos-38", 0, {}, tmp_path, waiting.set)
    thread = threading.Thread(target=lambda: found.append(find()))
    with only_process(folder / "year-0"):
        thread.start()
        assert waiting.wait(60)
        (folder / "year-0").mkdir()
        (folder / "year-0" / "schema.json").touch()
    thread.join(60)
    assert found == [folder / "year-0"]


def test_a_rule_that_another_run_has_tuned_meanwhile_is_not_tuned_again(tmp_path, monkeypatch):
    def tune(*arguments, **options):
        raise AssertionError("tuned a second time")

    found, waiting, path = [], threading.Event(), tmp_path / "rules" / "strongest.json"
    profiles = Profiles(*(np.zeros((rows, 2)) for rows in PROFILE_ROWS))
    site = SimpleNamespace(buildings=[None, None])
    rule = RuleSettings("strongest", dict.fromkeys(RULES["strongest"].ranges, 0.5), profiles)
    monkeypatch.setattr(references, "tune", tune)
    monkeypatch.setattr(references, "_learned_path", lambda *_: path)
    find = partial(
        references.find_rule, "strongest", [site], TaskSettings(), tmp_path, on_share=lambda _: waiting.set()
    )
    thread = threading.Thread(target=lambda: found.append(find()))
    with only_process(path):
        thread.start()
        assert waiting.wait(60)
        write_json(path, rule.to_json())
    thread.join(60)
    assert found[0].parameters == rule.parameters


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"), only_process(tmp_path / "file" / "product"):
        pass
