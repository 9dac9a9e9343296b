"""What takes long is seen: on terminals that do not tell their width, and where nobody knows how long it takes."""

import io
import os
import sys
import threading

import pytest

from iquitos_rl.machine import bars


class Terminal(io.StringIO):
    """A terminal on which somebody waits for the first count."""

    def __init__(self):
        super().__init__()
        self.counted = threading.Event()

    def isatty(self):
        return True

    def write(self, text):
        if text.startswith("\r"):
            self.counted.set()
        return super().write(text)


def test_a_terminal_counts_the_seconds_of_what_takes_long(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(bars, "TICK_SECONDS", 0.001)
    with bars.waiting("the optimum"):
        assert terminal.counted.wait(60)
    text = terminal.getvalue()
    assert text.startswith("the optimum\rthe optimum: 0 s")
    assert text.count("\n") == 1
    assert text.endswith("\n")  # whatever follows has a line of its own


def test_a_log_has_it_once(capsys, monkeypatch):
    monkeypatch.setattr(bars, "TICK_SECONDS", 0.0)
    with bars.waiting("the optimum"):
        pass
    assert capsys.readouterr().out == "the optimum\n"


def test_a_terminal_that_does_not_tell_its_width_has_bars(monkeypatch):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()  # of 0 columns, as in some containers
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        bars.progress_bar(10, "evaluate", "h").close()
        monkeypatch.undo()
        found = os.read(master, 10_000)
    os.close(master)
    assert b"evaluate:   0%" in found
