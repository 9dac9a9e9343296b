"""A pure function of tensors as a CUDA graph: its kernels are launched together.

One by one, the launches of small kernels cost more than their work. What is captured has no side effect, draws no
random number and takes all its memory inside. Nothing in it may wait for the device, nor bring numbers from the host:
a capture refuses both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")

WARM_UP_CALLS = 3
"""Before a capture: libraries take their workspaces, and kernels are loaded, in their first calls."""
MOST_RECORDINGS = 4
"""Shapes at once: whole parts and the last, smaller one, of whole minibatches and of the last, smaller one."""


class Recording(NamedTuple):
    """A captured graph with the memory it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class Graphed(Generic[R]):
    """The function, captured at the first call with tensors of some shapes and replayed from then on.

    Arguments are tensors, None, or nested tuples and dicts of them; anything else in a result stays as it is. A result
    is overwritten by the next call with the same shapes. It may be given back as an argument, so a state can be handed
    from call to call.
    """

    def __init__(self, function: Callable[..., R], device: torch.device) -> None:
        self.function, self.device = function, device
        self._recordings: dict[tuple[object, ...], Recording] = {}

    def __call__(self, *arguments: Any) -> R:
        given = list(leaves(arguments))
        key = tuple(None if x is None else (x.shape, x.dtype) for x in given)
        if key not in self._recordings:
            if len(self._recordings) == MOST_RECORDINGS:
                self._recordings.clear()
            try:
                self._recordings[key] = self._record(arguments)
            except RuntimeError as error:
                self._recordings.clear()  # what they hold may be what is missing
                # Ending a capture that ran out of memory raises an error of its own, which says nothing of memory.
                if isinstance(error.__context__, torch.OutOfMemoryError):
                    raise error.__context__ from None
                raise
        recording = self._recordings[key]
        fill(recording.inputs, [x for x in given if x is not None])
        recording.graph.replay()
        result: R = recording.outputs
        return result

    def _record(self, arguments: tuple[Any, ...]) -> Recording:
        own = mapped(lambda x: x.clone(memory_format=torch.contiguous_format), arguments)
        graph, side = torch.cuda.CUDAGraph(), side_stream(self.device)
        # The outer contexts also undo what a failed capture leaves behind.
        with torch.cuda.device(self.device), torch.cuda.stream(torch.cuda.current_stream(self.device)):
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_CALLS):
                    self.function(*own)
            torch.cuda.current_stream(self.device).wait_stream(side)
            with torch.cuda.graph(graph, stream=side):
                outputs = mapped(Tensor.contiguous, self.function(*own))  # as `fill` can copy together
        return Recording(graph, [x for x in leaves(own) if x is not None], outputs)


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: libraries keep a workspace for every stream they have seen."""
    return torch.cuda.Stream(device)


def fill(targets: list[Tensor], values: list[Tensor]) -> None:
    """Copy values into targets, with one kernel for each type of number. A value that overlaps with a target must be
    that target."""
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, x in zip(targets, values, strict=True):
        if target.data_ptr() != x.data_ptr():
            of_dtype = by_dtype.setdefault(x.dtype, ([], []))
            of_dtype[0].append(target)
            of_dtype[1].append(x)
    for same in by_dtype.values():
        torch._foreach_copy_(*same)


def leaves(tree: Any) -> Iterator[Tensor | None]:
    """Tensors and Nones of nested tuples and dicts, in order."""
    if isinstance(tree, (tuple, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(part)
    elif tree is None or isinstance(tree, Tensor):
        yield tree
    else:
        raise TypeError(f"a graph's arguments are tensors, not {type(tree).__name__}")


def mapped(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same nested tuples and dicts with the function of every tensor."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: mapped(function, part) for name, part in tree.items()}
    if isinstance(tree, tuple):
        parts = [mapped(function, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree
