"""Checkpoints of a run, taken between two steps and written while training goes on.

Two slots (`slot.py`) take turns. They share no file, so whatever happens to one, while it is written or later, the
other is the checkpoint before it. A slot costs its replay buffer's size on disk once; each save writes only the blocks
that changed since the same slot's last one.

The training thread hashes the blocks and copies those that changed; a second thread writes, flushes and verifies. Few
copies wait at a time: where the disk is slower than that, training waits for it rather than hold a second buffer.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from iquitos_rl.checkpoints.slot import (
    FORMAT_VERSION,
    NAMES,
    Block,
    DamagedError,
    Slot,
    check_manifest,
    is_large,
    load_large,
    rows_per_block,
)
from iquitos_rl.checkpoints.state import first_not_finite, pack, unpack
from iquitos_rl.errors import UserError

SLOTS = ("a", "b")
BLOCKS_IN_FLIGHT = 8
LARGEST_SHARE = 0.02
"""Saving is put off rather than take more than this share of the training thread's time."""


class Loaded(NamedTuple):
    """A checkpoint as read back."""

    step: int
    about: dict[str, Any]
    """What `Checkpoints.save` was told of the run."""
    state: Any


class Checkpoints:
    """The checkpoints under one folder, `minutes` apart.

    Args:
        tell: is given one sentence when a checkpoint cannot be written or is damaged.
    """

    def __init__(self, folder: Path, minutes: float, tell: Callable[[str], None] | None = None) -> None:
        self.folder, self.minutes = folder, minutes
        self.tell = tell or (lambda text: print(f"warning: {text}", file=sys.stderr, flush=True))
        self.seconds = 0.0
        """Time that saving has taken from the training thread."""
        self.saves = 0
        self.last_step: int | None = None
        """Step of the newest good checkpoint."""
        self._slots = [Slot(folder / name) for name in SLOTS]
        self._next, self._serial = 0, 0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._pending: int | None = None
        self._last_save, self._last_cost = -float("inf"), 0.0

    # --- writing

    def due(self) -> bool:
        """Whether it is time to save, and the save before is done."""
        if self._thread is not None and self._thread.is_alive() and self.minutes > 0:
            return False
        pause = max(60 * self.minutes, self._last_cost / LARGEST_SHARE) if self.minutes > 0 else 0.0
        return time.monotonic() - self._last_save >= pause

    def save(self, state: Any, step: int, about: dict[str, Any], *, wait: bool = False, check: bool = True) -> None:
        """Take the state as it is now and write it, in the background unless `wait`.

        A disk or memory that has no room is told to the user and does not raise: the checkpoint before stays good.

        Raises:
            UserError: with `check`, a tensor of the state is not finite; it replaces no checkpoint.
        """
        start = time.perf_counter()
        self.finish()
        tree, tensors = pack(state)
        large = {name: tensor for name, tensor in tensors.items() if is_large(tensor)}
        small = {name: tensor for name, tensor in tensors.items() if name not in large}
        if check and (broken := first_not_finite(small)) is not None:
            raise UserError(f"{broken.removeprefix('state.')} is not finite at step {step}")
        slot, queue = self._slots[self._next], Queue[Block | None](BLOCKS_IN_FLIGHT)
        body = {"format": FORMAT_VERSION, "serial": self._serial + 1, "step": step, "about": about, "tree": tree}
        self._pending, self._error = step, None
        try:
            packed = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in small.items()}
            self._thread = threading.Thread(target=self._write, args=(slot, queue, body, packed), name="checkpoint")
            self._thread.start()
            try:
                body["large"] = self._hand_over(slot, queue, large)
            finally:
                queue.put(None)
        except (OSError, MemoryError, RuntimeError) as error:
            self._error = error
        self._last_save, self._last_cost = time.monotonic(), time.perf_counter() - start
        if wait:
            self.finish()
        self.seconds += time.perf_counter() - start

    def _hand_over(self, slot: Slot, queue: Queue[Block | None], large: dict[str, Tensor]) -> dict[str, Any]:
        """Queue the blocks that the slot does not hold; returns the layout of every large tensor."""
        there = slot.files()
        layouts: dict[str, Any] = {}
        for name, tensor in large.items():
            blocks = []
            for rows in tensor.split(rows_per_block(tensor)):
                block = Block(rows)
                blocks.append(block.name)
                if block.name not in there:
                    there.add(block.name)
                    queue.put(block.detach())
            layouts[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "blocks": blocks}
        return layouts

    def _write(self, slot: Slot, queue: Queue[Block | None], body: dict[str, Any], packed: dict[str, Tensor]) -> None:
        """What the second thread does. After an error it empties the queue, so that training never waits for it."""
        while (block := queue.get()) is not None:
            if self._error is None:
                try:
                    slot.put(block.name, block.head, block.body.data)
                except BaseException as error:
                    self._error = error
        if self._error is not None or "large" not in body:
            return
        try:
            data = save_tensors(packed)
            body["packed"] = hashlib.sha256(data).hexdigest()
            slot.put(body["packed"], data)
            blocks = {name for layout in body["large"].values() for name in layout["blocks"]}
            body["files"] = sorted(blocks | {body["packed"]})
            slot.commit(body)
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Wait for the save under way. An error that is no fault of disk or memory is raised here."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        step, self._pending = self._pending, None
        error = self._error
        if step is None:
            return
        if error is None:
            self._serial, self._next = self._serial + 1, 1 - self._next
            self.saves, self.last_step = self.saves + 1, step
        elif isinstance(error, OSError | MemoryError | UserError | DamagedError) or "memory" in str(error):
            reason = getattr(error, "strerror", None) or str(error) or "no memory"
            stays = "there is none yet" if self.last_step is None else f"that of step {self.last_step} stays"
            self.tell(f"{self.folder}: the checkpoint of step {step} could not be written ({reason}); {stays}")
        else:
            raise error

    # --- reading

    def load(self, own: Any = None) -> Loaded | None:
        """The newest checkpoint that is whole, None where none was ever written.

        Args:
            own: a state of the same form, such as the agent's present one. Large tensors of equal shape and type are
                filled in place, so that a replay buffer is never in memory twice.

        Raises:
            UserError: there are checkpoints, but none is whole.
        """
        found: list[tuple[int, int, dict[str, Any]]] = []
        damage: list[str] = []
        cut_off = False
        for index, slot in enumerate(self._slots):
            try:
                body = slot.manifest()
                if body is not None:
                    check_manifest(body, slot.folder)
                    found.append((body["serial"], index, body))
                elif slot.files():
                    cut_off = True
                    damage.append(f"{slot.folder} holds a checkpoint that was never finished")
            except (DamagedError, UserError) as error:
                damage.append(str(error))
        tensors = pack(own)[1]
        for _, index, body in sorted(found, key=lambda item: item[:2], reverse=True):
            try:
                state = self._read(self._slots[index], body, tensors)
            except (DamagedError, UserError) as error:
                damage.append(str(error))
                continue
            for text in damage:
                self.tell(f"{text}; going on from the checkpoint of step {body['step']}")
            self._serial, self._next = max(item[0] for item in found), 1 - index
            self.last_step = body["step"]
            return Loaded(body["step"], body["about"], state)
        # Slot a alone without a manifest is what the very first save leaves when it is cut off.
        if not damage or (cut_off and len(damage) == 1 and not self._slots[1].files()):
            return None
        raise UserError(f"{self.folder} holds no whole checkpoint: {'; '.join(damage)}")

    def _read(self, slot: Slot, body: dict[str, Any], own: dict[str, Tensor]) -> Any:
        tensors = slot.tensors(body["packed"])
        for name, layout in body["large"].items():
            tensors[name] = load_large(slot, layout, own.get(name))
        try:
            return unpack(body["tree"], tensors)
        except RecursionError:
            raise DamagedError(f"{slot.folder}: the state is nested too deeply") from None


def generator_states() -> dict[str, Any]:
    """The process's own random generators: python, numpy, torch, CUDA."""
    import random

    import numpy as np

    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - third parties draw from it
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Put them back; CUDA's only where there are as many devices."""
    import random

    import numpy as np

    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
