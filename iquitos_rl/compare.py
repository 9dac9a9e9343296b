"""Compare agents with rules and the optimum on unseen years: `python -m iquitos_rl.compare --agents sac ppo --seeds 5`.

The same command goes on with what was interrupted: finished trainings and judged years are reused.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from iquitos_rl.agents import AGENTS
from iquitos_rl.cli import run_command
from iquitos_rl.comparison.plan import Comparison, open_comparison, plan
from iquitos_rl.comparison.runner import Runner, reference_records
from iquitos_rl.comparison.summary import copy_median_hours, summarise
from iquitos_rl.config import ALGORITHMS, Algorithm, load_settings
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import copy_hours, kept
from iquitos_rl.judging.standings import as_csv, co2_markdown, markdown, standings
from iquitos_rl.machine.files import write_json, write_text
from iquitos_rl.machine.interrupt import Interrupts
from iquitos_rl.machine.threads import choose_threads
from iquitos_rl.report import write_report
from iquitos_rl.runs.resume import SUMMARY, lock_output
from iquitos_rl.train import OUTPUTS


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m iquitos_rl.compare", description=(__doc__ or "").split("\n")[0], allow_abbrev=False
    )
    parser.add_argument("--case", help="preset (iquitos-38, iquitos-128), or schema folder with --eval-cases")
    parser.add_argument("--agents", nargs="+", default=list(ALGORITHMS), metavar="AGENT", help="sac, ppo, a2c")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each agent, seeds 0, 1, ...")
    parser.add_argument("--eval-years", type=int, default=3, help="years of a preset to judge on, none trained on")
    parser.add_argument("--eval-cases", nargs="+", default=[], metavar="DIR", help="schema folders to judge on instead")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train and simulate side by side")
    parser.add_argument("--config", type=Path, help="YAML file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of iquitos_rl.train")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--episodes", type=int, help="site-years to train each agent on")
    budget.add_argument("--steps", type=int, help="site-hours to train each agent on")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--output", type=Path, help=f"default: {OUTPUTS}/compare-<case>")
    return parser.parse_args(argv)


def check_arguments(arguments: argparse.Namespace) -> list[Algorithm]:
    """The agents to compare.

    Raises:
        UserError: an agent is unknown, or there is to be none of something.
    """
    for name in arguments.agents:
        if name not in ALGORITHMS:
            raise UserError(f"--agents {name}: there are {', '.join(ALGORITHMS)}")
    for name in ("seeds", "eval_years", "jobs"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: at least 1")
    return [name for name in ALGORITHMS if name in arguments.agents]


def make_plan(arguments: argparse.Namespace) -> Comparison:
    """What the command line asks for.

    Raises:
        UserError: see `check_arguments`, `load_settings` and `plan`.
    """
    agents = check_arguments(arguments)
    flags = {name: getattr(arguments, name) for name in ("case", "episodes", "steps", "device")}
    if arguments.eval_cases:
        flags["eval_case"] = arguments.eval_cases[0]
    if arguments.jobs > 1:
        flags["threads"] = 1  # each process has a core
    settings = {
        name: load_settings(name, AGENTS[name].config, arguments.config, flags, arguments.set) for name in agents
    }
    case = Path(settings[agents[0]].run.case).name
    output: Path = arguments.output or OUTPUTS / f"compare-{case}"
    return plan(output, output.parent / "cache", settings, arguments.seeds, arguments.eval_years, arguments.eval_cases)


def compare(arguments: argparse.Namespace, command: str) -> int:
    """Carry the comparison out and write its tables."""
    started = time.perf_counter()
    with Interrupts("finishing the step and saving") as interrupts:
        comparison = make_plan(arguments)
        open_comparison(comparison)
        choose_threads(1)
        with lock_output(comparison.output):
            runner = Runner(comparison, arguments.jobs, interrupts, command)
            references = runner.references()
            records = reference_records(comparison, references)
            records += runner.judgements(runner.trainings())
            for name in kept():
                if name in references:
                    copy_hours(references[name][0], comparison.cache, comparison.output)
            chosen = copy_median_hours(comparison, records)
            found = standings(records)
            summary = {
                **summarise(comparison, records, found, runner.failed, runner.left_out, runner.audit),
                "hours_of_seed": chosen,
                "command": command,
                "jobs": arguments.jobs,
                "wall_s": round(time.perf_counter() - started, 1),
            }
            write_json(comparison.output / SUMMARY, summary)
            text = markdown(summary)
            write_text(comparison.output / "comparison.md", text)
            write_text(comparison.output / "comparison.csv", as_csv(records))
            write_text(comparison.output / "co2_comparison.md", co2_markdown(summary))
            page = write_report(comparison.output)
            print(f"{text}\nresults in {comparison.output}, to read: {page}", flush=True)
            return 1 if runner.failed else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "-m", "iquitos_rl.compare", *words])
    return run_command(lambda: compare(parse_arguments(argv), command))


if __name__ == "__main__":
    raise SystemExit(main())
