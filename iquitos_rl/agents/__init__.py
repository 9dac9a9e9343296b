"""SAC, PPO and A2C."""

from __future__ import annotations

from iquitos_rl.agents.a2c import A2C, A2CConfig
from iquitos_rl.agents.agent import Agent, load_agent
from iquitos_rl.agents.ppo import PPO, PPOConfig
from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.agents.sac import SAC, SACConfig

__all__ = ["A2C", "AGENTS", "PPO", "SAC", "A2CConfig", "Agent", "PPOConfig", "SACConfig", "load_agent"]
