"""Checkpoints of a run, taken between two steps and written in the background.

Saves alternate between two slots (`slot.py`) that share no file. If one slot is damaged, during a save or later, the
other still holds the previous checkpoint. A slot takes the replay buffer's size on disk; each save writes only the
blocks that changed since the last save to that slot.

The training thread hashes the blocks and copies those that changed; a second thread writes, flushes and verifies them.
Few blocks wait to be written: if the disk is slow, training waits instead of holding a second copy of the buffer.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Semaphore
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from iquitos_rl.checkpoints.slot import FORMAT_VERSION, DamagedError, Slot, blocks_of, is_large, load_large
from iquitos_rl.checkpoints.state import first_not_finite, pack, unpack
from iquitos_rl.errors import UserError

SLOTS = ("a", "b")
BLOCKS_IN_FLIGHT = 8
LARGEST_SHARE = 0.02
"""Saves are delayed so that they take at most this share of the training thread's time."""


class Loaded(NamedTuple):
    """A checkpoint that was read back."""

    step: int
    about: dict[str, Any]
    """The `about` argument of `Checkpoints.save`."""
    state: Any


class Checkpoints:
    """Saves and loads the checkpoints of one run.

    Args:
        folder: holds one subfolder per slot.
        minutes: least time between two saves; 0 saves whenever `due` is asked.
        tell: called with one sentence when a checkpoint cannot be written or is damaged.
    """

    def __init__(self, folder: Path, minutes: float, tell: Callable[[str], None] | None = None) -> None:
        self.folder, self.minutes = folder, minutes
        self.tell = tell or (lambda text: print(f"warning: {text}", file=sys.stderr, flush=True))
        self.seconds = 0.0
        """Time that the training thread has spent on saving."""
        self.saves = 0
        self.last_step: int | None = None
        """Step of the newest good checkpoint."""
        self._slots = [Slot(folder / name) for name in SLOTS]
        self._next, self._serial = 0, 0
        self._thread, self._room = ThreadPoolExecutor(1, "checkpoint"), Semaphore(BLOCKS_IN_FLIGHT)
        self._writing: Future[None] | None = None
        self._error: BaseException | None = None
        self._pending: int | None = None
        self._last_save, self._last_cost = -float("inf"), 0.0

    # --- writing

    def due(self) -> bool:
        """Whether it is time for the next save and the last one is finished."""
        if self.minutes == 0:
            return True
        pause = max(60 * self.minutes, self._last_cost / LARGEST_SHARE)
        return (self._writing is None or self._writing.done()) and time.monotonic() - self._last_save >= pause

    def save(self, state: Any, step: int, about: dict[str, Any], *, wait: bool = False, check: bool = True) -> None:
        """Copy the present state and write it, in the background unless `wait`.

        A full disk or memory gives a warning and no exception; the previous checkpoint stays valid.

        Raises:
            UserError: with `check`, a small tensor of the state is not finite; nothing is written.
        """
        start = time.perf_counter()
        self.finish()
        tree, tensors = pack(state)
        large = {name: tensor for name, tensor in tensors.items() if is_large(tensor)}
        small = {name: tensor for name, tensor in tensors.items() if name not in large}
        if check and (broken := first_not_finite(small)) is not None:
            raise UserError(f"{broken.removeprefix('state.')} is not finite at step {step}")
        slot, layouts = self._slots[self._next], {}
        body = {"format": FORMAT_VERSION, "serial": self._serial + 1, "step": step, "about": about, "tree": tree}
        self._pending, self._error = step, None
        try:
            packed = {name: tensor.to("cpu", copy=True).contiguous() for name, tensor in small.items()}
            there = slot.files()
            for name, tensor in large.items():
                layouts[name] = self._hand_over(slot, there, tensor)
            self._writing = self._thread.submit(self._commit, slot, {**body, "large": layouts}, packed)
        except (OSError, MemoryError, RuntimeError) as error:
            self._error = error
        self._last_save, self._last_cost = time.monotonic(), time.perf_counter() - start
        if wait:
            self.finish()
        self.seconds += time.perf_counter() - start

    def _hand_over(self, slot: Slot, there: set[str], tensor: Tensor) -> dict[str, Any]:
        """Copy the blocks that are not `there` and let them be written; returns the tensor's layout."""
        names = []
        for block in blocks_of(tensor):
            name = hashlib.sha256(block).hexdigest()
            names.append(name)
            if name not in there:
                there.add(name)
                copy = block.copy()
                self._room.acquire()
                self._writing = self._thread.submit(self._put, slot, name, copy)
        return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "blocks": names}

    def _put(self, slot: Slot, name: str, block: Any) -> None:
        """Write a block, in the second thread; none after an error."""
        try:
            if self._error is None:
                slot.put(name, block)
        except BaseException as error:
            self._error = error
        finally:
            self._room.release()

    def _commit(self, slot: Slot, body: dict[str, Any], packed: dict[str, Tensor]) -> None:
        """Write all that is not in blocks and the manifest, in the second thread."""
        try:
            if self._error is None:
                data = save_tensors(packed)
                body["packed"] = hashlib.sha256(data).hexdigest()
                slot.put(body["packed"], data)
                slot.commit(body)
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Wait for the save in progress. Raises its error unless that was a lack of disk space or memory."""
        if self._writing is not None:
            self._writing.result()
        step, error = self._pending, self._error
        self._pending = self._writing = None
        if step is None:
            return
        if error is None:
            self._serial, self._next = self._serial + 1, 1 - self._next
            self.saves, self.last_step = self.saves + 1, step
        elif isinstance(error, OSError | MemoryError | UserError | DamagedError) or "memory" in str(error):
            reason = getattr(error, "strerror", None) or str(error) or "no memory"
            older = "there is no older one" if self.last_step is None else f"that of step {self.last_step} is kept"
            self.tell(f"{self.folder}: the checkpoint of step {step} could not be written ({reason}); {older}")
        else:
            raise error

    # --- reading

    def load(self, own: Any = None) -> Loaded | None:
        """Read the newest undamaged checkpoint; None if none was ever written.

        Args:
            own: a state of the same structure, such as the agent's present one. Large tensors of equal shape and dtype
                are filled in place, so that a replay buffer is never in memory twice.

        Raises:
            UserError: all checkpoints are damaged.
        """
        found: list[tuple[int, int, dict[str, Any]]] = []
        damage, cut_off = list[str](), False
        for index, slot in enumerate(self._slots):
            try:
                body = slot.manifest()
                if body is not None:
                    found.append((body["serial"], index, body))
                elif slot.files():
                    cut_off = True
                    damage.append(f"{slot.folder} holds an incomplete checkpoint")
            except DamagedError as error:
                damage.append(str(error))
        own_tensors = pack(own)[1]
        for _, index, body in sorted(found, key=lambda item: item[:2], reverse=True):
            slot = self._slots[index]
            try:
                tensors = slot.tensors(body["packed"])
                for name, layout in body["large"].items():
                    tensors[name] = load_large(slot, layout, own_tensors.get(name))
                state = unpack(body["tree"], tensors)
            except RecursionError:
                damage.append(f"{slot.folder}: the state is nested too deeply")
                continue
            except (DamagedError, UserError) as error:
                damage.append(str(error))
                continue
            for text in damage:
                self.tell(f"{text}; resuming from the checkpoint of step {body['step']}")
            self._serial, self._next = max(item[0] for item in found), 1 - index
            self.last_step = body["step"]
            return Loaded(body["step"], body["about"], state)
        # If the very first save is cut off, it leaves files in slot a, no manifest, and an empty slot b.
        if not damage or (cut_off and len(damage) == 1 and not self._slots[1].files()):
            return None
        raise UserError(f"{self.folder} holds no undamaged checkpoint: {'; '.join(damage)}")


def generator_states() -> dict[str, Any]:
    """States of the process-wide random generators: python, numpy, torch, CUDA."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002 - libraries draw from it
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    """Restore them; CUDA's only if the number of devices is the same."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
