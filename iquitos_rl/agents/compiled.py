"""The gradient of a loss, computed as it is written, through `torch.compile`, or replayed as a CUDA graph.

What is compiled or captured is one loss and its gradient on one part of a batch: it has no side effect, draws no random
number and takes all its memory inside, so recovery from out-of-memory (`memory/recovery.py`) works around it as it does
without. Optimisers, averages and sums of metrics are a few fused kernels each and stay as they are. A batched engine's
step, hundreds of kernels, is captured where the gradients are.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from iquitos_rl.agents.configs import Compile
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.graphs import Graphed, leaves, mapped
from iquitos_rl.memory.recovery import taking_memory

Mode = Literal["off", "default", "graphs"]
Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]
Evaluate = Callable[..., tuple[dict[str, Tensor], tuple[Tensor, ...]]]

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


class Gradient:
    """Sets the gradients of `parameters` to those of a loss.

    Args:
        loss: from tensors (n, ...) of n rows to a scalar, and metrics, scalars by name; all of them means over the
            rows. A tensor may be None where a batch lacks it, and they may be nested in tuples and dicts.
        frozen: other parameters that the loss reads, and whose gradients nobody needs.

    Raises:
        UserError: the setting is not possible on this device or machine.
    """

    def __init__(
        self,
        loss: Loss,
        parameters: Iterable[Tensor],
        setting: Compile,
        device: torch.device,
        frozen: Iterable[Tensor] = (),
    ) -> None:
        self.parameters = list(parameters)
        self.rehearsed = device.type == "meta"
        self.loss, self.frozen, self.setting, self.device = loss, list(frozen), setting, device
        self._prepare()

    def _prepare(self) -> None:
        evaluate = Differentiated(traced(self.loss, self.setting), self.parameters, self.frozen)
        graphs = resolve(self.setting, self.device) == "graphs"
        self.evaluate: Evaluate = Graphed(evaluate, self.device) if graphs else evaluate
        """From arguments of the loss: its metrics, and the gradient by each parameter."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: x for name, x in self.__dict__.items() if name != "evaluate"}  # what is compiled stays here

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def set(self, arguments: tuple[Any, ...], size: int) -> dict[str, Tensor]:
        """Take the gradient of a batch, `size` rows at a time: the weighted mean of its parts' gradients.

        Returns the metrics, and `grad_norm`. They are overwritten by the next call.
        """
        for p in self.parameters:
            p.grad = None  # also what a failed attempt has left
        rows = rows_of(arguments)
        metrics: dict[str, Tensor] = {}
        starts = range(0, rows, size)
        # A rehearsal needs no more: the parts between these take as much memory.
        for start in sorted({*starts[:2], *starts[-1:]}) if self.rehearsed else starts:
            taking_memory("gradient")
            part = arguments if size >= rows else mapped(lambda x, at=start: x[at : at + size], arguments)  # type: ignore[misc]
            found, gradient = self.evaluate(*part)
            share = min(size, rows - start) / rows
            if share == 1:
                metrics = dict(found)
                for p, g in zip(self.parameters, gradient):
                    p.grad = g
            else:
                metrics = {name: share * x + metrics.get(name, 0.0) for name, x in found.items()}
                for p, g in zip(self.parameters, gradient):
                    p.grad = share * g if p.grad is None else p.grad.add_(g, alpha=share)
            del gradient, g  # gone before the next part's is there
        metrics["grad_norm"] = norm_of(self.parameters)
        return metrics


def norm_of(parameters: list[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together, a scalar."""
    norms = torch._foreach_norm([p.grad for p in parameters])  # type: ignore[misc]
    return torch.linalg.vector_norm(torch.stack(norms))


def rows_of(arguments: tuple[Any, ...]) -> int:
    """How many rows a batch has: all of its tensors have as many."""
    return next(len(x) for x in leaves(arguments) if x is not None)


class Differentiated:
    """Metrics and gradients of a loss by autograd."""

    def __init__(self, loss: Loss, parameters: list[Tensor], frozen: list[Tensor]) -> None:
        self.loss, self.parameters, self.frozen = loss, parameters, frozen

    def __call__(self, *part: Any) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
        for p in self.frozen:
            p.requires_grad_(False)
        try:
            value, metrics = self.loss(*part)
        finally:
            for p in self.frozen:
                p.requires_grad_(True)
        metrics = {name: x.detach() for name, x in metrics.items()}
        return metrics, torch.autograd.grad(value, self.parameters)


def join_graphs(env: VectorEnv, setting: Compile, device: torch.device) -> None:
    """With graphs, let a batched engine on the same device step as graphs too."""
    if resolve(setting, device) == "graphs" and env.device.type == device.type:
        env.capture()
