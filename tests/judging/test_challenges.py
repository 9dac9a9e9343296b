"""The challenges' scores against their definitions, computed in plain numpy on one district."""

import numpy as np
import pytest

from iquitos_rl.judging import challenges
from iquitos_rl.judging.kpis import Comfort, Series, evaluate

STEPS, BUILDINGS = 2 * 730 + 50, 3


@pytest.fixture
def series():
    rng = np.random.default_rng(0)
    net, baseline = (rng.normal(1, 2, (STEPS, BUILDINGS)).astype(np.float32).astype(float) for _ in range(2))
    price, carbon = (rng.uniform(0.1, 0.5, (STEPS, BUILDINGS)) for _ in range(2))
    comfort = Comfort(
        temperature=rng.normal(23, 3, net.shape),
        cooling_set_point=np.full_like(net, 24.0),
        heating_set_point=np.full_like(net, 20.0),
        occupants=rng.integers(0, 3, net.shape).astype(float),
        outage=(rng.random(net.shape) < 0.1).astype(float),
        expected=rng.uniform(1, 2, net.shape),
        served=rng.uniform(0, 2, net.shape),
    )
    billed = [x.clip(min=0) * rate for x in (net, baseline) for rate in (price, carbon)]
    return Series(net, *billed[:2], baseline, *billed[2:], price, 1.0, comfort)


def ramps(net):
    return sum(abs(net[t] - net[t - 1]) for t in range(1, len(net)))


def one_minus_load_factor(net, steps):
    parts = [net[first : first + steps] for first in range(0, len(net), steps)]
    return np.mean([1 - part.mean() / part.max() for part in parts])


def daily_peak(net):
    return np.mean([net[first : first + 24].max() for first in range(0, len(net), 24)])


def test_2020_and_2021(series):
    district = series.net.sum(-1)
    terms = challenges.terms_2021(series)
    expected = [
        ramps(district),
        one_minus_load_factor(district, 730),
        daily_peak(district),
        district.max(),
        district.clip(min=0).sum(),
        series.emission.sum(),
    ]
    assert list(terms.values()) == pytest.approx(expected)
    rule = {name: 2 * value for name, value in terms.items()}
    assert challenges.score_2021_official(terms, rule) == pytest.approx(0.5)
    rule["carbon emissions"] = terms["carbon emissions"]
    assert challenges.score_2021_official(terms, rule) == pytest.approx((5 * 0.5 + 1) / 6)
    assert challenges.score_2021_official(terms, rule, with_carbon=False) == pytest.approx(0.5)


def test_2020_and_2021_on_the_scale_of_no_control(series):
    """As the official score with no control in place of the rule, but for means of ratios, and rises alone."""
    idle = series._replace(net=series.baseline_net, cost=series.baseline_cost, emission=series.baseline_emission)
    for with_carbon in (False, True):
        assert challenges.score_2021(evaluate(idle), with_carbon) == pytest.approx(1.0, rel=1e-6)
        mine, terms = challenges.score_2021(evaluate(series), with_carbon), challenges.terms_2021(series)
        official = challenges.score_2021_official(terms, challenges.terms_2021(idle), with_carbon)
        assert mine == pytest.approx(official, rel=0.05)


def test_2022(series):
    control, baseline = series.net.sum(-1), series.baseline_net.sum(-1)
    load_factor = one_minus_load_factor(control, 730) / one_minus_load_factor(baseline, 730)
    ratios = series.cost.sum(0) / series.baseline_cost.sum(0), series.emission.sum(0) / series.baseline_emission.sum(0)
    rises = [np.diff(net).clip(min=0).sum() for net in (control, baseline)]
    expected = np.mean([*(ratio.mean() for ratio in ratios), (rises[0] / rises[1] + load_factor) / 2])
    assert challenges.score_2022(evaluate(series)) == pytest.approx(expected, rel=1e-6)
    price = [(net * series.price).sum(-1).clip(min=0).sum() for net in (series.net, series.baseline_net)]
    grid = (ramps(control) / ramps(baseline) + load_factor) / 2
    expected = np.mean([price[0] / price[1], series.emission.sum() / series.baseline_emission.sum(), grid])
    assert challenges.score_2022_official(series) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("band", [1.0, 2.0])
def test_2023(series, band):
    found = evaluate(series, band).district
    comfort = series.comfort
    outside = (comfort.temperature > 24 + band) | (comfort.temperature < 20 - band)
    occupied, out = comfort.occupants > 0, comfort.outage > 0
    discomfort = np.mean((outside & occupied).sum(0) / occupied.sum(0))
    resilience = np.mean((outside & occupied & out).sum(0) / (occupied & out).sum(0))
    lacking = (comfort.expected - comfort.served).clip(min=0)
    unserved = np.mean((lacking * out).sum(0) / (comfort.expected * out).sum(0))
    grid = sum(found[f"{name}_average"] for name in ("ramping", "daily_one_minus_load_factor", "daily_peak"))
    grid += found["all_time_peak_average"]
    expected = 0.3 * discomfort + 0.1 * found["carbon_emissions_total"] + 0.075 * grid
    expected += 0.15 * resilience + 0.15 * unserved
    assert challenges.score_2023(series, band) == pytest.approx(expected)


def test_a_kpi_that_does_not_exist_counts_nothing_in_2023(series):
    never_out = series._replace(comfort=series.comfort._replace(outage=np.zeros_like(series.net)))
    found = evaluate(never_out, 1.0).district
    assert np.isnan(found["one_minus_thermal_resilience_proportion"])
    assert np.isfinite(challenges.score_2023(never_out))
