"""The engines that simulate training years, by the names that commands and settings use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.registry import Registry

if TYPE_CHECKING:  # settings and help know the names without torch
    import torch

    from iquitos_rl.cases.site import Site
    from iquitos_rl.envs.task.trajectory import Trajectory
    from iquitos_rl.envs.vector import VectorEnv


class Wanted(NamedTuple):
    """The training environments that a run asks an engine for."""

    sites: Sequence[Site]
    """Training years of one site."""
    task: TaskSettings
    num_envs: int
    episode_hours: int
    """For engines that can start an episode at any hour."""
    device: torch.device
    trajectory: Trajectory | None = None
    """Of the rule that guides, only given to engines that can be guided."""
    spec: dict[str, Any] | None = None
    """`policy_spec` of the policy that training starts from; observations are encoded as it knows them."""


class Made(NamedTuple):
    """What an engine made of it."""

    env: VectorEnv
    """A `SiteVector` where the engine can be guided."""
    together: float = inf
    """Transitions after which the episodes of all environments end in one step; infinite where they do not."""
    note: str = ""
    """What the user should know, in a few words."""


class EngineEntry(NamedTuple):
    """One engine. With `auto` the first one that can reproduce all training years is taken."""

    cannot: Callable[[Site], Sequence[str]]
    """What it cannot reproduce of a site, in a few words each."""
    make: Callable[[Wanted], Made]
    guided: bool = False
    """Whether a rule can guide the actions: its environments are then `SiteVector`s that follow `Wanted.trajectory`."""


ENGINES: Registry[EngineEntry] = Registry(
    "engine",
    {
        "district": "iquitos_rl.envs.district.engine:ENTRY",
        "citylearn": "iquitos_rl.envs.citylearn.engine:ENTRY",
    },
)
