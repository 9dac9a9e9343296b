"""What PyTorch keeps for a whole process, set to what an agent needs while it works and left as the caller had it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def own_defaults(device: torch.device) -> Iterator[None]:
    """float32 and the CPU as defaults of new tensors, gradients on, autocast off.

    PyTorch's meta device keeps its default: the memory plan builds agents under it.
    """
    if as_wanted(device):
        yield
        return
    before = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", device.type} - {"meta"}:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        # Only where it differs: a device context makes every operation slower.
        if device.type != "meta" and torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        if before is not torch.float32:
            stack.callback(torch.set_default_dtype, before)
            torch.set_default_dtype(torch.float32)
        yield


def as_wanted(device: torch.device) -> bool:
    """Whether everything is set as agents need it, as it nearly always is."""
    return (
        torch.get_default_dtype() is torch.float32
        and torch.is_grad_enabled()
        and not torch.is_inference_mode_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not (device.type == "cuda" and torch.is_autocast_enabled("cuda"))
        and (device.type == "meta" or torch.empty(0).device.type == "cpu")  # faster than asking for the default
    )


def with_own_defaults(method: F) -> F:
    """The same around a method of an object with a `device`."""

    @wraps(method)
    def wrapped(self: Any, *arguments: Any, **keywords: Any) -> Any:
        if as_wanted(self.device):
            return method(self, *arguments, **keywords)
        with own_defaults(self.device):
            return method(self, *arguments, **keywords)

    return wrapped  # type: ignore[return-value]
