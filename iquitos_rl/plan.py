"""`python -m iquitos_rl.plan sac`: print what a training run will take, and what fits, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import entry, loading
from iquitos_rl.errors import UserError
from iquitos_rl.options import Case, Config, Device, NumEnvs, Sets


def plan(
    agent: Annotated[str, Parameter(help="sac, ppo, a2c or a plugin's agent; compare: comparisons on other machines")],
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
    cluster: Annotated[
        str | None, Parameter(help="for compare: the machines, COUNTxCORES:RAM, e.g. 10x16:64GiB,2x8 (default: none)")
    ] = None,
    measured: Annotated[
        Path | None, Parameter(help="for compare: folder of a comparison that was carried out here (default: none)")
    ] = None,
    sites: Annotated[int, Parameter(help="for compare: sites like the one measured")] = 1,
    seeds: Annotated[int, Parameter(help="for compare: trainings of each agent")] = 5,
    eval_years: Annotated[int, Parameter(help="for compare: years to evaluate on")] = 3,
) -> int:
    """Print what a training run will take, and what fits, before it runs. `plan compare` tells how long comparisons
    take on other machines, from one that was carried out here."""
    if agent == "compare":
        if cluster is None or measured is None:
            raise UserError("plan compare needs --cluster, the machines, and --measured, a comparison carried out here")
        from iquitos_rl.comparison.forecast import plan_comparisons

        print(plan_comparisons(measured, cluster, sites, seeds, eval_years))
        return 0
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
