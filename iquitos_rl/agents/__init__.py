"""The three algorithms, by the names that the command line and the files use."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel

from iquitos_rl.agents.a2c import A2C, A2CConfig
from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.agents.sac import SAC, SACConfig

__all__ = ["A2C", "AGENTS", "PPO", "SAC", "A2CConfig", "PPOConfig", "SACConfig"]


class Entry(NamedTuple):
    agent: Any
    """The class; its constructor takes (env, config, device, seed)."""
    config: type[BaseModel]


AGENTS = {"sac": Entry(SAC, SACConfig), "ppo": Entry(PPO, PPOConfig), "a2c": Entry(A2C, A2CConfig)}
