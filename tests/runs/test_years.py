"""Own years for training: of equal length, as they were read, and with a name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from short_case import shorten
from sites import generated_site

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.tariff import TARIFF_FILE, Tariff, read_tariff
from iquitos_rl.config import RunSettings
from iquitos_rl.errors import UserError
from iquitos_rl.runs.years import equal_years, prepare_years


@pytest.fixture
def years(tmp_path):
    """A year of 60 rows with an export price of its own in each, and one of 50."""
    for name, rows in (("2022", 60), ("2023", 50)):
        generated_site(tmp_path / "home" / name, 3, buildings=(1, 1), seconds=(3600,))
        folder = shorten(tmp_path / "home" / name, rows)
        tariff = Tariff(currency="EUR", export_price=tuple(np.arange(rows) / 100))
        (folder / TARIFF_FILE).write_text(tariff.model_dump_json(), encoding="utf-8")
    return [tmp_path / "home" / "2022", tmp_path / "home" / "2023"]


def test_a_longer_year_ends_earlier_in_training(years, tmp_path, capsys):
    long, short = equal_years(years, tmp_path / "cache")
    assert short == years[1]
    whole, cut = read_site(years[0]), read_site(long)
    assert (whole.rows, cut.rows) == (60, 50)
    assert "the last 10 hours are left out of training" in capsys.readouterr().out
    for name in ("load", "pv", "price"):
        np.testing.assert_array_equal(getattr(cut.buildings[0], name), getattr(whole.buildings[0], name)[:50])
    assert read_tariff(long).export_price == read_tariff(years[0]).export_price[:50]
    assert equal_years(years, tmp_path / "cache")[0] == long


def test_what_a_run_trains_on_and_is_judged_on(years, tmp_path):
    both = RunSettings(case=str(years[0]), more_cases=(str(years[1]),))
    found = prepare_years(both, tmp_path / "cache")
    assert (found.name, found.evaluate, found.unseen) == ("home", years[1], False)
    third = tmp_path / "third"
    shutil.copytree(years[1], third)
    found = prepare_years(both.model_copy(update={"eval_case": str(third)}), tmp_path / "cache")
    assert (found.evaluate, found.unseen) == (third, True)
    assert len(found.train) == 2


def test_years_that_do_not_belong_together_are_refused(years, tmp_path):
    with pytest.raises(UserError, match="a preset makes its own training years"):
        prepare_years(RunSettings(case=str(years[0]), more_cases=("iquitos-38",)), tmp_path)
    schema = json.loads((years[1] / "schema.json").read_text())
    (years[1] / "schema.json").write_text(json.dumps({**schema, "seconds_per_time_step": 900}))
    with pytest.raises(UserError, match="steps of another length"):
        equal_years(years, tmp_path)
