"""Running independent tasks in as many processes as the user wants, in the order they are given."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from iquitos_rl.envs.worker import WorkerError
from iquitos_rl.runs.interrupt import Interrupted, Interrupts
from iquitos_rl.runs.threads import choose_threads

T = TypeVar("T")
Task = Callable[[Interrupts], T]
"""Called with the interrupts that it should look at now and then; for other processes it must be picklable."""
POLL_SECONDS = 0.5


def run_tasks(tasks: Mapping[str, Task[T]], jobs: int, interrupts: Interrupts, hint: str) -> Iterator[tuple[str, T]]:
    """Yield each task's name and what it returned, as they finish.

    Args:
        jobs: number of processes; 1 runs them in this one.
        hint: how to go on, said when the user interrupts.

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
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, initializer=_start_process) as pool:
        running = {pool.submit(_in_process, task): name for name, task in tasks.items()}
        try:
            yield from _finished(running, interrupts, hint)
        except BrokenProcessPool:
            names = ", ".join(running.values())
            raise WorkerError(f"a process died, perhaps for want of memory, with these not done: {names}") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _finished(running: dict[Future[T | None], str], interrupts: Interrupts, hint: str) -> Iterator[tuple[str, T]]:
    """Yield results as they come and take them out of `running`; an interruption reaches the processes as SIGTERM."""
    while running:
        done, _ = wait(running, POLL_SECONDS, FIRST_COMPLETED)
        for future in done:
            result = future.result()
            name = running.pop(future)
            if result is not None:
                yield name, result
        if interrupts.number is not None:
            for future in running:
                future.cancel()
            for process in multiprocessing.active_children():
                process.terminate()
            interrupts.check(hint)


def _start_process() -> None:
    import os

    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which asks its processes to stop, once
    choose_threads(1)


def _in_process(task: Task[T]) -> T | None:
    """Run a task in its own process; None where it was interrupted."""
    with Interrupts() as interrupts:
        try:
            return task(interrupts)
        except Interrupted:
            return None
