"""CityLearn's own rule-based agents on our bill, with the parameters that it ships.

They give CityLearn's device actions, so neither our mapping nor the EV guard stands between: `BusinessAsUsual` charges
every vehicle until it is full, `RBCSmartPolicy` up to a point less than it wants (`citylearn/agents/baseline.py`).
Where a vehicle follows another without a free hour between, as often in `iquitos-38`, CityLearn observes the SOC of the
one that has left, and these agents leave the next one short. The others follow the clock alone
(`citylearn/agents/rbc.py`): they move vehicles as they move tanks and batteries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.baselines.controller import Controller
from iquitos_rl.envs.citylearn.env import CityLearnSite, require_citylearn
from iquitos_rl.errors import UserError

CLASSES = {
    "BusinessAsUsual": ("baseline", "BusinessAsUsualAgent"),
    "RBCSmartPolicy": ("baseline", "RBCSmartPolicy"),
    "BasicRBC": ("rbc", "BasicRBC"),
    "OptimizedRBC": ("rbc", "OptimizedRBC"),
    "BasicBatteryRBC": ("rbc", "BasicBatteryRBC"),
    "BasicElectricVehicleRBC": ("rbc", "BasicElectricVehicleRBC_ReferenceController"),
}
"""Our name to the module and class in `citylearn.agents`."""


class DeviceSite(CityLearnSite):
    """A site whose actions are CityLearn's own central action vector."""

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        return self.step_devices(action.tolist())


def citylearn_agent(env: CityLearnSite, name: str) -> Controller:
    """A controller for the first year of a `DeviceSite`.

    Raises:
        UserError: CityLearn is not installed, or its agent fails on this site, at once or in a later hour.
    """
    require_citylearn()
    from citylearn.agents import baseline, rbc

    module, kind = CLASSES[name]
    env.reset(options={"year": 0})

    def attempt(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # whatever its code does on a site that it was not written for
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(f"CityLearn's own {kind} fails on this site ({reason})") from error

    agent = attempt(lambda: getattr({"baseline": baseline, "rbc": rbc}[module], kind)(env.simulator))
    choose = _by_clock if module == "rbc" else _by_observations
    return lambda obs: np.array(attempt(lambda: choose(env.simulator, agent))[0], dtype=np.float32)


def _by_clock(simulator: Any, agent: Any) -> Any:
    """Actions of an agent that looks at nothing but the hour."""
    names = agent.observation_names[0]
    seen = [0.0] * len(names)
    seen[names.index("hour")] = float(simulator.buildings[0].energy_simulation.hour[simulator.time_step])
    return agent.predict([seen])


def _by_observations(simulator: Any, agent: Any) -> Any:
    """Actions of an agent that asks the buildings: for all observations at every charger. Put together each time, they
    would take a quarter of an hour for a year of 128."""
    buildings = simulator.buildings
    for building in buildings:
        building.observations = lambda seen=building.observations(): seen
    try:
        return agent.predict([])
    finally:
        for building in buildings:
            del building.observations
