"""Settings of the task: the objective, and what an agent observes and controls."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Sockets = Literal["each", "fleet"]
"""Whether an agent observes and controls every socket, or each building's sockets together as a fleet."""

Forecasts = Literal["weather", "none", "site", "perfect"]
"""What agents see of the hours to come: the weather forecasts of the case's files; nothing; the site's forecasts of
load and PV (`cases/forecasts.py`); or what load and PV will be. Published prices are seen in any case."""

Present = Literal["known", "last"]
"""What is seen of the hour that an action is for: its load, PV and weather, as CityLearn has it, or the last hour's."""

Preset = Literal["bill", "co2", "balanced", "comfort", "challenge-2021", "challenge-2022", "challenge-2023"]


class ObjectiveSettings(BaseModel):
    """Prices and weights of the four terms."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: Preset = Field("bill", description="what the reward adds up to: a weighted bill, or a challenge's score")
    carbon_price: float = Field(0.10, ge=0, le=1e6, description="currency per kg of CO2 from the grid")
    shortfall_price: float = Field(5.0, ge=0, le=1e6, description="currency per kWh missing when a vehicle leaves")
    comfort_price: float = Field(
        0.2, ge=0, le=1e6, description="currency per degree-hour outside the comfort band of an occupied building"
    )
    comfort_band: float = Field(
        1.0, ge=0, le=1e6, description="degrees on either side of the set-point that are comfortable"
    )
    unserved_price: float = Field(
        5.0,
        ge=0,
        le=1e6,
        description="currency per kWh not served: in a power outage, or of an appliance that did not run",
    )


class TaskSettings(BaseModel):
    """Objective, action space and observation of the task."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    objective: ObjectiveSettings = ObjectiveSettings()
    ev_guard: bool = Field(
        True, description="whatever the actions, vehicles reach their wanted SOC in time, and appliances run"
    )
    sockets: Sockets = Field(
        "fleet", description="observe and control each building's sockets together (fleet) or one by one (each)"
    )
    forecasts: Forecasts = Field(
        "weather", description="what agents see of the hours to come: weather, none, load and PV (site), or the truth"
    )
    present: Present = Field(
        "known", description="load, PV and weather that are seen before an action: of its hour, or of the last one"
    )
