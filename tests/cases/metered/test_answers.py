"""Answers become the options that the questions name; an interview ends with the case that they lead to."""

from __future__ import annotations

import builtins
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from owners import save

from iquitos_rl import case
from iquitos_rl.cases.metered.answers import option_of
from iquitos_rl.cases.schema.reader import read_site

COST = "what does energy cost? give --tariff FILE, or say --set tariff.energy_off_peak=0.30"


@pytest.mark.parametrize(
    ("question", "answer", "words"),
    [
        ("nothing tells the site's time zone; say it with --zone Europe/Berlin", "UTC", ["--zone", "UTC"]),
        ("a battery of what power? say it with --set bess.power_kw=", "5", ["--set", "bess.power_kw=5"]),
        ("x: load names no unit; say it with --unit load=kWh (or W)", "W", ["--unit", "load=W"]),
        (
            "rises all day; say --quantity daily (a counter) or --quantity interval",
            "interval",
            ["--quantity", "interval"],
        ),
        (
            "what does energy cost? give --tariff FILE, or say --set tariff.energy_off_peak=0.30",
            "my.yaml",
            ["--tariff", "my.yaml"],
        ),
        (
            "what does energy cost? give --tariff FILE, or say --set tariff.energy_off_peak=0.30",
            "0.28",
            ["--set", "tariff.energy_off_peak=0.28"],
        ),
        ("anything", "--unit W --set 'a.b=1 2'", ["--unit", "W", "--set", "a.b=1 2"]),
        ("the file is broken in line 7", "so what", []),
    ],
)
def test_an_answer_is_the_option_that_the_question_names(question: str, answer: str, words: list[str]) -> None:
    assert option_of(question, answer) == words


def load_file(folder: Path) -> Path:
    rows = [f"{datetime(2024, 3, 4) + timedelta(hours=h):%Y-%m-%d %H:%M},{500 + h % 24}" for h in range(72)]
    return save(folder / "load.csv", "\n".join(["time,consumption", *rows]))


def test_an_interview_asks_until_the_case_is_written(tmp_path: Path, monkeypatch, capsys) -> None:
    answers = iter(["Europe/Berlin", "W", "0.30", ""])
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return next(answers)

    monkeypatch.setattr(builtins, "input", answer)
    words = ["import", "--load", str(load_file(tmp_path)), "--output", str(tmp_path / "case"), "--interactive"]
    assert case.main(words) == 0
    said = capsys.readouterr().out
    assert len(asked) == 3
    assert "the same without questions: iquitos-rl case import" in said
    site = read_site(tmp_path / "case")
    assert site.buildings[0].load.sum() == pytest.approx(sum(500 + h % 24 for h in range(72)) / 1000)
    assert site.buildings[0].price[0] == pytest.approx(0.30)
    again = said.split("the same without questions: iquitos-rl case ")[1].splitlines()[0].split()
    again[again.index("--output") + 1] = str(tmp_path / "again")
    assert case.main(again) == 0
    assert read_site(tmp_path / "again").fingerprint == site.fingerprint


def test_nothing_is_written_where_a_question_stays_open(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(builtins, "input", lambda prompt: "")
    words = ["import", "--load", str(load_file(tmp_path)), "--output", str(tmp_path / "case"), "--interactive"]
    assert case.main(words) == 2
    assert "--zone Europe/Berlin" in capsys.readouterr().err
    assert not (tmp_path / "case").exists()
