"""A command in a message can be typed: in the form in which the process was started, quoted for the shell."""

import shlex
import sys

import pytest

from iquitos_rl.machine.command import command


@pytest.mark.parametrize(
    ("started", "form"),
    [
        ("/usr/local/bin/iquitos-rl", ["iquitos-rl"]),
        ("iquitos-rl", ["iquitos-rl"]),
        ("/src/iquitos_rl/__main__.py", ["python", "-m", "iquitos_rl"]),
        ("/src/iquitos_rl/train.py", ["python", "-m", "iquitos_rl"]),
        ("", ["python", "-m", "iquitos_rl"]),
    ],
)
def test_it_is_told_as_it_was_started(monkeypatch, started, form):
    monkeypatch.setattr(sys, "argv", [started])
    words = ["train", "sac", "--set", "agent.hidden=[8, 8]", "--output", "it's here"]
    assert shlex.split(command(*words)) == [*form, *words]
