"""`python -m iquitos_rl.compare --agents sac ppo --seeds 5`: compare agents with rules and the optimum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from iquitos_rl.cli import Words, entry, loading
from iquitos_rl.machine.command import command
from iquitos_rl.options import Case, Cluster, Config, Device, Episodes, Sets, Steps


def compare(
    *,
    case: Case = None,
    agents: Annotated[
        tuple[str, ...],
        Parameter(
            consume_multiple=True, help="agents to compare (default: each that has a shipped YAML file: sac ppo a2c)"
        ),
    ] = (),
    seeds: Annotated[int, Parameter(help="trainings of each agent, seeds 0, 1, ...")] = 5,
    eval_years: Annotated[int, Parameter(help="years of a preset to evaluate on, none of them trained on")] = 3,
    eval_cases: Annotated[
        tuple[str, ...],
        Parameter(
            consume_multiple=True,
            help="schema folders or presets (iquitos-38-tenant) to evaluate on instead (default: the years of the "
            "preset, or the folder, that is trained on)",
        ),
    ] = (),
    judged: Annotated[
        Path | None,
        Parameter(help="file of years to evaluate on, drawn once (benchmarks/draw_years.py; default: none)"),
    ] = None,
    again: Annotated[
        bool, Parameter(help="judge on them although it was done with other settings (default: no)")
    ] = False,
    jobs: Annotated[int, Parameter(help="processes that train and simulate at the same time")] = 1,
    cluster: Cluster = None,
    config: Config = None,
    sets: Sets = (),
    episodes: Episodes = None,
    steps: Steps = None,
    device: Device = None,
    output: Annotated[Path | None, Parameter(help="folder for the results (default: outputs/compare-<case>)")] = None,
    words: Words,
) -> int:
    """Compare agents with rules and the optimum on unseen years. The same command resumes an interrupted comparison:
    finished trainings and evaluated years are reused."""
    from iquitos_rl.config import compared_agents, load_settings
    from iquitos_rl.runs.request import refuse_mistyped

    flags = {"case": case, "episodes": episodes, "steps": steps, "device": device}
    refuse_mistyped(load_settings(compared_agents(agents), config, flags, sets).run.case)
    loading()
    from iquitos_rl.comparison.compare import compare as run
    from iquitos_rl.comparison.plan import ComparisonRequest

    return run(
        ComparisonRequest(
            agents,
            seeds,
            eval_years,
            eval_cases,
            judged,
            again,
            jobs,
            cluster,
            config,
            flags,
            sets,
            output,
            command=command("compare", *words),
        )
    )


main = entry("compare", compare)

if __name__ == "__main__":
    raise SystemExit(main())
