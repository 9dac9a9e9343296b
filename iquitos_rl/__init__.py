"""SAC, PPO, A2C and SHAC controllers for CityLearn energy sites, on the GPU you have, or none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from iquitos_rl.version import __version__

__all__ = ["A2C", "PPO", "SAC", "SHAC", "RecurrentPPO", "__version__", "evaluate_policy"]

if TYPE_CHECKING:
    from iquitos_rl.agents import A2C, PPO, SAC, SHAC, RecurrentPPO, evaluate_policy


if sys.argv[:1] == ["-m"]:  # `python -m iquitos_rl.train`, from here to where its command takes over
    from iquitos_rl.machine import unexpected

    unexpected.install()


# Gymnasium finds an installed package by its entry point; one on the path registers here, or with the first agent.
if "gymnasium" in sys.modules:
    from iquitos_rl.envs import gym as _gym  # noqa: F401


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; `python -m iquitos_rl.case` and every --help do without it.
    if name in __all__:
        from iquitos_rl import agents

        return getattr(agents, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
