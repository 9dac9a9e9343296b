"""What a rule sees: the observation of a site, decoded to kW and kWh, and its decisions turned into actions.

Rules read the same observation as an agent, so they run in both engines and know nothing that an agent does not.

E environments, B buildings, F of which have sockets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.baselines.stays import best_power, best_root
from iquitos_rl.cases.site import Bools, Site
from iquitos_rl.cases.tariff import SATURDAY, Tariff
from iquitos_rl.envs.task.objective import billed_peaks
from iquitos_rl.envs.task.observation import sockets_by_building
from iquitos_rl.envs.task.site_task import NO_CHARGE, SiteTask
from iquitos_rl.errors import UserError

EXPENSIVE = 1.02  # an hour of the day is expensive where its mean price exceeds the mean of all by this factor


class Now(NamedTuple):
    """The present hour, before the action; (E, B) where nothing else is said."""

    hour: Tensor  # (E,) int64, 0 to 23
    month: Tensor  # (E,) int64, 1 to 12
    expensive: Tensor  # (E, 1) bool, see `expensive_hours`
    load_kw: Tensor
    pv_kw: Tensor
    battery_soc: Tensor  # 0 where there is no battery
    stored_kwh: Tensor  # what the battery could still give at the meter
    room_kwh: Tensor  # what it could still take at the meter
    peak_kw: Tensor  # highest import so far that raises no demand charge in an expensive hour
    off_peak_kw: Tensor  # the same in a cheap hour
    highest_kw: Tensor  # (E, B, C) highest imports so far, see `Tariff.meters`
    limit_kw: Tensor  # highest import that raises no demand charge in the present hour; infinite where none is due
    ev_least_kw: Tensor  # what vehicles must take now to leave charged in time; rules discharge none
    ev_most_kw: Tensor  # what they could take


class Decision(NamedTuple):
    battery_kw: Tensor  # (E, B) at the meter, positive to charge
    ev_share: Tensor  # (E, B) in [0, 1], from what vehicles must take to what they could take


def expensive_hours(site: Site, tariff: Tariff) -> Bools:
    """(24,) the hours worth saving energy for: those of demand charges on some hours of the day, else those with a high
    mean price."""
    charged = [w.hours for c in tariff.demand if c.price for w in c.when if w.hours is not None and len(w.hours) < 24]
    hours = sorted({hour for own in charged for hour in own}) if tariff.demand else tariff.peak_hours
    if 0 < len(hours) < 24:
        return np.isin(np.arange(24), hours)
    price = np.mean([building.price for building in site.buildings], axis=0)
    by_hour = np.bincount(site.hour, price, minlength=24) / np.maximum(np.bincount(site.hour, minlength=24), 1)
    return np.asarray(by_hour > EXPENSIVE * price.mean())


class SiteView:
    """Decodes observations of a site and encodes decisions about it. Raises UserError: the task has no EV guard, or
    sockets are to be moved one by one."""

    def __init__(self, task: SiteTask) -> None:
        if not task.settings.ev_guard or task.settings.sockets != "fleet":
            raise UserError("rules need ev_guard: true and sockets: fleet")
        site, self.device, self.hours = task.sites[0], task.device, task.hours
        self.buildings = len(site.buildings)
        place = {column.name: i for i, column in enumerate(task.encoding.columns)}

        def index(values: Iterable[int]) -> Tensor:
            return torch.tensor([*values], dtype=torch.int64, device=self.device)

        def numbers(values: Iterable[float]) -> Tensor:
            return torch.tensor([*values], dtype=torch.float32, device=self.device)

        def columns(buildings: Iterable[int], *suffixes: str) -> Tensor:
            return index(place[f"{site.buildings[b].name}/{suffix}"] for suffix in suffixes for b in buildings)

        low, high = (numbers(getattr(column, end) for column in task.encoding.columns) for end in ("low", "high"))
        self._scale, self._offset = (high - low) / 2, (high + low) / 2
        everyone, with_sockets = range(self.buildings), list(sockets_by_building(site))
        batteries = {b: building.battery for b, building in enumerate(site.buildings) if building.battery is not None}
        acting = {b: battery for b, battery in batteries.items() if site.buildings[b].battery_action}
        self._hour, self._month, self._weekday = (
            index([place[f"{of}_sin"], place[f"{of}_cos"]]) for of in ("hour", "month", "weekday")
        )
        self._tariff = tariff = task.objective.tariff
        self._meter = columns(everyone, "load", "pv", *tariff.meters)
        self._soc = columns(batteries, "battery_soc")
        self._fleet_kw = columns(with_sockets, "fleet_least", "fleet_most")
        self._with_battery, self._acting, self._fleet = index(batteries), index(acting), index(with_sockets)
        self._other_actions = task.num_other_actions

        self._capacity = numbers(battery.capacity for battery in batteries.values())
        self._lowest = numbers(battery.lowest_soc for battery in batteries.values())
        self._root = numbers(map(best_root, batteries.values()))
        self.power = numbers(best_power(acting[b]) if b in acting else 0.0 for b in everyone)
        self.nominal = numbers(acting[b].nominal_power if b in acting else 1.0 for b in everyone).clamp(min=1e-6)
        """(B,) kW of each building's battery at its best, 0 where none obeys, and (B,) its nominal power, else 1 kW."""
        nothing = torch.zeros(self.buildings, device=self.device)
        self.usable = nothing.index_copy(0, self._with_battery, (1 - self._lowest) * self._capacity)
        """(B,) kWh between the lowest SOC and full."""
        self.expensive = torch.from_numpy(expensive_hours(site, tariff)).to(self.device)
        """(24,) bool."""
        months, days, hours = np.arange(1, 13)[:, None, None], np.array([1, SATURDAY])[:, None], np.arange(24)
        counts = np.stack([charge.counts(months, days, hours) for charge in tariff.charges], axis=-1)
        self._counts = torch.from_numpy(counts).to(self.device)
        """(12, 2, 24, P) whether a charge looks at an hour of a workday, or of a weekend, in each month."""
        self._priced = task.peak_price > 0
        _, most = self._fleet_kw.chunk(2)
        of_acting, others = self.nominal[self._acting], self.nominal.new_zeros(self._other_actions)
        self._gives = task.can_discharge
        self._units = 1 if self._gives else 2
        """Of an action, from what vehicles must take to what they can take."""
        self.most_kw = torch.cat([of_acting, others, high[most] / self._units])
        """(A,) kW, more than which one unit of an action never adds to its building's import."""
        kwh = nothing.index_copy(0, self._with_battery, self._capacity)[self._acting]
        self.hourly = torch.cat([kwh / of_acting, others, torch.full_like(high[most], 2.0)])
        """(A,) what an action must be to move a battery's capacity in an hour, or vehicles over their whole range."""
        known = torch.ones_like(self.hourly, dtype=torch.bool)
        self.moved = known.index_fill(0, index(range(len(acting), len(acting) + self._other_actions)), False)
        """(A,) whether rules decide this action; the others they leave at zero."""
        self.building_of = torch.cat([self._acting, self._acting.new_zeros(self._other_actions), self._fleet])
        """(A,) where each action is."""

    def __call__(self, obs: Tensor) -> Now:
        """Decode observations (E, D)."""
        values = torch.addcmul(self._offset, obs, self._scale)
        periods = (self._hour, 24), (self._month, 12), (self._weekday, 7)
        hour, month, weekday = (_phase(values[:, place], period) for place, period in periods)
        load, pv, *highest = values[:, self._meter].split(self.buildings, dim=-1)
        soc, nothing = values[:, self._soc], torch.zeros_like(load)
        stored = (soc - self._lowest).clamp(min=0) * self._capacity * self._root
        room = (1 - soc).clamp(min=0) * self._capacity / self._root
        soc, stored, room = (nothing.index_copy(1, self._with_battery, x) for x in (soc, stored, room))
        least, most = (nothing.index_copy(1, self._fleet, x) for x in values[:, self._fleet_kw].chunk(2, dim=-1))
        least = least.clamp(min=0)
        month, expensive = torch.where(month == 0, 12, month), self.expensive[hour].unsqueeze(-1)
        load, pv, highest_kw = load / self.hours, pv / self.hours, torch.stack(highest, dim=-1)
        weekend = ((weekday == 0) | (weekday >= SATURDAY)).long()  # the seventh day has the phase of day 0
        counts = self._counts[month - 1, weekend, hour].unsqueeze(1)
        billed = billed_peaks(highest_kw, self._tariff)
        limit = torch.where(counts & self._priced, billed, torch.inf).amin(-1)
        peak, off_peak = highest[0], highest[1] if len(highest) > 1 else highest[0]
        if self._tariff.demand:
            # Where nothing is charged, an import has no limit, and no expensive hour is worth waiting for.
            peak, off_peak = torch.where(limit.isinf(), 0.0, limit), limit.clamp(max=NO_CHARGE)
        return Now(hour, month, expensive, load, pv, soc, stored, room, peak, off_peak, highest_kw, limit, least, most)

    def kw_per_action(self, obs: Tensor) -> Tensor:
        """(E, A) kW that one unit of each action adds to the import of its building."""
        place = self._fleet_kw
        least, most = torch.addcmul(self._offset[place], obs[:, place], self._scale[place]).chunk(2, dim=-1)
        battery, fleet = self.nominal[self._acting].expand(len(obs), -1), (most - least.clamp(min=0)) / self._units
        return torch.cat([battery, battery.new_zeros((len(obs), self._other_actions)), fleet], dim=-1)

    def actions(self, decision: Decision) -> Tensor:
        """(E, A) actions in [-1, 1]."""
        battery = (decision.battery_kw / self.nominal).clamp(-1, 1)[:, self._acting]
        other = battery.new_zeros((len(battery), self._other_actions))
        share = decision.ev_share[:, self._fleet]
        return torch.cat([battery, other, share if self._gives else share * 2 - 1], dim=-1)


def _phase(columns: Tensor, period: int) -> Tensor:
    """(E,) whole number below a period from its sine and cosine (E, 2)."""
    sine, cosine = columns.unbind(-1)
    return (torch.atan2(sine, cosine) * (period / (2 * np.pi))).round().to(torch.int64) % period
