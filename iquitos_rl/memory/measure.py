"""What of a plan arithmetic cannot know: what is free, what the process takes already, what a GPU takes for itself."""

from __future__ import annotations

import ctypes
import gc
import shutil
import sys
import tempfile

import psutil
import torch
from torch import nn

from iquitos_rl.machine.available import free_device, free_ram
from iquitos_rl.memory.planner import Limits

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""
LARGE_BLOCK, KEPT = 4 << 20, 16 << 20
"""Bytes of a block from which on it is given back when freed; bytes of smaller ones that are kept for reuse."""


def exercise(device: torch.device) -> None:
    """Use once what every training uses, so that libraries load what they load when first used. Draws nothing from
    torch's global random state."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64, device="meta"), nn.ReLU(), nn.Linear(64, 64, device="meta")).to_empty(
        device="cpu"
    )
    for p in net.parameters():
        nn.init.uniform_(p, generator=generator)
    net.to(device)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    x = torch.rand(64, 64, generator=generator).to(device)
    loss = torch.baddbmm(x[:1].expand(2, 1, 64), net(x).expand(2, 64, 64), x.expand(2, 64, 64)).tanh().mean()
    loss.backward()
    optimizer.step()


def release_unused() -> None:
    """Give freed memory back to the system, now and from now on.

    glibc raises the size from which a freed block is given back to that of the largest block freed so far, up to 32
    MiB: a training whose tensors are a little smaller than that holds on to many that it no longer has, and no count of
    tensors says how many. Fixed thresholds end this; the smaller blocks of an update are still reused without asking
    the system.
    """
    gc.collect()
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
            library.mallopt(M_TRIM_THRESHOLD, KEPT)
            library.malloc_trim(0)


def process_bytes(device: torch.device) -> int:
    """RAM that this process takes now, PyTorch's libraries loaded."""
    exercise(device)
    release_unused()
    return int(psutil.Process().memory_info().rss)


def context_bytes(device: torch.device) -> int:
    """GPU memory in use that is not PyTorch's tensors: the CUDA context, and whatever other processes hold."""
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free - torch.cuda.memory_reserved(device))


def measured_limits(device: torch.device, process: int) -> Limits:
    """What there is for the whole process: what is free now, and what it takes already."""
    taken = None
    if device.type == "cuda":
        taken = context_bytes(device) + free_device(device) + torch.cuda.memory_allocated(device)
    return Limits(taken, free_ram() + process, shutil.disk_usage(tempfile.gettempdir()).free)
