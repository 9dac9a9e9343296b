"""Measures free memory and fixed overheads that the memory planner cannot compute."""

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
"""Constants from glibc's malloc.h."""
LARGE_BLOCK, KEPT = 4 << 20, 16 << 20
"""Blocks of at least LARGE_BLOCK bytes are returned to the system when freed; of smaller ones, KEPT bytes are kept."""


def exercise(device: torch.device) -> None:
    """Run once the operations that every training uses, so that libraries load what they load at first use.

    Leaves torch's global random state unchanged.
    """
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).to(device)
        x = torch.rand(64, 64).to(device)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    loss = torch.baddbmm(x[:1].expand(2, 1, 64), net(x).expand(2, 64, 64), x.expand(2, 64, 64)).tanh().mean()
    loss.backward()
    optimizer.step()


def release_unused() -> None:
    """Return freed memory to the system now, and fix the thresholds for returning it later.

    By default glibc keeps freed blocks below a threshold that grows with the largest block freed so far, up to 32 MiB.
    A training with tensors just below it keeps memory that no count of its tensors explains. With fixed thresholds
    large blocks are returned, and the small blocks of an update are still reused.
    """
    gc.collect()
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "gnu_get_libc_version"):
            library.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
            library.mallopt(M_TRIM_THRESHOLD, KEPT)
            library.malloc_trim(0)


def process_bytes(device: torch.device) -> int:
    """RAM of this process, bytes, after PyTorch's libraries are loaded."""
    exercise(device)
    release_unused()
    return int(psutil.Process().memory_info().rss)


def context_bytes(device: torch.device) -> int:
    """GPU memory in use outside of PyTorch's allocator, bytes: the CUDA context and other processes."""
    free, total = torch.cuda.mem_get_info(device)
    return int(total - free - torch.cuda.memory_reserved(device))


def measured_limits(device: torch.device, process: int) -> Limits:
    """Memory that this process can have in all: what is free plus what it uses already (`process`, bytes of RAM)."""
    taken = None
    if device.type == "cuda":
        taken = context_bytes(device) + free_device(device) + torch.cuda.memory_allocated(device)
    return Limits(taken, free_ram() + process, shutil.disk_usage(tempfile.gettempdir()).free)
