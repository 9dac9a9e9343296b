"""How many CPU threads PyTorch should use, found by trying."""

from __future__ import annotations

import time

import psutil
import torch
from torch import nn

CALIBRATION_UPDATES = 30
CLEARLY_FASTER = 0.8
"""More threads must cut the time to this share of one thread's before they are used."""


def _update_seconds(threads: int) -> float:
    """The slow end (90th percentile) of a forward and backward pass of a network of the usual size.

    The median would hide what hurts: threads that wait for each other while something else uses the cores.
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


def choose_threads(setting: int | str) -> int:
    """Set PyTorch's thread count to `setting`, or with "auto" to what a short trial finds faster; returns the count.

    The trial takes half the cores, and so never more than one of two: on a two-core machine that did anything else
    besides, two threads measured up to 30 times slower than one.
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
