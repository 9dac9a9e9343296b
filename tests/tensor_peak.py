"""The most bytes of tensors that were there at once: what a GPU's allocator would have had to hand out."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class TensorPeak(TorchDispatchMode):
    """Inside this context every storage that an operation returns is counted until it is freed, backward passes
    included; what existed before is not."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type != "meta":
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if size and place not in self._live:
            self._live[place] = size
            weakref.finalize(storage, self._free, place)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _free(self, place: int) -> None:
        self.now -= self._live.pop(place, 0)
