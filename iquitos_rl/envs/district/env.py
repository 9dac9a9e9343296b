"""The district engine: CityLearn's electrical physics as tensors, E environments at once on one device.

`Physics` moves batteries and vehicles, `SiteTask` turns that into observations and rewards; here the two are stepped
together, episodes end and begin again. Actions, observations and rewards are those of the CityLearn engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.district.physics import Flows, Physics, State
from iquitos_rl.envs.district.states import from_names, named_tensors, put
from iquitos_rl.envs.task.objective import idle_peaks
from iquitos_rl.envs.task.observation import coarse_columns
from iquitos_rl.envs.task.site_task import Moment, Outcome, SiteTask, TaskSettings
from iquitos_rl.envs.task.site_vector import SiteVector
from iquitos_rl.envs.task.trajectory import Trajectory
from iquitos_rl.envs.vector import Exogenous, StepResult, VectorEnv
from iquitos_rl.machine.graphs import Graphed, mapped

Starts = Literal["year", "random"]


class Standing(NamedTuple):
    """Where E environments stand before an action."""

    state: State
    now: Moment
    running_peak: Tensor
    """(E, B, C) kW, see `Tariff.meters`."""
    net: Tensor
    """(E, B) kWh of the step before."""


class Transition(NamedTuple):
    """Where one step leads, for E environments, before any episode ends."""

    standing: Standing
    obs: Tensor
    """(E, D)."""
    reward: Tensor
    """(E,)."""
    flows: Flows
    info: dict[str, Tensor]
    """Figures of the step, (E,) each."""


def _lacking(flows: Flows) -> Tensor | None:
    """(E,) kWh that devices lacked; None where that never happens."""
    if flows.thermal is None or flows.missed_kwh is None:
        return flows.missed_kwh if flows.thermal is None else flows.thermal.unserved
    return flows.thermal.unserved + flows.missed_kwh


class DistrictSite(SiteVector):
    """One or several years of a site.

    Args:
        sites: data years of one site, or their folders.
        exact: agree with CityLearn to the last bit of every SOC, in float64, instead of being fast.
        starts: "year" begins every episode at the first row of a year and runs to its end, as CityLearn does; "random"
            begins anywhere in any year and truncates after `episode_steps`, so that a batch holds hours of all seasons.
        episode_steps: length of an episode with random starts.
        trajectory: begin episodes where its controller stood, and count rewards from its own; needs random starts. By
            default they begin with the schema's SOCs and the peaks of an idle site.

    Raises:
        UserError: a site needs what only CityLearn simulates, or the years differ in structure.
    """

    episode_steps: int

    def __init__(
        self,
        sites: Sequence[Site | Path | str],
        num_envs: int = 1,
        settings: TaskSettings = TaskSettings(),
        spec: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
        exact: bool = False,
        starts: Starts = "year",
        episode_steps: int = 720,
        trajectory: Trajectory | None = None,
    ) -> None:
        years = [site if isinstance(site, Site) else read_site(Path(site)) for site in sites]
        self.physics = Physics(years, num_envs, device, exact)
        self.task = SiteTask(years, settings, spec, device=device, dtype=self.physics.dtype)
        self.num_envs, self.obs_dim, self.action_dim = num_envs, self.task.obs_dim, self.task.action_dim
        self.device = self.physics.device
        self.action_mask_columns, self.policy_spec = self.task.action_mask_columns, self.task.policy_spec
        # About: `footprint` counts them after a step.
        heat = self.physics.state.thermal
        each = 11 * self.physics.sockets + (11 if heat is None else 33) * self.physics.buildings + 13
        memories = {} if heat is None else named_tensors(heat.memories)
        self.state_bytes = each * self.physics.dtype.itemsize + sum(x.nbytes for x in memories.values()) // num_envs
        self.state_bytes += 20 * len(years[0].appliances)
        if heat is not None and heat.chosen is not None:
            self.state_bytes += 2 * heat.chosen[0].nbytes
        self.starts = starts
        self.episode_steps = min(episode_steps, years[0].rows - 1) if starts == "random" else years[0].rows - 1
        self._years = len(years)
        buildings = years[0].buildings
        self._with_battery = self._indices([b.battery is not None for b in buildings])
        self._with_action = self._indices([b.battery is not None and b.battery_action for b in buildings])
        self._start_peak, self._start_net = self._start_tables(years, trajectory)
        self._trajectory = trajectory
        self._coarse = coarse_columns(self.task.encoding)
        self._rows = (torch.zeros(num_envs, dtype=torch.int64, device=self.device),) * 2
        """Where the present observations and the last step's successors stand in the table."""
        self._rng = np.random.default_rng()
        self.steps_left = np.zeros(num_envs, dtype=np.int64)
        """Steps until each environment's episode ends: known without asking the device."""
        self._none = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._transition: Callable[[State, Moment, Tensor, Tensor, Tensor], Transition] = self._advance
        self._beginning: Callable[..., tuple[Standing, Tensor]] = self._begin
        self._captured = False
        self.last_flows: Flows | None = None
        """Energies and states of charge of the step just taken."""

    @property
    def exogenous(self) -> Exogenous:
        return Exogenous(self.task.table, *self._rows, self._coarse)

    def reset(self, seed: int | None = None) -> Tensor:
        """Start E episodes and return their first observations (E, D) float32.

        With random starts the first episodes have random lengths, so that not all end in the same step for ever.
        """
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        everyone = np.ones(self.num_envs, dtype=bool)
        row, scenario = self._draw(everyone)
        self.physics.reset(row, scenario)
        if self.starts == "random":
            self.steps_left = self._rng.integers(1, self.episode_steps + 1, self.num_envs)
        here = self.physics.table_row
        self._peak, self._net = self._start_peak.index_select(0, here), self._start_net.index_select(0, here)
        self._now, obs = self._look(self.physics.state, self._peak, self._net)
        self._rows = self._now.row, self._now.row
        return obs

    def step(self, action: Tensor) -> StepResult:
        """Apply actions (E, A) in [-1, 1]; environments whose episode ends begin a new one.

        Nothing is read back from the device; actions that are not finite are the caller's to refuse.
        """
        standing, next_obs, reward, self.last_flows, info = self._transition(
            self.physics.state, self._now, self._peak, self._net, action
        )
        next_obs, reward = self._lasting(next_obs), self._lasting(reward)
        obs, next_row = next_obs, standing.now.row

        self.steps_left -= 1
        ended = self.steps_left == 0
        truncated = self._none
        if ended.any():
            truncated = self._sent(ended)
            if self._captured or self.device.type != "cpu":
                state, _, peak, net = standing
                standing, first_obs = self._beginning(state, peak, net, truncated, *self._draw(ended))
                obs = self._lasting(first_obs)
            else:
                standing, obs = self._begin_some(standing, obs, ended)
        self.physics.state, self._now, self._peak, self._net = standing
        self._rows = self._now.row, next_row
        return StepResult(obs, reward, self._none, truncated, next_obs, info)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """See `VectorEnv`; exact mode rounds as CityLearn does, and a captured step has no graph."""
        return not (self.physics.exact or self._captured)

    def example_step(self, count: int, traced: bool = False) -> Callable[[], object]:
        row = torch.zeros(count, dtype=torch.int64, device=self.device)
        state, action = self.physics.fresh(row, row), torch.zeros((count, self.action_dim), device=self.device)
        here = self.physics.row_of(state)
        peak, net = self._start_peak.index_select(0, here), self._start_net.index_select(0, here)
        standing = Standing(state, self._look(state, peak, net)[0], peak, net)
        if traced:  # of what came before, only that has a gradient which follows from an action
            action.requires_grad_()
            standing = self._advance(*standing, action).standing

        def work() -> object:
            found = self._advance(*standing, action)
            now = found.standing
            return (found.obs, found.reward, found.info, now.state, now.net) if traced else found

        return work

    def detach(self) -> None:
        standing = Standing(self.physics.state, self._now, self._peak, self._net)
        self.physics.state, self._now, self._peak, self._net = mapped(torch.Tensor.detach, standing)
        self.last_flows = None if self.last_flows is None else mapped(torch.Tensor.detach, self.last_flows)

    def part(self, first: int, last: int) -> DistrictSite:
        own = copy(self)
        own.physics, own.num_envs = copy(self.physics), last - first
        own.steps_left, own._none = self.steps_left[first:last].copy(), self._none[first:last]
        own._rows = (self._rows[0][first:last], self._rows[1][first:last])
        standing = Standing(self.physics.state, self._now, self._peak, self._net)
        # A tensor that holds for all environments together has one row, and stays.
        cut = mapped(lambda x: x[first:last] if len(x) == self.num_envs else x, standing)
        own.physics.state, own._now, own._peak, own._net = cut
        own.physics.num_envs = own.num_envs
        return own

    def join(self, parts: Sequence[VectorEnv]) -> None:
        own = [part for part in parts if isinstance(part, DistrictSite)]
        standings = [Standing(p.physics.state, p._now, p._peak, p._net) for p in own]

        def joined(*tensors: Tensor) -> Tensor:
            return torch.cat(tensors) if all(len(x) == p.num_envs for x, p in zip(tensors, own)) else tensors[0]

        self.physics.state, self._now, self._peak, self._net = mapped(joined, *standings)
        self._rows = torch.cat([p._rows[0] for p in own]), torch.cat([p._rows[1] for p in own])
        self.steps_left = np.concatenate([p.steps_left for p in own])
        self.last_flows = None

    @property
    def live(self) -> tuple[tuple[Tensor, ...], ...]:
        """What is kept from one step to the next, (E, ...) each, but for constants of the task in a moment.

        Tensors of different groups are never the same at the end of a step that began new episodes.
        """
        now, flows = tuple(self._now), () if self.last_flows is None else tuple(named_tensors(self.last_flows).values())
        state = tuple(named_tensors(self.physics.state).values())
        return state, now, flows, (self._peak,), (self._net,), (self._rows[1],), (self._none,)

    def capture(self) -> None:
        """See `VectorEnv`; needs a GPU. Of a step's result only the observations last: the next step overwrites
        everything else."""
        self._transition = Graphed(self._advance, self.device)
        self._beginning = Graphed(self._begin, self.device)
        self._captured = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "physics": {name: self._lasting(x) for name, x in named_tensors(self.physics.state).items()},
            "running_peak": self._lasting(self._peak),
            "net": self._lasting(self._net),
            "left": torch.from_numpy(self.steps_left.copy()),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        physics = {name: tensor.to(self.device, copy=True) for name, tensor in state["physics"].items()}
        self.physics.state = from_names(self.physics.state, physics)
        self._peak, self._net = (state[name].to(self.device, copy=True) for name in ("running_peak", "net"))
        self.steps_left = state["left"].numpy().copy()
        self._rng.bit_generator.state = state["rng"]
        self._now, _ = self._look(self.physics.state, self._peak, self._net)
        self._rows = self._now.row, self._now.row

    def _advance(self, state: State, now: Moment, peak: Tensor, net: Tensor, action: Tensor) -> Transition:
        """One step of every environment as a pure function of where it stands; nothing is read back from the device."""
        task, physics = self.task, self.physics
        action = action.to(physics.dtype).clamp(-1, 1)
        battery, other, sockets = task.device_actions(now, action)
        batteries = action.new_zeros((len(action), physics.buildings)).index_copy(1, self._with_action, battery)
        thermal = task.thermal_actions(now, other) if task.thermal is not None else ()
        tanks, hvac = thermal or (None, None)
        commands = task.appliance_commands(now, other) if physics.appliances is not None else None
        state, flows = physics.advance(state, batteries, sockets, tanks, hvac, commands)
        heat = flows.thermal
        inside, points = (None, None) if heat is None else (heat.temperature, heat.set_points)
        outcome = task.outcome(now, flows.net, flows.socket_soc, peak, net, inside, _lacking(flows), points)
        reward, par = outcome.reward, self._trajectory
        if par is not None:
            reward = par.expected(reward, now.row, peak, outcome.running_peak) - par.reward.index_select(0, now.row)
        peak = task.next_peak(physics.row_of(state), outcome.running_peak)
        following, obs = self._look(state, peak, flows.net)
        standing = Standing(state, following, peak, flows.net)
        imported = flows.net.clamp(min=0).sum(-1)
        info = {
            "energy_cost": outcome.terms.energy,
            "demand_cost": outcome.terms.demand,
            "carbon_cost": outcome.terms.carbon,
            "shortfall_cost": outcome.terms.shortfall,
            **task.tariff_costs(outcome.terms, flows.net),
            **self._thermal_info(outcome, flows),
            "carbon_kg": (flows.net * now.carbon).clamp(min=0).sum(-1),
            "import_kwh": imported,
            "export_kwh": imported - flows.net.sum(-1),
            "ev_kwh": flows.socket_kwh.sum(-1),
            "missing_kwh": outcome.missing_kwh,
            "departures": outcome.departures,
            "served": outcome.served,
        }
        return Transition(standing, obs, reward, flows, info)

    def _thermal_info(self, outcome: Outcome, flows: Flows) -> dict[str, Tensor]:
        """What a step of a site with thermal devices or appliances has besides, (E,) each."""
        missed = {} if flows.missed_kwh is None else {"missed_cycles_kwh": flows.missed_kwh}
        if flows.thermal is None:
            return {"unserved_cost": outcome.terms.unserved, **missed} if missed else {}
        return {
            **missed,
            "comfort_cost": outcome.terms.comfort,
            "unserved_cost": outcome.terms.unserved,
            "thermal_kwh": flows.thermal.electricity.sum((-2, -1)),
            "unserved_kwh": flows.thermal.unserved,
        }

    def _begin(
        self, state: State, peak: Tensor, net: Tensor, ended: Tensor, row: Tensor, scenario: Tensor
    ) -> tuple[Standing, Tensor]:
        """New episodes at these rows of these years where `ended`; where everyone stands then, and what they see."""
        state = self.physics.restarted(state, ended, row, scenario)
        here = self.physics.row_of(state)
        peak = torch.where(ended[:, None, None], self._start_peak.index_select(0, here), peak)
        net = torch.where(ended[:, None], self._start_net.index_select(0, here), net)
        now, obs = self._look(state, peak, net)
        return Standing(state, now, peak, net), obs

    def _begin_some(self, standing: Standing, obs: Tensor, ended: NDArray[np.bool_]) -> tuple[Standing, Tensor]:
        """As `_begin`, computed for the environments where `ended` (E,) alone, which are few in a step."""
        index = self._sent(np.flatnonzero(ended))
        row, scenario = (values.index_select(0, index) for values in self._draw(ended))
        new = self.physics.fresh(row, scenario)
        here = self.physics.row_of(new)
        peak, net = self._start_peak.index_select(0, here), self._start_net.index_select(0, here)
        now, first_obs = self._look(new, peak, net)
        if ended.all():
            return Standing(new, now, peak, net), first_obs
        state = self.physics.replaced(standing.state, index, new)
        now, peak, net = put(
            index, (now, peak, net), (standing.now, standing.running_peak, standing.net), self.num_envs
        )
        return Standing(state, now, peak, net), obs.index_copy(0, index, first_obs)

    def _lasting(self, result: Tensor) -> Tensor:
        """The result in memory that the next step will not overwrite."""
        return result.clone() if self._captured else result

    def _start_tables(self, years: list[Site], trajectory: Trajectory | None) -> tuple[Tensor, Tensor]:
        """Running peaks (S * T, B, C) and net consumption (S * T, B) before each row."""
        if trajectory is not None:
            self.physics.start_soc = trajectory.battery_soc, trajectory.vehicle_soc
            return trajectory.running_peak, trajectory.net
        peaks = np.concatenate([idle_peaks(site, tariff) for site, tariff in zip(years, self.task.tariffs)])
        start_peak = torch.from_numpy(peaks).to(self.device, self.physics.dtype)
        return start_peak, torch.zeros_like(start_peak[..., 0])

    @property
    def observation(self) -> Tensor:
        """(E, D) of where the environments stand."""
        return self._look(self.physics.state, self._peak, self._net)[1]

    def _look(self, state: State, peak: Tensor, net: Tensor) -> tuple[Moment, Tensor]:
        """What the environments stand before, and the observation (E, D) of it."""
        now = self.task.moment(self.physics.row_of(state), self.physics.soc_at_sockets(state))
        battery_soc = state.battery_soc.index_select(1, self._with_battery)
        heat = None
        if state.thermal is not None:
            heat = state.thermal.tank_soc, state.thermal.temperature, self.physics.set_points(state)
        machines = None
        if self.physics.appliances is not None and state.appliances is not None:
            here = self.physics.row_of(state)
            machines = (
                self.physics.appliances.waiting(state.appliances, here),
                self.physics.appliances.running(state.appliances),
            )
        return now, self.task.observe(now, battery_soc, net, peak, net.new_zeros((len(net), 0)), heat, machines)

    def _draw(self, who: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """Start rows and years (E,) for the environments in `who`; the other entries mean nothing."""
        row = np.zeros(self.num_envs, dtype=np.int64)
        scenario = np.zeros(self.num_envs, dtype=np.int64)
        count = int(who.sum())
        if self.starts == "random":
            row[who] = self._rng.integers(0, self.task.rows - self.episode_steps, count)
        scenario[who] = self._rng.integers(0, self._years, count)
        self.steps_left[who] = self.episode_steps
        return self._sent(row), self._sent(scenario)

    def _sent(self, values: NDArray[Any]) -> Tensor:
        """On the device, as a rule without waiting for it; the call returns when the values have been read."""
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _indices(self, chosen: list[bool]) -> Tensor:
        return torch.tensor(np.flatnonzero(chosen), dtype=torch.int64, device=self.device)
