"""The memory plan of a run: printed before anything is allocated, and followed."""

from __future__ import annotations

import sys
from typing import Any

import torch
from pydantic import BaseModel

from iquitos_rl.config import Algorithm
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.memory.measure import context_bytes, measured_limits, process_bytes
from iquitos_rl.memory.planner import Dims, DoesNotFitError, Limits, Plan, fit


def plan_agent(
    algorithm: Algorithm,
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
    process = process_bytes(device)
    measured = measured_limits(device, process)
    context = context_bytes(device) if device.type == "cuda" else None
    limits = Limits(
        measured.device if device_memory is None else device_memory, measured.ram if ram is None else ram, measured.disk
    )
    try:
        return fit(algorithm, Dims.of(env), config, limits, process, context)
    except DoesNotFitError as error:
        print(error.plan.table(), file=sys.stderr, flush=True)
        raise


def planned_settings(algorithm: Algorithm, config: BaseModel, env: VectorEnv, device: torch.device) -> Any:
    """The settings with what the plan decided; prints the plan.

    Raises:
        DoesNotFitError: nothing fits.
    """
    plan = plan_agent(algorithm, config, env, device)
    print(f"memory plan\n{plan.table()}", flush=True)
    return plan.apply(config)
