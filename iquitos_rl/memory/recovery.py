"""Recovers from running out of memory without changing the result.

Work on n rows is done in parts of at most `Parts.size` rows. When memory runs out, the results of the attempt are
dropped, the size is halved, and all the work is repeated on the same rows with the same noise. A gradient is the
weighted mean of its parts' gradients, so learning does not depend on the size. Two traps: the exception holds the
traceback and so the tensors, so the retry starts outside of the `except` block (pytorch#18853); and an optimiser step
must not be repeated, so it must never be part of the work.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from iquitos_rl.errors import UserError
from iquitos_rl.machine.available import show_size

T = TypeVar("T")
FLOOR = 16
"""Smallest part. If it does not fit, the batch is not what fills the memory."""
GROW_AFTER = 1_000
"""Successful calls before the size is doubled again. Each time the doubled size fails, twice as many are required."""
LONGEST_WAIT = 1 << 20

DEVICE_SIGNS = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")

failure: Callable[[str], None] | None = None
"""Test hook: called before each allocation; may raise a fake out-of-memory error."""


def taking_memory(what: str) -> None:
    """Call the test hook where memory may run out."""
    if failure is not None:
        failure(what)


def shortage(error: BaseException) -> Literal["device", "host"] | None:
    """Which memory has run out according to an exception; None for any other exception.

    A plain "CUDA error: out of memory" comes from a driver call outside of the allocator: loading a kernel, a handle, a
    graph. A lack of page-locked RAM gives the same error, but that is allocated before training starts, see
    `buffers/placement.py`.
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
    """Used and free memory of a CUDA device as text for messages; empty for the CPU."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    taken, held = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    sizes = f"{show_size(taken)} in use, {show_size(held)} held, {show_size(free)} of {show_size(total)} free"
    return f" ({device}: {sizes})"


@contextmanager
def explained(what: str, advice: str, device: torch.device) -> Any:
    """For work that cannot be split: turns running out of memory into a UserError with `advice`.

    Raises:
        UserError: memory ran out. Other errors pass unchanged.
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
    """Number of rows to process at once, halved when memory runs out.

    Args:
        what: name of the work, for messages.
        device: its cache is emptied after a failure.
        largest: upper limit of rows, e.g. from the memory planner; None for no limit.
        advice: text for the user if even the smallest part does not fit.
        floor: smallest part, in rows.
        grow_after: see `GROW_AFTER`.
    """

    def __init__(
        self,
        what: str,
        device: torch.device,
        largest: int | None = None,
        advice: Callable[[], str] = partial(str, "use a smaller network"),
        floor: int = FLOOR,
        grow_after: int = GROW_AFTER,
    ) -> None:
        self.what, self.device, self.largest, self.advice = what, device, largest, advice
        self.floor = floor if largest is None else min(floor, largest)
        self.size = largest
        """Rows at once; None for all."""
        self.failures = 0
        self._wait, self._clean, self._grown = grow_after, 0, False

    def run(self, rows: int, work: Callable[[int], T]) -> T:
        """`work(size)` with the largest size that fits. Every call must start from scratch: nothing of a failed call
        may remain.

        Raises:
            UserError: not even `floor` rows fit. Other errors pass unchanged.
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
        """`function(*rows)` of tensors (n, ...), without gradient, computed part by part."""

        def work(size: int) -> Tensor:
            results = []
            for part in zip(*(tensor.split(size) for tensor in rows)):
                taking_memory(self.what)
                results.append(function(*part))
            return results[0] if len(results) == 1 else torch.cat(results)

        return self.run(len(rows[0]), work)

    def state_dict(self) -> dict[str, Any]:
        """The size found, so that a resumed run starts with it."""
        return {"size": self.size, "wait": self._wait, "clean": self._clean, "grown": self._grown}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Start with the stored size, but never above `largest`."""
        sizes = [size for size in (state["size"], self.largest) if size is not None]
        self.size = min(sizes) if sizes else None
        self._wait, self._clean, self._grown = int(state["wait"]), int(state["clean"]), bool(state["grown"])

    def _shrink(self, kind: str, size: int) -> None:
        self.failures += 1
        if self.device.type == "cuda":
            gc.collect()  # the failed attempt's tensors may be in a reference cycle
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
