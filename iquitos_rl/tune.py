"""`python -m iquitos_rl.tune ppo --trials 40`: search for an agent's settings, on validation years only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import Words, entry, loading
from iquitos_rl.machine.command import command
from iquitos_rl.options import Case, Cluster, Config, Device, Episodes, NumEnvs, Seed, Sets, Steps


def tune(
    agent: Annotated[str, Parameter(help="sac, ppo, a2c, shac or a plugin's agent")],
    /,
    *,
    case: Case = None,
    trials: Annotated[int, Parameter(help="settings to try, those of an interrupted tuning included")] = 40,
    hours: Annotated[
        float | None,
        Parameter(help="begin nothing more after so many hours, those before included (default: no limit)"),
    ] = None,
    validation_years: Annotated[int, Parameter(help="years of a preset to validate on, none of them trained on")] = 2,
    validation_cases: Annotated[
        tuple[str, ...],
        Parameter(
            consume_multiple=True,
            help="schema folders to validate on instead (default: the preset's years, or the folder trained on)",
        ),
    ] = (),
    jobs: Annotated[int, Parameter(help="trials that are trained at the same time")] = 1,
    cluster: Cluster = None,
    config: Config = None,
    sets: Sets = (),
    num_envs: NumEnvs = None,
    seed: Seed = None,
    episodes: Episodes = None,
    steps: Steps = None,
    device: Device = None,
    output: Annotated[
        Path | None, Parameter(help="folder for the results (default: outputs/tune-<case>-<agent>)")
    ] = None,
    words: Words,
) -> int:
    """Search for an agent's settings on validation years. What you set yourself is not tuned. The same command resumes
    an interrupted tuning; `best.yaml` is what it found, for train --config."""
    from iquitos_rl.config import load_settings
    from iquitos_rl.runs.request import refuse_mistyped

    flags = {
        **{"case": case, "episodes": episodes, "steps": steps},
        **{"device": device, "num_envs": num_envs, "seed": seed},
    }
    refuse_mistyped(load_settings([agent], config, flags, sets).run.case)
    loading()
    from iquitos_rl.tuning.study import require_optuna
    from iquitos_rl.tuning.tune import TuningRequest
    from iquitos_rl.tuning.tune import tune as run

    require_optuna()  # before years are built
    return run(
        TuningRequest(
            *(
                agent,
                config,
                flags,
                sets,
                trials,
                hours,
                validation_years,
                validation_cases,
                jobs,
                cluster,
                output,
                command("tune", *words),
            )
        )
    )


main = entry("tune", tune)

if __name__ == "__main__":
    raise SystemExit(main())
