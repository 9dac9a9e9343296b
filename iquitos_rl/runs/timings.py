"""How long each part of a command took: `timings.json` of a run, and the figure in its report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from iquitos_rl.machine.files import write_json

FILE = "timings.json"


class Phase(NamedTuple):
    """One part of a command; times in seconds."""

    name: str
    start_s: float
    """Since the process started."""
    wall_s: float
    cpu_s: float
    """Processor time of this process; what a process next to it used is not in here."""


class Timings:
    """The phases of one command, one after the other; what comes before the first is the start of the process."""

    def __init__(self) -> None:
        self._began = psutil.Process().create_time()
        self.phases = [Phase("start", 0.0, time.time() - self._began, time.process_time())]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Take the time of the block; two blocks of one name, one after the other, are two phases."""
        start, cpu = time.time(), time.process_time()
        try:
            yield
        finally:
            wall, used = time.time() - start, time.process_time() - cpu
            self.phases.append(Phase(name, start - self._began, wall, used))

    def sums(self) -> dict[str, float]:
        """Seconds of all phases of one name so far."""
        found: dict[str, float] = {}
        for phase in self.phases:
            found[phase.name] = round(found.get(phase.name, 0.0) + phase.wall_s, 1)
        return found

    def write(self, output: Path) -> None:
        """Write `timings.json`: the phases, and the seconds since the process started."""
        phases = [{k: round(x, 3) if isinstance(x, float) else x for k, x in p._asdict().items()} for p in self.phases]
        write_json(output / FILE, {"phases": phases, "command_s": round(time.time() - self._began, 3)})
