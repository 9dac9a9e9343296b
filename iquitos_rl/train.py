"""`python -m iquitos_rl.train sac`: train agents and evaluate them on CityLearn."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from iquitos_rl.cli import entry, loading
from iquitos_rl.options import Cases, Config, Device, Engine, Episodes, EvalCase, NumEnvs, Seed, Sets, Steps


def train(
    agent: Annotated[str, Parameter(help="sac, ppo, a2c or a plugin's agent; all: each that has a shipped YAML file")],
    /,
    *,
    case: Cases = (),
    eval_case: EvalCase = None,
    config: Config = None,
    sets: Sets = (),
    episodes: Episodes = None,
    steps: Steps = None,
    device: Device = None,
    engine: Engine = None,
    num_envs: NumEnvs = None,
    seed: Seed = None,
    continue_from: Annotated[
        str | None, Parameter(help="a run or policy to start from, on new data (default: start with nothing)")
    ] = None,
    amp: Annotated[
        Literal["off", "bf16"] | None, Parameter(help="precision of the networks' products (default: off)")
    ] = None,
    compile: Annotated[
        Literal["auto", "off", "default", "graphs"] | None,
        Parameter(help="CUDA graphs, or default for torch.compile (default: auto, graphs on a GPU)"),
    ] = None,
    quick: Annotated[
        bool,
        Parameter(help="a first look: little training and, without --case, a month instead of a year (default: no)"),
    ] = False,
    output: Annotated[
        Path | None, Parameter(help="new folder for the results (default: outputs/<case>-<agent>-<time>)")
    ] = None,
    resume: Annotated[
        Path | None,
        Parameter(
            help="resume the run in this folder; without a folder the run in --output, else the latest of this case "
            "in outputs (default: start a run)"
        ),
    ] = None,
    allow_changes: Annotated[
        bool, Parameter(help="resume although settings or data have changed (default: refuse)")
    ] = False,
    skip_baseline: Annotated[
        bool,
        Parameter(help="take baseline, rule and optimum from the cache only (default: evaluate the rest)"),
    ] = False,
    cache: Annotated[
        Path | None, Parameter(help="folder of built years and baselines (default: cache, next to --output)")
    ] = None,
) -> int:
    """Train agents and evaluate them on CityLearn. Every setting, with type, default and meaning: iquitos-rl settings
    AGENT"""
    from iquitos_rl.runs.request import Request, refuse_mistyped

    flags: dict[str, object] = {} if not case else {"case": case[0]}
    if case[1:]:
        flags["more_cases"] = case[1:]
    flags |= dict(continue_from=continue_from, eval_case=eval_case, episodes=episodes, steps=steps)
    flags |= dict(device=device, engine=engine, num_envs=num_envs, seed=seed)
    of_agent = {"amp": amp, "compile": compile}
    sets += tuple(f"agent.{name}={value}" for name, value in of_agent.items() if value is not None)
    request = Request(agent, config, flags, sets, output, resume, allow_changes, skip_baseline, quick, cache)
    if resume is None:
        refuse_mistyped(request.settings().run.case)
    loading()
    from iquitos_rl.runs.session import train as run

    return run(request)


main = entry("train", train)

if __name__ == "__main__":
    raise SystemExit(main())
