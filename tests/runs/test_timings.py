"""Phases of a command, in order and within its time."""

import json

import pytest

from iquitos_rl.runs.timings import FILE, Timings


def test_phases_follow_each_other_and_are_written(tmp_path):
    timings = Timings()
    with timings.phase("years"):
        sum(range(100_000))
    with pytest.raises(KeyError), timings.phase("training"):
        raise KeyError
    timings.write(tmp_path)
    found = json.loads((tmp_path / FILE).read_text(encoding="utf-8"))
    assert [phase["name"] for phase in found["phases"]] == ["start", "years", "training"]
    ends = 0.0
    for phase in found["phases"]:
        assert phase["start_s"] >= ends - 0.002
        assert phase["cpu_s"] >= 0
        ends = phase["start_s"] + phase["wall_s"]
    assert ends <= found["command_s"] + 0.002
