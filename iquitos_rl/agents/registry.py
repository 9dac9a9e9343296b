"""The agents, by the names that commands and files use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from pydantic import BaseModel

from iquitos_rl.agents.search import Search
from iquitos_rl.registry import Registry

if TYPE_CHECKING:
    from iquitos_rl.agents.agent import Agent


class AgentEntry(NamedTuple):
    """One agent, and what commands, planner and report need to know of it."""

    place: type[Agent] | str
    """The agent, or `module:name` of one that is imported when it is first needed."""
    config: type[BaseModel]
    """Its settings."""
    label: str
    """Its name in tables and figures."""
    colour: str
    """Its colour in figures, #RRGGBB."""
    differentiates: bool = False
    """It goes through the simulation by autograd, so it learns on the district engine alone."""
    named_only: bool = False
    """It is trained where it is named, and is no part of `all` or of a comparison that names none."""
    search: Search = {}
    """What `tune` tries for its settings."""

    @property
    def agent(self) -> type[Agent]:
        """The agent itself; importing one of the package's own takes the seconds that torch takes."""
        if not isinstance(self.place, str):
            return self.place
        module, _, name = self.place.partition(":")
        found: type[Agent] = getattr(import_module(module), name)
        return found


AGENTS: Registry[AgentEntry] = Registry(
    "agent",
    {
        "sac": "iquitos_rl.agents.configs:SAC",
        "ppo": "iquitos_rl.agents.configs:PPO",
        "a2c": "iquitos_rl.agents.configs:A2C",
        "shac": "iquitos_rl.agents.configs:SHAC",
        "recurrent_ppo": "iquitos_rl.agents.configs:RECURRENT_PPO",
    },
)
