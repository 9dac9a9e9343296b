"""What happens around a run: two resumes at once, a folder that moves, other threads, a home that cannot be written, a
disk that fills in the middle, processes that are killed or stopped, comparisons killed in any phase.

Each scenario ends with exit status 0, or with one sentence and 1 or 2, and what is resumed ends as an undisturbed run.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from fault_kills import SMALL, STEPS, _has_ended, command, kill, results, start, wait

from iquitos_rl import compare
from iquitos_rl.envs.gym import worker
from iquitos_rl.judging import references
from iquitos_rl.runs import jobs


def said(log: Path) -> str:
    """What a command printed; an AssertionError where there is a traceback in it."""
    text = log.read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in text, text[-3000:]
    assert "unexpected error" not in text, text[-3000:]
    return text


class Surroundings:
    """Scenarios on a short case, counted.

    Args:
        folder: the case.
        work: an empty folder.
    """

    def __init__(self, folder: Path, work: Path, seed: int) -> None:
        self.folder, self.work, self.rng = folder, work, random.Random(f"{seed} surroundings")
        self.counts: Counter[str] = Counter()
        work.mkdir(parents=True, exist_ok=True)
        undisturbed, self.log = work / "undisturbed", work / "log.txt"
        began = time.perf_counter()
        assert wait(start(self.words(undisturbed), self.log)) == 0, said(self.log)
        self.seconds, self.expected = time.perf_counter() - began, results(undisturbed)

    def words(self, output: Path, *more: str) -> list[str]:
        return [*command("a2c", self.folder, output), *more]

    def interrupted(self, output: Path) -> None:
        """A run that was killed while it trained, or before or after."""
        self.log.unlink(missing_ok=True)
        kill(start(self.words(output), self.log), self.rng.uniform(0, 0.5 * self.seconds), self.log)
        said(self.log)

    def finish(self, output: Path, kind: str, *more: str, same: bool = True) -> None:
        """Resume to the end and compare with the undisturbed run."""
        status = wait(start(self.words(output, *more), self.log))
        assert status == 0, (kind, status, said(self.log)[-2000:])
        said(self.log)
        if same:
            assert results(output) == self.expected, f"{kind}: {output} differs"
        self.counts[f"{kind}, ended as undisturbed" if same else f"{kind}, ended"] += 1
        shutil.rmtree(output)

    # --- scenarios

    def two_resumes(self) -> None:
        output = self.work / "raced"
        self.interrupted(output)
        logs = [self.work / f"log-{n}.txt" for n in range(2)]
        children = [start(self.words(output), log) for log in logs]
        statuses = [wait(child) for child in children]
        texts = [said(log) for log in logs]
        assert sorted(statuses) in ([0, 0], [0, 2]), (statuses, texts)  # the second may come when the first is done
        assert all("another process is training there" in text for text, n in zip(texts, statuses) if n), texts
        assert results(output) == self.expected
        self.counts["two resumes at once, one trained"] += 1
        shutil.rmtree(output)

    def moved(self) -> None:
        output, other = self.work / "here", self.work / "there"
        self.interrupted(output)
        if output.exists():
            output.rename(other)
        self.finish(other, "run folder moved")

    def threads(self) -> None:
        output = self.work / "threads"
        self.interrupted(output)
        self.finish(output, "resumed with two threads", "--set", "threads=2", same=False)

    def read_only_home(self) -> None:
        output = self.work / "homeless"
        with patch.dict(os.environ, {"HOME": "/proc/nowhere", "XDG_CACHE_HOME": "/proc/nowhere", "TMPDIR": "/proc"}):
            self.interrupted(output)
            self.finish(output, "no home that can be written")

    def full_disk(self) -> None:
        """A real file system of a random size, which is enlarged afterwards."""
        place = self.work / "disk"
        place.mkdir(exist_ok=True)
        size = self.rng.choice((64, 128, 256, 384, 512, 768))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(place)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            self.counts["disk full in the middle, no right to mount one"] += 1
            return
        try:
            status = wait(start(self.words(place / "run", "--cache", str(self.work / "cache")), self.log))
            text = said(self.log)
            assert status in (0, 2), (status, text[-2000:])
            assert status == 0 or len(re.findall(r"^error: ", text, re.M)) == 1, text[-2000:]
            self.counts["disk full in the middle, one sentence" if status else "disk full in the middle, ended"] += 1
            subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
            self.finish(place / "run", "disk full and then not", "--cache", str(self.work / "cache"))
        finally:
            subprocess.run(["umount", "-l", str(place)], check=False)

    def simulator(self) -> None:
        """A simulator's process killed or stopped while training on CityLearn itself."""
        output = self.work / "simulators"
        number = self.rng.choice((signal.SIGKILL, signal.SIGSTOP))
        more = ["--engine", "citylearn", "--num-envs", "2", "--set", "guide=none"]
        with patch.object(worker, "HANG_SECONDS", 3.0), patch.object(jobs, "STOPPED_SECONDS", 3.0):
            self.log.unlink(missing_ok=True)
            child = start(self.words(output, *more), self.log)
            while not (self.log.exists() and b"train " in self.log.read_bytes()) and not _has_ended(child):
                time.sleep(0.05)
            family = [p for p in _children(child) if "spawn_main" in " ".join(p.cmdline())]
            if family:
                self.rng.choice(family).send_signal(number)
            status = wait(child)
        text, name = said(self.log), number.name
        assert status in (0, 1), (status, text[-2000:])
        assert status == 0 or re.search(r"(died with exit code|has not answered|a process died)", text), text[-2000:]
        self.counts[f"a process of a run got {name}, one sentence" if status else f"after {name} it ended"] += 1
        status = wait(start(self.words(output, *more), self.log))
        assert status == 0, said(self.log)[-2000:]
        self.counts[f"resumed after {name}"] += 1
        shutil.rmtree(output)

    def run(self, times: int) -> Counter[str]:
        scenarios = (self.two_resumes, self.moved, self.threads, self.read_only_home, self.full_disk, self.simulator)
        for n in range(times):
            scenarios[n % len(scenarios)]()
        return self.counts


def _children(number: int) -> list[Any]:
    try:
        return psutil.Process(number).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def start_comparison(words: list[str], log: Path) -> int:
    """The comparison in a forked process, its rules tuned on few candidates; returns its number."""
    child = os.fork()
    if child:
        return child
    status, tune = 99, references.tune
    try:
        os.setsid()
        with log.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115

        def quick(name: str, sites: Any, task: Any, on_share: Callable[[float], None]) -> Any:
            return tune(name, sites, task, candidates=4, rounds=1, on_share=on_share)

        references.tune = quick
        status = compare.main(words)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def kill_comparisons(days: list[Path], work: Path, kills: int, seed: int) -> Counter[str]:
    """One comparison killed at random moments until it was killed so often, each time carried on by the same command:
    tuning, references, trainings, judging and tables, with the cache between them."""
    counts: Counter[str] = Counter()
    rng = random.Random(f"{seed} comparisons")
    words = ["--case", str(days[0]), "--eval-cases", *map(str, days[1:]), "--agents", "a2c", "--seeds", "1", "--steps"]
    words += [str(STEPS), "--set", "num_envs=3", "--set", f"agent={json.dumps(SMALL['a2c'])}"]
    log = work / "log.txt"

    def table(output: Path) -> bytes:
        return (output / "comparison.csv").read_bytes()

    began = time.perf_counter()
    assert wait(start_comparison([*words, "--output", str(work / "calm" / "out")], log)) == 0, said(log)[-2000:]
    seconds, expected = time.perf_counter() - began, table(work / "calm" / "out")
    while counts["comparisons killed"] < kills:
        output = work / "killed" / "out"
        while True:
            child = start_comparison([*words, "--output", str(output)], log)
            over = counts["comparisons killed"] >= kills
            status = wait(child) if over else kill(child, rng.uniform(0, 0.7 * seconds))
            text = said(log)
            if status is not None:
                break
            counts["comparisons killed"] += 1
            last = [
                line.split(": ")[0].split()[0] for line in text.splitlines() if " of " in line and " after " in line
            ]
            counts[f"comparison killed after the last '{last[-1] if last else 'nothing'}'"] += 1
        assert status == 0, text[-2000:]
        assert table(output) == expected, "the comparison differs"
        counts["comparisons equal to an undisturbed one"] += 1
        shutil.rmtree(work / "killed")
    return counts
