"""Measures what an agent takes by rehearsing it on PyTorch's meta device, where tensors have sizes but no memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.graphs import mapped

STEP = "a step of the environments"
"""The moment in which an agent acts; the planner adds what the environments take."""


class TensorPeak(TorchDispatchMode):
    """Inside this context every storage on a kind of device that an operation returns is counted until it is freed,
    backward passes included. What existed before is not counted unless an operation returns it."""

    def __init__(self, device_type: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device_type = device_type
        self.now = self.peak = 0
        """Bytes."""
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == self.device_type:
                self._count(tensor.untyped_storage())
        return result

    def during(self, work: Callable[[], object]) -> int:
        """The most bytes that there are while `work` runs, above those before it."""
        before = self.peak = self.now
        work()
        return self.peak - before

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity, size = storage._cdata, storage.nbytes()
        if size and identity not in self._live:
            self._live[identity] = size
            weakref.finalize(storage, self._free, identity)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _free(self, identity: int) -> None:
        self.now -= self._live.pop(identity, 0)


class Rehearsal(NamedTuple):
    """What an agent takes on its device, bytes by name, except for its stored experience."""

    agent: Any
    """On the meta device."""
    held: dict[str, int]
    moments: dict[str, int]
    """The peak of each on top of what is held."""
    captured: list[int]
    """Arguments and peak of every gradient of every number of transitions: what a CUDA graph of it keeps."""


def rehearse(
    agent_type: Any, env: VectorEnv, config: Any, networks: Mapping[str, nn.Module], graphs: bool
) -> Rehearsal:
    """Build an agent and run its update, in the sizes that training would have, without taking memory.

    Args:
        agent_type: a subclass of `Agent`.
        env: is asked for its sizes, and not stepped.
        config: settings without graphs or compiler; a placement other than "cuda" stands for memory that is not the
            agent's own.
        networks: those that the agent is given in place of its own; they are not changed.
        graphs: measure what CUDA graphs keep.

    Raises:
        UserError: the agent reads numbers where it must not, or a size is too large even for counting.
    """
    # Fused optimisers refuse the meta device although their kernels know it.
    fused = patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: ["meta"])
    try:
        with TensorPeak("meta") as taken, torch.device("meta"), fused:
            agent = agent_type(env, config, "meta", **{name: on_meta(module) for name, module in networks.items()})
            agent.rehearse()  # from here on there are gradients and moments
            example, captured = agent.example(), []
            for rows in shapes(agent.batches(), config.micro_batch) if graphs else ():
                part = mapped(lambda x, n=rows: x[:n], example)  # type: ignore[misc]
                for gradient in agent.gradients.values():
                    captured.append(taken.during(partial(replay, gradient.evaluate, part)))
            del example
            moments = {name: taken.during(work) for name, work in agent.moments().items()}
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the memory of {agent_type.name} with these settings cannot be planned: {reason}") from error
    return Rehearsal(agent, agent.held(), moments, captured)


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of a module without its numbers."""
    copies: dict[int, Any] = {}
    for p in module.parameters():
        copies[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    for buffer in module.buffers():
        copies[id(buffer)] = torch.empty_like(buffer, device="meta")
    return deepcopy(module, copies)


def shapes(batches: list[int], size: int | None) -> set[int]:
    """The different numbers of transitions in parts of at most `size` of some batches."""
    return {rows for n in batches for rows in (min(size or n, n), n % min(size or n, n))} - {0}


def replay(evaluate: Callable[..., object], part: tuple[Any, ...]) -> None:
    """A gradient of a copy of its arguments, as a CUDA graph has them."""
    evaluate(*mapped(torch.clone, part))
