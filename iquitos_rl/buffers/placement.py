"""Where a replay buffer's bytes lie, and how they get from there to the device that trains.

Four places: `cuda`, the device itself; `pinned`, RAM that the system may not swap out; `ram`; `disk`, a file mapped
into memory. Everything is allocated and written once when the buffer is made: what does not fit fails in the first
second, not in the fifth hour.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from iquitos_rl.buffers.registry import Placement
from iquitos_rl.errors import UserError
from iquitos_rl.machine.available import free_device, free_ram, show_size

PLACEMENTS: tuple[Placement, ...] = ("cuda", "pinned", "ram", "disk")
HEADROOM = 0.1  # share of the free memory that `choose_placement` leaves alone
DEVICE_RESERVE, RAM_RESERVE = 512 << 20, 1 << 30  # bytes that it leaves for everything that is not the buffer
STAGING_BYTES = 4 << 20
"""One staging buffer. A power of two: PyTorch rounds page-locked memory up to one."""
ZEROS = bytes(1 << 20)
NAMELESS_FILES = os.name == "posix"
"""Whether a mapped file may lose its name; a killed process then leaves nothing behind."""


Where = Literal["device", "ram", "disk"]


class Item(NamedTuple):
    """A line of the memory plan."""

    name: str
    where: Where
    nbytes: int


def choose_placement(nbytes: int, device: torch.device) -> Placement:
    """The fastest place that has room for `nbytes`, by what is free now."""
    if device.type == "cuda" and nbytes <= free_device(device) * (1 - HEADROOM) - DEVICE_RESERVE:
        return "cuda"
    if nbytes <= free_ram() * (1 - HEADROOM) - RAM_RESERVE:
        return "pinned" if device.type == "cuda" else "ram"
    return "disk"


def refuse_too_large(nbytes: int, capacity: int, placement: Placement, chosen: bool) -> None:
    """Raise the UserError that says how many transitions fit, where `capacity` of them take more RAM than there is, or
    more than half of what is free where nobody planned it (`chosen`): the system ends a process without a word.
    """
    if placement == "cuda" or (placement == "disk" and not chosen):
        return
    free = free_ram()
    most = free // 2 if chosen else free
    if nbytes <= most:
        return
    fits = capacity * most // nbytes
    fits -= fits % 10 ** max(0, len(str(fits)) - 2)  # two digits are enough
    why = f"takes more than half of the free {show_size(free)}" if chosen else f"does not fit into {placement}"
    raise UserError(
        f"a replay buffer of {show_size(nbytes)} for {capacity:,} transitions {why}: "
        f"set buffer_size to {fits:,}, or placement to disk where the disk is fast"
    )


class Memory:
    """Gives out uint8 matrices in one place, and takes them back in `close`. Raises UserError: the placement needs a
    CUDA device and the agent, on `device`, has none."""

    def __init__(self, placement: Placement, device: torch.device, folder: Path | str | None = None) -> None:
        if placement not in PLACEMENTS:
            raise UserError(f"replay placement {placement!r} is none of {', '.join(PLACEMENTS)}, auto")
        if placement in ("cuda", "pinned") and device.type not in ("cuda", "meta"):
            raise UserError(
                f"replay placement {placement} needs a CUDA device, and this agent is on {device}: use ram or disk"
            )
        self.placement = placement
        self.device = device if placement == "cuda" or device.type == "meta" else torch.device("cpu")
        self._folder = Path(tempfile.gettempdir() if folder is None else folder)
        self._releases: list[Callable[[], object]] = []

    def matrix(self, rows: int, width: int) -> Tensor:
        """(rows, width) zero bytes, every page of them written. Raises UserError: they do not fit."""
        size = rows * width
        try:
            if self.placement == "disk":
                return self._file(size).view(rows, width)
            data = torch.empty(rows, width, dtype=torch.uint8, device=self.device).zero_()
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise UserError(f"a replay buffer of {show_size(size)} does not fit into {self.placement}") from None
            raise
        if self.placement == "pinned":
            self._page_lock(data)
        return data

    def __getstate__(self) -> dict[str, object]:
        if self.placement in ("pinned", "disk"):
            raise UserError(
                f"an agent whose replay buffer is {self.placement} memory cannot be copied: use save and load"
            )
        return self.__dict__

    def close(self) -> None:
        """Unlock pages and remove files; the matrices must not be used any more."""
        while self._releases:
            self._releases.pop()()

    def _file(self, size: int) -> Tensor:
        # Written out, not left sparse: a disk that fills up under a mapped file ends the process without a word.
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix="replay-", suffix=".bin", delete=False) as file:
                release = weakref.finalize(self, _remove, Path(file.name))
                self._releases.append(release)
                for start in range(0, size, len(ZEROS)):
                    file.write(ZEROS[: size - start])
                file.flush()
        except OSError as error:
            self.close()
            size_text = f"{show_size(size)} ({error.strerror})"
            raise UserError(f"{self._folder}: no room for a replay buffer of {size_text}") from None
        data = torch.from_file(file.name, shared=True, size=size, dtype=torch.uint8)
        if NAMELESS_FILES:
            release()
        return data

    def _page_lock(self, data: Tensor) -> None:
        # PyTorch's own pinned allocation rounds up to a power of two, up to twice the memory.
        cudart = torch.cuda.cudart()
        code = int(cudart.cudaHostRegister(data.data_ptr(), data.nbytes, 0))
        if code != 0:
            raise UserError(
                f"the system refuses to page-lock {show_size(data.nbytes)} of RAM (CUDA error {code}; it is not GPU "
                "memory that is short, and Windows allows half of the RAM): use replay placement ram"
            )
        self._releases.append(weakref.finalize(self, cudart.cudaHostUnregister, data.data_ptr()))


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


Fetched = tuple[list[Tensor], torch.cuda.Event | None]
"""Rows on their way to the device, and when they are there; `Transfer.receive` waits for them."""


class Transfer:
    """Gathers rows of matrices in RAM or on disk, chunk by chunk, and sends them to a device.

    A chunk is gathered into one of two staging buffers while the other one is being copied. Fancy indexing would give
    pageable memory, whose copies wait; `index_select(out=...)` does not. On a CUDA device the copies run on a stream of
    their own, so `send` for the next batch runs while the present one is trained on. On the CPU the same code
    copies at once.
    """

    def __init__(self, device: torch.device, staging_bytes: int = STAGING_BYTES) -> None:
        self.device = device
        cuda = device.type == "cuda"
        try:
            self._staging = [torch.empty(staging_bytes, dtype=torch.uint8, pin_memory=cuda).zero_() for _ in range(2)]
        except RuntimeError as error:
            if not cuda:
                raise
            raise UserError(
                f"the system refuses to page-lock {show_size(2 * staging_bytes)} of RAM, through which a replay buffer "
                f"outside the GPU is read ({str(error).splitlines()[0]}; it is not GPU memory that is short): use "
                "replay placement cuda"
            ) from None
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._copied = [torch.cuda.Event() for _ in range(2)] if cuda else []
        self._turn = 0

    def send(self, *parts: tuple[Tensor, Tensor]) -> Fetched:
        """Start to fetch, for every (matrix (N, w) uint8, index (n,)), the rows (n, w)."""
        if self._stream is None:
            return [self._fetch(*part) for part in parts], None
        # Made on the side stream, so the memory is not one that the training stream is still reading from.
        with torch.cuda.stream(self._stream):
            rows = [self._fetch(*part) for part in parts]
            arrived = torch.cuda.Event()
            arrived.record(self._stream)
        return rows, arrived

    def receive(self, fetched: Fetched) -> list[Tensor]:
        """The rows, for use on the present stream; the host does not wait."""
        rows, arrived = fetched
        if arrived is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(arrived)
            for matrix in rows:
                matrix.record_stream(stream)  # its memory is free only when this stream is done with it
        return rows

    def _fetch(self, data: Tensor, index: Tensor) -> Tensor:
        width = data.shape[1]
        out = torch.empty(len(index), width, dtype=torch.uint8, device=self.device)
        rows = max(1, self._staging[0].numel() // width)
        for start in range(0, len(index), rows):
            part = index[start : start + rows]
            if self._copied:
                self._copied[self._turn].synchronize()
            stage = self._staging[self._turn][: len(part) * width].view(len(part), width)
            torch.index_select(data, 0, part, out=stage)
            out[start : start + len(part)].copy_(stage, non_blocking=True)
            if self._copied:
                self._copied[self._turn].record(self._stream)
            self._turn = 1 - self._turn
        return out
