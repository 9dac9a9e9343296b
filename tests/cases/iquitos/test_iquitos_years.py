"""Synthetic years: the documented figures are those of their mean, and no two years are alike."""

import numpy as np
import pytest

from iquitos_rl.cases.iquitos.build import build_case, draw_year
from iquitos_rl.cases.iquitos.calendar import YEARS, calendar_year
from iquitos_rl.cases.iquitos.calibration import DOCUMENTED_GHI_DAY, DOCUMENTED_HIGHEST_KW
from iquitos_rl.cases.iquitos.events import KINDS, draw_events
from iquitos_rl.cases.iquitos.load import school_vacation
from iquitos_rl.cases.iquitos.noise import ar1, stream
from iquitos_rl.cases.iquitos.presets import case_settings
from iquitos_rl.cases.iquitos.shifts import SHIFTS
from iquitos_rl.cases.iquitos.visits import draw_visits
from iquitos_rl.cases.iquitos.weather import centre
from iquitos_rl.cases.presets import PRESETS, build_preset

SETTINGS = case_settings("iquitos-38")
COUNT = 80
SURE = 4.0
"""Standard errors of a mean that a documented figure may lie away; by chance one of 16,000 does."""


@pytest.fixture(scope="module")
def years():
    return [draw_year(SETTINGS, seed) for seed in range(COUNT)]


def by(group, values, count):
    return np.bincount(group, values, minlength=count)[-count:]


def far(found, wanted):
    """How many standard errors the mean of (N, ...) figures is from what is wanted."""
    return np.abs(np.mean(found, axis=0) - wanted) / (np.std(found, axis=0, ddof=1) / np.sqrt(len(found)))


def test_the_mean_year_has_the_documented_load(years):
    load, total = SETTINGS.load, SETTINGS.load.annual_kwh
    months = np.array([by(y.calendar.month, y.load, 12) for y in years])
    hours = np.array([by(y.calendar.hour, y.load, 24) for y in years])
    assert far(months.sum(axis=1), total) < SURE
    assert (far(months, np.array(load.monthly_mwh) / sum(load.monthly_mwh) * total) < SURE).all()
    assert (far(hours, np.array(load.hourly_kw) / sum(load.hourly_kw) * total) < SURE).all()


def test_the_mean_year_has_the_documented_weather(years):
    weather = SETTINGS.weather
    months = np.array([by(y.calendar.month, y.weather.ghi, 12) / 1000 for y in years])
    assert (far(months, np.array(weather.monthly_ghi)) < SURE).all()
    temperature = np.array([by(y.calendar.hour, y.weather.temperature, 24) / 365 for y in years])
    offset = np.mean(np.array(weather.monthly_warmth)[years[0].calendar.month - 1])
    assert (far(temperature, np.array(weather.hourly_temperature) + offset) < SURE).all()
    day = np.mean([by(y.calendar.hour, y.weather.ghi, 24) / 365 for y in years], axis=0)
    assert np.abs(day[6:18] - DOCUMENTED_GHI_DAY).max() < 25  # the case is not calibrated to it


def test_the_mean_year_has_the_documented_visits(years):
    assert far(np.array([y.busy.mean() for y in years]), 1.0) < SURE
    for preset, moto, mototaxi in (("iquitos-38", 270, 39), ("iquitos-128", 2.9 * 112, 2.9 * 16)):
        settings = case_settings(preset)
        for kind, count, each, wanted in (
            ("moto", settings.sockets.moto_count, settings.visits.moto_per_socket, moto),
            ("mototaxi", settings.sockets.mototaxi_count, settings.visits.mototaxi_per_socket, mototaxi),
        ):
            found = [
                len(draw_visits(y.calendar, settings.visits, kind, count, each, y.busy, stream(n, kind)).row) / 365
                for n, y in enumerate(years[:12])
            ]
            # Very busy days do not fit: a day has 13 hours.
            assert np.mean(found) == pytest.approx(wanted, rel=0.04)


def test_the_metered_peak_could_be_that_of_a_year(years):
    highest = [y.load.max() for y in years]
    assert np.quantile(highest, 0.01) < DOCUMENTED_HIGHEST_KW < np.quantile(highest, 0.99)


def test_no_two_years_are_alike(years):
    """What an audit found equal in the generator before: sums, peaks, weekdays, calendars."""

    def variation(values):
        return np.std(values, axis=0) / np.mean(values, axis=0)

    assert 0.02 < variation([y.load.sum() for y in years]) < 0.05
    assert 0.025 < variation([y.weather.ghi.sum() for y in years]) < 0.05
    assert (variation([by(y.calendar.month, y.load, 12) for y in years]) > 0.02).all()
    assert (variation([by(y.calendar.month, y.weather.ghi, 12) for y in years]) > 0.04).all()
    peaks = np.array([[y.load[y.calendar.month == m].max() for m in range(1, 13)] for y in years])
    assert (variation(peaks) > 0.025).all()
    assert len({str(y.calendar.begin[0]) for y in years}) == len(YEARS)


def test_days_of_the_week_differ(years):
    def mean(hours, days):
        chosen = [
            y.load[np.isin(y.calendar.hour, hours) & np.isin(y.calendar.day_type, days)].mean() / y.load.mean()
            for y in years
        ]
        return np.mean(chosen)

    assert mean([7, 8], [7]) < 0.85 * mean([7, 8], [1, 2, 3, 4, 5])
    assert mean([22], [5, 6]) > 1.05 * mean([22], [1, 2, 3, 4])
    for y in years[:3]:
        christmas = (y.calendar.month == 12) & (y.calendar.day == 358)
        assert y.load[christmas].sum() < 0.75 * y.load.sum() / 365
        assert (y.calendar.day_type[christmas] == 8).all()


def test_load_follows_the_temperature():
    """With all else equal, a year that is warmer has more load."""
    cold, warm = (
        draw_year(case_settings("iquitos-38", {"load.per_kelvin": per_kelvin}), 5) for per_kelvin in (0.0, 0.05)
    )
    ratio = (warm.load / cold.load).reshape(-1, 24).mean(axis=1)
    usual = np.array(SETTINGS.weather.monthly_warmth)[cold.calendar.month[::24] - 1]
    warmth = cold.weather.temperature.reshape(-1, 24).mean(axis=1) - usual
    assert np.corrcoef(ratio, warmth)[0, 1] > 0.8


def test_visits_follow_the_mall_the_weekday_and_the_sun(years):
    visits = np.concatenate([y.busy for y in years])
    load = np.concatenate([y.load.reshape(-1, 24).sum(axis=1) / y.load.sum() for y in years])
    sun = np.concatenate([y.weather.ghi.reshape(-1, 24).sum(axis=1) / y.weather.ghi.sum() for y in years])
    saturday = np.concatenate([y.calendar.weekday[::24] == 6 for y in years])
    assert np.corrcoef(visits, load)[0, 1] > 0.3
    assert np.corrcoef(visits, sun)[0, 1] > 0.1
    assert visits[saturday].mean() > 1.05 * visits[~saturday].mean()


def test_events_come_to_nothing_in_the_mean():
    calendar = calendar_year(2018)
    drawn = [draw_events(calendar, 1.0, np.random.default_rng(seed)) for seed in range(200)]
    load = np.array([by(calendar.hour, events.load, 24) for events in drawn])
    assert (far(load, 0.0) < SURE).all()
    assert far(np.array([events.visits.mean() for events in drawn]), 0.0) < SURE
    assert min(events.load.min() for events in drawn) < KINDS["closure"].load[1]
    assert draw_events(calendar, 0.0, np.random.default_rng(0)).load.any() == 0


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9])
def test_clouds_have_the_mean_that_they_are_centred_for(mean):
    noise = np.random.default_rng(0).standard_normal(400_000)
    index = 1 / (1 + np.exp(-centre(np.array([mean]), 1.1)[0] - 1.1 * noise))
    assert index.mean() == pytest.approx(mean, abs=4 * index.std() / np.sqrt(len(noise)))


def test_noise_has_unit_variance_its_correlation_and_its_tails():
    heavy, normal = (ar1(np.random.default_rng(1), 200_000, 0.6, freedom) for freedom in (5.0, None))
    for series in (heavy, normal):
        assert series.std() == pytest.approx(1, abs=0.03)
        assert np.corrcoef(series[1:], series[:-1])[0, 1] == pytest.approx(0.6, abs=0.02)
    assert np.mean(np.abs(heavy) > 4) > 3 * np.mean(np.abs(normal) > 4)


def test_one_change_leaves_other_streams_alone():
    before, quiet, hazy = (
        draw_year(case_settings("iquitos-38", changes), 3)
        for changes in ({}, {"load.events": 0}, {"load.per_kelvin": 0, "weather.spell_std": 0.5})
    )
    assert (before.weather.ghi == quiet.weather.ghi).all()
    assert (before.load != quiet.load).any()
    assert (before.weather.ghi != hazy.weather.ghi).any()
    still = draw_year(case_settings("iquitos-38", {"load.per_kelvin": 0}), 3)
    assert (still.load == hazy.load).all()


def test_calendars():
    assert {calendar_year(year).rows for year in YEARS} == {8760}
    assert {int(calendar_year(year).weekday[0]) for year in YEARS} == set(range(1, 8))
    leap = calendar_year(2024)
    assert leap.rows == 8760
    assert "2024-02-29" not in leap.begin.astype("datetime64[D]").astype(str)
    free = calendar_year(2025).begin[calendar_year(2025).holiday].astype("datetime64[D]").astype(str)
    assert {"2025-07-28", "2025-12-25", "2025-04-18"} <= set(free)  # the last is Good Friday
    off = school_vacation(calendar_year(2025)).reshape(-1, 24)[:, 0]
    assert off[:60].all()
    assert not off[80:190].any()
    assert off[203:217].sum() >= 7


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_changes_what_it_is_about_and_nothing_else(shift):
    plain, settings = draw_year(SETTINGS, 2), SHIFTS[shift](SETTINGS)
    moved = draw_year(settings, 2)
    assert (moved.weather.ghi == plain.weather.ghi).all()
    assert (moved.busy == plain.busy).all()
    more, less = moved.load / plain.load, plain.pv.sum() - moved.pv.sum()
    if shift == "load":
        assert np.allclose(more, 1.1)
    elif shift == "tenant":
        added = moved.load - plain.load
        assert (added[plain.calendar.month < 4] == 0).all()
        assert added[plain.calendar.month >= 4].max() == pytest.approx(250)
    else:
        assert (more == 1).all()
    assert (less > 0) == (shift == "inverter")
    assert (settings.visits == SETTINGS.visits) == (shift != "hours")


def test_shifted_years_are_presets(tmp_path):
    small = {"sockets.moto_count": 1, "sockets.mototaxi_count": 0}
    moved = build_preset("iquitos-38-hours", 4, tmp_path / "moved", small)
    plain = build_case("iquitos-38", 4, tmp_path / "plain", small)
    assert (moved / "Building_1.csv").read_bytes() == (plain / "Building_1.csv").read_bytes()
    assert (moved / "moto_001.csv").read_bytes() != (plain / "moto_001.csv").read_bytes()
    assert {f"iquitos-{n}-{shift}" for n in (38, 128) for shift in SHIFTS} <= set(PRESETS)
    assert PRESETS["iquitos-128-load"].settings.load.annual_kwh == pytest.approx(1.1 * 12_368_653)
