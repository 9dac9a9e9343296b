"""Turns the settings device and threads into what PyTorch uses."""

from __future__ import annotations

import time
from typing import Literal

import psutil
import torch
from torch import Tensor, nn

from iquitos_rl.errors import UserError

CALIBRATION_UPDATES = 30
CLEARLY_FASTER = 0.8
"""More threads are used only if they cut the time to this share of one thread's time."""

REHEARSED: Literal["cpu", "cuda"] = "cpu"
"""What PyTorch's meta device stands for."""


def kind(tensor: Tensor) -> str:
    """Where a tensor is, `cpu` or `cuda`, or would be if it had memory."""
    where = tensor.device.type
    return REHEARSED if where == "meta" else where


def choose_device(setting: str) -> torch.device:
    """The PyTorch device for `cpu`, `cuda` or `auto` (CUDA where there is one).

    Raises:
        UserError: the setting is cuda and PyTorch sees no CUDA device.
    """
    if setting == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device here; use --device cpu")
    return torch.device("cuda" if setting != "cpu" and torch.cuda.is_available() else "cpu")


def choose_threads(setting: int | str) -> int:
    """Set and return PyTorch's thread count: `setting`, or with "auto" the faster of one thread and half the cores.

    Never all cores: on a two-core machine with other work, two threads were up to 30 times slower than one.
    """
    if setting != "auto":
        threads = int(setting)
    else:
        half = (psutil.cpu_count(logical=False) or 1) // 2
        with torch.random.fork_rng(devices=[]):
            one = _update_seconds(1)
            threads = half if half > 1 and _update_seconds(half) < CLEARLY_FASTER * one else 1
    torch.set_num_threads(threads)
    return threads


def _update_seconds(threads: int) -> float:
    """90th percentile of the time of a forward and backward pass of a network of the usual size.

    The median would hide the slow passes in which threads wait for each other because another process uses the cores.
    """
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 256, generator=generator)
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1))
    times = []
    for _ in range(CALIBRATION_UPDATES):
        start = time.perf_counter()
        net.zero_grad()
        net(x).sum().backward()
        times.append(time.perf_counter() - start)
    return sorted(times)[int(0.9 * len(times))]
