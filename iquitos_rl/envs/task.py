"""What turns a site's physics into a task: actions in, observation and reward out. Both engines share it.

The engines differ in who computes the physics (CityLearn, or our tensors). Everything around it stands here once, for
E environments at a time: which device actions an agent's action means, what a step costs, what the agent sees. The
CityLearn engine is the case E = 1.

Rows: the data of S years are stacked, and `row = year * T + t` picks one for each environment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from iquitos_rl.cases.site import Site
from iquitos_rl.envs.objective import (
    Objective,
    ObjectiveSettings,
    Terms,
    idle_bill,
    is_month_start,
    is_peak,
    read_tariff,
    reward_scale,
    step_bill,
)
from iquitos_rl.envs.observation import (
    Column,
    Encoding,
    Endogenous,
    bounds,
    encode,
    exogenous_table,
    make_encoding,
    socket_columns,
)
from iquitos_rl.envs.sockets import EMPTY, guarded_range, socket_action, socket_tables, steps_needed, urgency
from iquitos_rl.errors import UserError

SERVED_TOLERANCE = 0.05
"""A departure counts as served within 5 points of the wanted SOC, as in CityLearn's `min_acceptable` KPI."""


class TaskSettings(BaseModel):
    """What the agent is asked to do with a site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: ObjectiveSettings = ObjectiveSettings()
    ev_guard: bool = Field(True, description="let actions choose when to charge, never whether a departure is met")


class State(NamedTuple):
    """What the actions have led to, before the next action, E environments."""

    battery_soc: Tensor
    """(E, B') SOC of each stationary battery."""
    socket_soc: Tensor
    """(E, N) SOC of the vehicle at each socket; any value at an empty one."""
    net: Tensor
    """(E, B) net consumption of the previous step, kWh; 0 at the start."""
    running_peak: Tensor
    """(E, B, 2) highest import of the month so far, kW."""
    extra: Tensor
    """(E, X) values that only CityLearn computes."""


class Outcome(NamedTuple):
    """What one step cost and did, each (E,) unless said otherwise."""

    reward: Tensor
    terms: Terms
    running_peak: Tensor
    """(E, B, 2) after the step, before any new month."""
    missing_kwh: Tensor
    departures: Tensor
    served: Tensor


class SiteTask:
    """Actions, objective and observation of a site, over one or several years of data."""

    def __init__(
        self,
        sites: Sequence[Site],
        settings: TaskSettings = TaskSettings(),
        spec: dict[str, Any] | None = None,
        extra: tuple[Column, ...] = (),
        other_actions: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
    ) -> None:
        """
        Args:
            sites: the same site in different years.
            spec: `policy_spec` of the environment a policy was trained in; None takes encoding and scale from the
                first site.
            extra: observation columns that only CityLearn computes.
            other_actions: number of actions that are neither battery nor socket.

        Raises:
            UserError: the sites differ in structure or length, or do not fit the spec.
        """
        first = sites[0]
        for site in sites[1:]:
            if site.rows != first.rows or site.seconds_per_time_step != first.seconds_per_time_step:
                raise UserError(f"{site.path} has {site.rows} rows where {first.path} has {first.rows}")
        self.sites, self.settings = tuple(sites), settings
        self.device, self.dtype = torch.device(device), dtype
        self.rows, self.hours = first.rows, first.hours_per_step
        self.objective = Objective(read_tariff(first.path), settings.objective)
        tables = [socket_tables(site) for site in sites]
        if spec is None:
            self.encoding = make_encoding(first, self.objective.tariff, tables[0], extra)
            self.reward_scale = reward_scale(idle_bill(first, self.objective))
        else:
            self.encoding = Encoding.from_json(spec["encoding"])
            self.reward_scale = float(spec["reward_scale"])
            expected = [column.name for column in make_encoding(first, self.objective.tariff, tables[0], extra).columns]
            if expected != [column.name for column in self.encoding.columns]:
                raise UserError(f"{first.path}: the policy was trained on a site with other observation columns")

        def rows(values: list[np.ndarray[Any, Any]], kind: torch.dtype = dtype) -> Tensor:
            return torch.from_numpy(np.concatenate(values)).to(self.device, kind)

        def per_building(name: str) -> Tensor:
            return rows([np.stack([getattr(b, name) for b in site.buildings], axis=-1) for site in sites])

        self.load, self.pv = per_building("load"), per_building("pv")
        self.price, self.carbon = per_building("price"), per_building("carbon")
        """(S * T, B) each."""
        self.peak_period = rows([is_peak(site, self.objective.tariff) for site in sites], torch.bool)
        self.month_start = rows([is_month_start(site) for site in sites], torch.bool)
        self.idle = rows([idle_bill(site, self.objective) for site in sites])
        self.table = torch.cat(
            [exogenous_table(s, self.objective.tariff, t, self.encoding) for s, t in zip(sites, tables)]
        )
        self.table = self.table.to(self.device)
        """(S * T, exogenous columns) float32."""
        self.connected = rows([t.vehicle != EMPTY for t in tables], torch.bool)
        self.steps_left, self.required_soc = (
            rows([t.steps_left for t in tables]),
            rows([t.required_soc for t in tables]),
        )
        self.departs, self.capacity = rows([t.departs for t in tables], torch.bool), rows([t.capacity for t in tables])
        self.gain, self.drop = rows([t.gain for t in tables]), rows([t.drop for t in tables])
        self.lowest = torch.from_numpy(tables[0].lowest).to(self.device, dtype)
        self.deadband = torch.from_numpy(tables[0].deadband).to(self.device, dtype)
        self.low, self.high = (b.to(self.device, dtype) for b in bounds(self.encoding.endogenous))

        self.num_buildings, self.num_sockets = len(first.buildings), len(first.sockets)
        self.num_batteries = sum(building.battery is not None for building in first.buildings)
        self.num_battery_actions = sum(b.battery is not None and b.battery_action for b in first.buildings)
        self.num_other_actions = other_actions
        self.action_dim = self.num_battery_actions + other_actions + self.num_sockets
        self.obs_dim = self.encoding.size
        self.socket_columns = socket_columns(first, self.encoding)

    @property
    def action_mask_columns(self) -> Tensor | None:
        """(A,) see `VectorEnv`: a socket's action is live while a vehicle is connected."""
        if self.num_sockets == 0:
            return None
        always = torch.full((self.action_dim - self.num_sockets,), -1, dtype=torch.int64)
        return torch.cat([always, self.socket_columns[:, 0]]).to(self.device)

    @property
    def policy_spec(self) -> dict[str, Any]:
        """What must be saved with a policy for it to see the same numbers again; JSON."""
        return {
            "encoding": self.encoding.to_json(),
            "reward_scale": self.reward_scale,
            "task": self.settings.model_dump(mode="json"),
            "socket_columns": self.socket_columns.tolist(),
        }

    def observe(self, row: Tensor, state: State) -> Tensor:
        """(E, D) float32 observation before the action at `row` (E,)."""
        connected = self.connected[row]
        soc = torch.where(connected, state.socket_soc, torch.zeros_like(state.socket_soc))
        needed = steps_needed(soc, self.required_soc[row], self.gain[row])
        endogenous = Endogenous(
            battery_soc=state.battery_soc,
            net=state.net,
            running_peak=state.running_peak,
            socket_soc=soc,
            urgency=urgency(needed, self.steps_left[row]),
            extra=state.extra,
        )
        return torch.cat([self.table[row], encode(endogenous.stack(), self.low, self.high)], dim=-1)

    def device_actions(self, row: Tensor, action: Tensor, socket_soc: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split and map an agent's action (E, A) in [-1, 1].

        Returns:
            Battery actions (E, B'') in [-1, 1], other actions (E, X) in [-1, 1], and socket actions (E, N) as shares of
            the charger's power, 0 at empty sockets.
        """
        battery, other, sockets = action.split([self.num_battery_actions, self.num_other_actions, self.num_sockets], -1)
        connected = self.connected[row]
        if self.settings.ev_guard:
            gain = self.gain[row]
            needed = steps_needed(socket_soc, self.required_soc[row], gain)
            least, most = guarded_range(needed, self.steps_left[row], gain, self.drop[row], self.lowest, self.deadband)
        else:
            least, most = self.lowest.expand_as(sockets), torch.ones_like(sockets)
        return battery, other, socket_action(sockets, connected, least, most)

    def outcome(self, row: Tensor, net: Tensor, socket_soc: Tensor, running_peak: Tensor) -> Outcome:
        """Judge one step.

        Args:
            row: (E,) the step that was simulated.
            net: (E, B) net consumption of that step, kWh.
            socket_soc: (E, N) SOC after the action, before anything moves on.
            running_peak: (E, B, 2) before the step.
        """
        departs = self.departs[row]
        short = (self.required_soc[row] - socket_soc).clamp(min=0)
        zero = torch.zeros_like(short)
        missing = torch.where(departs, short * self.capacity[row], zero).sum(-1)
        served = (departs & (short <= SERVED_TOLERANCE)).sum(-1)
        terms, new_peak = step_bill(
            self.objective,
            net,
            self.price[row],
            self.carbon[row],
            running_peak,
            self.peak_period[row],
            missing,
            self.hours,
        )
        reward = (self.idle[row] - terms.weighted(self.objective.weights)) / self.reward_scale
        return Outcome(reward.to(torch.float32), terms, new_peak, missing, departs.sum(-1), served)

    def next_peak(self, next_row: Tensor, running_peak: Tensor) -> Tensor:
        """(E, B, 2) running peaks at the start of `next_row`: zero where a month begins."""
        return torch.where(self.month_start[next_row, None, None], torch.zeros_like(running_peak), running_peak)
