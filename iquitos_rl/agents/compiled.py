"""The gradient of a loss, computed as it is written, through `torch.compile`, or replayed as a CUDA graph.

What is compiled or captured is one loss and its gradient on one part of a batch: it has no side effect, draws no random
number and takes all its memory inside, so recovery from out-of-memory (`memory/recovery.py`) works around it as it does
without. Optimisers, averages and figures are a few fused kernels each and stay as they are.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import torch
from pydantic import BeforeValidator
from torch import Tensor

from iquitos_rl.errors import UserError
from iquitos_rl.memory.recovery import taking_memory

Compile = Annotated[
    Literal["off", "default", "graphs"], BeforeValidator(lambda value: "off" if value is False else value)
]
"""YAML reads a bare `off` as false."""
Part = tuple[Tensor | None, ...]
"""Tensors (n, ...) of n rows; None for a field that the batch does not have. The first is always there."""
Loss = Callable[..., tuple[Tensor, Tensor]]
"""From a part's tensors: the loss, a mean over the rows, and figures (k,) without gradient, means likewise."""
Evaluate = Callable[..., tuple[Tensor, Sequence[Tensor]]]
"""From a part's tensors: figures (k,) and the gradient by each parameter, means over the rows."""

F = TypeVar("F", bound=Callable[..., Any])

BACKEND = "inductor"
WARM_UP_CALLS = 3
"""Before a capture: libraries take their workspaces, and kernels are loaded, in their first calls."""
MOST_RECORDINGS = 4
"""Shapes at once: whole parts and the last, smaller one, of whole minibatches and of the last, smaller one."""


class Recording(NamedTuple):
    """A captured graph with the memory it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: Part
    figures: Tensor
    gradient: Sequence[Tensor]


def traced(function: F, mode: Compile) -> F:
    """The function through `torch.compile`, where the mode says so."""
    if mode != "default":
        return function
    compiled: F = torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND)  # type: ignore[assignment]
    return compiled


def differentiated(loss: Loss, parameters: Sequence[Tensor]) -> Evaluate:
    """The gradient of a loss by autograd."""

    def evaluate(*part: Tensor | None) -> tuple[Tensor, Sequence[Tensor]]:
        value, figures = loss(*part)
        return figures, torch.autograd.grad(value, list(parameters))

    return evaluate


class Gradient:
    """Sets the gradients of `parameters` to what `evaluate` says, in the given mode.

    Raises:
        UserError: the mode is not possible on this device or machine.
    """

    def __init__(self, evaluate: Evaluate, parameters: Sequence[Tensor], mode: Compile, device: torch.device) -> None:
        require(mode, device)
        self.parameters, self.device = parameters, device
        self._evaluate, self._graphs = evaluate, mode == "graphs"
        self._recordings: dict[tuple[object, ...], Recording] = {}

    def set(self, parts: Iterable[Part], rows: int) -> Tensor:
        """Gradients and figures (k,) of the batch of `rows` rows that the parts are: their weighted means. The figures
        are overwritten by the next call."""
        for p in self.parameters:
            p.grad = None  # also what a failed attempt has left
        total: Tensor | None = None
        for part in parts:
            taking_memory("gradient")
            total = self._add(part, rows, total)
        assert total is not None
        return total

    def _add(self, part: Part, rows: int, total: Tensor | None) -> Tensor:
        """Add a part's share to the gradients and the figures; its own gradient is gone before the next one comes."""
        assert part[0] is not None
        share = len(part[0]) / rows
        figures, gradient = self._replay(part) if self._graphs else self._evaluate(*part)
        if share == 1:
            for p, g in zip(self.parameters, gradient):
                p.grad = g
            return figures
        for p, g in zip(self.parameters, gradient):
            p.grad = share * g if p.grad is None else p.grad.add_(g, alpha=share)
        return share * figures if total is None else total + share * figures

    def _replay(self, part: Part) -> tuple[Tensor, Sequence[Tensor]]:
        """As `evaluate`, in memory that the next call of the same shape overwrites."""
        key = tuple(None if x is None else (x.shape, x.dtype) for x in part)
        if key not in self._recordings:
            if len(self._recordings) == MOST_RECORDINGS:
                self._recordings.clear()
            try:
                self._recordings[key] = self._record(part)
            except RuntimeError as error:
                self._recordings.clear()  # what they hold may be what is missing
                # Ending a capture that ran out of memory raises an error of its own, which says nothing of memory.
                if isinstance(error.__context__, torch.OutOfMemoryError):
                    raise error.__context__ from None
                raise
        recording = self._recordings[key]
        for target, x in zip(recording.inputs, part):
            if target is not None and x is not None:
                target.copy_(x)
        recording.graph.replay()
        return recording.figures, recording.gradient

    def _record(self, part: Part) -> Recording:
        inputs = tuple(None if x is None else x.clone() for x in part)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                self._evaluate(*inputs)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            figures, gradient = self._evaluate(*inputs)
        return Recording(graph, inputs, figures, gradient)


def require(mode: Compile, device: torch.device) -> None:
    """Refuse a mode that cannot work here, before anything is trained.

    Raises:
        UserError: graphs without a CUDA device, or default without the compiler that it needs.
    """
    if mode == "graphs" and device.type != "cuda":
        raise UserError(f"agent.compile graphs needs a CUDA device, and this agent is on {device}: use off or default")
    if mode != "default":
        return
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UserError("agent.compile default needs Triton on a GPU, and it is not installed: use graphs or off")
        return
    compiler = os.environ.get("CXX") or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"agent.compile default needs a C++ compiler, and there is no {compiler} here: use off")
