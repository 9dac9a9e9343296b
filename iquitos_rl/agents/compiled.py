"""The gradient of a loss, computed as it is written, through `torch.compile`, or replayed as a CUDA graph.

What is compiled or captured is one loss and its gradient on one part of a batch: it has no side effect, draws no random
number and takes all its memory inside, so recovery from out-of-memory (`memory/recovery.py`) works around it as it does
without. Optimisers, averages and figures are a few fused kernels each and stay as they are. A batched engine's step,
hundreds of kernels, is captured where the gradients are.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import torch
from pydantic import BeforeValidator
from torch import Tensor

from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.graphs import Graphed
from iquitos_rl.memory.recovery import taking_memory

Compile = Annotated[
    Literal["auto", "off", "default", "graphs"], BeforeValidator(lambda value: "off" if value is False else value)
]
"""`auto`: the fastest that needs no compiler. YAML reads a bare `off` as false."""
Mode = Literal["off", "default", "graphs"]
Part = tuple[Tensor | None, ...]
"""Tensors (n, ...) of n rows; None for a field that the batch does not have. The first is always there."""
Loss = Callable[..., tuple[Tensor, Tensor]]
"""From a part's tensors: the loss, a mean over the rows, and figures (k,) without gradient, means likewise."""
Evaluate = Callable[..., tuple[Tensor, Sequence[Tensor]]]
"""From a part's tensors: figures (k,) and the gradient by each parameter, means over the rows."""

F = TypeVar("F", bound=Callable[..., Any])

BACKEND = "inductor"


def resolve(setting: Compile, device: torch.device) -> Mode:
    """The mode for a device: `auto` is graphs on a GPU and off elsewhere.

    Raises:
        UserError: graphs without a CUDA device, or default without the compiler that it needs.
    """
    if setting == "auto":
        return "graphs" if device.type == "cuda" else "off"
    if setting == "graphs" and device.type != "cuda":
        raise UserError(f"agent.compile graphs needs a CUDA device, and this agent is on {device}: use off or default")
    if setting != "default":
        return setting
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise UserError("agent.compile default needs Triton on a GPU, and it is not installed: use graphs or off")
        return setting
    compiler = os.environ.get("CXX") or {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"agent.compile default needs a C++ compiler, and there is no {compiler} here: use off")
    return setting


def elsewhere(setting: Compile) -> Compile:
    """The setting to store with a policy: what works here may not be possible where it is loaded."""
    return "off" if setting == "off" else "auto"


def traced(function: F, setting: Compile) -> F:
    """The function through `torch.compile`, where the setting says so."""
    if setting != "default":
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
    """Sets the gradients of `parameters` to what `evaluate` says.

    Raises:
        UserError: the setting is not possible on this device or machine.
    """

    def __init__(
        self, evaluate: Evaluate, parameters: Sequence[Tensor], setting: Compile, device: torch.device
    ) -> None:
        self.parameters, self.device = parameters, device
        self._evaluate = Graphed(evaluate, device) if resolve(setting, device) == "graphs" else evaluate

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
        figures, gradient = self._evaluate(*part)
        if share == 1:
            for p, g in zip(self.parameters, gradient):
                p.grad = g
            return figures
        for p, g in zip(self.parameters, gradient):
            p.grad = share * g if p.grad is None else p.grad.add_(g, alpha=share)
        return share * figures if total is None else total + share * figures


def join_graphs(env: VectorEnv, setting: Compile, device: torch.device) -> None:
    """With graphs, let a batched engine on the same device step as graphs too."""
    if resolve(setting, device) == "graphs" and env.device.type == device.type:
        env.capture()
