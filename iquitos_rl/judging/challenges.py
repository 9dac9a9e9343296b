"""The scores of the CityLearn challenges of 2020 to 2023, from the series that KPIs are computed from; less is better.

1 is the same site without control, or in 2020 and 2021 the organisers' rule. A score of one year's data says little
about leaderboards: CityLearn 3.0.2 shows an agent the load and PV of the hour that it acts on, older versions did not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from iquitos_rl.cases.site import Floats
from iquitos_rl.judging.kpis import (
    Kpis,
    Series,
    evaluate,
    known_mean,
    one_minus_load_factor,
    positive,
    ratio,
    shape_kpis,
    steps_of,
)

OFFICIAL_BAND = 1.0
"""Degrees of comfort in the challenge of 2023."""
WEIGHTS_2023 = {
    "discomfort_proportion": 0.30,
    "carbon_emissions_total": 0.10,
    "ramping_average": 0.075,
    "daily_one_minus_load_factor_average": 0.075,
    "daily_peak_average": 0.075,
    "all_time_peak_average": 0.075,
    "one_minus_thermal_resilience_proportion": 0.15,
    "power_outage_normalized_unserved_energy_total": 0.15,
}
TERMS_2021 = (
    *("ramping", "1 - load factor", "average daily peak", "peak demand", "net electricity consumption"),
    "carbon emissions",
)


KPIS_2021 = (
    *("ramping_average", "monthly_one_minus_load_factor_average", "daily_peak_average", "all_time_peak_average"),
    *("electricity_consumption_total", "carbon_emissions_total"),
)


def terms_2021(series: Series) -> dict[str, Floats]:
    """(...) each: what 2020 and 2021 add up.

    Ramping counts rises and falls here, and load factors are those of 730 hours.

    Source: CityLearn v1.0.0, `citylearn.py`, cost and get_baseline_cost; 2020 had no carbon emissions.
    """
    net = series.net.sum(-1)
    shapes = shape_kpis(net, series.hours_per_step)
    values = (
        np.abs(np.diff(net, axis=-1)).sum(-1),
        shapes["monthly_one_minus_load_factor_average"],
        shapes["daily_peak_average"],
        shapes["all_time_peak_average"],
        net.clip(min=0).sum(-1),
        positive(series.emission).sum(-1),
    )
    return dict(zip(TERMS_2021, values))


def score_2021(kpis: Kpis, with_carbon: bool = True) -> Floats:
    """(...) mean of those KPIs that 2020 and 2021 added up, on the scale on which no control is 1.

    Consumption and carbon are means of the buildings' ratios, as CityLearn 3.0.2's table has them for the district.

    Args:
        with_carbon: False for 2020.
    """
    return _mean_of_known([kpis.district[name] for name in KPIS_2021[: 6 if with_carbon else 5]])


def score_2021_official(terms: dict[str, Floats], rule: dict[str, Floats], with_carbon: bool = True) -> Floats:
    """(...) mean of the terms of the district's totals, each divided by that of the organisers' rule.

    Args:
        rule: the terms of CityLearn's `BasicRBC`, which is that rule.
        with_carbon: False for 2020.

    Source: CityLearn v1.0.0, `citylearn.py`, cost; `docs/source/citylearn_challenge/2020.rst`, `2021.rst`.
    """
    counted = [name for name in TERMS_2021 if with_carbon or name != "carbon emissions"]
    return known_mean(np.stack([ratio(terms[name], rule[name]) for name in counted], axis=-1))


def score_2022(kpis: Kpis) -> Floats:
    """(...) mean of cost, emission and grid, the last being that of ramping and of the load factors of 730 hours.

    Cost and emission are means of the buildings' ratios, as CityLearn 3.0.2's table has them for the district.
    """
    found = kpis.district
    grid = (found["ramping_average"] + found["monthly_one_minus_load_factor_average"]) / 2
    return _mean_of_known([found["cost_total"], found["carbon_emissions_total"], grid])


def score_2022_official(series: Series) -> Floats:
    """(...) the same of the district's totals, where a building's export pays for its neighbour's import in that step.

    Source: CityLearn v1.3.6, the version of the challenge, `citylearn.py`, evaluate.
    """
    day_month = steps_of(730, series.hours_per_step)
    parts = []
    for net, emission in ((series.net, series.emission), (series.baseline_net, series.baseline_emission)):
        district = net.sum(-1)
        price = (net * series.price).sum(-1).clip(min=0).sum(-1)
        shape = np.abs(np.diff(district, axis=-1)).sum(-1), one_minus_load_factor(district, day_month)
        parts.append((price, positive(emission).sum(-1), *shape))
    price, carbon, ramping, load_factor = (ratio(a, b) for a, b in zip(*parts))
    return _mean_of_known([price, carbon, (ramping + load_factor) / 2])


def score_2023(series: Series, band: float = OFFICIAL_BAND) -> Floats:
    """(...) sum of eight KPIs, weighted: comfort 0.30, carbon 0.10, grid 0.30, resilience 0.30.

    A KPI that does not exist counts nothing, as with the organisers.

    Args:
        band: degrees around the set-points; the challenge took 1, CityLearn 3.0.2's table takes 2.

    Source: CityLearn v2.1b12, `citylearn.py`, evaluate_citylearn_challenge.
    """
    found = evaluate(series, band).district
    values = [weight * found[name] for name, weight in WEIGHTS_2023.items()]
    return np.asarray(np.nansum(np.stack(values, axis=-1), axis=-1))


def _mean_of_known(values: Sequence[Floats]) -> Floats:
    return known_mean(np.stack(values, axis=-1))
