"""The memory plan of a run: printed before anything is allocated, and followed."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from pydantic import BaseModel

from iquitos_rl.agents.registry import AGENTS
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import AgentSettings
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.machine.bars import waiting
from iquitos_rl.machine.device import choose_device
from iquitos_rl.memory.measure import context_bytes, measured_limits, process_bytes
from iquitos_rl.memory.planner import DoesNotFitError, Limits, Plan, fit
from iquitos_rl.runs.engine import make_engine, obstacle, rule_name
from iquitos_rl.runs.years import prepare_years


def plan_agent(
    algorithm: str,
    config: BaseModel,
    env: VectorEnv,
    device: torch.device,
    device_memory: int | None = None,
    ram: int | None = None,
) -> Plan:
    """The plan for an agent on environments that exist already.

    Args:
        device_memory: plan for a GPU of this size instead of the device's own free memory.
        ram: plan for this much RAM instead of what is free.

    Raises:
        DoesNotFitError: nothing fits; the closest plan is printed to standard error.
    """
    agent = AGENTS[algorithm].agent  # before memory is measured: its libraries count as taken
    process = process_bytes(device)
    measured = measured_limits(device, process)
    context = context_bytes(device) if device.type == "cuda" else None
    limits = Limits(
        measured.device if device_memory is None else device_memory, measured.ram if ram is None else ram, measured.disk
    )
    try:
        return fit(agent, env, config, limits, process, context)
    except DoesNotFitError as error:
        print(error.plan.table(), file=sys.stderr, flush=True)
        raise


def planned_settings(algorithm: str, config: BaseModel, env: VectorEnv, device: torch.device) -> Any:
    """The settings with what the plan decided; prints the plan.

    Raises:
        DoesNotFitError: nothing fits.
    """
    with waiting("memory plan"):
        plan = plan_agent(algorithm, config, env, device)
    print(plan.table(), flush=True)
    return plan.config


def plan_run(name: str, settings: AgentSettings, device_memory: int | None, ram: int | None) -> str:
    """The plan of a training that was not started, as text.

    Args:
        device_memory: see `plan_agent`.
        ram: see `plan_agent`.

    Raises:
        UserError: the case or a setting cannot be used.
        DoesNotFitError: nothing fits.
    """
    # For a GPU that is not here the environments are made on the CPU; their tensors are counted all the same.
    device = choose_device(settings.run.device)
    with TemporaryDirectory() as folder:
        years = prepare_years(settings.run, Path(folder))
        sites = [read_site(year) for year in years.train]
        # The memory that a rule takes does not depend on what it is tuned to.
        guided = settings.run.guide != "none" and obstacle(settings.run, sites) is None
        rule = default_settings(rule_name(settings.run), fit_profiles(sites[:1])) if guided else None
        engine = make_engine(settings.run, sites, device, rule)
        env = engine.env
        try:
            found = plan_agent(name, settings.agent, env, device, device_memory, ram)
        finally:
            env.close()
    return (
        f"{name} on {years.name}: {env.num_envs} environments on the {engine.name} engine, {env.obs_dim} observation "
        f"columns, {env.action_dim} actions; PyTorch {torch.__version__}, device {device}\n{found.table()}"
    )
