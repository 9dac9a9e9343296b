"""The uncontrolled year of a case: simulated once, stored under a digest of everything it depends on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from iquitos_rl.baselines.uncontrolled import uncontrolled
from iquitos_rl.envs.citylearn import CityLearnSite
from iquitos_rl.envs.task import TaskSettings
from iquitos_rl.errors import UserError
from iquitos_rl.runs.files import digest, write_json, write_text
from iquitos_rl.runs.simulate import simulate_year
from iquitos_rl.runs.summary import SCHEMA_VERSION, Baseline, audit_demand, figures, grid_only, versions
from iquitos_rl.runs.timeseries import timeseries, trace, write_csv

NAME = "uncontrolled"
FILES = (f"timeseries_{NAME}.csv", f"trace_{NAME}.csv")


def baseline_env(case: Path, task: TaskSettings) -> CityLearnSite:
    """The evaluation year with the EV guard on, as `uncontrolled` needs it."""
    return CityLearnSite([case], task.model_copy(update={"ev_guard": True}))


def baseline_digest(env: CityLearnSite) -> str:
    """Digest of what the baseline's figures depend on: data, tariff, prices, and the simulator's versions."""
    site, objective = env.task.sites[0], env.task.objective
    used = {name: version for name, version in versions().items() if name in ("citylearn", "numpy", "iquitos_rl")}
    settings = objective.settings.model_dump(mode="json")
    return digest(SCHEMA_VERSION, site.fingerprint, objective.tariff.model_dump(mode="json"), settings, used)


def run_baseline(
    env: CityLearnSite, cache: Path, output: Path, on_hour: Callable[[int], None] | None = None
) -> Baseline:
    """Simulate the uncontrolled year, write its hours to `output` and store it for later runs."""
    year = simulate_year(env, uncontrolled(env), on_hour=on_hour)
    objective = env.task.objective
    baseline = Baseline(figures(year), grid_only(year, objective), audit_demand(year, objective))
    store = cache / "baselines" / baseline_digest(env)
    store.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(FILES, (timeseries(year), trace(year, env)), strict=True):
        write_csv(store / name, frame)
        _copy(store / name, output / name)
    write_json(store / "baseline.json", baseline._asdict())
    return baseline


def stored_baseline(env: CityLearnSite, cache: Path, output: Path) -> Baseline:
    """Take the baseline of an earlier run with the same inputs.

    Raises:
        UserError: none is stored for these inputs, or it cannot be read.
    """
    store = cache / "baselines" / baseline_digest(env)
    path = store / "baseline.json"
    if not path.is_file():
        raise UserError(
            f"--skip-baseline: {cache} holds no baseline for these inputs; run once without --skip-baseline"
        )
    try:
        baseline = Baseline(**json.loads(path.read_text(encoding="utf-8")))
        for name in FILES:
            _copy(store / name, output / name)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be used: {error}") from None
    return baseline


def _copy(source: Path, target: Path) -> None:
    """Copy a text file so that the copy is never half there."""
    write_text(target, source.read_bytes().decode("utf-8"))
