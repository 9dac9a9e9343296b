"""The engine and the stock simulator on one schema folder, side by side: largest differences, memory and speed.

Both get the same actions in every step: random, extreme and sparse ones in turn. The simulator is CityLearn as it is
installed, without this package's shortcuts; the engine runs in exact and in fast mode. K steps, B buildings, N sockets,
A actions of CityLearn's central agent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.cases.thermal import END_USES
from iquitos_rl.envs.citylearn.env import load_citylearn
from iquitos_rl.envs.citylearn.precision import computes_in_double
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.district.footprint import footprint
from iquitos_rl.envs.district.physics import Flows, Physics
from iquitos_rl.envs.district.tables import check_sites

SET_POINTS = "set-points (C)"
PHASE = 12
"""Steps between two kinds of actions."""
ENVIRONMENTS = 256
"""Environments of the engine whose speed is measured."""
MEASURED_SECONDS = 1.0
SPACING = 2.0
"""Numbers of single precision between two energies that count as equal: CityLearn takes square roots with `pow`."""
LEAST_KWH = 1e-4
"""A smaller energy counts as this one there. What an emptied battery still moves is 1e-17 kWh in one engine and nothing
in the other; what a full one still takes is a difference of two numbers near its capacity, and 3e-12 kWh apart."""


PRECISION = {
    True: "to the bit, CityLearn computes in double precision",
    False: f"single precision, in which CityLearn computes with numpy {np.__version__}",
}


class Bars(NamedTuple):
    """Largest differences allowed."""

    soc: float = 1e-12
    """Exact mode: CityLearn's `pow` leaves 1e-16 in an emptied battery."""
    kelvin: float = 2e-5
    """Exact mode."""
    spacing: float = SPACING
    """Exact mode: of an energy, in numbers of single precision."""
    fast_kelvin: float = 0.02
    fast_share: float = 1e-4
    """Fast mode: of the sum of an energy, of cost and of emission over all steps."""
    fast_changes: float = 0.01
    """Fast mode: of the set-points, those that differ. An occupant acts or does not: where a drawn number lies within
    the rounding of a temperature, the two modes part until the next change."""


SINGLE = Bars(soc=1e-4, spacing=inf)
"""Where CityLearn computes in single precision. Energies are then held to their sums."""


def bars_here() -> Bars:
    """Those that the installed numpy allows."""
    return Bars() if computes_in_double() else SINGLE


class Actions(NamedTuple):
    """One step's actions for `Physics.step`, in CityLearn's units."""

    battery: Tensor
    """(1, B)."""
    sockets: Tensor
    """(1, N)."""
    tanks: Tensor
    """(1, B, 3)."""
    hvac: Tensor
    """(1, B, 2)."""
    appliances: Tensor
    """(1, A)."""


@dataclass(frozen=True)
class Twin:
    """What the comparison found."""

    steps: int
    exact: dict[str, float]
    """Quantity with its unit to the largest difference in exact mode."""
    spacing: dict[str, float]
    """Energy to the largest difference in exact mode, in numbers of single precision."""
    fast: dict[str, float]
    """As `exact`, in fast mode."""
    totals: dict[str, float]
    """Energy, cost and emission to the relative difference of its sum over all steps in fast mode."""
    changes: float
    """Share of the set-points that differ in fast mode."""
    features: tuple[str, ...]
    """What the folder has."""
    stock_speed: float
    """Steps of CityLearn per second of one core."""
    speed: float
    """Steps of all environments of the engine per second of one core, in fast mode, observation and reward included."""
    bytes_per_env: float

    def failures(self, bars: Bars | None = None) -> list[str]:
        """What differs by more than allowed, each in a few words; by default than `bars_here`."""
        bars, found = bars or bars_here(), []
        for name, worst in self.exact.items():
            if name.endswith("SOC") and not worst <= bars.soc:
                found.append(f"{name} differs by {worst:.3g} in exact mode")
            if name.endswith("C)") and not worst <= bars.kelvin:
                found.append(f"{name} differs by {worst:.3g} in exact mode")
        for name, worst in self.spacing.items():
            if not worst <= bars.spacing:
                found.append(f"{name} differs by {self.exact[name]:.3g} in exact mode")
        for name, worst in self.fast.items():
            if name.endswith("C)") and name != SET_POINTS and not worst <= bars.fast_kelvin:
                found.append(f"{name} differs by {worst:.3g} in fast mode")
        if not self.changes <= bars.fast_changes:
            found.append(f"{100 * self.changes:.3g} % of the set-points differ in fast mode")
        for name, share in self.totals.items():
            if not share <= bars.fast_share:
                found.append(f"sum of {name} differs by {100 * share:.3g} % in fast mode")
        return found


def features(site: Site) -> tuple[str, ...]:
    """What a site has, in the order of CityLearn's devices."""
    buildings = site.buildings
    uses = [use for b in buildings for use in b.end_uses]
    devices = {
        "batteries": sum(b.battery is not None for b in buildings),
        "sockets": len(site.sockets),
        "appliances": len(site.appliances),
        "limits": sum(b.service is not None for b in buildings),
        "tanks": sum(use.tank.capacity > 0 for use in uses),
        "thermal devices": sum(use.device.nominal_power > 0 for use in uses),
        "networks": sum(b.dynamics is not None for b in buildings),
        "occupants": sum(b.occupant is not None for b in buildings),
        "buildings with outages": sum(b.outage is not None and bool(b.outage.any()) for b in buildings),
    }
    return (f"{len(buildings)} buildings", *(f"{count} {name}" for name, count in devices.items() if count))


def compare(folder: Path, steps: int | None = None, seed: int = 0, site: Site | None = None) -> Twin:
    """Step both engines through a folder.

    Args:
        steps: at most so many; None for the whole folder.
        seed: of the actions.
        site: what the engine simulates; None for what the folder says.

    Raises:
        UserError: the engine does not support the folder, or CityLearn cannot load it.
    """
    site = read_site(folder) if site is None else site
    check_sites([site])
    env = load_citylearn(folder, fast=False)
    env.reset()
    count = site.rows - 1 if steps is None else min(steps, site.rows - 1)
    engines = {name: Physics([site], 1, exact=name == "exact") for name in ("exact", "fast")}
    names = [b.active_actions for b in env.buildings]
    low, high = (end.astype(np.float64) for end in (env.action_space[0].low, env.action_space[0].high))
    rng, seconds = np.random.default_rng(seed), 0.0
    worst: dict[str, dict[str, float]] = {"exact": {}, "fast": {}}
    spacing: dict[str, float] = {}
    sums: dict[str, Floats] = {}
    changes: list[float] = []
    for t in range(count):
        vector = draw_actions(rng, t, low, high)
        start = time.process_time()
        env.step([vector.tolist()])
        seconds += time.process_time() - start
        expected = simulated(env, site, t)
        for mode, engine in engines.items():
            found = computed(engine.step(*engine_actions(vector, names, site)), site)
            for name, reference in expected.items():
                gap = np.abs(found[name] - reference)
                _raise(worst[mode], name, gap)
                if mode == "exact" and name.endswith("(kWh)"):
                    _raise(spacing, name, gap / np.spacing(np.abs(reference).clip(min=LEAST_KWH).astype(np.float32)))
            if mode == "fast":
                _add(sums, amounts(site, t, expected, found))
                apart = np.abs(found[SET_POINTS] - expected[SET_POINTS]) > 1e-4 if SET_POINTS in found else np.zeros(1)
                changes.append(float(apart.mean()))
    speed, held = engine_speed(site, seed)
    return Twin(
        steps=count,
        exact=worst["exact"],
        spacing=spacing,
        fast=worst["fast"],
        totals={name: _share(*values) for name, values in sums.items()},
        changes=float(np.mean(changes)),
        features=features(site),
        stock_speed=count / seconds,
        speed=speed,
        bytes_per_env=held,
    )


def draw_actions(rng: Generator, t: int, low: Floats, high: Floats) -> Floats:
    """(A,) actions of step t between low and high (A,): uniform, at one of the ends, or mostly 0."""
    uniform = rng.uniform(low, high)
    kind = t // PHASE % 4
    if kind == 1:
        return np.where(rng.random(len(low)) < 0.5, low, high)
    return uniform * (rng.random(len(low)) < 0.4) if kind == 3 else uniform


def engine_actions(vector: Floats, names: Sequence[Sequence[str]], site: Site) -> Actions:
    """The actions (A,) of CityLearn's central agent for the engine.

    Args:
        names: of each building, its active actions in CityLearn's order.
    """
    count = len(site.buildings)
    battery, tanks, hvac = np.zeros(count), np.zeros((count, 3)), np.zeros((count, 2))
    place = {(b, charger.name): n for n, (b, charger) in enumerate(site.sockets)}
    order = {(b, own.name): n for n, (b, own) in enumerate(site.appliances)}
    sockets, appliances = np.zeros(len(place)), np.zeros(len(order))
    values = iter(vector.tolist())
    for b, own in enumerate(names):
        for name, value in zip(own, values):
            if name.startswith("electric_vehicle_storage_"):
                sockets[place[b, name.removeprefix("electric_vehicle_storage_")]] = value
            elif name.startswith("deferrable_appliance_"):
                appliances[order[b, name.removeprefix("deferrable_appliance_")]] = value
            elif name == "electrical_storage":
                battery[b] = value
            elif name == "cooling_or_heating_device":
                hvac[b] = max(-value, 0.0), max(value, 0.0)
            elif name.endswith("_storage"):
                tanks[b, END_USES.index(name.removesuffix("_storage"))] = value
            else:
                hvac[b, END_USES.index(name.removesuffix("_device"))] = value
    return Actions(*(torch.from_numpy(array)[None] for array in (battery, sockets, tanks, hvac, appliances)))


def simulated(env: Any, site: Site, t: int) -> dict[str, Floats]:
    """What CityLearn booked at row t, by quantity and unit; (B,) or (N,) each."""
    buildings, vehicles = env.buildings, {ev.name: ev.battery for ev in env.electric_vehicles}
    owner = [int(charger.vehicle[t]) for _, charger in site.sockets]
    chargers = [charger for b in buildings for charger in b.electric_vehicle_chargers or []]

    def each(value: Callable[[Any], Any], things: Sequence[Any] = buildings) -> Floats:
        return np.array([value(thing) for thing in things], dtype=np.float64)

    has = np.array([b.battery is not None for b in site.buildings])
    found = {
        "net (kWh)": each(lambda b: b.net_electricity_consumption[t]),
        "battery SOC": each(lambda b: b.electrical_storage.soc[t]) * has,
        "battery (kWh)": each(lambda b: b.electrical_storage.electricity_consumption[t]),
        "vehicle SOC": each(lambda v: 0.0 if v < 0 else vehicles[site.vehicles[v].name].soc[t], owner),
        "sockets (kWh)": each(lambda c: c.electricity_consumption[t], chargers),
    }
    if site.appliances:
        pairs = zip(site.buildings, buildings, strict=True)
        machines = [machine for own, b in pairs if own.appliances for machine in b.deferrable_appliances]
        found["appliances (kWh)"] = each(lambda machine: machine.electricity_consumption[t], machines)
    if site.thermal:
        found["other load (kWh)"] = each(lambda b: b.non_shiftable_load_device.electricity_consumption[t])
        found["temperature (C)"] = each(lambda b: b.energy_simulation.indoor_dry_bulb_temperature[t])
        if any(b.occupant is not None for b in site.buildings):
            found[SET_POINTS] = set_points(buildings, t)
        for use in END_USES:
            tank, device = attrgetter(f"{use}_storage"), attrgetter(f"{use}_device")
            found[f"{use} tank SOC"] = np.array([tank(b).soc[t] for b in buildings])
            found[f"{use} device (kWh)"] = np.array([device(b).electricity_consumption[t] for b in buildings])
    return {name: values for name, values in found.items() if values.size}


def set_points(buildings: Sequence[Any], t: int) -> Floats:
    """(2 B,) set-points of CityLearn's buildings at row t, for cooling, then for heating; C."""
    names = (f"indoor_dry_bulb_temperature_{use}_set_point" for use in END_USES[:2])
    return np.array([getattr(b.energy_simulation, name)[t] for name in names for b in buildings], dtype=np.float64)


def computed(flows: Flows, site: Site) -> dict[str, Floats]:
    """The same of the engine's one environment."""
    has = torch.tensor([b.battery is not None for b in site.buildings])
    found = {
        "net (kWh)": flows.net,
        "battery SOC": flows.battery_soc * has,
        "battery (kWh)": flows.battery_kwh,
        "vehicle SOC": flows.socket_soc,
        "sockets (kWh)": flows.socket_kwh,
    }
    if flows.appliance_kwh is not None:
        found["appliances (kWh)"] = flows.appliance_kwh
    if flows.thermal is not None:
        found |= {"other load (kWh)": flows.thermal.load, "temperature (C)": flows.thermal.temperature}
        if flows.thermal.set_points is not None:
            found[SET_POINTS] = flows.thermal.set_points.transpose(1, 2).flatten(1)
        for u, use in enumerate(END_USES):
            found[f"{use} tank SOC"] = flows.thermal.tank_soc[..., u]
            found[f"{use} device (kWh)"] = flows.thermal.electricity[..., u]
    return {name: value[0].double().numpy() for name, value in found.items()}


def amounts(site: Site, t: int, expected: dict[str, Floats], found: dict[str, Floats]) -> dict[str, Floats]:
    """Energies, cost and emission of row t over the whole site: (3,) of the simulator, of the engine, and the size of
    the former, whatever its sign."""

    def three(reference: Floats, ours: Floats) -> Floats:
        return np.array([reference.sum(), ours.sum(), np.abs(reference).sum()])

    found_by_name = {name: three(expected[name], found[name]) for name in expected if name.endswith("(kWh)")}
    imported = [values["net (kWh)"].clip(min=0) for values in (expected, found)]
    for name, series in (("cost", "price"), ("emission", "carbon")):
        rate = np.array([getattr(b, series)[t] for b in site.buildings])
        found_by_name[name] = three(imported[0] * rate, imported[1] * rate)
    return found_by_name


def engine_speed(site: Site, seed: int) -> tuple[float, float]:
    """Steps of all environments per second of one core with random actions, and bytes of each environment."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        env = DistrictSite([site], ENVIRONMENTS, starts="random", episode_steps=min(168, site.rows - 3))
        env.reset(seed=seed)
        actions = torch.rand(8, ENVIRONMENTS, env.action_dim, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        with torch.inference_mode():
            for action in actions:
                env.step(action)
            done, start, spent = 0, time.process_time(), 0.0
            while spent < MEASURED_SECONDS:
                env.step(actions[done % len(actions)])
                done, spent = done + 1, time.process_time() - start
        return done * ENVIRONMENTS / spent, footprint(env).per_env
    finally:
        torch.set_num_threads(threads)


def report(found: Twin) -> list[str]:
    """The comparison as lines to print."""
    lines = [", ".join(found.features), f"{found.steps:,} steps", f"bar: {PRECISION[computes_in_double()]}", ""]
    lines.append(f"{'largest difference':28}{'exact':>12}{'fast':>12}{'of the sum, fast':>20}")
    for name, worst in found.exact.items():
        share = f"{100 * found.totals[name]:.2g} %" if name in found.totals else ""
        lines.append(f"{name:28}{worst:>12.2g}{found.fast[name]:>12.2g}{share:>20}")
    for name in ("cost", "emission"):
        lines.append(f"{name:28}{'':>24}{f'{100 * found.totals[name]:.2g} %':>20}")
    return [
        *lines,
        "",
        f"{found.bytes_per_env:,.0f} bytes per environment",
        f"{found.stock_speed:,.0f} steps a second by CityLearn, {found.speed:,.0f} by {ENVIRONMENTS} environments of "
        f"the engine: {found.speed / found.stock_speed:,.0f} times as many, on one core",
    ]


def _raise(worst: dict[str, float], name: str, gap: Floats) -> None:
    """Keep the largest gap; NaN where one is NaN, which `max` would hide."""
    worst[name] = float(np.maximum(worst.get(name, 0.0), gap.max()))


def _add(sums: dict[str, Floats], more: dict[str, Floats]) -> None:
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value


def _share(reference: float, found: float, size: float) -> float:
    """Difference of two sums as a share of the size of their terms."""
    return abs(found - reference) / size if size else abs(found)
