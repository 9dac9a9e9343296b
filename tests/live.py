"""CityLearn itself, stepped with the actions of our physics: one per building's battery and one per socket."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iquitos_rl.cases.site import Floats, Site

logging.getLogger().setLevel(logging.WARNING)


class Live:
    """A `CityLearnEnv` over the same folder as a site."""

    def __init__(self, folder: Path, site: Site) -> None:
        from citylearn.citylearn import CityLearnEnv

        with contextlib.redirect_stdout(io.StringIO()):  # it prints a notice where data and schema steps differ
            self.env: Any = CityLearnEnv(str(folder / "schema.json"), central_agent=True, offline=True)
        logging.getLogger().setLevel(logging.WARNING)
        self.env.reset()
        self.site = site
        self.chargers = [c for building in self.env.buildings for c in building.electric_vehicle_chargers or []]
        self.vehicles = {vehicle.name: vehicle for vehicle in self.env.electric_vehicles}
        self.row = 0

    def connected(self) -> list[str | None]:
        """Name of the vehicle at each socket in the present row."""
        vehicles = [charger.connected_electric_vehicle for charger in self.chargers]
        return [None if vehicle is None else vehicle.name for vehicle in vehicles]

    def battery_soc(self) -> Floats:
        """(B,) at the present row; 0 where a building has no battery."""
        return np.array([float(building.electrical_storage.soc[self.row]) for building in self.env.buildings])

    def socket_soc(self, row: int | None = None) -> Floats:
        """(N,) SOC of the vehicles connected in a row, by default the present one; 0 where a socket is empty."""
        row = self.row if row is None else row
        socs = np.zeros(len(self.chargers))
        for n, (_, charger) in enumerate(self.site.sockets):
            if charger.vehicle[row] >= 0:
                socs[n] = self.vehicles[self.site.vehicles[charger.vehicle[row]].name].battery.soc[row]
        return socs

    def step(self, battery: Floats, sockets: Floats) -> None:
        """Apply (B,) and (N,) actions and move on."""
        actions, first = [], 0
        for b, building in enumerate(self.env.buildings):
            own = {"electrical_storage": battery[b]}
            for n, charger in enumerate(building.electric_vehicle_chargers or []):
                own[f"electric_vehicle_storage_{charger.charger_id}"] = sockets[first + n]
            first += len(building.electric_vehicle_chargers or [])
            actions += [own[name] for name in building.active_actions]
        self.env.step([np.array(actions)])
        self.row += 1

    def net(self, row: int) -> NDArray[np.float32]:
        """(B,) kWh."""
        return np.array([b._Building__net_electricity_consumption[row] for b in self.env.buildings], dtype=np.float32)

    def socket_kwh(self, row: int) -> Floats:
        """(N,) kWh."""
        return np.array([float(charger.electricity_consumption[row]) for charger in self.chargers])
