"""SAC, PPO and A2C controllers for CityLearn energy sites, on the GPU you have, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iquitos_rl.version import __version__

__all__ = ["A2C", "PPO", "SAC", "__version__", "evaluate_policy"]

if TYPE_CHECKING:
    from iquitos_rl.agents import A2C, PPO, SAC, evaluate_policy


def __getattr__(name: str) -> Any:
    # Importing torch takes seconds; `python -m iquitos_rl.case` and every --help do without it.
    if name in __all__:
        from iquitos_rl import agents

        return getattr(agents, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
