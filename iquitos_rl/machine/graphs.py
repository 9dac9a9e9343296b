"""Runs a pure function of tensors as a CUDA graph: all its kernels are launched at once.

For small kernels the separate launches take longer than the computation. A captured function must have no side effect,
draw no random numbers and allocate all its memory inside. It must not synchronise with the device or copy numbers from
the host; the capture fails if it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")

WARM_UP_CALLS = 3
"""Calls before a capture: in its first calls a library allocates workspaces and loads kernels."""
MOST_RECORDINGS = 4
"""Shapes kept at once. A full and a last, smaller minibatch, each split into full parts and a last, smaller part."""


class Recording(NamedTuple):
    """A captured graph and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: Any


class Graphed(Generic[R]):
    """Captures the function at the first call with each set of shapes, and replays the graph after that.

    Arguments are tensors, None, or nested tuples and dicts of them. Values of other types in a result are kept as they
    were at the capture. The next call with the same shapes overwrites the result. A result may be passed as an argument
    of the next call, for instance a state.
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
                self._recordings.clear()  # frees their memory, which may be what is missing
                # When a capture runs out of memory, ending it raises another error that does not mention memory.
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
        # The outer contexts restore device and stream if the capture fails.
        with torch.cuda.device(self.device), torch.cuda.stream(torch.cuda.current_stream(self.device)):
            side.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(side):
                for _ in range(WARM_UP_CALLS):
                    self.function(*own)
            torch.cuda.current_stream(self.device).wait_stream(side)
            with torch.cuda.graph(graph, stream=side):
                outputs = mapped(Tensor.contiguous, self.function(*own))  # `fill` copies these in one kernel
        return Recording(graph, [x for x in leaves(own) if x is not None], outputs)


@cache
def side_stream(device: torch.device) -> torch.cuda.Stream:
    """One stream for all captures, since libraries keep a workspace for every stream that they were used on."""
    return torch.cuda.Stream(device)


def fill(targets: list[Tensor], values: list[Tensor]) -> None:
    """Copy values into targets with one kernel per dtype. A value that shares memory with a target must be that
    target."""
    by_dtype: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for target, x in zip(targets, values, strict=True):
        if target.data_ptr() != x.data_ptr():
            of_dtype = by_dtype.setdefault(x.dtype, ([], []))
            of_dtype[0].append(target)
            of_dtype[1].append(x)
    for same in by_dtype.values():
        torch._foreach_copy_(*same)


def leaves(tree: Any) -> Iterator[Tensor | None]:
    """Tensors and Nones in nested tuples and dicts, in order."""
    if isinstance(tree, (tuple, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(part)
    elif tree is None or isinstance(tree, Tensor):
        yield tree
    else:
        raise TypeError(f"a graph's arguments are tensors, not {type(tree).__name__}")


def mapped(function: Callable[..., Tensor], tree: Any, *more: Any) -> Any:
    """Apply the function to every tensor in nested tuples and dicts, and to those at its place in more such trees."""
    if isinstance(tree, Tensor):
        return function(tree, *more)
    if isinstance(tree, dict):
        return {name: mapped(function, part, *(own[name] for own in more)) for name, part in tree.items()}
    if isinstance(tree, tuple):
        parts = [mapped(function, *own) for own in zip(tree, *more)]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree
