"""What it costs to act before an hour's load and PV are known: the strongest rule, tuned and judged with either.

Rules are tuned on training years and judged on further years that nothing else uses; the engine is the district's. The
difference is paired by year, its interval Student's over years.

    python benchmarks/knowledge.py --cache FOLDER
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from iquitos_rl.baselines.bill import run_year
from iquitos_rl.baselines.profiles import fit_profiles
from iquitos_rl.baselines.rule import Rule, default_settings
from iquitos_rl.baselines.tune import tune
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.cases.site import Floats, Site
from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.settings import TaskSettings
from iquitos_rl.runs.years import preset_year

RESULT = Path(__file__).parent / "results" / "knowledge.md"
FIRST_JUDGED = 900
"""Year seeds from here on are neither trained on by default nor those that comparisons judge on."""
RULE = "strongest"


@torch.inference_mode()
def bills(sites: list[Site], name: str, train: list[Site], settings: TaskSettings, tuned: bool) -> Floats:
    """(years,) bill of a rule in each of the judged years."""
    rule = tune(name, train, settings) if tuned else default_settings(name, fit_profiles(train))
    env = DistrictSite(sites, len(sites), settings)
    return run_year(env, Rule(env.task, rule), list(range(len(sites)))).total


def rows(case: str, cache: Path, years: int, judged: int) -> list[str]:
    def sites(first: int, count: int) -> list[Site]:
        return [read_site(preset_year(case, first + n, {}, cache)) for n in range(count)]

    train, own = sites(0, years), sites(FIRST_JUDGED, judged)
    uncontrolled = bills(own, "uncontrolled", train, TaskSettings(), tuned=False)
    found: dict[str, Floats] = {}
    for present in ("known", "last"):
        found[present] = bills(own, RULE, train, TaskSettings(present=present), tuned=True)
    cost = found["last"] - found["known"]
    reach = stats.t.ppf(0.975, judged - 1) * cost.std(ddof=1) / np.sqrt(judged)
    gain = (uncontrolled - found["known"]).mean()
    return [
        f"| {case} | {uncontrolled.mean():,.0f} | {found['known'].mean():,.0f} | {found['last'].mean():,.0f} | "
        f"{cost.mean():+,.0f} ± {reach:,.0f} | {cost.mean() / gain:.0%} |"
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=["iquitos-38", "iquitos-128"])
    parser.add_argument("--years", type=int, default=3)
    parser.add_argument("--judged", type=int, default=6)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text = [
        "# Acting before the hour is known",
        "",
        f"`python benchmarks/knowledge.py --cache FOLDER`: bill in PEN a year, mean of {asked.judged} years from seed "
        f"{FIRST_JUDGED} on, of the rule `{RULE}` tuned on {asked.years} training years. `known`: it sees the load, PV "
        "and weather of the hour that it acts in, as in CityLearn; `last`: those of the hour before.",
        "",
        "| case | uncontrolled | known | last | cost of not knowing | of the rule's gain |",
        "|---|---|---|---|---|---|",
    ]
    for case in asked.cases:
        begin = time.process_time()
        text += rows(case, asked.cache, asked.years, asked.judged)
        print(text[-1], f"{time.process_time() - begin:.0f} s", flush=True)
    RESULT.write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
