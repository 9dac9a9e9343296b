"""The scripts in `examples/` run, in processes of their own as a reader would start them, only shorter."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent)}
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_own_environment():
    assert "with SAC after 700 steps" in run("own_environment.py", "--steps", "700")


def test_an_own_network():
    assert "after 600 steps" in run("own_network.py", "--steps", "600")


@pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is None, reason="needs stable-baselines3")
def test_another_library(week_38):
    assert "site-hours; mean return of the last" in run("other_library.py", str(week_38), "--steps", "4096")


def test_every_example_is_tested():
    tested = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in tested for path in EXAMPLES.glob("*.py"))
