"""The reference engine: a Gymnasium environment over `citylearn.citylearn.CityLearnEnv`.

CityLearn computes the physics; actions, objective and observation are `SiteTask`'s, which the district engine uses
too. Some of CityLearn 3.0.2's habits are put right here: the year's end is a truncation, not a termination; the last
observation is the true one, not a copy of the one before (`internal/runtime.py`, next_time_step); NaN actions are
refused (a NaN battery action discharges beyond the nominal power there); a building with an occupant begins every
episode as the first, and networks have no dropout (`occupants.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Floats, Ints, Site
from iquitos_rl.cases.thermal import END_USES
from iquitos_rl.envs.citylearn.booked import Booked
from iquitos_rl.envs.citylearn.booked import Flows as Flows
from iquitos_rl.envs.citylearn.occupants import restore, without_dropout
from iquitos_rl.envs.described import DescribedEnv, Description
from iquitos_rl.envs.task.observation import Column, coarse_columns
from iquitos_rl.envs.task.site_task import Outcome, SiteTask, TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.machine.elsewhere import place_of
from iquitos_rl.machine.inputs import read_json, shown

COVERED = {
    *("month", "hour", "day_type", "daylight_savings_status", "minutes", "seconds", "carbon_intensity"),
    *("non_shiftable_load", "solar_generation", "electrical_storage_soc", "net_electricity_consumption"),
}
COVERED_PREFIXES = (
    *("outdoor_", "diffuse_", "direct_", "electricity_pricing"),
    *("electric_vehicle_charger", "connected_", "incoming_"),
)
"""CityLearn observations that our own columns already hold."""


OFFLINE = "CITYLEARN_OFFLINE"
HEAT = (*(f"{use}_storage" for use in END_USES), "cooling_device", "heating_device", "cooling_or_heating_device")
"""CityLearn's actions of thermal devices."""


def require_citylearn() -> Any:
    """Import CityLearn, or say in one sentence why the reference simulator is not there."""
    try:
        from citylearn import citylearn
    except ImportError as error:
        raise UserError(
            f"the reference simulator CityLearn is not installed ({error}): pip install 'iquitos_rl[citylearn]' && "
            "pip install --no-deps citylearn==3.0.2"
        ) from None
    return citylearn


def _rows(folder: Path) -> int:
    """Rows that a schema simulates, whatever it says about the length of episodes."""
    schema = read_json(folder / "schema.json")
    return int(schema["simulation_end_time_step"]) - int(schema["simulation_start_time_step"]) + 1


def load_citylearn(folder: Path, fast: bool = True) -> Any:
    """Construct `CityLearnEnv` over a schema folder, one agent for all buildings.

    With `fast`, work whose results nobody reads is left out of this instance, see `fast.py`. Dropout in the networks
    that predict temperatures is off, since no two runs would be equal with it. Where occupants change set-points,
    CityLearn opens pickles, which run whatever their author put into them.
    """
    module = require_citylearn()
    from iquitos_rl.envs.citylearn.fast import quick_construction, speed_up

    root = logging.getLogger()
    level = root.level
    try:
        with quick_construction() if fast else contextlib.nullcontext():
            env = module.CityLearnEnv(
                str(folder / "schema.json"),
                central_agent=True,
                offline=True,
                render_mode="none",
                interface="flat",
                episode_time_steps=_rows(folder),
            )
    except KeyError as error:
        raise UserError(f"{folder}: CityLearn cannot load this schema, it misses {error}") from None
    except sys.modules["citylearn.data"].OfflineDataError:
        text = "CityLearn sizes PV or batteries here with tables that it downloads; `iquitos-rl case freeze` says which"
        raise UserError(f"{folder}: {text}") from None
    except MemoryError:
        raise
    except Exception as error:
        # Whatever the schema holds of a kind that CityLearn does not expect shows only inside its constructors.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{folder}: CityLearn cannot load this schema ({reason})") from error
    finally:
        root.setLevel(level)  # CityLearn sets the root logger to INFO
    without_dropout(env)
    if fast:
        speed_up(env)
    return env


def resolve_case(case: str | Path) -> Path:
    """A schema folder for a folder, a schema file or the name of a CityLearn dataset.

    A dataset that is not on this machine is fetched only where the environment has `CITYLEARN_OFFLINE=0`.

    Raises:
        UserError: there is no such folder, and no such dataset here, or CityLearn cannot fetch it.
    """
    path = place_of(case)
    if path.name == "schema.json" and os.path.isfile(path):
        return path.parent
    if os.path.isfile(path / "schema.json"):
        return path
    if os.path.exists(path):
        raise UserError(f"{path} holds no schema.json")
    require_citylearn()
    from citylearn.data import DataSet

    asked = os.environ.get(OFFLINE, "").lower() in ("0", "false", "no")
    text = f"{shown(case)} is neither a folder with a schema.json nor a CityLearn dataset"
    try:
        return Path(DataSet(offline=not asked).get_dataset(str(case))).parent
    except (OSError, ValueError, RuntimeError) as error:
        if not asked:
            raise UserError(
                f"{text} on this machine ({OFFLINE}=0 lets CityLearn look for it on the internet)"
            ) from None
        raise UserError(f"{text} that CityLearn can fetch: {shown(str(error) or type(error).__name__)}") from None


def _extra_columns(simulator: Any) -> tuple[list[tuple[int, str]], tuple[Column, ...]]:
    """Active observations that only CityLearn computes, with CityLearn's own bounds."""
    places, columns = [], []
    for b, building in enumerate(simulator.buildings):
        box = building.observation_space
        for i, name in enumerate(building.active_observations):
            if name not in COVERED and not name.startswith(COVERED_PREFIXES):
                low, high = float(box.low[i]), float(box.high[i])
                places.append((b, name))
                columns.append(Column(f"{building.name}/{name}", low, high if high > low else low + 1.0))
    return places, tuple(columns)


class CityLearnSite(DescribedEnv):
    """A site simulated by CityLearn: observation (D,) float32 in [-1, 1], action (A,) in [-1, 1], reward of `SiteTask`.

    Actions: one for each stationary battery (+1 charges at nominal power), then one for each other CityLearn action
    (thermal devices and appliances, if any), then one for each socket. An episode is a whole year, taken in turn from
    `folders` in an order shuffled by the seed; it ends truncated after T - 1 steps. `info` holds the step's money,
    energy and carbon.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(
        self,
        folders: Sequence[Path | str],
        settings: TaskSettings = TaskSettings(),
        spec: dict[str, Any] | None = None,
        fast: bool = True,
    ) -> None:
        self.folders = [resolve_case(folder) for folder in folders]
        sites = [read_site(folder) for folder in self.folders]
        self._fast = fast
        self._simulators: dict[int, Any] = {0: load_citylearn(self.folders[0], fast)}
        simulator = self._simulators[0]
        self._extra_places: list[tuple[int, str]] = []
        extra: tuple[Column, ...] = ()
        if any(site.unsupported for site in sites):
            sites = [self._with_citylearn_series(year, site) for year, site in enumerate(sites)]
            self._extra_places, extra = _extra_columns(simulator)
        self.thermal = sites[0].thermal
        self._actions = self._action_order(simulator)
        # CityLearn has no action for a socket that its building keeps inactive.
        self._moved = [n for n, (b, _) in enumerate(sites[0].sockets) if sites[0].buildings[b].socket_action]
        self.task = SiteTask(sites, settings, spec, extra, other_actions=len(self._actions.other))
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (self.task.obs_dim,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.task.action_dim,), np.float32)
        self.description = Description(
            self.task.action_mask_columns,
            self.policy_spec,
            self.task.table,
            coarse_columns(self.task.encoding),
            resumable=True,
        )
        self._nothing_extra = torch.zeros((1, 0), dtype=torch.float64)
        self._order: list[int] = []
        self.flows: Flows | None = None
        """Energies of the step just taken."""

    @property
    def policy_spec(self) -> dict[str, Any]:
        return self.task.policy_spec

    def table_row(self) -> int:
        return int(self._row())

    class _Actions(NamedTuple):
        names: list[str]
        battery: list[int]
        appliances: list[int]
        other: list[int]
        sockets: list[int]
        heat: Ints
        """(3, H) place, building and kind of each action of a thermal device, in the order of `HEAT`."""
        low: Floats
        high: Floats

    def _action_order(self, simulator: Any) -> _Actions:
        """Where each of our actions stands in CityLearn's central action vector."""
        names = [name for building in simulator.buildings for name in building.active_actions]
        kinds = ["sockets" if n.startswith("electric_vehicle_storage") else n for n in names]
        battery = [i for i, kind in enumerate(kinds) if kind == "electrical_storage"]
        sockets = [i for i, kind in enumerate(kinds) if kind == "sockets"]
        owners = [b for b, building in enumerate(simulator.buildings) for _ in building.active_actions]
        every = zip(range(len(names)), owners, names)
        places = [(i, b, HEAT.index(name)) for i, b, name in every if self.thermal and name in HEAT]
        heat = np.array(places, dtype=np.int64).reshape(-1, 3).T
        machines = [i for i, name in enumerate(names) if name.startswith("deferrable_appliance_")]
        moved = {*battery, *sockets, *machines, *heat[0].tolist()}
        other = [i for i in range(len(names)) if i not in moved]
        box = simulator.action_space[0]
        return self._Actions(
            names, battery, machines, other, sockets, heat, box.low.astype(np.float64), box.high.astype(np.float64)
        )

    def _with_citylearn_series(self, year: int, site: Site) -> Site:
        """Take load and PV from CityLearn itself where the site needs features that only CityLearn has (autosizing)."""
        from dataclasses import replace

        simulator = self._simulator(year)
        buildings = tuple(
            replace(
                building,
                load=np.asarray(simulated.energy_simulation.non_shiftable_load, dtype=np.float64)[: site.rows],
                pv=-np.asarray(simulated._Building__solar_generation, dtype=np.float64)[: site.rows],
            )
            for building, simulated in zip(site.buildings, simulator.buildings, strict=True)
        )
        return replace(site, buildings=buildings)

    def _simulator(self, year: int) -> Any:
        if year not in self._simulators:
            self._simulators[year] = load_citylearn(self.folders[year], self._fast)
        return self._simulators[year]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a year; `options={"year": k}` chooses which, otherwise they take turns in shuffled order."""
        super().reset(seed=seed)
        if seed is not None:
            self._order = []
        if options and "year" in options:
            self.year = int(options["year"])
        else:
            if not self._order:
                self._order = self.np_random.permutation(len(self.folders)).tolist()
            self.year = self._order.pop()
        self._sim = self._simulator(self.year)
        self._sim.episode_tracker.reset_episode_index()  # its drift of vehicles that are away is that of episode 0
        restore(self._sim)
        self._sim.reset()
        self._site = self.task.sites[self.year]
        by_name = {vehicle.name: i for i, vehicle in enumerate(self._sim.electric_vehicles)}
        # CityLearn's index of the vehicle at each socket and row, -1 at an empty one.
        index = np.array([by_name[vehicle.name] for vehicle in self._site.vehicles] + [-1])
        at_socket = [index[charger.vehicle] for _, charger in self._site.sockets]
        self._at_socket = np.stack(at_socket, axis=-1) if at_socket else np.empty((self.task.rows, 0), np.int64)
        self._booked = Booked(self._sim, self._site, self._at_socket)
        self._t = 0
        self._net = torch.zeros((1, self.task.num_buildings), dtype=torch.float64)
        self._peak = torch.zeros((1, self.task.num_buildings, self.task.meters), dtype=torch.float64)
        self.flows = None
        with torch.inference_mode():
            return self._look(0), {}

    @property
    def simulator(self) -> Any:
        """The `CityLearnEnv` of the present year."""
        return self._sim

    def start_state(self) -> dict[str, Any]:
        return {"year": self.year, "order": list(self._order), "rng": self.np_random.bit_generator.state}

    def restart(self, start: dict[str, Any]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        self._order = [int(year) for year in start["order"]]
        self.np_random.bit_generator.state = start["rng"]
        return self.reset(options={"year": start["year"]})

    def _row(self) -> Tensor:
        return torch.tensor([self.year * self.task.rows + self._t])

    def _look(self, t: int) -> NDArray[np.float32]:
        """The observation at row t, before its action; inside it is as warm as after the last step."""
        booked = self._booked
        return self._observe(
            booked.battery_soc(t), booked.socket_soc(t), booked.tank_soc(t), booked.temperature(max(t - 1, 0)), t
        )

    def _observe(
        self, battery_soc: Floats, socket_soc: Floats, tank_soc: Floats, temperature: Floats, t: int
    ) -> NDArray[np.float32]:
        self._now = self.task.moment(self._row(), torch.from_numpy(socket_soc).unsqueeze(0))
        battery = torch.from_numpy(battery_soc).unsqueeze(0)
        points = _batch_of_one(self._booked.set_points(t))
        heat = (torch.from_numpy(tank_soc).unsqueeze(0), torch.from_numpy(temperature).unsqueeze(0), points)
        return self.task.observe(
            self._now, battery, self._net, self._peak, self._extra(), heat if self.thermal else None, self._machines()
        )[0].numpy()

    def _machines(self) -> tuple[Tensor, Tensor] | None:
        """Whether a cycle of each appliance waits at the present row (1, A), and kWh of those that run."""
        if not self._site.appliances:
            return None
        waiting, running = self._booked.waiting(self._t), self._booked.running(self._t)
        return torch.from_numpy(waiting).unsqueeze(0), torch.from_numpy(running).unsqueeze(0)

    def _extra(self) -> Tensor:
        """(1, X) observations that only CityLearn computes, those of a building at once."""
        if not self._extra_places:
            return self._nothing_extra
        values: list[float] = []
        for b, own in groupby(self._extra_places, key=itemgetter(0)):
            names = [name for _, name in own]
            found = self._sim.buildings[b].observations(include_all=True, observation_names=names)
            values += [float(found[name]) for name in names]
        return torch.tensor([values], dtype=torch.float64)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply (A,) actions in [-1, 1].

        Raises:
            UserError: an action is not finite, or the vector has another length.
        """
        vector = np.asarray(action, dtype=np.float64)
        if vector.shape != (self.task.action_dim,):
            raise UserError(f"the action has shape {vector.shape} where ({self.task.action_dim},) is expected")
        if not np.isfinite(vector).all():
            raise UserError(
                f"action {int(np.flatnonzero(~np.isfinite(vector))[0])} at hour {self._t} is not a finite number"
            )
        return self.step_devices(self._device_actions(vector.clip(-1, 1)))

    @torch.inference_mode()
    def _device_actions(self, action: Floats) -> list[float]:
        """CityLearn's central action vector for an agent's action (A,) in [-1, 1]."""
        battery, other, sockets = self.task.device_actions(self._now, torch.from_numpy(action).unsqueeze(0))
        device = np.empty(len(self._actions.names))
        device[self._actions.battery] = battery[0].numpy()
        low, high = self._actions.low[self._actions.other], self._actions.high[self._actions.other]
        if self.thermal:
            self._place_thermal(device, *(x[0].numpy() for x in self.task.thermal_actions(self._now, other)))
        device[self._actions.appliances] = self.task.appliance_commands(self._now, other)[0].numpy()
        rest = other[0, self.task.num_thermal_actions + self.task.num_appliance_actions :].numpy()
        device[self._actions.other] = low + (rest + 1) / 2 * (high - low)
        device[self._actions.sockets] = sockets[0].numpy()[self._moved]
        return device.tolist()

    def _place_thermal(self, device: NDArray[np.float64], tank: Floats, hvac: Floats) -> None:
        """Write actions of tanks (B, 3), of cooling and heating (B, 2) into CityLearn's vector."""
        share = np.hstack([tank, hvac, hvac[:, 1:] - hvac[:, :1]])
        place, b, kind = self._actions.heat
        device[place] = share[b, kind]

    def step_devices(self, device: list[float]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Apply CityLearn's own central action vector: no guard, no mapping.

        Raises:
            UserError: the year has ended.
        """
        if self._t >= self.task.rows - 1:
            raise UserError("the year has ended; call reset()")
        self._sim._runtime_service.step_without_feedback([device])
        self.flows = self._booked.flows(self._t)
        return self._judged(self._t)

    @torch.inference_mode()
    def _judged(self, t: int) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """What the step at row t led to, from `flows`; moves on to the next row."""
        assert self.flows is not None
        task = self.task
        net = torch.from_numpy(self.flows.net).unsqueeze(0)
        now, socket_soc = self._now, torch.from_numpy(self.flows.socket_soc).unsqueeze(0)
        temperature = self.flows.temperature
        inside = torch.from_numpy(temperature).unsqueeze(0) if self.thermal and temperature is not None else None
        lacking = torch.tensor([float(self.flows.unserved + self.flows.missed)], dtype=torch.float64)
        points = _batch_of_one(self._booked.set_points(t))
        outcome = task.outcome(now, net, socket_soc, self._peak, self._net, inside, lacking, points)
        self._t += 1
        truncated = self._t == task.rows - 1
        self._net, self._peak = net, task.next_peak(self._row(), outcome.running_peak)
        obs = self._last_look(t) if truncated else self._look(t + 1)
        imported = float(self.flows.net.clip(min=0).sum())
        info = {
            "energy_cost": outcome.terms.energy.item(),
            "demand_cost": outcome.terms.demand.item(),
            "carbon_cost": outcome.terms.carbon.item(),
            "shortfall_cost": outcome.terms.shortfall.item(),
            **{name: cost.item() for name, cost in task.tariff_costs(outcome.terms, net).items()},
            **self._thermal_info(outcome),
            "carbon_kg": float((self.flows.net * now.carbon[0].numpy()).clip(min=0).sum()),
            "import_kwh": imported,
            "export_kwh": imported - float(self.flows.net.sum()),
            "ev_kwh": float(self.flows.sockets.sum()),
            "missing_kwh": outcome.missing_kwh.item(),
            "departures": float(outcome.departures.item()),
            "served": float(outcome.served.item()),
        }
        return obs, outcome.reward.item(), False, truncated, info

    def _thermal_info(self, outcome: Outcome) -> dict[str, float]:
        """What a step of a site with thermal devices or appliances has besides."""
        assert self.flows is not None
        missed = {"missed_cycles_kwh": float(self.flows.missed)} if self._site.appliances else {}
        if not self.thermal:
            return {"unserved_cost": outcome.terms.unserved.item(), **missed} if missed else {}
        return {
            **missed,
            "comfort_cost": outcome.terms.comfort.item(),
            "unserved_cost": outcome.terms.unserved.item(),
            "thermal_kwh": float(self.flows.other.sum()),
            "unserved_kwh": float(self.flows.unserved),
        }

    def _last_look(self, t: int) -> NDArray[np.float32]:
        """The observation after the step at row t, the year's last, after which CityLearn stands still."""
        loss = np.array([[use.tank.loss_coefficient for use in b.end_uses] for b in self._site.buildings])
        tanks = self._booked.tank_soc(t)
        if self.thermal:
            tanks = (tanks * (1 - loss * self.task.hours)).clip(0, 1).astype(np.float32).astype(np.float64)
        return self._observe(*self._final_soc(t), tanks, self._booked.temperature(t), t + 1)

    def _final_soc(self, t: int) -> tuple[Floats, Floats]:
        """SOC at row t + 1 where CityLearn has stopped at row t: standing losses and arrivals as it applies them."""

        def rest(soc: float, loss: float, depth: float) -> float:
            # CityLearn stores it in single precision.
            return float(np.float32(max(min(soc * (1 - loss * self.task.hours), 1.0), min(max(1 - depth, 0.0), 1.0))))

        batteries = [building.battery for building in self._site.buildings if building.battery is not None]
        stationary = [
            rest(soc, b.loss_coefficient, b.depth_of_discharge)
            for soc, b in zip(self._booked.battery_soc(t).tolist(), batteries, strict=True)
        ]
        sockets = np.zeros(self.task.num_sockets)
        for n, (_, charger) in enumerate(self._site.sockets):
            vehicle = int(charger.vehicle[t + 1])
            if vehicle >= 0:
                battery = self._site.vehicles[vehicle].battery
                soc = float(self._sim.electric_vehicles[self._at_socket[t + 1, n]].battery.soc[t])
                arrival = float(charger.arrival_soc[t + 1])
                sockets[n] = (
                    rest(soc, battery.loss_coefficient, battery.depth_of_discharge) if np.isnan(arrival) else arrival
                )
        return np.array(stationary), sockets


def _batch_of_one(values: Floats | None) -> Tensor | None:
    """(1, ...)."""
    return None if values is None else torch.from_numpy(values).unsqueeze(0)
