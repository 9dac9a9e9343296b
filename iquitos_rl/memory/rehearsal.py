"""Measures what an agent takes by rehearsing it on PyTorch's meta device, where tensors have sizes but no memory."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine import device

STEP = "a step of the environments"
"""The moment in which an agent acts; the planner adds what the environments take."""
FEW = 8, 24
"""Numbers of environments that are stepped to find out what one more takes."""


class TensorPeak(TorchDispatchMode):
    """Inside this context every storage on one type of device that an operation returns is counted until it is freed,
    backward passes included."""

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
        """The most bytes that there are while `work` runs, on top of those before it."""
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
    """An agent on the meta device, and the peaks of what it does, in bytes on top of what it holds."""

    agent: Any
    gradients: int
    """The sum of all networks' gradients, arguments included: what CUDA graphs of them keep."""
    moments: dict[str, int]
    """See `Agent.moments`."""


def rehearse(
    agent_type: Any, env: VectorEnv, config: Any, networks: Mapping[str, nn.Module], on_gpu: bool
) -> Rehearsal:
    """Build an agent and run its update, in the sizes that training would have, without taking memory.

    Args:
        agent_type: a subclass of `Agent`.
        env: is asked for its sizes, and not stepped.
        config: settings with `compile` off. The placement "cuda" stands for the agent's own memory, whichever that is.
        networks: those that the agent is given in place of its own; they are not changed.
        on_gpu: training will be on a GPU.

    Raises:
        UserError: the agent needs the value of a number, or a size is too large even for counting.
    """
    try:
        with TensorPeak("meta") as taken, without_memory(on_gpu):
            agent = agent_type(env, config, "meta", **{name: on_meta(module) for name, module in networks.items()})
            agent.rehearse()  # from here on there are gradients and moments
            size = config.micro_batch or agent.batches()[0]
            works = [lambda g=gradient: g.set(agent.example(), size) for gradient in agent.gradients.values()]
            gradients = sum(taken.during(work) for work in works)
            moments = {name: taken.during(work) for name, work in agent.moments().items()}
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"the memory of {agent_type.name} with these settings cannot be planned: {reason}") from error
    return Rehearsal(agent, gradients, moments)


def step_bytes(env: VectorEnv) -> float:
    """The most bytes that a step of one environment takes at once, measured on a few; 0 where they cannot say."""
    peaks = []
    for count in FEW:
        # What they stand on is made in here too, so that a view of it does not count as new.
        with torch.inference_mode(), TensorPeak(env.device.type) as taken:
            work = env.example_step(count)
            if work is None:
                return 0.0
            peaks.append(taken.during(work))
    return (peaks[1] - peaks[0]) / (FEW[1] - FEW[0])


@contextlib.contextmanager
def without_memory(on_gpu: bool = False) -> Iterator[None]:
    """Inside this context agents are made on PyTorch's meta device, and take no memory."""
    # Fused optimisers refuse the meta device although their kernels know it.
    fused = patch("torch.optim.optimizer._get_fused_kernels_supported_devices", lambda: ["meta"])
    place = patch.object(device, "REHEARSED", "cuda" if on_gpu else "cpu")
    with torch.device("meta"), fused, place:
        yield


def graph_bytes(env: VectorEnv) -> float:
    """Bytes per environment that a step leaves behind for its backward pass, measured on a few; 0 where they cannot
    say."""
    left = []
    for count in FEW:
        with torch.enable_grad(), TensorPeak(env.device.type) as taken:
            work = env.example_step(count, traced=True)
            if work is None:
                return 0.0
            before = taken.now
            kept = work()
            left.append(taken.now - before)
            del kept
    return (left[1] - left[0]) / (FEW[1] - FEW[0])


def on_meta(module: nn.Module) -> nn.Module:
    """A copy of a module without its numbers."""
    copies: dict[int, Any] = {id(x): torch.empty_like(x, device="meta") for x in module.buffers()}
    for p in module.parameters():
        copies[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    return deepcopy(module, copies)
