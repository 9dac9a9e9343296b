"""`python -m iquitos_rl.case`: what it prints and its exit status."""

from __future__ import annotations

import io
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from iquitos_rl.case import main

SMALL = ["--set", "sockets.moto_count=2", "--set", "sockets.mototaxi_count=1"]


def test_build_prints_the_table_and_check_accepts_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "case"
    arguments = [
        "build",
        "iquitos-128",
        "--year-seed",
        "4",
        *SMALL,
        "--set",
        "pv.model=documented",
        "--output",
        str(folder),
    ]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "load, year                  MWh         12,368.65   " in printed
    assert "warning: pv.model=documented: PV scaled from" in printed
    assert f"written to {folder}" in printed
    assert main(["check", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "warning: case.json: pv.model=documented: PV scaled from" in printed
    assert f"{folder} is valid, 2 warnings" in printed


def test_check_lists_errors_and_returns_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "case"
    main(["build", "iquitos-38", *SMALL, "--output", str(folder)])
    lines = (folder / "weather.csv").read_text(encoding="utf-8").splitlines()
    lines[4] = "," + lines[4].split(",", 1)[1]
    (folder / "weather.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["check", str(folder)]) == 2
    printed = capsys.readouterr()
    assert printed.err == "error: weather.csv, line 5: outdoor_dry_bulb_temperature: the cell is blank\n"
    assert "has 1 error" in printed.out


def test_import_prints_its_assumptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["fecha;energía_kWh"]
    rows += [f"{datetime(2023, 5, 1) + timedelta(hours=hour)};{500 + hour % 24}" for hour in range(24 * 20)]
    (tmp_path / "carga.csv").write_text("\n".join(rows), encoding="cp1252")
    arguments = ["import", "--load", str(tmp_path / "carga.csv"), "--zone", "America/Lima", "--set", "tariff.kind=bt5a"]
    arguments += ["--output", str(tmp_path / "case")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "carga.csv: not UTF-8, read in the Windows code page 1252" in printed
    assert "carga.csv: 20 days, the case is shorter than a year" in printed
    assert main(["check", str(tmp_path / "case")]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "iquitos-38", "--set", "pv.x=1"], "error: unknown setting 'pv.x': pv has model, "),
        (["build", "iquitos-38", "--set", "pv.model"], "error: --set pv.model: expected key=value"),
        (["build", "iquitos-38", "--year-seed", "-1"], "error: year seed -1: must not be negative"),
        (
            ["build", "iquitos-38", "--set", "bess.power_kw=off"],
            "error: setting bess.power_kw: Input should",
        ),
        (
            ["build", "iquitos-38", "--set", "sockets.moto_count=1.5"],
            "error: setting sockets.moto_count: Input should",
        ),
        (["build", "iquitos-39"], "error: unknown preset 'iquitos-39': choose one of iquitos-128, iquitos-38"),
        (["bild"], 'error: unknown command "bild". Did you mean "build"?'),
        (
            ["import", "--lod", "x"],
            "error: unknown option: --lod. Did you mean --load?",
        ),
        (["import", "--load", "missing.csv"], "error: missing.csv cannot be read: No such file or directory"),
    ],
)
def test_mistakes_end_in_one_sentence_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--output", str(tmp_path / "case")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1
    assert not (tmp_path / "case").exists()


def test_check_of_a_folder_without_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path)]) == 2
    assert "schema.json cannot be read" in capsys.readouterr().err


def test_output_survives_a_windows_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that code page 1252 lacks must not end the command."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stderr", console)
    assert main(["import", "--load", str(tmp_path / "данные.csv"), "--output", str(tmp_path / "case")]) == 2
    console.flush()
    assert "cannot be read" in console.buffer.getvalue().decode("cp1252")
