"""Appliances: a command starts the cycle that may run now, and its energies follow step by step.

E environments, B buildings, A appliances, S * T table rows, L steps of the longest cycle. Cycles of all years and
appliances are numbered together, from 1; 0 stands for none.

CityLearn refuses a start if it would exceed the limits of an `electrical_service`, or meet an outage without enough PV,
at any step of the cycle, as far as the data tell. It asks before the other devices have acted and once more
afterwards.

Source: CityLearn 3.0.2, `energy_model.py` (DeferrableAppliance) and `internal/building_ops.py`
(_apply_deferrable_profile_constraints, _deferrable_profile_feasible, _limit_outage_control_action).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iquitos_rl.cases.appliance import NOTHING
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.district.limits import Limits

NO_CYCLE = 0
SLACK_KW, OUTAGE_SLACK_KW = 1e-6, 1e-9
"""By which a start may exceed a limit, and what is left of nothing in an outage."""


class ApplianceState(NamedTuple):
    """Before the next action."""

    cycle: Tensor
    """(E, A) int64, the cycle that was started last."""
    age: Tensor
    """(E, A) int64, steps since then, at most L."""


class Appliances:
    """Tables of the appliances of E environments.

    Args:
        sites: years of one structure.
        outage: (S * T, B) bool, None where there is none.
        limits: of the grid connections.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        dtype: torch.dtype,
        device: torch.device,
        outage: Tensor | None,
        limits: Limits | None,
    ) -> None:
        first = sites[0]
        every = [[appliance for _, appliance in site.appliances] for site in sites]
        self.hours, self.rows, self.outage, self.limits = first.hours_per_step, first.rows, outage, limits
        self.building = [b for b, _ in first.appliances]
        self.longest = max((own.profiles.shape[1] for year in every for own in year), default=1)
        profiles, durations, cycles = [np.zeros((1, self.longest + 1))], [np.zeros(1, dtype=np.int64)], []
        count = 1
        for year in every:
            columns = []
            for own in year:
                columns.append(np.where(own.cycle == NOTHING, NO_CYCLE, own.cycle + count))
                count += len(own.profiles)
                profiles.append(np.pad(own.profiles, ((0, 0), (0, self.longest + 1 - own.profiles.shape[1]))))
                durations.append(own.duration)
            cycles.append(np.stack(columns, axis=1))
        table = np.concatenate(profiles)
        self.cycle = torch.from_numpy(np.concatenate(cycles)).to(device)
        """(S * T, A) int64, the cycle that may start in a row."""
        self.profile = torch.from_numpy(table).to(device, dtype).flatten()
        self.total = torch.from_numpy(table.sum(1)).to(device, dtype)
        """(cycles,) kWh."""
        self.duration = torch.from_numpy(np.concatenate(durations)).to(device)
        closes = [np.stack([own.closes for own in year], axis=1) for year in every]
        self.closes = torch.from_numpy(np.concatenate(closes)).to(device)
        """(S * T, A) bool, the last row in which a cycle may start."""
        self.threshold = torch.tensor([own.threshold for own in every[0]], dtype=dtype, device=device)
        self.at = torch.zeros((len(self.building), len(first.buildings)), dtype=dtype, device=device)
        """(A, B) 1 where an appliance belongs to a building."""
        self.at[range(len(self.building)), self.building] = 1
        self.base: Tensor | None = None
        """(S * T, B) kW of everything else by the data; None where no start is ever refused."""
        if outage is not None or (limits is not None and limits.scopes):
            self.base = torch.from_numpy(np.concatenate([_base_kw(site) for site in sites])).to(device, dtype)

    def fresh(self, envs: int) -> ApplianceState:
        """The state at the start of an episode."""
        nothing = self.cycle.new_zeros((envs, len(self.building)))
        return ApplianceState(nothing, nothing.clone())

    def running(self, state: ApplianceState) -> Tensor:
        """(E, A) kWh of the cycles that were started before."""
        return self._energy(state.cycle, state.age)

    def waiting(self, state: ApplianceState, here: Tensor) -> Tensor:
        """(E, A) bool, whether a cycle may start that has not been started."""
        cycle = self.cycle.index_select(0, here)
        return (cycle != NO_CYCLE) & (cycle != state.cycle)

    def wanted(self, state: ApplianceState, here: Tensor, action: Tensor) -> Tensor:
        """(E, A) bool, whether actions (E, A) start a cycle and the data's loads let it."""
        asked = (action > self.threshold) & self.waiting(state, here)
        return asked if self.base is None else self._permitted(state, here, asked, None)

    def permitted(self, state: ApplianceState, here: Tensor, wanted: Tensor, now_kw: Tensor) -> Tensor:
        """`wanted` as far as the other devices' loads of this step, now_kw (E, B), let it."""
        return wanted if self.base is None else self._permitted(state, here, wanted, now_kw)

    def first_kw(self, here: Tensor, wanted: Tensor) -> Tensor:
        """(E, B) kW of the first step of the cycles that are wanted."""
        cycle = self.cycle.index_select(0, here)
        return (self._energy(cycle, torch.zeros_like(cycle)) * wanted / self.hours) @ self.at

    def start(self, state: ApplianceState, here: Tensor, started: Tensor) -> ApplianceState:
        """The state with the cycles that start in this step."""
        cycle = torch.where(started, self.cycle.index_select(0, here), state.cycle)
        return ApplianceState(cycle, torch.where(started, torch.zeros_like(state.age), state.age))

    def missed_kwh(self, state: ApplianceState, here: Tensor) -> Tensor:
        """(E,) kWh of the cycles whose last chance passed in this step without a start."""
        cycle = self.cycle.index_select(0, here)
        missed = self.closes.index_select(0, here) & (cycle != state.cycle)
        return (self.total[cycle] * missed).sum(-1)

    def rest(self, state: ApplianceState) -> ApplianceState:
        """The state at the start of the next row."""
        return ApplianceState(state.cycle, (state.age + 1).clamp(max=self.longest))

    def _energy(self, cycle: Tensor, age: Tensor) -> Tensor:
        """kWh of cycles at an age, of one shape."""
        return self.profile[cycle * (self.longest + 1) + age]

    def _permitted(self, state: ApplianceState, here: Tensor, asked: Tensor, now_kw: Tensor | None) -> Tensor:
        """One appliance after the other, since each counts those before it."""
        assert self.base is not None
        ahead = torch.arange(self.longest, device=here.device)
        last = (here // self.rows + 1) * self.rows - 1
        rows = torch.minimum(here.unsqueeze(-1) + ahead, last.unsqueeze(-1))
        load = self.base[rows]  # (E, L, B)
        if now_kw is not None:
            load = torch.cat([now_kw.unsqueeze(1), load[:, 1:]], dim=1)
        ages = (state.age.unsqueeze(1) + ahead.unsqueeze(-1)).clamp(max=self.longest)
        later = self._energy(state.cycle.unsqueeze(1).expand_as(ages), ages)
        load = load + (later / self.hours) @ self.at
        dark = None if self.outage is None else self.outage[rows]
        cycle, found = self.cycle.index_select(0, here), []
        for a, b in enumerate(self.building):
            own = self._energy(cycle[:, a, None].expand_as(rows), ahead.expand_as(rows)) / self.hours
            total = load[..., b] + own
            refused = torch.zeros_like(rows, dtype=torch.bool)
            if dark is not None:
                refused = dark[..., b] & (total > OUTAGE_SLACK_KW)
            for scope in self.limits.scopes if self.limits is not None else ():
                part = total / scope.base_divisor[b]
                refused = refused | (part > scope.import_kw[b] + SLACK_KW) | (-part > scope.export_kw[b] + SLACK_KW)
            refused = refused & (ahead < self.duration[cycle[:, a], None])
            found.append(asked[:, a] & ~refused.any(-1))
            added = own * found[-1].unsqueeze(-1)
            load = load + added.unsqueeze(-1) * self.at[a]
        return torch.stack(found, dim=-1)


def _base_kw(site: Site) -> Floats:
    """(T, B) kW of everything but batteries, vehicles and appliances, as the data have it."""
    return np.stack([b.load + b.heat_kwh - b.pv for b in site.buildings], axis=-1) / site.hours_per_step
