"""Which engine a run trains on, and around which rule."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from iquitos_rl.agents.start import start_spec
from iquitos_rl.baselines.guided import GuidedSite
from iquitos_rl.baselines.recording import record_years
from iquitos_rl.baselines.rule import RuleSettings
from iquitos_rl.cases.site import Site
from iquitos_rl.config import RunSettings
from iquitos_rl.envs.engines import ENGINES, Wanted
from iquitos_rl.envs.task.site_vector import SiteVector
from iquitos_rl.envs.vector import VectorEnv
from iquitos_rl.errors import UserError
from iquitos_rl.judging.references import STRONGEST, find_rule
from iquitos_rl.machine.bars import share_bar
from iquitos_rl.machine.elsewhere import place_of
from iquitos_rl.machine.interrupt import Check


class Engine(NamedTuple):
    name: str
    env: VectorEnv
    steps_per_year: int
    episode_steps: float
    """Transitions after which the episodes of all environments end in one step; infinite where they do not."""
    reason: str
    """Why this engine, in one sentence."""
    fingerprints: list[str]
    """Of each training year's files."""


class Guidance(NamedTuple):
    rule: RuleSettings | None
    reason: str
    """Why this rule, or why none, in a few words."""


def cannot(name: str, sites: Sequence[Site]) -> str | None:
    """What an engine cannot reproduce of the first year with such features, None where it can."""
    features = next((found for site in sites if (found := ENGINES.require(name).cannot(site))), None)
    return f"the {name} engine cannot reproduce {'; '.join(features)}" if features else None


def choose_engine(asked: str, sites: Sequence[Site]) -> tuple[str, str]:
    """The engine's name, and why this one.

    Raises:
        UserError: no engine can reproduce the years.
    """
    if asked != "auto":
        return asked, "asked for"
    refusals: list[str] = []
    for name in ENGINES:
        refusal = cannot(name, sites)
        if refusal is None:
            return name, "; ".join(refusals) or "it reproduces this site step by step"
        refusals.append(refusal)
    raise UserError("; ".join(refusals))


def make_engine(
    settings: RunSettings,
    sites: Sequence[Site],
    device: torch.device,
    rule: RuleSettings | None = None,
    check: Check = lambda: None,
) -> Engine:
    """The training environments that the settings ask for.

    Args:
        sites: training years.
        rule: what actions count from, see `GuidedSite`; only for engines that can be guided.

    Raises:
        UserError: the engine asked for by name cannot reproduce the site.
    """
    name, reason = choose_engine(settings.engine, sites)
    spec = None if settings.continue_from is None else start_spec(place_of(settings.continue_from))
    trajectory = None
    if rule is not None:
        with share_bar("record the rule's years", check) as on_share:
            trajectory = record_years(sites, rule, settings.task, device, spec, on_share=on_share)
    wanted = Wanted(sites, settings.task, settings.num_envs, settings.episode_hours, device, trajectory, spec)
    made = ENGINES.require(name).make(wanted)
    env = made.env
    if env.action_dim == 0:
        env.close()
        raise UserError(f"{sites[0].path}: nothing here obeys actions: no battery, no vehicle, no tank, no cooling")
    if rule is not None:
        assert isinstance(env, SiteVector), f"the {name} engine cannot be guided"
        env = GuidedSite(env, rule, settings.reach, settings.beyond)
    reason += f"; {made.note}" if made.note else ""
    return Engine(name, env, sites[0].rows - 1, made.together, reason, [site.fingerprint for site in sites])


def choose_guidance(settings: RunSettings, sites: Sequence[Site], cache: Path, check: Check = lambda: None) -> Guidance:
    """The rule that the agent's actions count from; tuned on the training years, or taken from the cache.

    Raises:
        UserError: a rule is asked for and cannot act here.
    """
    if settings.guide == "none":
        return Guidance(None, "none was asked for")
    reason = obstacle(settings, sites)
    if reason is not None:
        if settings.guide == "auto":
            return Guidance(None, reason)
        raise UserError(f"guide = {settings.guide}: {reason}")
    name = rule_name(settings)
    with share_bar(f"tune the rule {name}", check) as on_share:
        rule = find_rule(name, sites, settings.task, cache, on_share=on_share)
    tuned = ", ".join(f"{name} {value:.2f}" for name, value in rule.parameters.items())
    return Guidance(rule, f"tuned to {tuned}" if tuned else "asked for")


def rule_name(settings: RunSettings) -> str:
    """The rule that guides where one does, a key of `RULES`."""
    return STRONGEST if settings.guide == "auto" else settings.guide


def obstacle(settings: RunSettings, sites: Sequence[Site]) -> str | None:
    """Why no rule can act in a run, None where one can."""
    if settings.engine != "auto" and not ENGINES.require(settings.engine).guided:
        able = " and ".join(name for name, engine in ENGINES.items() if engine.guided)
        return f"rules are followed on the {able} engine only"
    if not settings.task.ev_guard or settings.task.sockets != "fleet":
        return "rules need task.ev_guard: true and task.sockets: fleet"
    return cannot("district", sites)  # which rules are tuned on
