"""CUDA graphs without a GPU: a capture writes down every operation, a replay does them again on the same memory.

As a real capture does, it refuses to read a tensor's value and to bring numbers from the host. Unlike a real one it
computes while it captures.
"""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from iquitos_rl.agents import compiled

READS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "unique_dim"}
BRINGS = {"lift_fresh"}
INDEXES = {"index", "index_put", "index_put_", "_index_put_impl_"}


def waits(function, args):
    """Whether an operation reads a value back from the device, or brings one from the host."""
    name = function._schema.name.removeprefix("aten::")
    masks = name in INDEXES and any(x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1])
    return masks or name in READS | BRINGS


class Graph:
    def __init__(self):
        self.operations, self.replays = [], 0

    def replay(self):
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, results in self.operations:
                for old, new in zip(results, tensors(function(*args, **kwargs))):
                    if old.data_ptr() != new.data_ptr():  # neither a view of an argument nor in place
                        old.copy_(new)


class Writer(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if waits(function, args):
            raise RuntimeError(f"{function._schema.name} is not permitted when stream is capturing")
        result = function(*args, **(kwargs or {}))
        self.graph.operations.append((function, args, kwargs or {}, tensors(result)))
        return result


def tensors(tree):
    return [x for x in tree_flatten(tree)[0] if isinstance(x, torch.Tensor)]


class Stream:
    def __init__(self, device=None):
        pass

    def wait_stream(self, other):
        pass


@contextmanager
def graphs_on_cpu():
    """Replaces what `machine/graphs.py` uses of `torch.cuda`, and lets agents on the CPU have compile = graphs; yields
    the graphs that were captured."""
    captured = []

    def capture(graph, stream):
        captured.append(graph)
        return Writer(graph)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "graph", capture)
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "device", lambda device: nullcontext())
        patch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        patch.setattr(torch.cuda, "current_stream", Stream)
        patch.setattr(compiled, "resolve", lambda setting, device: setting)
        yield captured
