"""Going on after running out of memory, with the same mathematics.

The work on n rows is done in parts of at most `Parts.size` rows. Where memory runs out, everything that the attempt
made is dropped, the size is halved, and the whole work is done again on the same rows with the same noise; a gradient
is the weighted mean of its parts' gradients, so what is learned does not depend on the size. Two traps: the caught
exception holds the traceback and so the tensors, hence the retry begins outside the `except` block (pytorch#18853);
and an optimiser's step must never be repeated, hence none is ever inside.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from iquitos_rl.errors import UserError
from iquitos_rl.machine.available import show_size

T = TypeVar("T")
FLOOR = 16
"""Parts are not made smaller than this: what does not fit then is not the batch."""
GROW_AFTER = 1_000
"""Calls without trouble after which the size is doubled again; twice as many after each time that this was too soon."""
LONGEST_WAIT = 1 << 20

DEVICE_SIGNS = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")

failure: Callable[[str], None] | None = None
"""For tests: called with what is about to take memory, and free to raise as if there were none."""


def taking_memory(what: str) -> None:
    """Marks a place where memory may run out."""
    if failure is not None:
        failure(what)


def shortage(error: BaseException) -> Literal["device", "host"] | None:
    """Which memory an exception says has run out, None for any other exception.

    A plain "CUDA error: out of memory" comes from a driver call that is not the allocator's: a kernel that is loaded at
    its first use, a handle, a graph. Page-locked RAM that runs out says the same, but it is taken before anything is
    computed, see `buffers/placement.py`.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    if isinstance(error, MemoryError):
        return "host"
    if isinstance(error, RuntimeError):
        text = str(error)
        if any(sign in text for sign in DEVICE_SIGNS):
            return "device"
        if "DefaultCPUAllocator" in text:
            return "host"
    return None


def memory_report(device: torch.device) -> str:
    """What is taken and free on a CUDA device, for messages; nothing to say of the CPU."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    taken, held = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    sizes = f"{show_size(taken)} in use, {show_size(held)} held, {show_size(free)} of {show_size(total)} free"
    return f" ({device}: {sizes})"


@contextmanager
def explained(what: str, advice: str, device: torch.device) -> Any:
    """Where nothing can be split: out of memory becomes one sentence, every other error passes.

    Raises:
        UserError: memory ran out.
    """
    kind = None
    try:
        taking_memory(what)
        yield
    except (RuntimeError, MemoryError) as error:
        kind = shortage(error)
        if kind is None:
            raise
    if kind is not None:
        raise UserError(f"out of {_name(kind)} memory at {what}{memory_report(device)}; {advice}")


class Parts:
    """How many rows are worked on at once.

    Args:
        what: the work, for messages.
        device: whose cache is emptied after a failure.
        largest: rows that are never exceeded, e.g. what the planner found to fit; None for no limit.
        advice: what to tell a user whose memory does not even hold the smallest part.
    """

    def __init__(
        self,
        what: str,
        device: torch.device,
        largest: int | None = None,
        advice: Callable[[], str] = lambda: "use a smaller network",
        floor: int = FLOOR,
        grow_after: int = GROW_AFTER,
    ) -> None:
        self.what, self.device, self.largest, self.advice = what, device, largest, advice
        self.floor = floor if largest is None else min(floor, largest)
        self.size = largest
        """Rows at once; None for all of them."""
        self.failures = 0
        self._wait, self._clean, self._grown = grow_after, 0, False

    def run(self, rows: int, work: Callable[[int], T]) -> T:
        """`work(size)` for the largest size that fits. It must do everything again from the start, and keep nothing of
        a call that failed.

        Raises:
            UserError: not even `floor` rows fit. Errors of any other kind pass untouched.
        """
        while True:
            size = rows if self.size is None else min(self.size, rows)
            kind = None
            try:
                result = work(size)
            except (RuntimeError, MemoryError) as error:
                kind = shortage(error)
                if kind is None:
                    raise
            if kind is None:
                self._grow(rows)
                return result
            self._shrink(kind, size)

    def map(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """`function(*rows)` for tensors (n, ...) that do not need a gradient, part by part."""

        def work(size: int) -> Tensor:
            results = []
            for part in zip(*(tensor.split(size) for tensor in rows)):
                taking_memory(self.what)
                results.append(function(*part))
            return results[0] if len(results) == 1 else torch.cat(results)

        return self.run(len(rows[0]), work)

    def state_dict(self) -> dict[str, Any]:
        """The size found, for a continuation on the same machine."""
        return {"size": self.size, "wait": self._wait, "clean": self._clean, "grown": self._grown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the size found before; a smaller limit of one's own counts all the same."""
        sizes = [size for size in (state["size"], self.largest) if size is not None]
        self.size = min(sizes) if sizes else None
        self._wait, self._clean, self._grown = int(state["wait"]), int(state["clean"]), bool(state["grown"])

    def _shrink(self, kind: str, size: int) -> None:
        self.failures += 1
        if self.device.type == "cuda":
            gc.collect()  # a failed attempt's tensors may be part of a cycle
            torch.cuda.empty_cache()
        if size <= self.floor:
            raise UserError(
                f"out of {_name(kind)} memory at {self.what}, even with {size} transitions at a time"
                f"{memory_report(self.device)}; {self.advice()}"
            )
        if self._grown:
            self._wait = min(2 * self._wait, LONGEST_WAIT)
        self.size, self._clean, self._grown = max(self.floor, size // 2), 0, False

    def _grow(self, rows: int) -> None:
        if self.size is None or self.size == self.largest:
            return
        self._clean += 1
        if self._clean >= self._wait:
            doubled = 2 * self.size
            whole = doubled >= (rows if self.largest is None else self.largest)
            self.size, self._clean, self._grown = self.largest if whole else doubled, 0, True


def _name(kind: str) -> str:
    return "GPU" if kind == "device" else "main"
