"""Measures free memory and fixed overheads that the memory planner cannot compute."""

from __future__ import annotations

import gc
import shutil
import tempfile

import psutil
import torch
from torch import nn

from iquitos_rl.machine import heap
from iquitos_rl.machine.available import free_device, free_ram
from iquitos_rl.memory.planner import Limits


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
    """Return freed memory to the system now, and fix the thresholds for returning it later."""
    gc.collect()
    heap.fix_thresholds()
    heap.trim()


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
