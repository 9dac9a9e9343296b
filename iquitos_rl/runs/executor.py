"""One interface to whatever carries steps out: this process, other processes of this machine, or a cluster.

A step may be tried again, anywhere, at any time: it stores what it finds under a digest of all that this depends on, or
saves as it goes, and the next try takes what is there. So results do not depend on who carried it out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from iquitos_rl.machine.interrupt import Interrupts

T = TypeVar("T")
Task = Callable[[Interrupts], T]
"""Called with the interrupts that it should look at now and then; for other processes it must be picklable."""


@dataclass(frozen=True)
class Step(Generic[T]):
    """A task, and what a machine without this one's disk must know of it."""

    task: Task[T]
    reads: tuple[Path, ...] = ()
    """Files and folders that it needs; one that does not exist is left out."""
    writes: tuple[Path, ...] = ()
    """Files and folders that it makes or adds to; what is there already, an interrupted run, it needs too."""
    cases: Mapping[str, Path] = field(default_factory=dict)
    """Folders that settings name, by these names."""
    gpus: float = 0.0
    """Graphics cards that it takes for itself; a share of one where several steps fit."""


class Executor(Protocol):
    """Carries steps out while this process does something else; leaving the block ends what still runs."""

    @property
    def room(self) -> int:
        """How many steps it carries out at the same time, as far as is known now."""

    def __enter__(self) -> Executor: ...

    def __exit__(self, *_: object) -> None: ...

    def submit(self, name: str, step: Step[Any]) -> None:
        """Have a step done, as soon as there is room for it."""

    def check(self) -> None:
        """Raise what a step has raised so far, without waiting."""

    def finished(self) -> Iterator[tuple[str, Any]]:
        """Wait until everything is done; yields each step's name and what it returned, as they finish. More steps may
        be submitted meanwhile. What returned None is left out.

        Raises:
            Interrupted: the user asked to stop; steps that were running have stopped.
            WorkerError: a process or a node died, and what it did could not be done elsewhere.
            Whatever a step raises.
        """


class InThisProcess:
    """Carries steps out one after the other, when their results are asked for.

    Args:
        interrupts: of the user.
        hint: how to resume, printed when the user interrupts.
    """

    def __init__(self, interrupts: Interrupts, hint: str) -> None:
        self._interrupts, self._hint = interrupts, hint
        self._waiting: dict[str, Step[Any]] = {}
        self.room = 1

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()

    def submit(self, name: str, step: Step[Any]) -> None:
        self._waiting[name] = step

    def check(self) -> None:
        pass

    def finished(self) -> Iterator[tuple[str, Any]]:
        while self._waiting:
            name = next(iter(self._waiting))
            self._interrupts.check(self._hint)
            found = self._waiting.pop(name).task(self._interrupts)
            self._interrupts.check(self._hint)
            if found is not None:
                yield name, found


def carry_out(steps: Mapping[str, Step[T]], executor: Executor) -> Iterator[tuple[str, T]]:
    """Yield each step's name and what it returned, as they finish; raises what `Executor.finished` does."""
    for name, step in steps.items():
        executor.submit(name, step)
    yield from executor.finished()
