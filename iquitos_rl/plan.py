"""Say what a training run will take, and what fits, before it runs: `python -m iquitos_rl.plan sac`."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from iquitos_rl.agents import AGENTS
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import default_settings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cli import run_command
from iquitos_rl.config import ALGORITHMS, load_settings
from iquitos_rl.judging.references import STRONGEST
from iquitos_rl.machine.available import parse_size
from iquitos_rl.machine.device import choose_device
from iquitos_rl.runs.engine import make_engine
from iquitos_rl.runs.guidance import obstacle
from iquitos_rl.runs.planning import plan_agent
from iquitos_rl.runs.years import prepare_years


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m iquitos_rl.plan", description=__doc__, allow_abbrev=False)
    parser.add_argument("algorithm", choices=ALGORITHMS)
    parser.add_argument("--case", help="preset (iquitos-38, iquitos-128), schema folder, or CityLearn dataset name")
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. agent.buffer_size=1000000"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--num-envs", type=int, help="environments stepped together")
    parser.add_argument(
        "--device-memory", help="plan for a GPU with this much memory, e.g. 8GiB; default: what is free"
    )
    parser.add_argument("--ram", help="plan for this much RAM, e.g. 16GiB; default: what is free")
    return parser.parse_args(argv)


def plan(arguments: argparse.Namespace) -> int:
    flags = {name: getattr(arguments, name) for name in ("case", "device", "num_envs")}
    name = arguments.algorithm
    settings = load_settings(name, AGENTS[name].config, arguments.config, flags, arguments.set)
    device_memory, ram = (
        None if text is None else parse_size(text) for text in (arguments.device_memory, arguments.ram)
    )
    # For a GPU that is not here the environments are made on the CPU; their tensors are counted all the same.
    device = choose_device(settings.run.device)
    with TemporaryDirectory() as folder:
        years = prepare_years(settings.run, Path(folder))
        # The memory that a rule takes does not depend on what it is tuned to.
        guided = settings.run.guide != "none" and obstacle(settings.run, years.train) is None
        rule = default_settings(STRONGEST, fit_profiles([read_site(years.train[0])])) if guided else None
        engine = make_engine(settings.run, years.train, device, rule)
        try:
            found = plan_agent(name, settings.agent, engine.env, device, device_memory, ram)
        finally:
            engine.env.close()
    env = engine.env
    print(
        f"{name} on {years.name}: {env.num_envs} environments on the {engine.name} engine, {env.obs_dim} observation "
        f"columns, {env.action_dim} actions; PyTorch {torch.__version__}, device {device}"
    )
    print(found.table())
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return run_command(lambda: plan(parse_arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
