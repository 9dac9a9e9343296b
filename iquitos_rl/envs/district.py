"""The district engine: CityLearn's electrical physics as tensors, E environments at once on one device.

`Physics` moves batteries and vehicles, `SiteTask` turns that into observations and rewards; here the two are stepped
together, episodes end and begin again. Actions, observations and rewards are those of the CityLearn engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.cases.reader import read_site
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.objective import Tariff, is_month_start, is_peak
from iquitos_rl.envs.physics import Physics
from iquitos_rl.envs.task import SiteTask, TaskSettings
from iquitos_rl.envs.vector import StepResult

Starts = Literal["year", "random"]


def idle_peaks(site: Site, tariff: Tariff) -> Floats:
    """(T, B, 2) highest import in kW of the idle site so far in the month, before each row, peak and off-peak period.

    Where an episode begins in the middle of a month, this is what its meter would have seen.
    """
    net = np.stack([building.load - building.pv for building in site.buildings], axis=-1)
    demand = np.maximum(net, 0)[..., None] / site.hours_per_step
    period = is_peak(site, tariff)
    demand = demand * np.stack([period, ~period], axis=-1)[:, None, :]
    starts = np.flatnonzero(is_month_start(site))
    before = np.zeros_like(demand)
    for first, last in zip(starts, [*starts[1:], site.rows]):
        before[first + 1 : last] = np.maximum.accumulate(demand[first : last - 1], axis=0)
    return before


class DistrictSite:
    """A `VectorEnv` over one or several years of a site.

    Args:
        sites: data years of one site, or their folders.
        exact: agree with CityLearn to the last bit of every SOC, in float64, instead of being fast.
        starts: "year" begins every episode at the first row of a year and runs to its end, as CityLearn does; "random"
            begins anywhere in any year and truncates after `episode_steps`, so that a batch holds hours of all seasons.
        episode_steps: length of an episode with random starts.

    Raises:
        UserError: a site needs what only CityLearn simulates, or the years differ in structure.
    """

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
    ) -> None:
        years = [site if isinstance(site, Site) else read_site(Path(site)) for site in sites]
        self.physics = Physics(years, num_envs, device, exact)
        self.task = SiteTask(years, settings, spec, device=device, dtype=self.physics.dtype)
        self.num_envs, self.obs_dim, self.action_dim = num_envs, self.task.obs_dim, self.task.action_dim
        self.device = self.physics.device
        self.action_mask_columns = self.task.action_mask_columns
        self.starts = starts
        self.episode_steps = min(episode_steps, years[0].rows - 1) if starts == "random" else years[0].rows - 1
        self._years = len(years)
        buildings = years[0].buildings
        self._with_battery = self._indices([b.battery is not None for b in buildings])
        self._with_action = self._indices([b.battery is not None and b.battery_action for b in buildings])
        self._idle_peaks = torch.from_numpy(
            np.concatenate([idle_peaks(site, self.task.objective.tariff) for site in years])
        ).to(self.device, self.physics.dtype)
        self._rng = np.random.default_rng()
        self._left = np.zeros(num_envs, dtype=np.int64)
        """Steps until each environment's episode ends: known without asking the device."""
        self._none = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self._extra = torch.zeros((num_envs, 0), dtype=self.physics.dtype, device=self.device)

    @property
    def policy_spec(self) -> dict[str, Any]:
        return self.task.policy_spec

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
            self._left = self._rng.integers(1, self.episode_steps + 1, self.num_envs)
        self._peak = self._idle_peaks[self.physics.table_row]
        self._net = torch.zeros_like(self._peak[..., 0])
        return self._observe()

    def step(self, action: Tensor) -> StepResult:
        """Apply actions (E, A) in [-1, 1]; environments whose episode ends begin a new one.

        Nothing is read back from the device; actions that are not finite are the caller's to refuse.
        """
        now = self._now
        action = action.to(self.physics.dtype).clamp(-1, 1)
        battery, _, sockets = self.task.device_actions(now, action)
        batteries = action.new_zeros((self.num_envs, self.physics.buildings)).index_copy(1, self._with_action, battery)
        flows = self.physics.step(batteries, sockets)
        outcome = self.task.outcome(now, flows.net, flows.socket_soc, self._peak)
        self._net = flows.net
        self._peak = self.task.next_peak(self.physics.table_row, outcome.running_peak)
        next_obs = obs = self._observe()

        self._left -= 1
        ended = self._left == 0
        truncated = self._none
        if ended.any():
            truncated = torch.from_numpy(ended).to(self.device)
            self.physics.restart(truncated, *self._draw(ended))
            fresh = self._idle_peaks[self.physics.table_row]
            self._peak = torch.where(truncated[:, None, None], fresh, self._peak)
            self._net = torch.where(truncated[:, None], torch.zeros_like(self._net), self._net)
            obs = self._observe()

        imported = flows.net.clamp(min=0).sum(-1)
        info = {
            "energy_cost": outcome.terms.energy,
            "demand_cost": outcome.terms.demand,
            "carbon_cost": outcome.terms.carbon,
            "shortfall_cost": outcome.terms.shortfall,
            "carbon_kg": (flows.net * now.carbon).clamp(min=0).sum(-1),
            "import_kwh": imported,
            "export_kwh": imported - flows.net.sum(-1),
            "ev_kwh": flows.socket_kwh.sum(-1),
            "missing_kwh": outcome.missing_kwh,
            "departures": outcome.departures,
            "served": outcome.served,
        }
        return StepResult(obs, outcome.reward, self._none, truncated, next_obs, info)

    def close(self) -> None:
        """Nothing to release."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly where this environment stands."""
        return {
            "physics": self.physics.state._asdict(),
            "running_peak": self._peak,
            "net": self._net,
            "left": torch.from_numpy(self._left.copy()),
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.physics.state = type(self.physics.state)(**state["physics"])
        self._peak, self._net = state["running_peak"], state["net"]
        self._left = state["left"].numpy().copy()
        self._rng.bit_generator.state = state["rng"]
        self._observe()

    def _observe(self) -> Tensor:
        self._now = self.task.moment(self.physics.table_row, self.physics.socket_soc)
        battery_soc = self.physics.state.battery_soc.index_select(1, self._with_battery)
        return self.task.observe(self._now, battery_soc, self._net, self._peak, self._extra)

    def _draw(self, who: NDArray[np.bool_]) -> tuple[Tensor, Tensor]:
        """Start rows and years (E,) for the environments in `who`; the other entries mean nothing."""
        row = np.zeros(self.num_envs, dtype=np.int64)
        scenario = np.zeros(self.num_envs, dtype=np.int64)
        count = int(who.sum())
        if self.starts == "random":
            row[who] = self._rng.integers(0, self.task.rows - self.episode_steps, count)
        scenario[who] = self._rng.integers(0, self._years, count)
        self._left[who] = self.episode_steps
        return torch.from_numpy(row).to(self.device), torch.from_numpy(scenario).to(self.device)

    def _indices(self, chosen: list[bool]) -> Tensor:
        return torch.tensor(np.flatnonzero(chosen), dtype=torch.int64, device=self.device)
