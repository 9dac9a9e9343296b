"""The share of training's time that checkpoints take."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from iquitos_rl.agents import AGENTS
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.checkpoints.checkpoint import Checkpoints
from iquitos_rl.config import load_settings
from iquitos_rl.envs.district.env import DistrictSite

SAVES = 10


def saving_cost(case: Path, steps: int) -> dict[str, float]:
    """SAC as shipped on iquitos-38, with one checkpoint of its own at each tenth of the training.

    The share is that of the training thread: from asking for a checkpoint to going on. What the second thread takes
    from the same cores shows in the speed with saving over that without, three times in turns.
    """
    settings = load_settings(["sac"]).agents["sac"]
    site = read_site(case)

    def train(folder: Path | None) -> tuple[float, Checkpoints | None]:
        env = DistrictSite([site], settings.run.num_envs, settings.run.task, starts="random")
        agent = AGENTS["sac"].agent(env, settings.agent, seed=0)
        checkpoints = None if folder is None else Checkpoints(folder, 0.0)

        def save(step: int) -> None:
            if checkpoints is not None and step // (steps // SAVES) > (step - env.num_envs) // (steps // SAVES):
                checkpoints.save({"agent": agent.state_dict(), "env": env.state_dict()}, step, {})

        begun = time.perf_counter()
        agent.learn(steps, on_step=save)
        if checkpoints is not None:
            checkpoints.finish()
        return time.perf_counter() - begun, checkpoints

    ratios, each, shares = [], [], []
    for _ in range(3):
        plain, _none = train(None)
        with TemporaryDirectory() as folder:
            seconds, checkpoints = train(Path(folder))
        assert checkpoints is not None
        ratios.append(plain / seconds)
        each.append(checkpoints.seconds / checkpoints.saves)
        shares.append(checkpoints.seconds / seconds)
    minutes = settings.run.checkpoint_minutes
    return {
        "steps of SAC": steps,
        "checkpoints in them": SAVES,
        "seconds of a checkpoint, training thread": statistics.median(each),
        "share of the training thread's time": statistics.median(shares),
        "speed with checkpoints over speed without": statistics.median(ratios),
        f"share at one in {minutes:g} minutes, as shipped": statistics.median(each) / 60 / minutes,
    }
