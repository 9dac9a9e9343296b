"""The parts of `simulation_summary.json` that the report needs; other keys are ignored."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Numbers = dict[str, Number]


class Audit(BaseModel):
    """Results of checks: a number each, and warnings."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]
    warnings: list[str] = []


class Run(BaseModel):
    """Summary of any run."""

    controllers: dict[str, Numbers]
    settings: dict[str, dict[str, Any]] = {}
    timing: dict[str, Numbers] = {}
    failed: dict[str, str] = {}
    left_out: dict[str, str] = {}
    audit: Audit = Audit()
    memory: Numbers = {}
    wall_s: Number = 0.0
    machine: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    standings: dict[str, Any] = {}


class Interval(BaseModel):
    value: Number
    low_whole: Number
    high_whole: Number


class Standing(BaseModel):
    seeds: int
    bill: Interval
    co2_kg: Interval
    gap_closed: Interval | None
    below_strongest: Interval | None
    better: int | None
    served_of_feasible: Number | None


class Record(BaseModel):
    controller: str
    seed: int | None
    year: str
    figures: Numbers


class Compared(Run):
    """Summary of a comparison."""

    standings: dict[str, Standing]
    records: list[Record]
    years: Annotated[list[str], Field(min_length=1)]
    seeds: int
    hours_of_seed: dict[str, int]
    evaluated_on: str
    simulator: str
