"""CityLearn's KPIs as functions of series: the whole table of `CityLearnEnv.evaluate()`, for many environments at once.

Most are ratios to the same buildings without control: no storage moves, no vehicle charges, cooling and heating follow
the data's demand. A district's value is the mean of its buildings' ratios, but for the five that describe the shape of
its load: those come from the sum of its buildings.

Shapes: ... environments, K steps, B buildings. Source: CityLearn 3.0.2, `internal/kpi.py` (evaluate) and
`cost_function.py`; `Series` says how each series is defined there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iquitos_rl.cases.site import Bools, Floats

TINY = 1e-6
"""A total below this counts as nothing; CityLearn's ZERO_DIVISION_PLACEHOLDER."""
BAND = 2.0
"""Degrees that CityLearn counts as comfortable on either side of the set-points."""
SHAPES = (
    *("ramping_average", "daily_one_minus_load_factor_average", "monthly_one_minus_load_factor_average"),
    *("daily_peak_average", "all_time_peak_average"),
)
"""KPIs of the district alone."""


class Comfort(NamedTuple):
    """What discomfort and unserved energy follow from, (..., K, B) each."""

    temperature: Floats
    """C inside."""
    cooling_set_point: Floats
    heating_set_point: Floats
    occupants: Floats
    outage: Floats
    """1 where the grid is out."""
    expected: Floats
    """kWh that devices and load were asked for, thermal and electric."""
    served: Floats
    """kWh that they delivered."""


class Series(NamedTuple):
    """A controller's period and the same period without control, (..., K, B) each."""

    net: Floats
    """kWh net consumption, negative where the building exports."""
    cost: Floats
    """Currency; exports earn nothing."""
    emission: Floats
    """kg of CO2; exports earn nothing."""
    baseline_net: Floats
    """kWh of the building without control."""
    baseline_cost: Floats
    baseline_emission: Floats
    price: Floats
    """Currency per kWh."""
    hours_per_step: float
    comfort: Comfort | None = None
    """None where it is not known: without it there are no KPIs of comfort and service."""


class Kpis(NamedTuple):
    """Values by the name of the cost function; NaN where CityLearn has none."""

    building: dict[str, Floats]
    """(..., B) each."""
    district: dict[str, Floats]
    """(...) each."""


def evaluate(series: Series, band: float = BAND) -> Kpis:
    """CityLearn's table.

    Args:
        band: degrees beyond the set-points that are comfortable.
    """
    building = {
        "electricity_consumption_total": ratio(positive(series.net), positive(series.baseline_net)),
        "zero_net_energy": ratio(series.net.sum(-2), series.baseline_net.sum(-2)),
        "carbon_emissions_total": ratio(positive(series.emission), positive(series.baseline_emission)),
        "cost_total": ratio(positive(series.cost), positive(series.baseline_cost)),
    }
    if series.comfort is not None:
        building |= comfort_kpis(series.comfort, band)
    control = shape_kpis(series.net.sum(-1), series.hours_per_step)
    baseline = shape_kpis(district_sum(series.baseline_net), series.hours_per_step)
    district = {name: ratio(control[name], baseline[name]) for name in SHAPES}
    return Kpis(building, {**district, **{name: known_mean(values) for name, values in building.items()}})


def district_sum(net: Floats) -> Floats:
    """(..., K) sum over the buildings of (..., K, B), in single precision as CityLearn adds up baselines."""
    return np.ascontiguousarray(net, dtype=np.float32).sum(-1).astype(np.float64)


def shape_kpis(net: Floats, hours_per_step: float) -> dict[str, Floats]:
    """(...) each: ramping, load factors and peaks of a series (..., K); the keys are `SHAPES`."""
    day, month = steps_of(24, hours_per_step), steps_of(730, hours_per_step)
    values = (
        np.diff(net, axis=-1).clip(min=0).sum(-1),
        one_minus_load_factor(net, day),
        one_minus_load_factor(net, month),
        np.nanmax(windows(net, day), axis=-1).mean(-1),
        net.max(-1),
    )
    return dict(zip(SHAPES, values))


def one_minus_load_factor(net: Floats, steps: int) -> Floats:
    """(...) 1 - mean / peak of each window of so many steps of (..., K), averaged over the windows."""
    each = windows(net, steps)
    with np.errstate(divide="ignore", invalid="ignore"):
        return known_mean(1 - np.nanmean(each, axis=-1) / np.nanmax(each, axis=-1))


def windows(values: Floats, steps: int) -> Floats:
    """(..., W, steps) the series (..., K) in windows of so many steps; the last one is filled up with NaN."""
    missing = -values.shape[-1] % steps
    filled = np.concatenate([values, np.full((*values.shape[:-1], missing), np.nan)], axis=-1)
    return filled.reshape(*values.shape[:-1], -1, steps)


def steps_of(hours: float, hours_per_step: float) -> int:
    """Steps in so many hours, one at least."""
    return max(1, round(hours / hours_per_step))


def comfort_kpis(comfort: Comfort, band: float = BAND) -> dict[str, Floats]:
    """(..., B) each: discomfort, its degrees, and what failed in outages."""
    occupied = comfort.occupants > 0
    out = comfort.outage != 0
    cold, hot = exceeded(comfort)
    too_cold, too_hot = cold < -band, hot > band
    found = {
        "discomfort_proportion": share(too_cold | too_hot, occupied),
        "discomfort_cold_proportion": share(too_cold, occupied),
        "discomfort_hot_proportion": share(too_hot, occupied),
        **degrees("cold", np.abs(cold.clip(max=0))),
        **degrees("hot", np.abs(hot.clip(min=0))),
        "one_minus_thermal_resilience_proportion": share((too_cold | too_hot) & out, occupied & out),
    }
    expected, served = (np.where(np.isfinite(x), x, 0.0).clip(min=0) for x in (comfort.expected, comfort.served))
    missing = (expected - served).clip(min=0)
    for name, counted in (("power_outage", out), ("annual", np.ones_like(out))):
        asked, lacking = (expected * counted).sum(-2), (missing * counted).sum(-2)
        none = asked <= 0
        found[f"{name}_normalized_unserved_energy_total"] = np.where(none, 0.0, lacking / np.where(none, 1.0, asked))
    return found


def exceeded(comfort: Comfort) -> tuple[Floats, Floats]:
    """(..., K, B) degrees above the heating and above the cooling set-point; 0 where nobody is in."""
    away = comfort.occupants == 0
    points = comfort.heating_set_point, comfort.cooling_set_point
    cold, hot = (np.where(away, 0.0, comfort.temperature - point) for point in points)
    return cold, hot


def degrees(name: str, values: Floats) -> dict[str, Floats]:
    """(..., B) least, most and mean of (..., K, B)."""
    least, most = (f.reduce(values, axis=-2) for f in (np.fmin, np.fmax))
    mean = known_mean(np.moveaxis(values, -2, -1))
    parts = {"minimum": least, "maximum": most, "average": mean}
    return {f"discomfort_{name}_delta_{part}": value for part, value in parts.items()}


def share(counted: Bools, among: Bools) -> Floats:
    """(..., B) number of steps counted over the number of others, both (..., K, B); NaN where there is none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(counted.sum(-2) / among.sum(-2))


def positive(values: Floats) -> Floats:
    """(..., B) sum of what is above zero in (..., K, B)."""
    return np.asarray(values.clip(min=0).sum(-2))


def ratio(control: Floats, baseline: Floats) -> Floats:
    """Their quotient; 1 where both are nothing, NaN where the baseline alone is."""
    none = np.abs(baseline) <= TINY
    both = none & (np.abs(control) <= TINY)
    return np.where(none, np.where(both, 1.0, np.nan), control / np.where(none, 1.0, baseline))


def known_mean(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0.0).sum(-1) / np.maximum(count, 1), np.nan)
