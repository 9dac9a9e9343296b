"""The task on a site: maps actions to devices, computes reward and observation. Shared by both engines.

The engines differ only in the physics: CityLearn, or tensor code. Everything else is here, for E environments at a
time; the CityLearn engine has E = 1.

Rows: the data of S years are stacked; `row = year * T + t` is an environment's row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.site import Site
from iquitos_rl.cases.tariff import export_prices
from iquitos_rl.envs.task import appliances
from iquitos_rl.envs.task.buildings import KEY, Buildings, buildings_of, carried, in_units
from iquitos_rl.envs.task.objective import (
    Objective,
    Tariff,
    Terms,
    billed_peaks,
    idle_bill,
    is_month_start,
    meter_rows,
    read_tariff,
    reward_scale,
    step_bill,
)
from iquitos_rl.envs.task.observation import (
    Column,
    Encoding,
    bounds,
    discharging_power,
    exogenous_columns,
    exogenous_table,
    last_row,
    make_encoding,
    socket_names,
    socket_power,
    sockets_by_building,
)
from iquitos_rl.envs.task.score import Score
from iquitos_rl.envs.task.settings import TaskSettings as TaskSettings
from iquitos_rl.envs.task.sockets import EMPTY, guarded_range, socket_tables, steps_needed, urgency
from iquitos_rl.envs.task.thermal import ThermalTask
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import shown

NO_CHARGE = 1e9
"""kW up to which an import may rise in rows that no demand charge looks at."""
SERVED_TOLERANCE = 0.05
"""A departure is served if the SOC is at most 0.05 below the wanted SOC, as in CityLearn's `min_acceptable` KPI."""


class Moment(NamedTuple):
    """A row before the action: its data, and what the vehicles need. E environments."""

    row: Tensor
    """(E,) index into the stacked tables."""
    price: Tensor
    """(E, B)."""
    carbon: Tensor
    """(E, B)."""
    idle_net: Tensor
    """(E, B) load minus PV, kWh, as it is known, see `TaskSettings.present`."""
    idle: Tensor
    """(E,) what the reward is counted from: the idle site's bill, or its score."""
    meter: Tensor
    """(E, K) see `meter_rows`."""
    steps_left: Tensor
    """(E, N) see `SocketTables`."""
    required_soc: Tensor
    """(E, N)."""
    gain: Tensor
    """(E, N) or (1, N)."""
    socket_soc: Tensor
    """(E, N) SOC of the connected vehicle, 0 at an empty socket."""
    needed: Tensor
    """(E, N) steps of full power to the wanted SOC; 0 at an empty socket."""
    least: Tensor
    """(E, N) share of the charger's power at an action of -1; 0 at an empty socket."""
    most: Tensor
    """(E, N) the same at an action of +1."""


class Outcome(NamedTuple):
    """Cost and result of one step, (E,) each unless noted."""

    reward: Tensor
    terms: Terms
    running_peak: Tensor
    """(E, B, C) kW after the step, not yet reset for a new month."""
    missing_kwh: Tensor
    departures: Tensor
    served: Tensor


def read_spec(spec: Mapping[str, Any]) -> tuple[Encoding, float]:
    """The encoding and the reward's scale from the `policy_spec` of a policy, which may come from a file.

    Raises:
        UserError: it is not what `SiteTask.policy_spec` says.
    """
    scale = spec.get("reward_scale")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise UserError(f"the policy's reward_scale must be a positive number, not {shown(repr(scale))}")
    return Encoding.from_json(spec.get("encoding", {})), float(scale)


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
            spec: `policy_spec` of a policy's training environment; None computes encoding and scale from the first
                site.
            extra: observation columns that only CityLearn computes.
            other_actions: number of actions for devices other than batteries and sockets.

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
        self.tariffs = same_meters(sites)
        """(S,) of each year; they differ in prices alone."""
        self.objective = Objective(self.tariffs[0], settings.objective)
        weights, band = self.objective.score, settings.objective.comfort_band
        self.score = None if weights is None else Score(sites, weights, band, self.device, dtype)
        """What the reward adds up to instead of the bill."""
        each = [(site, self.objective._replace(tariff=tariff)) for site, tariff in zip(sites, self.tariffs)]
        bills = [idle_bill(*year) for year in each] if self.score is None else self.score.idle(sites)
        tables = [socket_tables(site) for site in sites]
        seen = settings.sockets, settings.forecasts, settings.present
        columns = exogenous_columns(first, self.objective.tariff, tables[0], *seen)
        self.encoding = make_encoding(first, self.objective.tariff, columns, tables[0], settings.sockets, extra)
        if len(first.buildings) > 1:
            self.encoding = in_units(self.encoding, first)
        self.buildings = None if other_actions else buildings_of(first, self.encoding, settings.sockets)
        """Where each building's columns and actions are; None where CityLearn has actions that we know nothing of."""
        self.reward_scale = reward_scale(bills[0])
        if spec is not None:
            self._take(spec)

        def rows(values: list[np.ndarray[Any, Any]], kind: torch.dtype = dtype) -> Tensor:
            return torch.from_numpy(np.concatenate(values)).to(self.device, kind)

        def scalars(site: Site, idle: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            """(T, 3 B + 1) price, carbon intensity, load minus PV as it is known, idle bill or score."""
            price, carbon, net = (
                np.stack([getattr(b, name) for b in site.buildings], axis=-1)
                for name in ("price", "carbon", "idle_net")
            )
            known = net if settings.present == "known" else last_row(net)
            return np.column_stack([price, carbon, known, idle])

        def per_socket(values: list[np.ndarray[Any, Any]], where_empty: float) -> Tensor:
            """(S * T, N), or (1, N) if each socket has the same value for all its vehicles."""
            table = np.concatenate(values)
            known = np.where(occupied, table, np.nan)
            lowest = np.fmin.reduce(known, axis=0, initial=np.inf)
            highest = np.fmax.reduce(known, axis=0, initial=-np.inf)
            if (lowest >= highest).all():
                table = np.where(np.isfinite(lowest), lowest, where_empty)[None]
            return torch.from_numpy(table).to(self.device, dtype)

        occupied = np.concatenate([t.vehicle != EMPTY for t in tables])
        self._month_goes_on = rows([~is_month_start(site) for site in sites])[:, None, None]
        self._scalars = rows([scalars(site, idle) for site, idle in zip(sites, bills)])
        """(S * T, 3 B + 1) in one table, so that `moment` needs one gather."""
        self._meter = rows([meter_rows(site, tariff) for site, tariff in zip(sites, self.tariffs)])
        """(S * T, K)."""
        earned = [export_prices(site, tariff) for site, tariff in zip(sites, self.tariffs)]
        self._export_price = None if earned[0] is None else rows([x for x in earned if x is not None])[:, None]
        """(S * T, 1)."""
        self.meters = len(self.objective.tariff.meters)
        """C highest imports that are kept for each building."""
        self._billed = len(self.objective.tariff.charges)
        self._schedule = rows([np.concatenate([t.steps_left, t.required_soc], axis=1) for t in tables])
        """(S * T, 2 N) steps left, wanted SOC."""
        observed = [exogenous_table(first, columns, self.encoding)]
        for site, tariff, own in zip(sites[1:], self.tariffs[1:], tables[1:]):
            columns = exogenous_columns(site, tariff, own, *seen)
            observed.append(exogenous_table(site, columns, self.encoding))
        self.table = torch.cat(observed).to(self.device)
        """(S * T, exogenous columns) float32."""
        self._gain = per_socket([t.gain for t in tables], 1.0)
        self._capacity = per_socket([t.capacity for t in tables], 0.0)
        lowest, smallest = tables[0].lowest, tables[0].smallest
        self._lowest = torch.from_numpy(lowest).to(self.device, dtype)
        self._drop = per_socket([t.drop for t in tables], 1.0) if (lowest < 0).any() else None
        self._floor = per_socket([t.floor for t in tables], 0.0)
        self._smallest = torch.from_numpy(smallest).to(self.device, dtype) if (smallest > 0).any() else None
        low, high = (b.to(self.device, dtype) for b in bounds(self.encoding.endogenous))
        self._scale, self._offset = 2 / (high - low), -low * 2 / (high - low) - 1

        self.num_buildings, self.num_sockets = len(first.buildings), len(first.sockets)
        with_battery = [b for b, building in enumerate(first.buildings) if building.battery is not None]
        self._with_battery = torch.tensor(with_battery, dtype=torch.int64, device=self.device)
        self.num_battery_actions = sum(b.battery is not None and b.battery_action for b in first.buildings)
        self.thermal = ThermalTask(sites, settings.objective, self.device, dtype) if first.thermal else None
        self.num_thermal_actions = 0 if self.thermal is None else self.thermal.num_actions
        self.num_appliance_actions = len(first.appliances)
        last = appliances.last_chances(sites) if settings.ev_guard else None
        self._last_chance = None if last is None else last.to(self.device)
        self.num_other_actions = self.num_thermal_actions + self.num_appliance_actions + other_actions
        groups = sockets_by_building(first)
        self._power, self._back = (
            torch.from_numpy(of(first)).to(self.device, dtype) for of in (socket_power, discharging_power)
        )
        self._fleet = torch.zeros((self.num_sockets, len(groups)), dtype=dtype, device=self.device)
        """(N, F) 1 where a socket belongs to a fleet; a fleet is the sockets of one building."""
        for f, mine in enumerate(groups.values()):
            self._fleet[mine, f] = 1
        fleets = {b: f for f, b in enumerate(groups)}
        self._fleet_of = torch.tensor([fleets[b] for b, _ in first.sockets], dtype=torch.int64, device=self.device)
        self.socket_names = [f"{first.buildings[b].name}/sockets" for b in groups]
        """The fleet or socket that each socket action controls."""
        flags = [f"{first.buildings[b].name}/any_connected" for b in groups]
        if settings.sockets == "each":
            self.socket_names = socket_names(first)
            flags = [f"{name}/connected" for name in self.socket_names]
        self._live_columns = [self.encoding.index(flag) for flag in flags]
        self.num_socket_actions = len(flags)
        self.action_dim = self.num_battery_actions + self.num_other_actions + self.num_socket_actions
        self.obs_dim = self.encoding.size

    def _take(self, spec: dict[str, Any]) -> None:
        """Encode as in the training of a policy. Raises UserError: it was trained on other columns, and not with one
        network for every building."""
        (encoding, self.reward_scale), trained = read_spec(spec), Buildings.read(spec)
        alike = [column.name for column in encoding.columns] == [column.name for column in self.encoding.columns]
        mine = self.buildings
        if trained and mine and (not mine.same_site(trained) or (trained.several and not alike)):
            self.encoding = carried(self.encoding, encoding, self.sites[0], trained)
            return
        if not alike:
            raise UserError(f"{self.sites[0].path}: the policy was trained on a site with other observation columns")
        self.encoding = encoding
        if trained is not None and self.buildings is not None:
            self.buildings = self.buildings.model_copy(update={"values": trained.values})

    @property
    def action_mask_columns(self) -> Tensor | None:
        """(A,) see `VectorEnv`: a socket's action has an effect while a vehicle is connected."""
        if self.num_sockets == 0:
            return None
        always = [-1] * (self.action_dim - self.num_socket_actions)
        return torch.tensor(always + self._live_columns, dtype=torch.int64, device=self.device)

    @property
    def can_discharge(self) -> bool:
        """Whether a socket's vehicles can give energy back."""
        return self._drop is not None

    @property
    def peak_price(self) -> Tensor:
        """(P,) reward per kW of a month's highest import, of each demand charge."""
        weight = self.objective.weights.demand if self.score is None else 0.0
        rates = torch.tensor(self.objective.tariff.rates, dtype=self.dtype)
        return (weight / self.reward_scale * rates).to(self.device)

    @property
    def policy_spec(self) -> dict[str, Any]:
        """JSON data saved with a policy, so that later observations are encoded as in training."""
        return {
            "encoding": self.encoding.to_json(),
            "reward_scale": self.reward_scale,
            "task": self.settings.model_dump(mode="json"),
            **({} if self.buildings is None else {KEY: self.buildings.model_dump(mode="json")}),
        }

    def moment(self, row: Tensor, socket_soc: Tensor) -> Moment:
        """Data of `row` (E,), and what vehicles with these SOCs (E, N) need."""
        b = self.num_buildings
        price, carbon, idle_net, idle = self._scalars.index_select(0, row).split([b, b, b, 1], dim=1)
        steps_left = required_soc = gain = soc = needed = least = most = socket_soc
        if self.num_sockets:
            steps_left, required_soc = self._schedule.index_select(0, row).split([self.num_sockets] * 2, dim=1)
            gain = _at(self._gain, row)
            connected = steps_left > 0
            soc = socket_soc * connected
            needed = steps_needed(soc, required_soc, gain)
            least, most = self._lowest.expand_as(soc), torch.ones_like(soc)
            if self.settings.ev_guard:
                drop = lowest = stored = None
                if self._drop is not None:
                    drop, lowest, stored = _at(self._drop, row), self._lowest, (soc, _at(self._floor, row))
                least, most = guarded_range(needed, steps_left, gain, drop, lowest, self._smallest, stored)
            least, most = least * connected, most * connected
        return Moment(
            row=row,
            price=price,
            carbon=carbon,
            idle_net=idle_net,
            idle=idle[:, 0],
            meter=self._meter.index_select(0, row),
            steps_left=steps_left,
            required_soc=required_soc,
            gain=gain,
            socket_soc=soc,
            needed=needed,
            least=least,
            most=most,
        )

    def observe(
        self,
        now: Moment,
        battery_soc: Tensor,
        net: Tensor,
        running_peak: Tensor,
        extra: Tensor,
        thermal: tuple[Tensor, Tensor, Tensor | None] | None = None,
        machines: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(E, D) float32 observation before the action.

        Args:
            battery_soc: (E, B') SOC of each stationary battery.
            net: (E, B) net consumption of the previous step, kWh; 0 at the start of an episode.
            running_peak: (E, B, C) kW, highest imports so far, see `Tariff.meters`.
            extra: (E, X) values of the `extra` columns.
            thermal: SOCs of tanks (E, B, 3), temperatures (E, B) and set-points (E, B, 2) in C, where the site has
                thermal devices; no set-points where they are the data's.
            machines: whether a cycle of each appliance waits (E, A), and kWh of those that run (E, A), where there are
                appliances.
        """
        headroom = battery_soc
        if len(self._with_battery):
            headroom = self._free_import(now, running_peak) - now.idle_net / self.hours
            if len(self._with_battery) < self.num_buildings:
                headroom = headroom.index_select(-1, self._with_battery)
        if self.num_sockets == 0:
            per_socket = []
        elif self.settings.sockets == "fleet":
            full_kwh = now.needed.clamp(min=0) * self._power * self.hours
            least = now.least * self._power
            if self._drop is not None:
                least = torch.where(now.least < 0, now.least * self._back, least)
            per_socket = [x @ self._fleet for x in (least, now.most * self._power, full_kwh)]
        else:
            per_socket = [now.socket_soc, urgency(now.needed, now.steps_left)]
        heat = [] if self.thermal is None or thermal is None else [self.thermal.observe(now.row, *thermal)]
        heat += [] if machines is None else [appliances.observe(*machines)]
        highest = running_peak.transpose(1, 2).flatten(1)
        values = torch.cat([battery_soc, net, highest, headroom, *per_socket, *heat, extra], dim=-1)
        encoded = torch.addcmul(self._offset, values, self._scale).clamp(-1, 1)
        return torch.cat([self.table.index_select(0, now.row), encoded.to(torch.float32)], dim=-1)

    def _free_import(self, now: Moment, running_peak: Tensor) -> Tensor:
        """(E, B) kW up to which an import raises no demand charge; charges that cost nothing count too."""
        tariff = self.objective.tariff
        if not tariff.demand:  # either of two charges counts
            peak, off_peak = running_peak.unbind(-1)
            return torch.lerp(off_peak, peak, now.meter[:, :1] * self.hours)
        counts = (now.meter[:, : self._billed] > 0).unsqueeze(1)
        return torch.where(counts, billed_peaks(running_peak, tariff), NO_CHARGE).amin(-1)

    def device_actions(self, now: Moment, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split and map an agent's action (E, A) in [-1, 1].

        Returns:
            Battery actions (E, B'') and other actions (E, X), both in [-1, 1], those of thermal devices first, then
            those of appliances, and socket actions (E, N) as shares of the charger's power, 0 at empty sockets.
        """
        sizes = [self.num_battery_actions, self.num_other_actions, self.num_socket_actions]
        battery, other, sockets = action.split(sizes, -1)
        if self.num_sockets == 0:
            return battery, other, sockets
        if self.settings.sockets == "fleet":
            sockets = sockets.index_select(-1, self._fleet_of)
        if self._drop is None:
            return battery, other, torch.lerp(now.least, now.most, (sockets + 1) / 2)
        held = now.least.clamp(min=0)
        given = torch.lerp(held, now.least, (-sockets).clamp(min=0))
        return battery, other, torch.where(sockets < 0, given, torch.lerp(held, now.most, sockets.clamp(min=0)))

    def thermal_actions(self, now: Moment, other: Tensor) -> tuple[Tensor, Tensor]:
        """The part of `other` (E, X) that moves tanks (E, B, 3) and cools and heats (E, B, 2), in CityLearn's units."""
        assert self.thermal is not None
        return self.thermal.device_actions(now.row, other[..., : self.num_thermal_actions])

    def appliance_commands(self, now: Moment, other: Tensor) -> Tensor:
        """(E, A) the part of `other` (E, X) that starts appliances, in CityLearn's units."""
        first = self.num_thermal_actions
        last = None if self._last_chance is None else self._last_chance.index_select(0, now.row)
        return appliances.commands(other[..., first : first + self.num_appliance_actions], last)

    def outcome(
        self,
        now: Moment,
        net: Tensor,
        socket_soc: Tensor,
        running_peak: Tensor,
        before: Tensor,
        temperature: Tensor | None = None,
        unserved_kwh: Tensor | None = None,
        set_points: Tensor | None = None,
    ) -> Outcome:
        """Reward, bill and departures of one step.

        Args:
            now: the row that was simulated.
            net: (E, B) net consumption of that step, kWh.
            socket_soc: (E, N) SOC after the action, before departures and standby losses.
            running_peak: (E, B, C) before the step.
            before: (E, B) net consumption of the step before, kWh; 0 at the start of an episode.
            temperature: (E, B) C inside after the step, where the site has thermal devices.
            unserved_kwh: (E,) kWh that devices lacked in an outage, and of appliances that did not run.
            set_points: (E, B, 2) C for cooling and heating after the step; those of the data by default.
        """
        if self.num_sockets:
            departs = now.steps_left == 1
            short = (now.required_soc - socket_soc).clamp(min=0) * departs
            missing = (short * _at(self._capacity, now.row)).sum(-1)
            departures = departs.sum(-1)
            served = departures - (short > SERVED_TOLERANCE).sum(-1)
        else:
            missing = torch.zeros_like(now.idle)
            departures = served = torch.zeros_like(now.row)
        discomfort = None
        if self.thermal is not None and temperature is not None:
            discomfort = self.thermal.discomfort(now.row, temperature, set_points)
        terms, new_peak = step_bill(
            self.objective,
            net,
            now.price,
            now.carbon,
            running_peak,
            now.meter,
            missing,
            self.hours,
            discomfort,
            unserved_kwh,
            None if self._export_price is None else self._export_price.index_select(0, now.row),
        )
        if self.score is None:
            cost = terms.weighted(self.objective.weights)
        else:
            cost = self.score.step(now.row, net, before, temperature, unserved_kwh, set_points)
        reward = (now.idle - cost) / self.reward_scale
        return Outcome(reward.to(torch.float32), terms, new_peak, missing, departures, served)

    def next_peak(self, next_row: Tensor, running_peak: Tensor) -> Tensor:
        """(E, B, C) running peaks at the start of `next_row`: those of the month are zero in its first row."""
        goes_on = self._month_goes_on.index_select(0, next_row)
        if self.meters == self._billed:
            return running_peak * goes_on
        of_month, of_all = running_peak.split([self._billed, self.meters - self._billed], dim=-1)
        return torch.cat([of_month * goes_on, of_all], dim=-1)

    def tariff_costs(self, terms: Terms, net: Tensor) -> dict[str, Tensor]:
        """Terms of a bill that only some tariffs have, (E,) each, and what an export limit takes, from (E, B) kWh."""
        found: dict[str, Tensor] = {}
        tariff = self.objective.tariff
        if self._export_price is not None:
            found["export_cost"] = terms.export
        if tariff.fixed:
            found["fixed_cost"] = terms.fixed
        if tariff.export_limit_kw is not None:
            found["lost_export_kwh"] = (-net - tariff.export_limit_kw * self.hours).clamp(min=0).sum(-1)
        return found


def same_meters(sites: Sequence[Site]) -> tuple[Tariff, ...]:
    """The tariff of each year. Raises UserError: they do not charge the same things."""
    tariffs = tuple(read_tariff(site.path) for site in sites)

    def kinds(tariff: Tariff) -> tuple[object, ...]:
        fixed = (tariff.export_price is None, tariff.export_limit_kw, tariff.standing_per_day, tariff.currency)
        return tariff.charges, *fixed

    for site, tariff in zip(sites, tariffs):
        if kinds(tariff) != kinds(tariffs[0]):
            raise UserError(f"{site.path}: its tariff charges something else than that of {sites[0].path}")
    return tariffs


def _at(table: Tensor, row: Tensor) -> Tensor:
    """Rows of a table; a table of one row applies to all."""
    return table if table.shape[0] == 1 else table.index_select(0, row)
