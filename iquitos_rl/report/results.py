"""Reads the files of a finished run for the report: summary, time series and training metrics."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iquitos_rl.envs.task.settings import ObjectiveSettings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import kept
from iquitos_rl.machine.inputs import InputError, first_problem, read_bytes, read_json
from iquitos_rl.report.metrics import read_metrics

SUMMARY = "simulation_summary.json"
REFERENCES = ("grid_only", "uncontrolled", "optimum")
"""Controllers that are neither agent nor rule."""
ENERGIES = ("load_kwh", "pv_kwh", "bess_kwh", "ev_kwh", "other_kwh", "net_kwh", "import_kwh", "export_kwh")
HOURLY = ("month", "hour", *ENERGIES, "price", "co2_kg")
TRACED = ("demand_cost", "missing_kwh", "departures", "served")
INDOORS = ("temperature", "cooling_set_point", "heating_set_point", "cools", "heats", "occupied", "outage")
SOCKETS = ("departures", "served", "missing_kwh", "energy_kwh")
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Numbers = dict[str, Number]
Count = Annotated[int, Field(ge=0, le=10**9)]


class Audit(BaseModel):
    """Results of checks: a number each, and warnings."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]
    warnings: list[str] = []


class Run(BaseModel):
    """What the report needs of any run's summary; other keys are ignored."""

    controllers: dict[str, Numbers]
    settings: dict[str, dict[str, Any]] = {}
    timing: dict[str, Numbers] = {}
    failed: dict[str, str] = {}
    left_out: dict[str, str] = {}
    audit: Audit = Audit()
    memory: Numbers = {}
    wall_s: Number = 0.0
    phases: Numbers = {}
    machine: dict[str, Any] = {}
    versions: dict[str, Any] = {}
    standings: dict[str, Any] = {}


class Interval(BaseModel):
    value: Number
    low: Number
    high: Number


class Standing(BaseModel):
    seeds: Count
    bill: Interval
    co2_kg: Interval
    gap_closed: Interval | None
    below_strongest: Interval | None
    better: Count | None
    served_of_feasible: Number | None


class Record(BaseModel):
    controller: str
    seed: Count | None
    year: str
    figures: Numbers


class Compared(Run):
    """What it needs of a comparison's."""

    standings: dict[str, Standing]
    records: list[Record]
    years: Annotated[list[str], Field(min_length=1)]
    seeds: Count
    hours_of_seed: dict[str, Count]
    evaluated_on: str
    simulator: str


@dataclass(frozen=True)
class Results:
    """The content of a run's files. If a file is missing, its controller is missing in the dictionary."""

    folder: Path
    summary: dict[str, Any]
    agents: tuple[str, ...]
    """Trained controllers with results, lowest bill first."""
    hours: dict[str, pd.DataFrame]
    """Controller to its `timeseries_*.csv`, plus `demand_cost`, `missing_kwh`, `departures` and `served` if it has a
    trace. Uncontrolled comes first, then the agents, then the other controllers whose hours are kept."""
    metrics: dict[str, list[pd.DataFrame]]
    """Agent to its `metrics.csv`; in a comparison one for each training."""
    sockets: dict[str, pd.DataFrame]
    """Controller to its `sockets_*.csv`."""
    indoors: dict[str, pd.DataFrame]
    """Controller to its `indoors_*.csv`, where temperatures are simulated."""

    @property
    def controllers(self) -> dict[str, dict[str, float]]:
        return dict(self.summary["controllers"])

    @property
    def currency(self) -> str:
        return str(self.summary.get("currency", "currency"))

    @property
    def controlled(self) -> dict[str, pd.DataFrame]:
        """Time series of the uncontrolled site and the agents."""
        return {name: hours for name, hours in self.hours.items() if name == "uncontrolled" or name not in kept()}

    @property
    def traced(self) -> bool:
        """Whether every controller that a simulator ran has a trace, where it has hours."""
        return all("missing_kwh" in hours for name, hours in self.hours.items() if name != "optimum")

    @property
    def comfort_band(self) -> float:
        """Degrees on either side of the set-points that the agents' objective calls comfortable."""
        settings: dict[str, Any] = next(iter(self.summary.get("settings", {}).values()), {})
        try:
            return float(settings["task"]["objective"]["comfort_band"])
        except (KeyError, TypeError, ValueError):
            return ObjectiveSettings().comfort_band

    @property
    def vehicles(self) -> bool:
        """Whether the site has any."""
        figures = any(found.get("departures") or found.get("ev_kwh") for found in self.controllers.values())
        return figures or any(hours.ev_kwh.any() for hours in self.hours.values())

    @property
    def thermal(self) -> bool:
        """Whether the site has devices that cool, heat, or make hot water."""
        return any(found.get("thermal_kwh") for found in self.controllers.values())

    @property
    def standings(self) -> dict[str, dict[str, Any]]:
        """In a comparison, each controller's means over seeds and years with intervals; else empty."""
        return dict(self.summary.get("standings", {}))

    @property
    def rules(self) -> list[str]:
        return [name for name in self.controllers if name not in (*REFERENCES, *self.agents)]


def read_results(folder: Path) -> Results:
    """Read a run's folder.

    Raises:
        UserError: the run is not finished, or one of its files is damaged.
    """
    summary = read_summary(folder / SUMMARY)
    controllers, trained = summary["controllers"], summary.get("settings") or summary.get("timing") or {}
    agents = [name for name in controllers if name in trained and name not in REFERENCES]
    agents.sort(key=lambda name: controllers[name].get("bill", math.inf))
    hours, sockets, indoors = {}, {}, {}
    first, *others = kept()
    for name in (first, *agents, *others):
        path, traced, served = (find(folder, name, f"{kind}_{name}.csv") for kind in ("timeseries", "trace", "sockets"))
        if path is None:
            continue
        hours[name] = read_columns(path, HOURLY, ("battery_soc", "curtailed_kwh", "cost"))
        if traced is not None:
            booked = read_columns(traced, TRACED)
            if len(booked) != len(hours[name]):
                raise UserError(f"{traced}: {len(booked)} rows where {path.name} has {len(hours[name])}")
            hours[name] = pd.concat([hours[name], booked], axis=1)
        if served is not None:
            sockets[name] = read_columns(served, SOCKETS)
        if (climate := find(folder, name, f"indoors_{name}.csv")) is not None:
            indoors[name] = read_indoors(climate, len(hours[name]))
    metrics = {}
    for name in agents:
        alone = find(folder, name, "metrics.csv", shared=len(trained) > 1)
        files = [alone] if alone is not None else sorted(folder.glob(f"{name}-seed-*/metrics.csv"))
        found = [pd.DataFrame(rows) for path in files if (rows := read_metrics(path))]
        if found:
            metrics[name] = found
    return Results(folder, summary, tuple(agents), hours, metrics, sockets, indoors)


def read_indoors(path: Path, rows: int) -> pd.DataFrame:
    """The temperatures of a controller's hours; every building has the columns that figures need."""
    head = read_columns(path, ("step",), others=True)
    named = [str(column).rpartition("/")[0] for column in head if str(column).endswith("/temperature")]
    needed = [f"{building}/{column}" for building in named for column in INDOORS]
    if missing := sorted(set(needed) - set(head)):
        raise UserError(f"{path}: lacks column {missing[0]}")
    if not named or len(head) != rows:
        raise UserError(f"{path}: " + (f"{len(head)} rows instead of {rows}" if named else "has no temperature"))
    return head


def read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = read_json(path)
    except InputError as error:
        raise UserError(f"{error}{': a finished run has one' if error.missing else ''}") from None
    shape = Compared if isinstance(summary, dict) and summary.get("standings") else Run
    try:
        shape.model_validate(summary)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}, so it is not the summary of a run") from None
    return dict(summary)


def find(folder: Path, agent: str, name: str, shared: bool = False) -> Path | None:
    """A controller's file, in its subfolder or, unless `shared` (it could be another agent's there), in `folder`."""
    if Path(agent).name != agent:
        raise UserError(f"{folder / SUMMARY}: {agent!r} cannot be the name of a controller")
    places = [folder / agent / name] if shared else [folder / agent / name, folder / name]
    return next((path for path in places if path.is_file()), None)


def read_columns(path: Path, needed: Iterable[str], wanted: Iterable[str] = (), others: bool = False) -> pd.DataFrame:
    """The `needed` columns of a CSV file, and those `wanted` columns that it has, or all `others` too."""
    chosen = {*needed, *wanted}
    try:
        frame = pd.read_csv(io.BytesIO(read_bytes(path)), usecols=lambda column: others or column in chosen)
    except ValueError as error:  # pandas raises subclasses of ValueError
        raise UserError(f"{path} cannot be read: {error}") from None
    missing = sorted(set(needed) - set(frame))
    if missing or frame.empty:
        raise UserError(f"{path}: " + (f"lacks column {missing[0]}" if missing else "has no rows"))
    for column in frame:
        if not np.issubdtype(frame[column].to_numpy().dtype, np.number) or not np.isfinite(frame[column]).all():
            raise UserError(f"{path}: column {column} holds something that is not a number")
    return frame
