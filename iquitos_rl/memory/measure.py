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

from iquitos_rl.memory.available import free_device, free_ram
from iquitos_rl.memory.planner import Limits


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
    """Give back what reading the data has left behind: glibc keeps freed memory, and it would be counted as in use."""
    gc.collect()
    if sys.platform == "linux":
        library = ctypes.CDLL(None)
        if hasattr(library, "malloc_trim"):
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
