"""Running independent tasks in as many processes as the user wants, in the order they are given."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from iquitos_rl.envs.gym.worker import WorkerError
from iquitos_rl.machine.device import choose_threads
from iquitos_rl.machine.interrupt import Interrupted, Interrupts

T = TypeVar("T")
Task = Callable[[Interrupts], T]
"""Called with the interrupts that it should look at now and then; for other processes it must be picklable."""
POLL_SECONDS = 0.5


def run_tasks(tasks: Mapping[str, Task[T]], jobs: int, interrupts: Interrupts, hint: str) -> Iterator[tuple[str, T]]:
    """Yield each task's name and what it returned, as they finish.

    Args:
        jobs: number of processes; 1 runs them in this one.
        hint: how to resume, printed when the user interrupts.

    Raises:
        Interrupted: the user asked to stop; tasks that were running have stopped.
        WorkerError: a process died.
        Whatever a task raises.
    """
    if jobs == 1 or len(tasks) < 2:
        for name, task in tasks.items():
            interrupts.check(hint)
            yield name, task(interrupts)
            interrupts.check(hint)
        return
    context = multiprocessing.get_context("spawn")  # a forked process must not touch the parent's CUDA
    stop = context.Event()
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _start_process, (stop,)) as pool:
        running = {pool.submit(_in_process, task): name for name, task in tasks.items()}
        pool.submit(os.getpid)  # a process that dies is noticed only if it began before the last submission
        try:
            while running:
                done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    name = running.pop(future)
                    if result is not None:
                        yield name, result
                if interrupts.number is not None:
                    stop.set()  # the pool hands a process its next task before it asks for one
                    for process in multiprocessing.active_children():
                        process.terminate()
                    interrupts.check(hint)
        except BrokenProcessPool:
            names = ", ".join(running.values())
            raise WorkerError(f"a process died, perhaps because memory ran out, with these not done: {names}") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_stop: Event
"""Of a process of the pool: whether the user wants it to begin nothing more."""
_stayed = False
"""Of a process of the pool: whether it was asked to stop while it had nothing to do."""


def _start_process(stop: Event) -> None:
    global _stop
    _stop = stop
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which asks its processes to stop, once
    signal.signal(signal.SIGTERM, _while_idle)  # between tasks; in one, `Interrupts` notes it
    choose_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _while_idle(number: int, frame: object) -> None:
    """Stay through the interruption that reaches all processes; end when the pool wants that, since another died."""
    global _stayed
    if _stayed or not _stop.is_set():
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
        if _stop.is_set():
            return None
        try:
            return task(interrupts)
        except Interrupted:
            return None
        finally:
            if interrupts.number is not None and not _stop.is_set():
                os._exit(1)  # not the user's interruption: another process died, and the pool asks nobody twice
