"""Steps in other processes of this machine: many at once, or one at a time next to what this process does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import psutil

from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.machine import console
from iquitos_rl.machine.device import choose_threads
from iquitos_rl.machine.interrupt import Interrupted, Interrupts, held, release
from iquitos_rl.runs.executor import Step, Task

T = TypeVar("T")
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 1.0
STOPPED_SECONDS = 30.0
"""A process that stays stopped for so long counts as dead."""


class Pool:
    """An executor of processes, which start as they are needed.

    Args:
        jobs: number of processes.
        interrupts: of the user; looked at while this process waits for a task.
        hint: how to resume, printed when the user interrupts.
    """

    def __init__(self, jobs: int, interrupts: Interrupts, hint: str) -> None:
        self._interrupts, self._hint, self.room = interrupts, hint, jobs
        context = multiprocessing.get_context("spawn")  # a forked process must not touch the parent's CUDA
        self._stop = context.RawValue("b", 0)  # a byte without a lock, since a signal's handler reads it
        self._executor = ProcessPoolExecutor(jobs, context, _start_process, (self._stop,))  # starts with the first task
        self._running: dict[Future[Any], str] = {}
        self._stopped: dict[int | None, float] = {}
        """Since when processes are seen to be stopped, by their numbers."""

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        if wait(self._running, PATIENCE_SECONDS).not_done:
            self._end()  # the second signal ends a process at once
            if wait(self._running, PATIENCE_SECONDS).not_done:
                for process in multiprocessing.active_children():  # it was stopped, as by Ctrl-Z
                    process.kill()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def submit(self, name: str, step: Step[Any]) -> None:
        with held():
            self._running[self._executor.submit(_in_process, step.task)] = name

    def check(self) -> None:
        for future in [future for future in self._running if future.done()]:
            self._result(future)

    def finished(self) -> Iterator[tuple[str, Any]]:
        with held():
            self._executor.submit(
                os.getpid
            )  # a process that dies is noticed only if it began before the last submission
        while self._running:
            for future in wait(self._running, POLL_SECONDS, FIRST_COMPLETED).done:
                result, name = self._result(future), self._running.pop(future)
                if result is not None:
                    yield name, result
            if self._interrupts.number is not None:
                self._end()
                self._interrupts.check(self._hint)
            self._kill_stopped()

    def _result(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except BrokenProcessPool:
            names = ", ".join(self._running.values())
            why = "perhaps because memory ran out or somebody stopped it"
            raise WorkerError(f"a process died, {why}, with these not done: {names}") from None

    def _kill_stopped(self) -> None:
        """End a process that somebody has stopped, as by SIGSTOP: nobody would ever hear of it again."""
        now = time.monotonic()
        for process in multiprocessing.active_children():
            with contextlib.suppress(psutil.Error):
                if psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                    self._stopped.pop(process.pid, None)
                elif now - self._stopped.setdefault(process.pid, now) >= STOPPED_SECONDS:
                    process.kill()

    def _end(self) -> None:
        if any(not future.done() for future in self._running):
            self._stop.value = 1  # the pool hands a process its next task before it asks for one
            for process in multiprocessing.active_children():
                process.terminate()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_stop: Any
"""Of a process of the pool: its `value` is 1 when the user wants it to begin nothing more."""
_stayed = False
"""Of a process of the pool: whether it was asked to stop while it had nothing to do."""


def _start_process(stop: Any) -> None:
    global _stop
    _stop = stop
    console.protect()
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which asks its processes to stop, once
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # one from before
    release()
    signal.signal(signal.SIGTERM, _while_idle)  # between tasks; in one, `Interrupts` notes it
    choose_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _while_idle(number: int, frame: object) -> None:
    """Stay through the interruption that reaches all processes; end when the pool wants that, since another died."""
    global _stayed
    if _stayed or not _stop.value:
        os._exit(1)
    _stayed = True


def _end_with_parent() -> None:
    """Do not run for hours after the parent was killed; files are written whole or not at all."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_process(task: Task[T]) -> T | None:
    """Run a task in its own process; None where it was interrupted."""
    with Interrupts() as interrupts:
        if _stop.value:
            return None
        stopped = False
        try:
            return task(interrupts)
        except Interrupted:
            stopped = True
            return None
        finally:
            if (stopped or interrupts.number is not None) and not _stop.value:
                os._exit(1)  # not the user's interruption: another process died, and the pool asks nobody twice
