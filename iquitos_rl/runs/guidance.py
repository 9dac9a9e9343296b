"""Whether a run trains around a rule, and which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.config import RunSettings, config_folder
from iquitos_rl.envs.engines import ENGINES
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import STRONGEST, find_rule
from iquitos_rl.runs.engine import cannot


class Guidance(NamedTuple):
    rule: RuleSettings | None
    reason: str
    """Why this rule, or why none, in a few words."""


def choose_guidance(
    settings: RunSettings, train_years: list[Path], cache: Path, check: Callable[[], None] = lambda: None
) -> Guidance:
    """The rule that the agent's actions count from; tuned on the training years, or taken from the cache.

    Args:
        check: called between rounds of tuning; what it raises ends it.

    Raises:
        UserError: a rule is asked for and cannot act here.
    """
    if settings.guide == "none":
        return Guidance(None, "none was asked for")
    reason = obstacle(settings, train_years)
    if reason is not None:
        if settings.guide == "auto":
            return Guidance(None, reason)
        raise UserError(f"guide = {settings.guide}: {reason}")
    print(f"the rule {STRONGEST} is tuned on training years, unless that was done before", flush=True)
    rule = find_rule(STRONGEST, train_years, settings.task, cache, check=check)
    found = ", ".join(f"{name} {value:.2f}" for name, value in rule.parameters.items())
    return Guidance(rule, f"tuned to {found}")


def unguided_settings(name: str) -> Path:
    """The shipped settings of an agent for training without a guide; a plugin's agent has no such file."""
    return config_folder() / "unguided" / f"{name}.yaml"


def obstacle(settings: RunSettings, train_years: list[Path]) -> str | None:
    """Why no rule can act in a run, None where one can."""
    if settings.engine != "auto" and not ENGINES.require(settings.engine).guided:
        able = " and ".join(name for name, engine in ENGINES.items() if engine.guided)
        return f"rules are followed on the {able} engine only"
    if not settings.task.ev_guard or settings.task.sockets != "fleet":
        return "rules need task.ev_guard: true and task.sockets: fleet"
    return cannot("district", [read_site(folder) for folder in train_years])  # which rules are tuned on
