"""The series that KPIs are computed from: of a period that CityLearn simulated, or that the district engine did.

What a building would have used without control is CityLearn's formula, in its single precision, which decides the
eighth digit of a KPI (`building.py`, net_electricity_consumption_without_storage_and_partial_load).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.site import Building, Floats, Site
from iquitos_rl.cases.thermal import END_USES, MOST_COP, ThermalDevice
from iquitos_rl.cases.thermal import cop as cop_of
from iquitos_rl.envs.district.physics import Flows
from iquitos_rl.judging.kpis import Comfort, Series

Singles = NDArray[np.float32]


class Indoors(NamedTuple):
    """What a simulated period's flows do not say of its thermal side."""

    set_points: Floats
    """(K, B, 2) C for cooling and heating, as occupants left them."""
    tank_soc: Floats
    """(K, B, U) after each step; 0 where there is no tank."""


class Booked(NamedTuple):
    """What a controller did from the first row on, (..., K, B), kWh per step; U = 3 end uses."""

    net: Floats
    battery: Floats
    vehicles: Floats
    thermal: Thermal | None = None
    """None where nothing thermal is simulated."""


class Thermal(NamedTuple):
    """The thermal side of it, (..., K, B, U) or (..., K, B)."""

    demand: Floats
    """(..., U) that was asked for."""
    delivered: Floats
    """(..., U) by the devices."""
    tank: Floats
    """(..., U) into the tanks, negative out of them."""
    load: Floats
    """Electric load that was served."""
    temperature: Floats
    """C inside."""
    set_points: Floats | None = None
    """(..., 2) C for cooling and heating, as occupants left them; None where they are the data's."""


def simulated_series(simulator: Any) -> Series:
    """The series (K, B) of the episode that a `CityLearnEnv` has just finished, all from its own records.

    Raises:
        TypeError: CityLearn's own `evaluate` fails on this site: an electric heater next to a heat pump for hot water.
    """
    from citylearn.building import DynamicsBuilding

    def each(read: Callable[[Any], Any]) -> Floats:
        return np.stack([np.asarray(read(b), dtype=np.float64) for b in simulator.buildings], axis=-1)

    def summed(names: list[str]) -> Floats:
        return np.sum([each(lambda b, name=name: getattr(b, name)) for name in names], axis=0)  # type: ignore[misc]

    def without_control(b: Any) -> Singles:
        partial = "_and_partial_load" if isinstance(b, DynamicsBuilding) else ""
        return np.asarray(getattr(b, f"net_electricity_consumption_without_storage{partial}"))

    rows = simulator.buildings[0].time_step + 1
    baseline = np.stack([without_control(b) for b in simulator.buildings], axis=-1)
    price = each(lambda b: b.pricing.electricity_pricing[:rows])
    carbon = each(lambda b: b.carbon_intensity.carbon_intensity[:rows])
    comfort = Comfort(
        temperature=each(lambda b: b.indoor_dry_bulb_temperature),
        cooling_set_point=each(lambda b: b.indoor_dry_bulb_temperature_cooling_set_point),
        heating_set_point=each(lambda b: b.indoor_dry_bulb_temperature_heating_set_point),
        occupants=each(lambda b: b.occupant_count),
        outage=each(lambda b: b.power_outage_signal),
        expected=summed([*(f"{use}_demand" for use in END_USES), "non_shiftable_load"]),
        served=summed(
            [f"energy_from_{use}_{source}" for use in END_USES for source in ("device", "storage")]
            + ["energy_to_non_shiftable_load"]
        ),
    )
    return make_series(
        each(lambda b: b.net_electricity_consumption),
        baseline,
        price,
        carbon,
        simulator.seconds_per_time_step / 3600,
        comfort,
    )


def indoors(simulator: Any, rows: int) -> Indoors:
    """Of the first rows of the episode that a `CityLearnEnv` has just finished."""

    def each(read: Callable[[Any], Any]) -> Floats:
        return np.stack([np.asarray(read(b), dtype=np.float64)[:rows] for b in simulator.buildings], axis=1)

    points = [
        each(lambda b, use=use: getattr(b.energy_simulation, f"indoor_dry_bulb_temperature_{use}_set_point"))  # type: ignore[misc]
        for use in END_USES[:2]
    ]
    tanks = [each(lambda b, use=use: getattr(b, f"{use}_storage").soc) for use in END_USES]  # type: ignore[misc]
    return Indoors(np.stack(points, axis=-1), np.stack(tanks, axis=-1))


def site_series(site: Site, booked: Booked) -> Series:
    """The series (..., K, B) of what any engine booked on a site."""
    rows, heat = booked.net.shape[-2], booked.thermal
    price, carbon, asked = (
        np.stack([getattr(b, name)[:rows] for b in site.buildings], axis=-1) for name in ("price", "carbon", "load")
    )
    baseline = without_control(site, booked)
    comfort = None
    if heat is not None:
        points = heat.set_points
        if points is None:
            points = np.stack([_known(b.set_points)[:rows] for b in site.buildings], axis=1)
        comfort = Comfort(
            temperature=heat.temperature,
            cooling_set_point=points[..., 0],
            heating_set_point=points[..., 1],
            occupants=np.stack([_known(b.occupants)[:rows] for b in site.buildings], axis=-1),
            outage=np.stack([_outage(b)[:rows] for b in site.buildings], axis=-1),
            expected=heat.demand.sum(-1) + asked,
            served=heat.delivered.sum(-1) + (-heat.tank).clip(min=0).sum(-1) + heat.load,
        )
    return make_series(booked.net, baseline, price, carbon, site.hours_per_step, comfort)


def make_series(
    net: Floats, baseline: Singles, price: Floats, carbon: Floats, hours_per_step: float, comfort: Comfort | None
) -> Series:
    """Costs and emissions of net consumption with control and without, (..., K, B), in CityLearn's precision."""
    p, c = price.astype(np.float32), carbon.astype(np.float32)

    def billed(kwh: Singles) -> tuple[Floats, Floats]:
        return (p * kwh.clip(min=0)).astype(np.float64), (c * kwh).clip(min=0).astype(np.float64)

    cost, emission = billed(net.astype(np.float32))
    baseline_cost, baseline_emission = billed(baseline)
    return Series(
        net=net,
        cost=cost,
        emission=emission,
        baseline_net=baseline.astype(np.float64),
        baseline_cost=baseline_cost,
        baseline_emission=baseline_emission,
        price=price,
        hours_per_step=hours_per_step,
        comfort=comfort,
    )


def without_control(site: Site, booked: Booked) -> Singles:
    """(..., K, B) net consumption if no storage moved, no vehicle charged, and the data set cooling and heating."""
    columns = []
    for b, building in enumerate(site.buildings):
        net, battery, vehicles = (x[..., b].astype(np.float32) for x in booked[:3])
        heat = booked.thermal
        if heat is None:
            columns.append(net - (battery + vehicles))
            continue
        tanks = [_electricity(building, u, heat.tank[..., b, u].astype(np.float32)) for u in range(len(END_USES))]
        net = net - (tanks[0] + tanks[1] + tanks[2] + battery + vehicles)
        if building.dynamics is not None:
            net = net + _difference(building, heat.demand[..., b, :].astype(np.float32))
        columns.append(net)
    return np.stack(columns, axis=-1)


def _electricity(building: Building, use: int, kwh: Singles) -> Singles:
    """(..., K) kWh electric that the device of an end use needs for so many kWh thermal."""
    device = building.end_uses[use].device
    return kwh / _cop(device, _outdoor(building)[: kwh.shape[-1]], use != 0)


def _difference(building: Building, demand: Singles) -> Singles:
    """(..., K) kWh electric by which the demands (..., K, U) of the data exceed those of a controller.

    For a heat pump's heating CityLearn takes the COP of the last row in all rows, and for an electric heater the
    efficiency of the heater for hot water (`building.py`,
    net_electricity_consumption_without_storage_and_partial_load).
    """
    rows = demand.shape[-2]
    cooling, heating = (building.end_uses[u].demand[:rows].astype(np.float32) - demand[..., u] for u in range(2))
    device = building.end_uses[1].device
    if device.target_temperature is None:
        divisor = building.end_uses[2].device.efficiency
    else:
        divisor = float(cop_of(device, _outdoor(building)[rows - 1 : rows].astype(np.float64), heating=True)[0])
    return _electricity(building, 0, cooling) + heating / np.float32(divisor)


def _cop(device: ThermalDevice, outdoor: Singles, heating: bool) -> Singles | np.float32:
    """(K,) COPs in single precision; a heater's efficiency."""
    if device.target_temperature is None:
        return np.float32(device.efficiency)
    with np.errstate(divide="ignore"):
        difference = device.target_temperature - outdoor if heating else outdoor - device.target_temperature
        found = device.efficiency * (device.target_temperature + 273.15) / difference
    return np.where((found < 0) | (found > MOST_COP), np.float32(MOST_COP), found)


def _outdoor(building: Building) -> Singles:
    return building.weather["outdoor_dry_bulb_temperature"].astype(np.float32)


def _outage(building: Building) -> Floats:
    return np.zeros(len(building.load)) if building.outage is None else building.outage.astype(np.float64)


def _known(values: Floats | None) -> Floats:
    assert values is not None
    return values


def engine_series(site: Site, steps: Sequence[Flows]) -> Series:
    """The series (E, K, B) of K steps of E environments of the district engine, from the site's first row on."""
    flows = [[x.double().cpu().numpy() for x in kind] for kind in zip(*(step[:2] for step in steps))]
    net, battery = (np.stack(kind, axis=1) for kind in flows)
    sockets = np.stack([step.socket_kwh.double().cpu().numpy() for step in steps], axis=1)
    vehicles = np.zeros_like(net)
    for n, (b, _) in enumerate(site.sockets):
        vehicles[..., b] += sockets[..., n]
    thermal = None
    if steps[0].thermal is not None:
        names = ["demand", "delivered", "tank_kwh", "load", "temperature"]
        names += [] if steps[0].thermal.set_points is None else ["set_points"]
        kinds = ([getattr(step.thermal, name).double().cpu().numpy() for step in steps] for name in names)
        thermal = Thermal(*(np.stack(kind, axis=1) for kind in kinds))
    return site_series(site, Booked(net, battery, vehicles, thermal))
