"""CityLearn's own rule-based agents on our bill, with the parameters that it ships.

They give CityLearn's device actions, so neither our mapping nor the EV guard stands between: `BusinessAsUsual` charges
every vehicle until it is full, `RBCSmartPolicy` up to a point less than it wants (`citylearn/agents/baseline.py`).
Where a vehicle follows another without a free hour between, as often in `iquitos-38`, CityLearn observes the SOC of the
one that has left, and these agents leave the next one short.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.baselines.controller import Controller
from iquitos_rl.envs.citylearn.env import CityLearnSite, require_citylearn

CLASSES = {"BusinessAsUsual": "BusinessAsUsualAgent", "RBCSmartPolicy": "RBCSmartPolicy"}
"""Our name to its class in `citylearn.agents.baseline`."""


class DeviceSite(CityLearnSite):
    """A site whose actions are CityLearn's own central action vector."""

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        return self.step_devices(action.tolist())


def citylearn_agent(env: CityLearnSite, name: str) -> Controller:
    """A controller for the first year of a `DeviceSite`. Raises UserError: CityLearn is not installed."""
    require_citylearn()
    from citylearn.agents import baseline

    env.reset(options={"year": 0})
    agent, buildings = getattr(baseline, CLASSES[name])(env.simulator), env.simulator.buildings

    def act(obs: NDArray[np.float32]) -> NDArray[np.float32]:
        # The agents ask for all observations at every charger: put together each time, they would take a quarter of an
        # hour for a year of 128.
        for building in buildings:
            building.observations = lambda seen=building.observations(): seen
        try:
            return np.array(agent.predict([])[0], dtype=np.float32)
        finally:
            for building in buildings:
                del building.observations

    return act
