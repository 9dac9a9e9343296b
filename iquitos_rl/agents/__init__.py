"""SAC, PPO, recurrent PPO, A2C and SHAC."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iquitos_rl.agents.a2c import A2C
    from iquitos_rl.agents.agent import Agent, load_agent
    from iquitos_rl.agents.callbacks import Callback, Evaluate, SaveEvery, StopEarly, Video, Write
    from iquitos_rl.agents.configs import A2CConfig, PPOConfig, RecurrentPPOConfig, SACConfig, SHACConfig
    from iquitos_rl.agents.evaluating import Episodes, evaluate_policy, run_episodes
    from iquitos_rl.agents.ppo import PPO
    from iquitos_rl.agents.recurrent_ppo import RecurrentPPO
    from iquitos_rl.agents.registry import AGENTS
    from iquitos_rl.agents.sac import SAC
    from iquitos_rl.agents.shac import SHAC

__all__ = [
    "A2C",
    "AGENTS",
    "PPO",
    "SAC",
    "SHAC",
    "A2CConfig",
    "Agent",
    "Callback",
    "Episodes",
    "Evaluate",
    "PPOConfig",
    "RecurrentPPO",
    "RecurrentPPOConfig",
    "SACConfig",
    "SHACConfig",
    "SaveEvery",
    "StopEarly",
    "Video",
    "Write",
    "evaluate_policy",
    "load_agent",
    "run_episodes",
]
MODULES = {
    "AGENTS": "registry",
    "RecurrentPPO": "recurrent_ppo",
    "load_agent": "agent",
    **dict.fromkeys(("Callback", "Evaluate", "SaveEvery", "StopEarly", "Video", "Write"), "callbacks"),
    **dict.fromkeys(("Episodes", "evaluate_policy", "run_episodes"), "evaluating"),
}


def __getattr__(name: str) -> Any:
    # Only what is asked for is imported: the agents need torch, the registry of their names does not.
    if name in __all__:
        module = MODULES.get(name, "configs" if name.endswith("Config") else name.lower())
        return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
