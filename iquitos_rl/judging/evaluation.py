"""A trained policy's year on CityLearn, the judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from iquitos_rl.agents.policy_file import PolicySpec
from iquitos_rl.baselines.guided import Guide, controller
from iquitos_rl.envs.citylearn.env import CityLearnSite
from iquitos_rl.envs.task.site_task import SiteTask, TaskSettings
from iquitos_rl.judging.parity import replay
from iquitos_rl.judging.simulate import simulate_year
from iquitos_rl.judging.summary import Result, audit_demand, figures
from iquitos_rl.judging.timeseries import write_hours
from iquitos_rl.machine.bars import hour_bar, waiting


def at_site(agent: Any, task: SiteTask) -> Any:
    """The agent for this site, which may have other buildings than that of its training if its policy is one network
    for all of them.

    Raises:
        UserError: the site has a device that the policy cannot move, or lacks a column that it reads, or a rule that
            was tuned to other buildings guides the policy.
    """
    described, trained = task.policy_spec, agent.spec.buildings
    if trained is None:
        return agent
    guide = agent.spec.environment.get("guide")
    width = task.obs_dim
    if guide is not None:
        at_home = task.buildings is not None and task.buildings.same_site(trained)
        found = Guide.from_json(task, guide) if at_home else Guide.elsewhere(task, guide)
        described, width = found.spec(described), found.obs_dim
    columns, count = task.action_mask_columns, task.action_dim
    return agent.at(
        PolicySpec(
            obs_dim=width,
            action_dim=count,
            action_low=[-1.0] * count,
            action_high=[1.0] * count,
            action_mask_columns=None if columns is None else columns.tolist(),
            environment=described,
        )
    )


def evaluate_policy(
    name: str, agent: Any, case: Path, task: TaskSettings, output: Path | None, check: Callable[[], None] = lambda: None
) -> Result:
    """Run the policy through a year with the encoding it was trained with.

    Args:
        agent: has `predict` and `spec`, as SAC, PPO and A2C have.
        output: folder that the year's hours are written to; None: they are not kept.
        check: called every hour; what it raises ends the year.

    Raises:
        UserError: the case has other observation columns than the policy.
        AuditError: the simulated year contradicts itself.
    """
    env = CityLearnSite([case], task, spec=agent.spec.environment)
    act = controller(at_site(agent, env.task), env.task)
    with hour_bar(f"evaluate {name}", env.task.rows - 1, check) as advance:
        year = simulate_year(env, act, on_hour=advance)
    with waiting(f"compare the hours of {name} with the engine"):
        if output is not None:
            write_hours(output, name, year, env)
        parity = replay(year, env.task.settings)
    return Result(figures(year), audit_demand(year, env.task.objective), parity=parity)
