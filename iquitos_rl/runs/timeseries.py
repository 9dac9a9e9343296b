"""The hours of a simulated year as CSV: `timeseries_<agent>.csv` and `trace_<agent>.csv`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from iquitos_rl.envs.citylearn import CityLearnSite
from iquitos_rl.runs.files import write_text
from iquitos_rl.runs.simulate import Year


def timeseries(year: Year) -> pd.DataFrame:
    """One row an hour, energies of the whole site in kWh; `battery_soc` is capacity-weighted over batteries."""
    site, flows, rows = year.site, year.flows, year.hours
    net = flows.net
    columns: dict[str, object] = {
        "step": np.arange(rows),
        "month": site.month[:rows],
        "day_type": site.day_type[:rows],
        "hour": site.hour[:rows],
        "load_kwh": flows.load.sum(-1),
        "pv_kwh": flows.pv.sum(-1),
        "bess_kwh": flows.battery.sum(-1),
        "ev_kwh": flows.sockets.sum(-1),
        "other_kwh": flows.other.sum(-1),
        "net_kwh": net.sum(-1),
        "import_kwh": net.clip(min=0).sum(-1),
        "export_kwh": (-net).clip(min=0).sum(-1),
    }
    capacity = np.array([b.battery.capacity if b.battery is not None else 0.0 for b in site.buildings])
    if capacity.sum() > 0:
        columns["battery_soc"] = flows.battery_soc @ capacity / capacity.sum()
    columns["price"] = site.buildings[0].price[:rows]
    columns["carbon_intensity"] = site.buildings[0].carbon[:rows]
    columns["cost"] = sum(year.info[f"{term}_cost"] for term in ("energy", "demand", "carbon", "shortfall"))
    columns["co2_kg"] = year.info["carbon_kg"]
    return pd.DataFrame(columns)


def trace(year: Year, env: CityLearnSite) -> pd.DataFrame:
    """One row an hour: every action as the controller gave it, the terms of the objective, and the reward."""
    names = [f"{b.name}/battery" for b in year.site.buildings if b.battery is not None and b.battery_action]
    names += [f"other_{i}" for i in range(env.task.num_other_actions)]
    names += env.task.socket_names
    actions = {f"action/{name}": year.actions[:, i] for i, name in enumerate(names)}
    return pd.DataFrame({"step": np.arange(year.hours), **actions, **year.info, "reward": year.reward})


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as UTF-8 CSV, whole or not at all."""
    write_text(path, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))
