"""Settings of the task that a site is: what is paid for, and what an action moves."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Sockets = Literal["each", "fleet"]
"""Whether an agent sees and moves every socket, or each building's sockets as one fleet."""


class ObjectiveSettings(BaseModel):
    """How the four terms are priced and weighed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: Literal["bill", "co2", "balanced"] = Field("bill", description="weights of the terms in the reward")
    carbon_price: float = Field(0.10, ge=0, description="currency per kg of CO2 from the grid")
    shortfall_price: float = Field(5.0, ge=0, description="currency per kWh missing when a vehicle leaves")


class TaskSettings(BaseModel):
    """What the agent is asked to do with a site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: ObjectiveSettings = ObjectiveSettings()
    ev_guard: bool = Field(True, description="let actions choose when to charge, never whether a departure is met")
    sockets: Sockets = Field(
        "fleet", description="see and move each building's sockets together, or each socket by itself"
    )
