"""The district physics against CityLearn over a whole schema folder, with random actions: agreement and speed.

    python benchmarks/parity.py FOLDER [--steps N] [--seed S] [--environments E] [--device cpu]

Exact mode must agree on every state of charge to the bit and on net consumption within 2 units in the last place of
single precision (numpy 1.26; on numpy 2 CityLearn itself rounds more coarsely). The speeds are those of this run: one
CityLearn process without its feedback series and observations against E environments on one device.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iquitos_rl.cases.reader import read_site
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.citylearn import load_citylearn
from iquitos_rl.envs.physics import Physics


def citylearn_actions(simulator: Any, battery: Floats, sockets: Floats) -> list[Floats]:
    """The central agent's vector for (B,) battery and (N,) socket actions."""
    values, first = [], 0
    for b, building in enumerate(simulator.buildings):
        own = {"electrical_storage": battery[b]}
        chargers = building.electric_vehicle_chargers or []
        own |= {f"electric_vehicle_storage_{c.charger_id}": sockets[first + n] for n, c in enumerate(chargers)}
        values += [own[name] for name in building.active_actions]
        first += len(chargers)
    return [np.array(values)]


def soc_error(site: Site, simulator: Any, row: int, socket_soc: Floats) -> float:
    """Largest difference of any connected vehicle's SOC after the action of a row."""
    vehicles = simulator.electric_vehicles
    errors = [
        abs(float(vehicles[charger.vehicle[row]].battery.soc[row]) - soc)
        for (_, charger), soc in zip(site.sockets, socket_soc)
        if charger.vehicle[row] >= 0
    ]
    return max(errors, default=0.0)


def compare(site: Site, folder: Path, steps: int, seed: int) -> float:
    """Print the largest differences over so many steps; returns CityLearn's steps per second."""
    simulator = load_citylearn(folder)
    simulator.reset()
    engines = {"exact": Physics([site], 1, exact=True), "fast": Physics([site], 1)}
    worst = {name: dict.fromkeys(("battery_soc", "vehicle_soc", "net_kwh", "net_ulp"), 0.0) for name in engines}
    rng, seconds = np.random.default_rng(seed), 0.0
    with_battery = [building.battery is not None for building in site.buildings]
    for row in range(steps):
        battery = rng.uniform(-1, 1, len(site.buildings))
        sockets = rng.uniform(-1, 1, len(site.sockets))
        sockets[rng.random(len(sockets)) < 0.3] = 1.0
        before = np.array([float(building.electrical_storage.soc[row]) for building in simulator.buildings])
        start = time.process_time()
        simulator.step(citylearn_actions(simulator, battery, sockets))
        seconds += time.process_time() - start
        net = np.array([b._Building__net_electricity_consumption[row] for b in simulator.buildings])
        for name, engine in engines.items():
            error = np.abs(engine.state.battery_soc[0].numpy() - before)[with_battery].max(initial=0)
            flows = engine.step(torch.from_numpy(battery)[None], torch.from_numpy(sockets)[None])
            difference = np.abs(flows.net[0].numpy() - net)
            for key, value in (
                ("battery_soc", error),
                ("vehicle_soc", soc_error(site, simulator, row, flows.socket_soc[0].numpy())),
                ("net_kwh", difference.max()),
                ("net_ulp", (difference / np.spacing(np.abs(net))).max()),
            ):
                worst[name][key] = max(worst[name][key], float(value))
    for name, figures in worst.items():
        print(f"{name}: largest differences " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    return steps / seconds


def physics_speed(site: Site, environments: int, device: str) -> float:
    """Environment steps per second of the fast mode, by wall clock."""
    engine = Physics([site], environments, device)
    battery = torch.rand(environments, len(site.buildings), device=engine.device) * 2 - 1
    sockets = torch.rand(environments, len(site.sockets), device=engine.device) * 2 - 1
    count, best = max(20, 20000 // environments), np.inf
    with torch.inference_mode():
        for _ in range(5):
            engine.reset()
            start = time.perf_counter()
            for _ in range(count):
                flows = engine.step(battery, sockets)
            float(flows.net.sum())  # waits for the device
            best = min(best, (time.perf_counter() - start) / count)
    return environments / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=None, help="default: the whole folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--environments", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    site = read_site(arguments.folder)
    seconds = time.perf_counter() - start
    steps = min(arguments.steps or site.rows, site.rows - 1)
    print(f"{arguments.folder}: {len(site.buildings)} buildings, {len(site.sockets)} sockets, read in {seconds:.2f} s")
    print(f"numpy {np.__version__}, torch {torch.__version__}, {steps} steps")
    citylearn = compare(site, arguments.folder, steps, arguments.seed)
    ours = physics_speed(site, arguments.environments, arguments.device)
    print(f"CityLearn {citylearn:.0f} steps/s (processor time), {arguments.environments} environments on ", end="")
    print(f"{arguments.device} {ours:.0f} steps/s: {ours / citylearn:.0f} times")


if __name__ == "__main__":
    main()
