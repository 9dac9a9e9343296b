"""The agents, by the names that commands and files use."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from iquitos_rl.registry import Registry

if TYPE_CHECKING:
    from iquitos_rl.agents.agent import Agent


class AgentEntry(NamedTuple):
    """One agent, and what commands, planner and report need to know of it."""

    agent: type[Agent]
    config: type[BaseModel]
    """Its settings."""
    label: str
    """Its name in tables and figures."""
    colour: str
    """Its colour in figures, #RRGGBB."""
    differentiates: bool = False
    """It goes through the simulation by autograd, so it learns on the district engine alone."""


AGENTS: Registry[AgentEntry] = Registry(
    "agent",
    {
        "sac": "iquitos_rl.agents.sac:ENTRY",
        "ppo": "iquitos_rl.agents.ppo:ENTRY",
        "a2c": "iquitos_rl.agents.a2c:ENTRY",
        "shac": "iquitos_rl.agents.shac:ENTRY",
    },
)
