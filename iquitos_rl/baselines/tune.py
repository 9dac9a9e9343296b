"""Tuning a rule's parameters on training years: all candidates and months as parallel environments of the district
engine.

Cross-entropy search (Rubinstein 1999): draw candidates, keep the best, draw the next round around them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from iquitos_rl.baselines.bill import Bill, booked_terms
from iquitos_rl.baselines.months import Month, longest, months_of, run_months, spread_over
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, RuleSettings, default_settings
from iquitos_rl.baselines.rules import RULES
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings

ELITE_SHARE = 0.2
LEAST_SPREAD = 0.01  # standard deviation, as a share of a parameter's range, below which the search does not narrow

EACH = 3
"""So many Januaries and so on are simulated, each of another year, so twelve years take no longer than three."""


def tune(
    name: str,
    sites: Sequence[Site],
    settings: TaskSettings = TaskSettings(),
    candidates: int = 48,
    rounds: int = 4,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_share: Callable[[float], None] = lambda _: None,
) -> RuleSettings:
    """Parameters of a rule with the least weighted bill over months of all `sites`; equal arguments, equal parameters.

    Args:
        name: key of `RULES`.
        sites: training years of one site.
        on_share: called after each simulated step with the share that is done; what it raises ends the search.

    Raises:
        UserError: the district engine cannot reproduce the site.
    """
    start, ranges = default_settings(name, fit_profiles(sites)), RULES[name].ranges
    if not ranges:
        return start
    low, high, default = np.array([*ranges.values()]).T
    rng = np.random.default_rng(seed)
    months = spread_over(months_of(sites), EACH)
    env = DistrictSite(sites, candidates * len(months), settings, device=device)
    best = (default - low) / (high - low)
    # Stratified: each parameter's range is covered evenly.
    strata = np.stack([rng.permutation(candidates) for _ in ranges], axis=-1)
    drawn = (strata + rng.random(strata.shape)) / candidates
    if not any(env.task.objective.tariff.rates):
        drawn[-1] = 0.0  # where nothing is charged by the kW, all parameters at their least are self-consumption
    for done in range(rounds):
        drawn[0] = best
        values = dict(zip(ranges, (low + drawn * (high - low)).T))
        bills = _bills(env, start, values, months, partial(_in_round, on_share, done, rounds))
        order = np.argsort(bills, kind="stable")
        elite = drawn[order[: max(int(candidates * ELITE_SHARE), 2)]]
        best = elite[0]
        spread = np.maximum(elite.std(0), LEAST_SPREAD)
        drawn = np.clip(rng.normal(elite.mean(0), spread, drawn.shape), 0, 1)
    return RuleSettings(name, dict(zip(ranges, (low + best * (high - low)).tolist())), start.profiles)


def _in_round(on_share: Callable[[float], None], done: int, rounds: int, share: float) -> None:
    on_share((done + share) / rounds)


@torch.inference_mode()
def _bills(
    env: DistrictSite,
    settings: RuleSettings,
    values: dict[str, Floats],
    months: list[Month],
    on_share: Callable[[float], None] = lambda _: None,
) -> Floats:
    """(candidates,) weighted bill of each candidate, summed over the months."""
    candidates = env.num_envs // len(months)
    each = {name: torch.from_numpy(np.repeat(column, len(months))) for name, column in values.items()}
    total = torch.zeros((len(Bill._fields), env.num_envs), dtype=torch.float64, device=env.device)
    steps = longest(months)
    for k, hour in enumerate(run_months(env, Rule(env.task, settings, each), months * candidates)):
        on_share(k / steps)
        total += booked_terms(hour.step.info) * hour.counted
    bill = Bill(*(term.cpu().numpy() for term in total))
    return bill.weighted(env.task.objective.weights).reshape(candidates, -1).sum(-1)
