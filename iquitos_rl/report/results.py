"""What a finished run left in its folder, read back for the report: the summary, the hours and the training figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import kept
from iquitos_rl.report.metrics import read_metrics
from iquitos_rl.report.summary_shape import Compared, Run

SUMMARY = "simulation_summary.json"
REFERENCES = ("grid_only", "uncontrolled", "optimum")
"""Controllers that are neither agent nor rule."""
ENERGIES = ("load_kwh", "pv_kwh", "bess_kwh", "ev_kwh", "other_kwh", "net_kwh", "import_kwh", "export_kwh")
HOURLY = ("month", "hour", *ENERGIES, "price", "co2_kg")
TRACED = ("demand_cost", "missing_kwh", "departures", "served")
SOCKETS = ("departures", "served", "missing_kwh", "energy_kwh")


@dataclass(frozen=True)
class Results:
    """Everything the report is made of; a file that is not there leaves its controller out of the dictionary."""

    folder: Path
    summary: dict[str, Any]
    agents: tuple[str, ...]
    """Trained controllers that have figures, best bill first."""
    hours: dict[str, pd.DataFrame]
    """Controller to its `timeseries_*.csv`, with `demand_cost`, `missing_kwh`, `departures` and `served` of its trace
    where that is there; uncontrolled first, then the agents and whatever else has its hours kept."""
    metrics: dict[str, list[pd.DataFrame]]
    """Agent to its `metrics.csv`, one for each training in a comparison."""
    sockets: dict[str, pd.DataFrame]
    """Controller to its `sockets_*.csv`."""

    @property
    def controllers(self) -> dict[str, dict[str, float]]:
        return dict(self.summary["controllers"])

    @property
    def controlled(self) -> dict[str, pd.DataFrame]:
        """Hours of the uncontrolled site and the agents."""
        return {name: hours for name, hours in self.hours.items() if name == "uncontrolled" or name not in kept()}

    @property
    def standings(self) -> dict[str, dict[str, Any]]:
        """Of a comparison: each controller's means over seeds and years, with their intervals; else empty."""
        return dict(self.summary.get("standings", {}))

    @property
    def rules(self) -> list[str]:
        return [name for name in self.controllers if name not in (*REFERENCES, *self.agents)]


def read_results(folder: Path) -> Results:
    """Read a run's folder.

    Raises:
        UserError: it is not the folder of a finished run, or one of its files is damaged.
    """
    summary = read_summary(folder / SUMMARY)
    controllers, trained = summary["controllers"], summary.get("settings") or summary.get("timing") or {}
    agents = [name for name in controllers if name in trained and name not in REFERENCES]
    agents.sort(key=lambda name: controllers[name].get("bill", math.inf))
    hours = {}
    first, *others = kept()
    for name in (first, *agents, *others):
        path, traced = (find(folder, name, f"{kind}_{name}.csv") for kind in ("timeseries", "trace"))
        if path is not None:
            hours[name] = read_columns(path, HOURLY, ("battery_soc",))
        if path is not None and traced is not None:
            booked = read_columns(traced, TRACED)
            if len(booked) != len(hours[name]):
                raise UserError(f"{traced}: {len(booked)} rows where {path.name} has {len(hours[name])}")
            hours[name] = pd.concat([hours[name], booked], axis=1)
    sockets = {}
    for name in hours:
        path = find(folder, name, f"sockets_{name}.csv")
        if path is not None:
            sockets[name] = read_columns(path, SOCKETS)
    metrics = {}
    for name in agents:
        alone = find(folder, name, "metrics.csv", shared=len(trained) > 1)
        files = [alone] if alone is not None else sorted(folder.glob(f"{name}-seed-*/metrics.csv"))
        found = [pd.DataFrame(rows) for path in files if (rows := read_metrics(path))]
        if found:
            metrics[name] = found
    return Results(folder, summary, tuple(agents), hours, metrics, sockets)


def read_summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): a finished run has one") from None
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error})") from None
    shape = Compared if isinstance(summary, dict) and summary.get("standings") else Run
    try:
        shape.model_validate(summary)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {place}: {first['msg']}, so it is not the summary of a run") from None
    return dict(summary)


def find(folder: Path, agent: str, name: str, shared: bool = False) -> Path | None:
    """A file of an agent, which a run of several keeps in subfolders; `shared`: at the top it could be another's."""
    if Path(agent).name != agent:
        raise UserError(f"{folder / SUMMARY}: {agent!r} cannot be the name of a controller")
    places = [folder / agent / name] if shared else [folder / agent / name, folder / name]
    return next((path for path in places if path.is_file()), None)


def read_columns(path: Path, needed: Iterable[str], wanted: Iterable[str] = ()) -> pd.DataFrame:
    """The needed columns of a CSV, and the wanted ones that it has."""
    chosen = {*needed, *wanted}
    try:
        frame = pd.read_csv(path, usecols=lambda column: column in chosen)
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise UserError(f"{path} cannot be read: {error}") from None
    missing = sorted(set(needed) - set(frame))
    if missing or frame.empty:
        raise UserError(f"{path}: " + (f"lacks column {missing[0]}" if missing else "has no rows"))
    for column in frame:
        if not np.issubdtype(frame[column].to_numpy().dtype, np.number) or not np.isfinite(frame[column]).all():
            raise UserError(f"{path}: column {column} holds something that is not a number")
    return frame
