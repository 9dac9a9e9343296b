"""A rule's years on the district engine, written down for training around it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from iquitos_rl.baselines.bill import start_years
from iquitos_rl.baselines.rule import Rule, RuleSettings
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.district import DistrictSite
from iquitos_rl.envs.task import TaskSettings
from iquitos_rl.envs.trajectory import Trajectory


def record_years(
    sites: Sequence[Site], rule: RuleSettings, settings: TaskSettings, device: torch.device | str = "cpu"
) -> Trajectory:
    """Let a rule run every year from its first row to its last, all of them side by side.

    Raises:
        UserError: the district engine cannot reproduce the site, or the rule cannot act with this task.
    """
    env = DistrictSite(sites, len(sites), settings, device=device)
    act = Rule(env.task, rule)
    obs = start_years(env, range(len(sites)))
    rows: list[Trajectory] = []
    for _ in range(env.task.rows - 1):
        state, before = env.physics.state, env.state_dict()
        step = env.step(act(obs))
        rows.append(
            Trajectory(state.battery_soc, state.vehicle_soc, before["running_peak"], before["net"], step.reward)
        )
        obs = step.obs
    rows.append(rows[-1])
    return Trajectory(*(torch.stack(column, dim=1).flatten(0, 1) for column in zip(*rows, strict=True)))
