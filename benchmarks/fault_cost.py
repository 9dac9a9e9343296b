"""The share of training's time that checkpoints take."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.reader import read_site
from iquitos_rl.envs.district import DistrictSite
from iquitos_rl.runs.checkpoint import Checkpoints


def saving_share(steps: int, minutes: float, folder: Path) -> dict[str, float]:
    """SAC with the shipped sizes on iquitos-38: training with saving in the background and without, in turns, and what
    one save costs the training thread when the whole buffer is new and when 1,000 steps are."""
    site = read_site(folder)
    config = AGENTS["sac"].config(batch_size=256, update_ratio=0.1, learning_starts=5_000, n_step=3)

    def speed(save: Checkpoints | None) -> float:
        env = DistrictSite([site], 32, starts="random")
        agent = AGENTS["sac"].agent(env, config, seed=0)

        def report(progress: Any) -> None:
            if save is not None and save.due():
                save.save({"agent": agent.state_dict(), "env": env.state_dict()}, progress.steps, {})

        begun = time.perf_counter()
        agent.learn(steps, on_log=report)
        seconds = time.perf_counter() - begun
        if save is not None:
            save.finish()
            shares.append(save.seconds / seconds)
            saves.append(save.saves)
        return steps / seconds

    shares: list[float] = []
    saves: list[int] = []
    ratios = []
    for turn in range(3):
        with TemporaryDirectory() as work:
            plain = speed(None)
            ratios.append(speed(Checkpoints(Path(work) / str(turn), minutes)) / plain)
    with TemporaryDirectory() as work:
        ring = torch.rand(300_001, site_width(site))
        checkpoints = Checkpoints(Path(work), 0.0)
        costs = []
        for first in (0, 1_000, 2_000, 3_000):
            ring[first : first + 1_000] += 1
            before = checkpoints.seconds
            begun = time.perf_counter()
            checkpoints.save({"ring": ring}, first, {})
            costs.append(time.perf_counter() - begun)
            checkpoints.finish()
            assert checkpoints.seconds > before
    return {
        "minutes between saves": minutes,
        "saves": statistics.mean(saves),
        "share of the training thread's time": statistics.median(shares),
        "speed with saving over speed without": statistics.median(ratios),
        "buffer MiB": round(ring.nbytes / 2**20),
        "seconds of a first save": costs[0],
        "seconds of a later save": costs[-1],
        "share at one save in 10 minutes": costs[-1] / 600,
    }


def site_width(site: Any) -> int:
    return int(DistrictSite([site], 1).obs_dim)
