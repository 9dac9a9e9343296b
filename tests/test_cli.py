"""What every command does with mistakes and with a console that cannot show everything."""

import io
import sys

import pytest

from iquitos_rl import __main__
from iquitos_rl.cli import run_command
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import AuditError


def raising(error):
    def body():
        raise error

    return body


def test_what_went_wrong_decides_the_exit_status(capsys):
    assert run_command(lambda: 0) == 0
    assert run_command(raising(UserError("row 3 is broken"))) == 2
    assert run_command(raising(AuditError("hour 5"))) == 1
    assert run_command(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.splitlines()[:2] == ["error: row 3 is broken", "audit failed: hour 5"]


def test_a_cp1252_console_does_not_end_a_run(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252", write_through=True))
    assert run_command(lambda: print("CO₂ → Iquitos, año") or 0) == 0
    assert written.getvalue().decode("cp1252") == "CO? ? Iquitos, año\n"


@pytest.mark.parametrize(
    "words",
    [
        ["settings", "half \ud800 a character"],
        ["plan", "sac", "--ram", "9" * 400],
        ["plan", "sac", "--ram", "1e400GiB"],
        ["compare", "--seeds", "1" + "0" * 12],
        ["compare", "--jobs", "100000"],
        ["compare", "--eval-years", "-1"],
        ["case", "check", "a" * 5000],
        ["case", "check", "/dev/zero"],
        ["case", "parity", "nowhere", "--steps", "0"],
        ["case", "parity", "nowhere", "--seed", "-1"],
        ["case", "parity", "nowhere", "--seed", "9" * 30],
        ["case", "build", "iquitos-38", "--output", "/dev/null/x"],
        ["case", "build", "iquitos-38", "--output", "x" * 300],
        ["case", "build", "iquitos-38", "--year-seed", "9" * 5000, "--output", "x"],
        ["case", "upgrade", "/dev/null", "--output", "x"],
        ["case", "freeze", "nowhere", "--output", "x"],
        ["evaluate", "/dev/null", "--case", "iquitos-38", "--output", "x"],
        ["report", "/dev/null"],
        ["report", "a" * 5000],
        ["train", "sac", "--config", "/dev/zero"],
        ["train", "sac", "--config", "a" * 5000],
        ["train", "sac", "--case", "a" * 5000],
        ["train", "sac", "--resume", "a" * 5000],
        ["train", "sac", "--set", "threads=100000"],
        ["train", "sac", "--set", "threads=0"],
        ["train", "sac", "--set", "agent.hidden=[-8]"],
        ["train", "sac", "--set", "case=!!python/name:os.system"],
    ],
    ids=lambda words: " ".join(words)[:60].encode("ascii", "replace").decode(),
)
def test_hostile_words_end_in_one_sentence(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert __main__.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert [path for path in tmp_path.iterdir() if path.name not in ("cache", "outputs")] == []
