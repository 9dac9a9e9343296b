"""What every command does with mistakes and with a console that cannot show everything."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iquitos_rl import __main__
from iquitos_rl.cli import run_command
from iquitos_rl.errors import UserError
from iquitos_rl.judging.simulate import AuditError
from iquitos_rl.report import page


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


def test_torchrun_starts_no_command(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert __main__.main(["settings", "ppo"]) == 2
    assert capsys.readouterr().err.startswith("error: torchrun starts programs that train an agent in Python")


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


@pytest.mark.parametrize("error", [None, ImportError])
def test_a_stopped_command_says_how_to_start_it_again(monkeypatch, capsys, error):
    def stopped(*_):
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            if error is None:
                raise
        raise error  # as an import does that was cut off

    monkeypatch.setattr(page, "write_report", stopped)
    assert __main__.main(["report", "a run"]) == 130
    assert capsys.readouterr().err == "stopped; to start it again: python -m iquitos_rl report 'a run'\n"


HEAVY = ("torch", "pandas", "scipy", "citylearn", "matplotlib", "gymnasium")
"""What takes seconds to import."""
WITHOUT = """
import contextlib, io, json, sys
from iquitos_rl.__main__ import main
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # importing one of these fails
for words in json.loads(sys.argv[2]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(words)
    print(json.dumps([status, out.getvalue(), err.getvalue()]))
"""


def without_heavy_imports(commands, folder):
    """Exit status, standard output and standard error of each command where what is heavy cannot be imported."""
    words = [sys.executable, "-c", WITHOUT, json.dumps(HEAVY), json.dumps(commands)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__main__.__file__).parents[1]), "TMPDIR": str(folder)}
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_and_mistakes_are_answered_before_anything_heavy_is_loaded(tmp_path):
    names = list(__main__.COMMANDS)
    helps = [["--help"], *([name, "--help"] for name in names), ["case", "import", "--help"], ["settings", "sac"]]
    wrong = {
        "trian": "train",
        "train sac --stepz 3": "--steps",
        "train sacc": "sac",
        "plan sacc": "sac",
        "compare --agents sacc": "sac",
        "train sac --case iquitos_38": "iquitos-38",
        "plan sac --case iquitos_38": "iquitos-38",
        "compare --case iquitos_38": "iquitos-38",
        "evaluate run --case iquitos_38 --output x": "iquitos-38",
        "train sac --set gamma=0.9": "agent.gamma",
        "train ppo --set agent.gama=0.9": "agent.gamma",
        "plan shac --set agent.horizon=0": "agent.horizon",
    }
    answers = without_heavy_imports([*helps, *(text.split() for text in wrong)], tmp_path)
    for words, (status, out, err) in zip(helps, answers):
        assert (status, err) == (0, ""), words
        assert out.strip(), words
    for (text, hint), (status, _, err) in zip(wrong.items(), answers[len(helps) :], strict=True):
        assert status == 2, text
        assert hint in err, text
        assert err.startswith("error: "), text
        assert err.count("\n") == 1, text
    assert list(tmp_path.iterdir()) == []


def test_every_command_says_something_before_it_loads_what_takes_seconds(tmp_path):
    commands = (
        *("train sac", "train sac --quick", "train sac --resume", "plan ppo", "compare --seeds 1", "report here"),
        *("evaluate here --case iquitos-38 --output x", "settings", "settings --case iquitos-38"),
        *("case build iquitos-38 --output x", "case import --output x", "case check here", "case parity here"),
        *("case upgrade here --output x", "case freeze here --output x"),
    )
    for text, (_, out, _) in zip(commands, without_heavy_imports([text.split() for text in commands], tmp_path)):
        assert out.strip(), text
