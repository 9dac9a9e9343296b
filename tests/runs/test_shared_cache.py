"""Two runs that need the same year, rule or baseline at once make it once, one after the other."""

import threading
from functools import partial

import pytest

from iquitos_rl.errors import UserError
from iquitos_rl.runs import shared_cache, years
from iquitos_rl.runs.shared_cache import only_process


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr(shared_cache, "POLL_S", 0.01)


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
    monkeypatch.setattr(years, "build_case", build)
    folder = tmp_path / "cases" / f"iquitos-38-{years.digest('iquitos-38', {}, years.iquitos_rl.__version__)[:8]}"
    thread = threading.Thread(target=lambda: found.append(years.preset_year("iquitos-38", 0, {}, tmp_path)))
    with only_process(folder / "year-0"):
        monkeypatch.setattr(years, "only_process", partial(only_process, check=waiting.set))
        thread.start()
        assert waiting.wait(60)
        (folder / "year-0").mkdir()
        (folder / "year-0" / "case.json").touch()
    thread.join(60)
    assert found == [folder / "year-0"]


def test_a_cache_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"), only_process(tmp_path / "file" / "product"):
        pass
