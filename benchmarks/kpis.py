"""CityLearn's KPI table from our series against `CityLearnEnv.evaluate()`, on whole data sets with random actions.

    python benchmarks/kpis.py FOLDER... [--engine]

For each schema folder: the largest difference of any value of the table, relative where it is above 1, from CityLearn's
own records and, with `--engine`, from what the district engine booked for the same actions in exact mode. Its networks
differ by up to 2e-5 K, so KPIs in degrees do too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.judging.kpis import Kpis, evaluate
from iquitos_rl.judging.series import engine_series, simulated_series


def run(folder: Path, with_engine: bool) -> tuple[Any, list[Any]]:
    """CityLearn after an episode of random actions, and the engine's flows of the same."""
    simulator = CityLearnSite([folder])
    engine = DistrictSite([folder], 1, exact=True) if with_engine else None
    simulator.reset(options={"year": 0})
    if engine is not None:
        engine.reset()
    rng = np.random.default_rng(0)
    flows, ended = [], False
    while not ended:
        action = rng.uniform(-1, 1, simulator.task.action_dim).astype(np.float32)
        *_, ended, _ = simulator.step(action)
        if engine is not None:
            engine.step(torch.from_numpy(action)[None])
            flows.append(engine.last_flows)
    return simulator, flows


def worst(simulator: Any, kpis: Kpis, band: float) -> dict[bool, tuple[float, str]]:
    """The largest difference and where it is, of KPIs that are not degrees (False) and of those that are."""
    names = [building.name for building in simulator.buildings]
    found = {False: (0.0, ""), True: (0.0, "")}
    table = simulator.evaluate(comfort_band=band)
    table = table[table.cost_function.isin(set(kpis.district))]  # without temperatures there are none of comfort
    if len(table) != len(kpis.district) + len(names) * len(kpis.building):
        raise SystemExit(f"evaluate() has {len(table)} of these values, we have others")
    for row in table.itertuples():
        level = kpis.district if row.level == "district" else kpis.building
        ours = level[row.cost_function]
        value = float(ours.ravel()[0] if row.level == "district" else ours.reshape(-1)[names.index(row.name)])
        theirs = np.nan if row.value is None else float(row.value)
        apart = 0.0 if value == theirs or (np.isnan(value) and np.isnan(theirs)) else abs(value - theirs)
        apart = np.inf if np.isnan(apart) else apart / max(1.0, abs(theirs))
        kind = "delta" in row.cost_function
        if apart > found[kind][0]:
            found[kind] = apart, f"{row.name}/{row.cost_function}"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--engine", action="store_true")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        site, flows = run(folder, arguments.engine)
        started = time.process_time()
        series = {"citylearn": simulated_series(site.simulator)}
        evaluate(series["citylearn"])
        seconds = time.process_time() - started
        if flows:
            series["engine"] = engine_series(site.task.sites[0], flows)
        for name, own in series.items():
            for band in (1.0, 2.0):
                found = worst(site.simulator, evaluate(own, band), band)
                (most, where), (kelvin, _) = found[False], found[True]
                print(f"{folder.name}: {name}, band {band:.0f}: {most:.1e} {where}, degrees {kelvin:.1e}", flush=True)
        print(f"{folder.name}: series and table took {seconds:.3f} s", flush=True)


if __name__ == "__main__":
    main()
