"""How many CPU threads PyTorch should use, found by trying."""

from __future__ import annotations

import time

import psutil
import torch
from torch import nn

CALIBRATION_UPDATES = 20
CLEARLY_FASTER = 0.8
"""More threads must cut the time to this share before they are used: on a busy machine they can be 30 times slower."""


def _update_seconds(threads: int) -> float:
    """Median time of a forward and backward pass of a network of the usual size."""
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
    return sorted(times)[len(times) // 2]


def choose_threads(setting: int | str) -> int:
    """Set PyTorch's thread count to `setting`, or with "auto" to the faster of one and all cores; returns the count."""
    if setting != "auto":
        threads = int(setting)
    else:
        cores = psutil.cpu_count(logical=False) or 1
        with torch.random.fork_rng(devices=[]):
            one = _update_seconds(1)
            threads = cores if cores > 1 and _update_seconds(cores) < CLEARLY_FASTER * one else 1
    torch.set_num_threads(threads)
    return threads
