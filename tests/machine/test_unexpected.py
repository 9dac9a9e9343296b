"""What nobody foresaw is one sentence, a file and exit status 70: in a command, its threads and its imports."""

import io
import os
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iquitos_rl import __main__
from iquitos_rl.cli import run_command
from iquitos_rl.machine import unexpected

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv(unexpected.SHOW, raising=False)


class Odd(Exception):
    def __str__(self):
        return "two\nlines, \x1b[31mred\x07 and half \ud800 a character"


errors = st.sampled_from(
    [
        *(
            KeyError("task"),
            IndexError(),
            TypeError("x"),
            ZeroDivisionError(),
            AssertionError(),
            RecursionError("deep"),
        ),
        *(RuntimeError("a\nb"), Odd(), UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), NotImplementedError()),
        *(
            RecursionError("deep"),
            LookupError("\x00"),
            BrokenPipeError(32, "Broken pipe"),
            StopIteration(3),
            EOFError(),
            AttributeError("a"),
        ),
    ]
)


@settings(max_examples=40, deadline=None, database=None)
@given(errors)
def test_any_error_is_one_sentence_and_a_file(error):
    def body():
        raise error

    before, sys.stderr = sys.stderr, io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    try:
        assert run_command(body) == 70
        sys.stderr.flush()
        text = sys.stderr.buffer.getvalue().decode()
    finally:
        sys.stderr = before
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()
    assert "Traceback" not in text
    place = re.search(r"its traceback is in (.*?\.txt): please report it", text)[1]
    kept = Path(place).read_text(encoding="utf-8")
    assert "Traceback" in kept
    assert type(error).__name__ in kept


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(28, "No space left on device"), 2),
        (PermissionError(13, "Permission denied", "/root/x\n"), 2),
        (IsADirectoryError(21, "Is a directory", "x"), 2),
        (MemoryError(), 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes."), 2),
    ],
)
def test_disk_and_memory_need_no_report(capsys, error, status):
    def body():
        raise error

    assert run_command(body) == status
    text = capsys.readouterr().err
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert "report" not in text


def test_a_traceback_is_shown_where_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setenv(unexpected.SHOW, "1")

    def body():
        raise KeyError("task")

    assert run_command(body) == 70
    assert "Traceback" in capsys.readouterr().err


def test_the_flag_is_taken_from_anywhere_in_the_words(capsys, monkeypatch):
    monkeypatch.setenv(unexpected.SHOW, "")
    assert __main__.main(["settings", "nobody", "--traceback"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" in error


def test_where_nothing_can_be_written_the_sentence_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    def body():
        raise KeyError("task")

    assert run_command(body) == 70
    assert "could not be written" in capsys.readouterr().err


class Bad:
    def __del__(self):
        raise ValueError("in a destructor")


@pytest.mark.parametrize("error", [ValueError("two\nlines"), OSError(28, "No space left on device")])
def test_a_thread_that_fails_is_one_line(capsys, error):
    def work():
        raise error

    def body():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        Bad()
        return 0

    assert run_command(body) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        ["warning", "a thread in the background stopped"],
        ["warning", "something could not be cleaned up"],
    ]


@pytest.mark.parametrize("command", [["-m", "iquitos_rl", "settings"], ["-m", "iquitos_rl.settings"]])
@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise ImportError('no cyclopts')", 70, "unexpected error: ImportError: no cyclopts"),
        ("1 / 0", 70, "unexpected error: ZeroDivisionError"),
        ("raise KeyboardInterrupt", 130, "interrupted"),
    ],
)
def test_an_error_in_the_imports_is_a_sentence_too(tmp_path, command, code, status, said):
    (tmp_path / "cyclopts.py").write_text(code, encoding="utf-8")
    found = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stderr.startswith(said)
    assert found.stderr.count("\n") == 1
    assert found.returncode == status
