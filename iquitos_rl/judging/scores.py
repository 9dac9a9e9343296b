"""The figures of a period that CityLearn and its challenges judge by: the district's KPIs, and the score that fits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iquitos_rl.cases.site import Site
from iquitos_rl.judging.challenges import (
    score_2021,
    score_2021_official,
    score_2022,
    score_2022_official,
    score_2023,
    terms_2021,
)
from iquitos_rl.judging.kpis import BAND, Series, evaluate

KPI = "kpi/"
"""Before the name of a KPI in a controller's figures."""
TERM = "term_2021/"
"""Before the name of a term of the score of 2020 and 2021, which a rule's term divides."""
RULE = "BasicRBC"
"""The rule that the organisers of 2020 and 2021 divided by."""
SCORES = {
    "score_2020_official": f"score 2020, {RULE} 1",
    "score_2020": "score 2020, no control 1",
    "score_2021_official": f"score 2021, {RULE} 1",
    "score_2021": "score 2021, no control 1",
    "score_2022": "score 2022, no control 1",
    "score_2022_official": "score 2022 as CityLearn 1.3.6",
    "score_2023": "score 2023, within 1 degree",
    "score_2023_wide": "score 2023, within 2 degrees",
}
"""Figure to its name for people; a console shows the first that a site has."""


def fitting_score(site: Site) -> str | None:
    """The challenge whose sites are of this kind: of 2023 buildings that a controller cools or heats, of 2020 and 2021
    tanks, of 2022 batteries alone. None where vehicles charge, which no challenge and no KPI's baseline has."""
    if site.sockets:
        return None
    if any(building.dynamics is not None for building in site.buildings):
        return "2023"
    if site.thermal:
        return "2021" if any(building.carbon.any() for building in site.buildings) else "2020"
    return "2022" if any(building.battery is not None for building in site.buildings) else None


def judged_figures(site: Site, series: Series) -> dict[str, float]:
    """The district's KPIs and the fitting score of one controller, from series (K, B); what does not exist is left
    out, and so are KPIs of comfort where no temperature is simulated."""
    if not any(building.dynamics is not None for building in site.buildings):
        series = series._replace(comfort=None)
    kpis = evaluate(series)
    found = {f"{KPI}{name}": float(value) for name, value in kpis.district.items()}
    fitting = fitting_score(site)
    if fitting == "2023":
        found |= {"score_2023": float(score_2023(series)), "score_2023_wide": float(score_2023(series, BAND))}
    elif fitting == "2022":
        found |= {"score_2022": float(score_2022(kpis)), "score_2022_official": float(score_2022_official(series))}
    elif fitting is not None:
        found[f"score_{fitting}"] = float(score_2021(kpis, fitting == "2021"))
        found |= {f"{TERM}{name}": float(value) for name, value in terms_2021(series).items()}
    return {name: value for name, value in found.items() if np.isfinite(value)}


def missing_kpis(figures: Mapping[str, float]) -> list[str]:
    """Why a simulated controller has no KPIs, as a warning; empty where it has them."""
    if any(name.startswith(KPI) for name in figures):
        return []
    return [
        "there are no KPIs: CityLearn's own evaluate() fails on an electric heater next to a heat pump for hot water"
    ]


def official_2021(figures: Mapping[str, float], rule: Mapping[str, float]) -> dict[str, float]:
    """A controller's score of 2020 or 2021 on the organisers' scale, on which their rule has 1; empty where it has no
    such score."""
    mine, others = (
        {name.removeprefix(TERM): np.asarray(value) for name, value in found.items() if name.startswith(TERM)}
        for found in (figures, rule)
    )
    years = [year for year in ("2020", "2021") if f"score_{year}" in figures]
    return {
        f"score_{year}_official": float(score_2021_official(mine, others, year == "2021")) for year in years if others
    }
