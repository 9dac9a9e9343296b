"""`iquitos-rl`: every command under one name; each is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iquitos_rl.machine.unexpected import guarded

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS = {
    "train": ("train:train", "Train agents and evaluate them on CityLearn."),
    "evaluate": ("evaluate:evaluate", "Evaluate a saved policy."),
    "plan": ("plan:plan", "Print what a training will take, and what fits."),
    "case": ("case:APP", "Build the Iquitos case, import metered files, check a schema folder."),
    "size": ("size:size", "What a battery or PV plant of another size would earn."),
    "compare": ("compare:compare", "Compare agents with rules and the optimum on unseen years."),
    "tune": ("tune:tune", "Search for an agent's settings on validation years."),
    "report": ("report.__main__:report", "Write the report of a run again."),
    "settings": ("settings:settings", "List every setting with type, default and meaning."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the words name; returns its exit status."""

    def body() -> int:
        from iquitos_rl.cli import run_app

        return run_app(commands(), argv)

    return guarded(body)


def commands() -> App:
    """The parser of all commands."""
    from iquitos_rl.cli import make_app

    app = make_app("iquitos-rl", help="SAC, PPO, A2C and SHAC controllers for CityLearn energy sites.")
    for name, (place, help) in COMMANDS.items():
        app.command(f"iquitos_rl.{place}", name=name, help=help)
    return app


if __name__ == "__main__":
    raise SystemExit(main())
