"""One training in several processes, by `torch.distributed`: everything that they tell each other passes through here.

Each process has environments of its own and what they went through, and an equal share of every batch. Networks,
optimisers and statistics are the same in all of them: gradients are averaged before each optimiser step, in one
flattened all-reduce, and statistics are those of all samples. So an update is that of one process with the whole batch,
up to the order of sums. Without a process group there is one process, and every function here returns what it is given.

All processes must come to the same calls in the same order. A decision is therefore made on numbers that all have
(`averaged`, `largest`, `gather`), never on one process's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from iquitos_rl.errors import UserError

T = TypeVar("T")


def processes() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0. The first one writes files."""
    return dist.get_rank() if processes() > 1 else 0


def share(name: str, whole: int) -> int:
    """This process's part of a number that all have together. Raises UserError: it cannot be shared equally."""
    if whole % processes():
        raise UserError(f"{name} {whole} cannot be shared equally among {processes()} processes: take a multiple")
    return whole // processes()


def averaged(parameters: Sequence[Tensor], metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each parameter's gradient by its mean over the processes; returns the means of the metrics, scalars."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if _alone(gradients[0]):
        return dict(metrics)
    flat = torch.cat([x.flatten() for x in (*gradients, *metrics.values())])
    with _connected():
        dist.all_reduce(flat)
    flat /= processes()
    *parts, rest = flat.split([*(x.numel() for x in gradients), len(metrics)])
    for p, part in zip(parameters, parts, strict=True):
        p.grad = part.view_as(p).to(p.dtype)
    return dict(zip(metrics, rest.unbind()))


def moments(n: int, mean: Tensor, squares: Tensor) -> tuple[int | Tensor, Tensor, Tensor]:
    """Number, mean and sum of squared deviations from it, each elementwise, of all processes' samples: from those of
    this process's (Chan et al. 1979)."""
    if _alone(mean):
        return n, mean, squares
    own = torch.cat([mean.new_full((1,), n), mean.flatten(), squares.flatten()])
    found = [torch.empty_like(own) for _ in range(processes())]
    with _connected():
        dist.all_gather(found, own)
    count, means, sums = torch.stack(found).split([1, mean.numel(), mean.numel()], dim=1)
    total = count.sum()
    middle = (count * means).sum(0) / total
    spread = (sums + count * (means - middle).square()).sum(0)
    return total, middle.view_as(mean), spread.view_as(mean)


def moments_of(samples: Tensor) -> tuple[int | Tensor, Tensor, Tensor]:
    """The same of numbers (n,)."""
    mean = samples.mean()
    return moments(len(samples), mean, (samples - mean).square().sum())


def gather(value: T) -> list[T]:
    """Every process's value, by rank; anything that can be pickled. Waits for all."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    with _connected():
        dist.all_gather_object(found, value)
    return found


def largest(*numbers: float) -> list[float]:
    """Of each number the largest that a process has."""
    if processes() == 1:
        return list(numbers)
    found = torch.tensor(numbers, dtype=torch.float64, device="cpu")
    with _connected():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def barrier() -> None:
    """Wait until all processes are here."""
    gather(None)


def copy_first(tensors: Sequence[Tensor]) -> None:
    """Give these tensors the first process's numbers."""
    if processes() > 1:
        with _connected():
            for x in tensors:
                dist.broadcast(x, 0)


def refuse_differences(facts: Mapping[str, Any]) -> None:
    """Raise UserError, in all processes, where a fact is not the same in all."""
    everyone = gather(facts)
    for name in everyone[0]:
        for number, other in enumerate(everyone):
            if other[name] != everyone[0][name]:
                raise UserError(
                    f"the processes of one training need the same {name}: process 0 has {everyone[0][name]}, process "
                    f"{number} has {other[name]}"
                )


def refuse_without_cpu() -> None:
    """Raise UserError where the process group cannot carry what is not on a GPU."""
    if processes() > 1 and "cpu:" not in dist.get_backend_config():
        raise UserError(
            f"the process group has the backend {dist.get_backend()} alone, and decisions are made on the CPU: make it "
            'with init_process_group("cpu:gloo,cuda:nccl")'
        )


def _alone(x: Tensor) -> bool:
    return processes() == 1 or x.is_meta  # on the meta device nothing is computed, so there is nothing to tell


@contextmanager
def _connected() -> Iterator[None]:
    """Raises UserError: another process has ended."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"another process of this training has ended; its own message says why ({reason})") from error
