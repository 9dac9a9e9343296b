"""A rule bound to a site: callable on batches of observations, storable as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.baselines.profiles import PROFILE_ROWS, Profiles
from iquitos_rl.baselines.rules import RULES, known_facts
from iquitos_rl.baselines.view import Decision, Now, SiteView
from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.errors import UserError


@dataclass(frozen=True)
class RuleSettings:
    """Everything a rule needs besides the site: what tuning finds, and what is stored."""

    name: str
    parameters: dict[str, float]
    profiles: Profiles

    def to_json(self) -> dict[str, Any]:
        profiles = {name: values.tolist() for name, values in self.profiles._asdict().items()}
        return {"name": self.name, "parameters": dict(self.parameters), "profiles": profiles}

    @staticmethod
    def from_json(data: dict[str, Any], buildings: int | None = None) -> RuleSettings:
        """Inverse of `to_json`.

        Args:
            buildings: how many the profiles must be of, where that is known.

        Raises:
            UserError: the data is not what `to_json` writes.
        """
        try:
            name = str(data["name"])
            parameters = {str(key): float(value) for key, value in data["parameters"].items()}
            profiles = Profiles(*(np.array(data["profiles"][key], dtype=np.float64) for key in Profiles._fields))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise UserError(f"the stored rule cannot be read: {error}") from None
        if name not in RULES or set(parameters) != set(RULES[name].ranges):
            raise UserError(f"the stored rule {name} is not one of this version, or its parameters are not")
        for values, rows in zip(profiles, PROFILE_ROWS):
            wanted = (rows, profiles.load.shape[-1] if buildings is None and profiles.load.ndim == 2 else buildings)
            if values.shape != wanted or not np.isfinite(values).all():
                raise UserError(f"the stored rule {name} has a profile that is not {wanted} finite numbers")
        if not all(math.isfinite(value) for value in parameters.values()):
            raise UserError(f"the stored rule {name} has a parameter that is not finite")
        return RuleSettings(name, parameters, profiles)


def default_settings(name: str, profiles: Profiles) -> RuleSettings:
    """A rule as it is without tuning."""
    return RuleSettings(name, {key: range_.default for key, range_ in RULES[name].ranges.items()}, profiles)


class Rule:
    """A controller for either engine: observations (E, D) to actions (E, A).

    Args:
        task: of the environment to be controlled; with as many buildings as the profiles of the settings.
        candidates: parameter values (E,) by name, one set for each environment, instead of those of the settings.

    Raises:
        UserError: see `SiteView`; or the profiles are of another number of buildings.
    """

    def __init__(self, task: SiteTask, settings: RuleSettings, candidates: Mapping[str, Tensor] | None = None) -> None:
        self._act = RULES[settings.name].act
        self.view = view = SiteView(task)
        tuned_on = settings.profiles.load.shape[-1]
        if tuned_on != view.buildings:
            raise UserError(f"the rule {settings.name} is of {tuned_on} buildings, and this site has {view.buildings}")
        profiles = (torch.from_numpy(values).to(view.device, torch.float32) for values in settings.profiles)
        self._facts = known_facts(view.expensive, view.power, view.usable, [*profiles])
        given = candidates or {key: torch.tensor([value]) for key, value in settings.parameters.items()}
        self._parameters = {key: value.to(view.device, torch.float32).unsqueeze(-1) for key, value in given.items()}

    def __call__(self, obs: Tensor) -> Tensor:
        return self.view.actions(self._decide(obs)[1])

    def advise(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """What the rule does and where that leads, from observations (E, D).

        Returns:
            Actions (E, A), and margins (E, B): the kW by which each building's import stays below the highest of the
            month so far in the present period of the demand charge; infinite in hours without one.
        """
        now, decision = self._decide(obs)
        view = self.view
        battery = decision.battery_kw.clamp(-view.power, view.power).clamp(-now.stored_kwh, now.room_kwh)
        vehicles = torch.lerp(now.ev_least_kw, now.ev_most_kw, decision.ev_share)
        net = now.load_kw - now.pv_kw + battery + vehicles
        return view.actions(decision), now.limit_kw - net

    def _decide(self, obs: Tensor) -> tuple[Now, Decision]:
        now = self.view(obs)
        return now, self._act(now, self._parameters, self._facts)

    @torch.inference_mode()
    def predict(self, obs: NDArray[np.float32]) -> NDArray[np.float32]:
        """One observation (D,) to actions (A,): a `Controller` for the CityLearn engine."""
        return self(torch.from_numpy(obs).unsqueeze(0).to(self.view.device))[0].cpu().numpy()
