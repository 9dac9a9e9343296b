"""`python -m iquitos_rl.plan sac`: print what a training run will take, and what fits, before it runs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import entry, loading
from iquitos_rl.options import Case, Config, Device, NumEnvs, Sets


def plan(
    agent: Annotated[str, Parameter(help="sac, ppo, a2c or a plugin's agent")],
    /,
    *,
    case: Case = None,
    config: Config = None,
    sets: Sets = (),
    device: Device = None,
    num_envs: NumEnvs = None,
    device_memory: Annotated[
        str | None, Parameter(help="plan for a GPU with this much memory, e.g. 8GiB (default: what is free)")
    ] = None,
    ram: Annotated[str | None, Parameter(help="plan for this much RAM, e.g. 16GiB (default: what is free)")] = None,
) -> int:
    """Print what a training run will take, and what fits, before it runs."""
    from iquitos_rl.config import load_settings
    from iquitos_rl.runs.request import refuse_mistyped

    settings = load_settings([agent], config, {"case": case, "device": device, "num_envs": num_envs}, sets)
    refuse_mistyped(settings.run.case)
    loading()
    from iquitos_rl.machine.available import parse_size
    from iquitos_rl.runs.planning import plan_run

    sizes = (None if text is None else parse_size(text) for text in (device_memory, ram))
    print(plan_run(agent, settings.agents[agent], *sizes))
    return 0


main = entry("plan", plan)

if __name__ == "__main__":
    raise SystemExit(main())
