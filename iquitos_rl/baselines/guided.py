"""Steering around a rule: an agent's action says how far to depart from what the rule would do.

Residual policy learning (Johannink et al. 2018, arXiv 1812.03201; Silver et al. 2018, arXiv 1812.06298). The agent sees
the rule's action as further columns of its observation, and with an action of zero it is the rule. A demand charge
bills the month's highest hour, so exploration noise is costly; an agent that starts from a good rule needs less of it.

The month's highest import so far is an edge: beyond it a unit of action costs many times what it is worth elsewhere. A
critic smooths such a cliff into slopes on either side, and an agent learns to keep away from an edge that it should
stand on, or to hedge against its own noise. So what a departure adds to the import beyond the edge is scaled down, to
nothing if wished; the rule's own action stays as it is. Agents see how far below the edge it keeps.

Rules move batteries and vehicles. Tanks, cooling, heating and appliances stay in the agent's hands alone: its action is
theirs, unscaled, as it is without a guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iquitos_rl.baselines.controller import Controller
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, RuleSettings, default_settings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.envs.task.buildings import KEY, NOWHERE, Buildings
from iquitos_rl.envs.task.site_task import SiteTask
from iquitos_rl.envs.task.site_vector import SiteVector
from iquitos_rl.envs.vector import Exogenous, StepResult, VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.machine.graphs import Graphed


class Guide:
    """What a rule adds to a task: B + A more columns to see, and the meaning of an action.

    Args:
        task: of the environments to be controlled.
        reach: what an action of 1 adds to the rule's: this share of a battery's capacity in an hour, and of the range
            between the least and the most that vehicles can take. What no rule moves has no reach.
        beyond: share of a departure that is left where it takes the import beyond the month's highest, in [0, 1].

    Raises:
        UserError: the rule cannot act with this task, see `SiteView`.
    """

    def __init__(self, task: SiteTask, settings: RuleSettings, reach: float, beyond: float) -> None:
        self.settings, self.reach, self.beyond, self._rule = settings, reach, beyond, Rule(task, settings)
        self._widths = task.obs_dim, task.num_buildings, task.action_dim
        self.obs_dim = sum(self._widths)
        view, nothing = self._rule.view, torch.zeros(task.num_buildings, device=task.device)
        self._reach = torch.where(view.moved, reach * view.hourly, 1.0)
        self._most = nothing.index_add(0, view.building_of, self._reach * view.most_kw).clamp(min=1e-6)
        """(B,) kW that departures can add to each building's import."""

    @classmethod
    def from_json(cls, task: SiteTask, data: dict[str, Any]) -> Guide:
        """Raises UserError where the data is not what `to_json` writes."""
        try:
            reach, beyond = float(data["reach"]), float(data["beyond"])
            if not (0 < reach <= 2 and 0 <= beyond <= 1):
                raise ValueError(f"reach {reach}, beyond {beyond}")
            return cls(task, RuleSettings.from_json(data["rule"], task.num_buildings), reach, beyond)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the rule that the policy steers around cannot be read: {error}") from None

    @classmethod
    def elsewhere(cls, task: SiteTask, data: dict[str, Any]) -> Guide:
        """The guide of `to_json` on a site with other buildings. Raises UserError: the rule was tuned to those of the
        training, or the data is not what `to_json` writes."""
        try:
            name = data["rule"]["name"]
            if RULES[name].ranges:
                raise UserError(f"the policy steers around the rule {name}, which was tuned to other buildings")
            rule = default_settings(name, fit_profiles(task.sites[:1]))  # whose profiles such a rule does not read
        except (KeyError, TypeError) as error:
            raise UserError(f"the rule that the policy steers around cannot be read: {error}") from None
        return cls.from_json(task, {**data, "rule": rule.to_json()})

    def to_json(self) -> dict[str, Any]:
        return {"rule": self.settings.to_json(), "reach": self.reach, "beyond": self.beyond}

    def spec(self, site: dict[str, Any]) -> dict[str, Any]:
        """The `policy_spec` of a guided site from that of the site: with the guide, and with its columns as those of
        the buildings."""
        found, (width, count, _) = Buildings.read(site), self._widths
        if found is None:
            return {**site, "guide": self.to_json()}
        first = width + count
        rule = {
            f"rule/{device}": [first + row[s] if row[s] != NOWHERE else NOWHERE for row in found.actions]
            for s, device in enumerate(found.devices)
        }
        found = found.with_columns({"rule/margin": range(width, first), **rule})
        return {**site, "guide": self.to_json(), KEY: found.model_dump(mode="json")}

    def see(self, obs: Tensor) -> Tensor:
        """(E, D) to (E, D + B + A): the observation, the rule's margins as shares of what departures can add, its
        action."""
        action, margin = self._rule.advise(obs)
        return torch.cat([obs, (margin / self._most).clamp(-1, 1), action], dim=-1)

    def act(self, seen: Tensor, action: Tensor) -> Tensor:
        """(E, A) the site's action for an agent's action (E, A) in [-1, 1] on what it saw."""
        obs, margin, rule = seen.split(self._widths, dim=-1)
        building, departure = self._rule.view.building_of, (rule + self._reach * action).clamp(-1, 1) - rule
        added = (departure * self._rule.view.kw_per_action(obs)).clamp(min=0)
        in_all = torch.zeros_like(margin).index_add(1, building, added).clamp(min=1e-6)
        edge = torch.minimum(margin.clamp(min=0) * self._most, in_all)
        share = torch.lerp(edge / in_all, torch.ones_like(edge), self.beyond)
        return rule + torch.where(added > 0, departure * share[:, building], departure)

    def around(self, predict: Controller) -> Controller:
        """A controller of the site from a policy of the agent: one observation (D,) to the site's action (A,)."""

        @torch.inference_mode()
        def controller(obs: NDArray[np.float32]) -> NDArray[np.float32]:
            seen = self.see(torch.from_numpy(obs).unsqueeze(0))
            action = torch.from_numpy(predict(seen[0].numpy())).unsqueeze(0)
            return self.act(seen, action)[0].numpy()

        return controller


def controller(agent: Any, task: SiteTask) -> Controller:
    """What maps one observation (D,) of a site to its action (A,): the agent's policy, around its guide if it had one.

    It is for one episode, from its start on: a policy with a memory forgets what was before.

    Args:
        agent: has `predict`, `forget` and `spec`, as all agents have, and was trained on a site.
        task: of the environment to be controlled.

    Raises:
        UserError: the guide stored with the policy cannot be read, or cannot act with this task.
    """
    spec, predict = agent.spec, agent.predict
    if spec.action_dim != task.action_dim or {*spec.action_low} != {-1.0} or {*spec.action_high} != {1.0}:
        raise UserError(f"the policy has {spec.action_dim} actions of another range than this site's {task.action_dim}")
    agent.forget()
    guide = spec.environment.get("guide")
    control = predict if guide is None else Guide.from_json(task, guide)
    width = task.obs_dim if guide is None else control.obs_dim
    if spec.obs_dim != width:
        raise UserError(f"the policy was trained on {spec.obs_dim} observation columns, this site has {width}")
    return predict if guide is None else control.around(predict)  # type: ignore[no-any-return]


class GuidedSite(VectorEnv):
    """An engine with its actions counted from a rule's."""

    def __init__(self, env: SiteVector, rule: RuleSettings, reach: float, beyond: float) -> None:
        self.env, self.guide = env, Guide(env.task, rule, reach, beyond)
        self.num_envs, self.action_dim, self.device = env.num_envs, env.action_dim, env.device
        self.obs_dim, self.episode_steps = self.guide.obs_dim, env.episode_steps
        self.action_mask_columns, self.state_bytes = env.action_mask_columns, env.state_bytes
        self.policy_spec = self.guide.spec(env.policy_spec)
        self._seen = torch.zeros((self.num_envs, self.obs_dim), device=self.device)
        self._see: Callable[[Tensor], Tensor] = self.guide.see
        self._act: Callable[[Tensor, Tensor], Tensor] = self.guide.act

    @property
    def exogenous(self) -> Exogenous | None:
        return self.env.exogenous

    def reset(self, seed: int | None = None) -> Tensor:
        self._seen = self._see(self.env.reset(seed))
        return self._seen

    def step(self, action: Tensor) -> StepResult:
        step = self.env.step(self._act(self._seen, action))
        next_obs = self._see(step.next_obs)
        self._seen = next_obs if step.obs is step.next_obs else self._see(step.obs)
        return step._replace(obs=self._seen, next_obs=next_obs)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return self.env.differentiable

    def example_step(self, count: int, traced: bool = False) -> Callable[[], object] | None:
        site = self.env.example_step(count, traced)
        if site is None:
            return None
        obs, action = (torch.zeros((count, d), device=self.device) for d in (self.env.obs_dim, self.action_dim))
        if traced:
            obs, action = obs.requires_grad_(), action.requires_grad_()
        seen = self.guide.see(obs)
        return lambda: [self.guide.act(seen, action), site(), self.guide.see(obs)]

    def detach(self) -> None:
        self.env.detach()
        self._seen = self._seen.detach()

    def part(self, first: int, last: int) -> GuidedSite:
        own, site = copy(self), self.env.part(first, last)
        assert isinstance(site, SiteVector)
        own.env, own.num_envs, own._seen = site, last - first, self._seen[first:last]
        return own

    def join(self, parts: Sequence[VectorEnv]) -> None:
        own = [part for part in parts if isinstance(part, GuidedSite)]
        self.env.join([part.env for part in own])
        self._seen = torch.cat([part._seen for part in own])

    def capture(self) -> None:
        self.env.capture()
        see = Graphed(self.guide.see, self.device)
        self._see, self._act = (lambda obs: see(obs).clone()), Graphed(self.guide.act, self.device)

    def close(self) -> None:
        self.env.close()

    def state_dict(self) -> dict[str, Any]:
        return {"site": self.env.state_dict(), "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.env.load_state_dict(state["site"])
        self._seen = state["seen"].to(self.device, copy=True)
