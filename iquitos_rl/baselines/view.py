"""What a rule sees: the observation of a site, decoded to kW and kWh, and its decisions turned into actions.

Rules read the same observation as an agent, so they run in both engines and know nothing that an agent does not.

E environments, B buildings, F of which have sockets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.baselines.stays import best_power, best_root, lowest_soc
from iquitos_rl.cases.site import Bools, Site
from iquitos_rl.envs.task.objective import Tariff
from iquitos_rl.envs.task.observation import sockets_by_building
from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.errors import UserError

EXPENSIVE = 1.02
"""An hour of the day is expensive where its mean price exceeds the mean of all by this factor."""


class Now(NamedTuple):
    """The present hour, before the action."""

    hour: Tensor
    """(E,) int64, 0 to 23."""
    month: Tensor
    """(E,) int64, 1 to 12."""
    expensive: Tensor
    """(E, 1) bool, see `expensive_hours`."""
    load_kw: Tensor
    """(E, B)."""
    pv_kw: Tensor
    """(E, B)."""
    battery_soc: Tensor
    """(E, B), 0 where there is no battery."""
    stored_kwh: Tensor
    """(E, B) that the battery could still give at the meter."""
    room_kwh: Tensor
    """(E, B) that it could still take at the meter."""
    peak_kw: Tensor
    """(E, B) highest import of the month so far in the peak period."""
    off_peak_kw: Tensor
    """(E, B) the same for the other hours."""
    ev_least_kw: Tensor
    """(E, B) what vehicles must take now to leave charged in time."""
    ev_most_kw: Tensor
    """(E, B) what they could take."""


class Decision(NamedTuple):
    battery_kw: Tensor
    """(E, B) at the meter, positive to charge."""
    ev_share: Tensor
    """(E, B) in [0, 1], from what vehicles must take to what they could take."""


def expensive_hours(site: Site, tariff: Tariff) -> Bools:
    """(24,) the hours worth saving energy for: those of the demand charge's peak, else those with a high mean price."""
    if tariff.peak_hours:
        return np.isin(np.arange(24), tariff.peak_hours)
    price = np.mean([building.price for building in site.buildings], axis=0)
    count = np.maximum(np.bincount(site.hour, minlength=24), 1)
    by_hour = np.bincount(site.hour, price, minlength=24) / count
    return np.asarray(by_hour > EXPENSIVE * price.mean())


class SiteView:
    """Decodes observations of a site and encodes decisions about it.

    Raises:
        UserError: the task has no EV guard, or sockets are to be moved one by one.
    """

    def __init__(self, task: SiteTask) -> None:
        if not task.settings.ev_guard or task.settings.sockets != "fleet":
            raise UserError("rules need ev_guard: true and sockets: fleet")
        site, self.device, self.hours = task.sites[0], task.device, task.hours
        self.buildings = len(site.buildings)
        place = {column.name: i for i, column in enumerate(task.encoding.columns)}
        low = torch.tensor([column.low for column in task.encoding.columns], device=self.device)
        high = torch.tensor([column.high for column in task.encoding.columns], device=self.device)
        self._scale, self._offset = (high - low) / 2, (high + low) / 2

        def columns(suffix: str, buildings: list[int]) -> Tensor:
            return self._index([place[f"{site.buildings[b].name}/{suffix}"] for b in buildings])

        def numbers(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=self.device)

        everyone = list(range(self.buildings))
        with_battery = [b for b in everyone if site.buildings[b].battery is not None]
        with_sockets = list(sockets_by_building(site))
        self._hour, self._month = (
            self._index([place[f"{name}_sin"], place[f"{name}_cos"]]) for name in ("hour", "month")
        )
        self._meter = torch.cat(
            [columns(suffix, everyone) for suffix in ("load", "pv", "peak_running", "off_peak_running")]
        )
        self._soc, self._fleet = columns("battery_soc", with_battery), self._index(with_sockets)
        self._fleet_kw = torch.cat([columns(suffix, with_sockets) for suffix in ("fleet_least", "fleet_most")])
        self._with_battery = self._index(with_battery)
        self._acting = self._index([b for b in with_battery if site.buildings[b].battery_action])
        self._other_actions = task.num_other_actions

        batteries = [site.buildings[b].battery for b in with_battery]
        self._capacity = numbers([battery.capacity for battery in batteries if battery])
        self._lowest = numbers([lowest_soc(battery) for battery in batteries if battery])
        self._root = numbers([best_root(battery) for battery in batteries if battery])
        acting = {b: site.buildings[b].battery for b in self._acting.tolist()}
        power = [best_power(battery) if (battery := acting.get(b)) else 0.0 for b in everyone]
        nominal = [battery.nominal_power if (battery := acting.get(b)) else 1.0 for b in everyone]
        self.power, self.nominal = numbers(power), numbers(nominal).clamp(min=1e-6)
        """(B,) kW of each building's battery at its best, 0 where none obeys, and (B,) its nominal power, else 1 kW."""
        self.usable = numbers([0.0] * self.buildings)
        """(B,) kWh between the lowest SOC and full."""
        self.usable[self._with_battery] = (1 - self._lowest) * self._capacity
        tariff = task.objective.tariff
        self.expensive = torch.from_numpy(expensive_hours(site, tariff)).to(self.device)
        """(24,) bool."""
        peak = torch.isin(torch.arange(24), torch.tensor(tariff.peak_hours, dtype=torch.int64)).to(self.device)
        self.in_peak, self.charged = peak, torch.where(peak, *(task.peak_price > 0))
        """(24,) bool each: hours of the demand charge's peak period, and those whose highest import is charged."""
        least, most = self._fleet_kw.chunk(2)
        others = self.nominal.new_zeros(self._other_actions)
        kwh = self.nominal.new_zeros(self.buildings).index_copy(0, self._with_battery, self._capacity)
        of_acting = self.nominal[self._acting]
        self.most_kw = torch.cat([of_acting, others, (high[most] - low[least]) / 2])
        """(A,) kW, more than which one unit of an action never adds to its building's import."""
        self.hourly = torch.cat([kwh[self._acting] / of_acting, others, torch.full_like(high[most], 2.0)])
        """(A,) what an action must be to move a battery's capacity in an hour, or vehicles over their whole range."""
        self.building_of = torch.cat([self._acting, self._acting.new_zeros(self._other_actions), self._fleet])
        """(A,) where each action is."""

    def __call__(self, obs: Tensor) -> Now:
        """Decode observations (E, D)."""
        values = torch.addcmul(self._offset, obs, self._scale)
        hour, month = (_phase(values[:, place], period) for place, period in ((self._hour, 24), (self._month, 12)))
        load, pv, peak, off_peak = values[:, self._meter].split(self.buildings, dim=-1)
        soc, nothing = values[:, self._soc], torch.zeros_like(load)
        stored = (soc - self._lowest).clamp(min=0) * self._capacity * self._root
        room = (1 - soc).clamp(min=0) * self._capacity / self._root
        least, most = values[:, self._fleet_kw].chunk(2, dim=-1)
        return Now(
            hour=hour,
            month=torch.where(month == 0, 12, month),
            expensive=self.expensive[hour].unsqueeze(-1),
            load_kw=load / self.hours,
            pv_kw=pv / self.hours,
            battery_soc=nothing.index_copy(1, self._with_battery, soc),
            stored_kwh=nothing.index_copy(1, self._with_battery, stored),
            room_kwh=nothing.index_copy(1, self._with_battery, room),
            peak_kw=peak,
            off_peak_kw=off_peak,
            ev_least_kw=nothing.index_copy(1, self._fleet, least),
            ev_most_kw=nothing.index_copy(1, self._fleet, most),
        )

    def kw_per_action(self, obs: Tensor) -> Tensor:
        """(E, A) kW that one unit of each action adds to the import of its building."""
        place = self._fleet_kw
        least, most = torch.addcmul(self._offset[place], obs[:, place], self._scale[place]).chunk(2, dim=-1)
        battery = self.nominal[self._acting].expand(len(obs), -1)
        return torch.cat([battery, battery.new_zeros((len(obs), self._other_actions)), (most - least) / 2], dim=-1)

    def actions(self, decision: Decision) -> Tensor:
        """(E, A) actions in [-1, 1]."""
        battery = (decision.battery_kw / self.nominal).clamp(-1, 1)[:, self._acting]
        other = battery.new_zeros((len(battery), self._other_actions))
        return torch.cat([battery, other, decision.ev_share[:, self._fleet] * 2 - 1], dim=-1)

    def _index(self, values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)


def _phase(columns: Tensor, period: int) -> Tensor:
    """(E,) whole number below a period from its sine and cosine (E, 2)."""
    sine, cosine = columns.unbind(-1)
    return (torch.atan2(sine, cosine) * (period / (2 * np.pi))).round().to(torch.int64) % period
