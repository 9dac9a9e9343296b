"""A year as CSV: `timeseries_<agent>.csv`, `trace_<agent>.csv` and `indoors_<agent>.csv` by the hour,
`sockets_<agent>.csv` by the socket."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from iquitos_rl.baselines.horizon import Plan
from iquitos_rl.cases.site import Site
from iquitos_rl.cases.thermal import END_USES
from iquitos_rl.envs.citylearn.env import CityLearnSite, Flows
from iquitos_rl.envs.task.appliances import action_names as appliance_names
from iquitos_rl.envs.task.observation import socket_names
from iquitos_rl.envs.task.site_task import SERVED_TOLERANCE
from iquitos_rl.envs.task.sockets import socket_tables
from iquitos_rl.envs.task.thermal import TINY
from iquitos_rl.envs.task.thermal import action_names as thermal_names
from iquitos_rl.judging.simulate import Year, curtailed, outages
from iquitos_rl.judging.summary import bill_terms, import_co2, planned_flows
from iquitos_rl.judging.table import plain_cell
from iquitos_rl.machine.files import write_text


def energies(site: Site, flows: Flows) -> pd.DataFrame:
    """One row an hour: the site's data and its energies in kWh; `battery_soc` is capacity-weighted over batteries."""
    rows, net = len(flows.net), flows.net
    columns: dict[str, object] = {
        "step": np.arange(rows),
        "month": site.month[:rows],
        "day_type": site.day_type[:rows],
        "hour": site.hour[:rows],
        "load_kwh": flows.load.sum(-1),
        "pv_kwh": flows.pv.sum(-1),
        "bess_kwh": flows.battery.sum(-1),
        "ev_kwh": flows.sockets.sum(-1),
        "other_kwh": (flows.other + flows.appliances).sum(-1),
        "net_kwh": net.sum(-1),
        "import_kwh": net.clip(min=0).sum(-1),
        "export_kwh": (-net).clip(min=0).sum(-1),
    }
    capacity = np.array([b.battery.capacity if b.battery is not None else 0.0 for b in site.buildings])
    if capacity.sum() > 0:
        columns["battery_soc"] = flows.battery_soc @ capacity / capacity.sum()
    if outages(site, rows).any():
        columns["curtailed_kwh"] = curtailed(site, flows).sum(-1)
    columns["price"] = site.buildings[0].price[:rows]
    columns["carbon_intensity"] = site.buildings[0].carbon[:rows]
    return pd.DataFrame(columns)


def timeseries(year: Year) -> pd.DataFrame:
    """The hours of a simulated year, with what they cost."""
    cost = sum(year.info[term] for term in bill_terms(year.info))
    return energies(year.site, year.flows).assign(cost=cost, co2_kg=year.info["carbon_kg"])


def planned_timeseries(site: Site, plan: Plan) -> pd.DataFrame:
    """The hours of a plan that no simulator ran."""
    return energies(site, planned_flows(site, plan)).assign(co2_kg=import_co2(site, plan.net).sum(-1))


def trace(year: Year, env: CityLearnSite) -> pd.DataFrame:
    """One row an hour: every action as the controller gave it, the terms of the objective, and the reward."""
    names = [f"{b.name}/battery" for b in year.site.buildings if b.battery is not None and b.battery_action]
    names += [*thermal_names(year.site), *appliance_names(year.site)]
    known = env.task.num_thermal_actions + env.task.num_appliance_actions
    names += [f"other_{i}" for i in range(env.task.num_other_actions - known)]
    names += env.task.socket_names
    actions = {f"action/{name}": year.actions[:, i] for i, name in enumerate(names)}
    return pd.DataFrame({"step": np.arange(year.hours), **actions, **year.info, "reward": year.reward})


def socket_service(year: Year) -> pd.DataFrame:
    """One row a socket: departures, how many left within 5 points of the wanted SOC, what they lacked and took, kWh."""
    site, rows = year.site, year.hours
    tables = socket_tables(site)
    departs = tables.steps_left[:rows] == 1
    short = (tables.required_soc[:rows] - year.flows.socket_soc).clip(min=0) * departs
    return pd.DataFrame(
        {
            "socket": socket_names(site),
            "departures": departs.sum(0),
            "served": (departs & (short <= SERVED_TOLERANCE)).sum(0),
            "missing_kwh": (short * tables.capacity[:rows]).sum(0),
            "energy_kwh": year.flows.sockets.sum(0),
        }
    )


def indoors(year: Year) -> pd.DataFrame:
    """One row an hour: of every building whose temperature is simulated, C inside and at the set-points, whether it may
    be cooled and heated, whether somebody is in and whether the grid is out, and the SOC of its tanks."""
    inside, site, rows = year.inside, year.site, year.hours
    temperature = year.flows.temperature
    assert inside is not None
    assert temperature is not None
    columns: dict[str, object] = {"step": np.arange(rows)}
    for b, building in enumerate(site.buildings):
        if building.dynamics is None:
            continue
        assert building.occupants is not None
        assert building.hvac_mode is not None
        found = {"temperature": temperature[:, b]}
        found |= {f"{use}_set_point": inside.set_points[:, b, i] for i, use in enumerate(END_USES[:2])}
        for name, modes in (("cools", (1, 3)), ("heats", (2, 3))):
            found[name] = 1.0 * np.isin(building.hvac_mode[:rows], modes)
        found |= {"occupied": 1.0 * (building.occupants[:rows] > 0), "outage": 1.0 * outages(site, rows)[:, b]}
        for u, use in enumerate(END_USES):
            if building.end_uses[u].tank.capacity > TINY:
                found[f"{use}_soc"] = inside.tank_soc[:, b, u]
        columns |= {f"{building.name}/{name}": values for name, values in found.items()}
    return pd.DataFrame(columns)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as UTF-8 CSV, whole or not at all; texts in it are no formulas to a spreadsheet."""
    texts = {str(name): frame[name].map(plain_cell) for name in frame if frame[name].dtype.kind not in "biuf"}
    frame = frame.assign(**texts).rename(columns=plain_cell)
    write_text(path, frame.to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def write_hours(output: Path, name: str, year: Year, env: CityLearnSite) -> None:
    """Write a simulated year's hours, actions and sockets as CSV."""
    suffix = f"_{name}" if name else ""
    write_csv(output / f"timeseries{suffix}.csv", timeseries(year))
    write_csv(output / f"trace{suffix}.csv", trace(year, env))
    if year.site.sockets:
        write_csv(output / f"sockets{suffix}.csv", socket_service(year))
    if year.inside is not None:
        write_csv(output / f"indoors{suffix}.csv", indoors(year))
