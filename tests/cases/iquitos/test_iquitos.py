"""The built case: documented figures, seeds, CityLearn conventions, and CityLearn itself."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iquitos_rl.cases.iquitos.build import build_case
from iquitos_rl.cases.iquitos.calendar import Calendar, calendar_year
from iquitos_rl.cases.iquitos.calibration import calibration_table, format_table
from iquitos_rl.cases.iquitos.presets import case_settings
from iquitos_rl.cases.iquitos.solar import CLOUD_EDGE, sun_position
from iquitos_rl.cases.plausibility import check_case
from iquitos_rl.cases.presets import build_preset
from iquitos_rl.cases.schema.reader import read_site
from iquitos_rl.errors import UserError


def calendar_of(folder: Path) -> Calendar:
    return calendar_year(json.loads((folder / "case.json").read_text(encoding="utf-8"))["calendar_year"])


SMALL = {"sockets.moto_count": 2, "sockets.mototaxi_count": 1}


@pytest.mark.parametrize("preset", ["case_128", "case_38"])
def test_a_year_stands_beside_the_documented_figures(preset: str, request: pytest.FixtureRequest) -> None:
    """One year differs from the mean year, in every month, by what years differ; `test_years.py` looks at the means."""
    rows = calibration_table(request.getfixturevalue(preset))
    text = format_table(rows)
    assert len(rows) > 75
    assert len(text.splitlines()) == len(rows) + 1
    for row in rows:
        if row.figure.startswith(("load", "GHI, year", "GHI, month", "PV")):
            assert row.built == pytest.approx(row.documented, rel=0.35), row.figure
            assert row.built != pytest.approx(row.documented, rel=1e-6), row.figure


def test_the_table_shows_a_wrong_year(small_case: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    for name in ("case.json", "weather.csv"):
        (folder / name).write_bytes((small_case / name).read_bytes())
    building = pd.read_csv(small_case / "Building_1.csv")
    building["non_shiftable_load"] = np.roll(building["non_shiftable_load"], 1)
    building.to_csv(folder / "Building_1.csv", index=False)
    found = {row.figure: row for row in calibration_table(folder)}
    right = {row.figure: row for row in calibration_table(small_case)}
    hour = "load, mean of hour 10"
    assert found[hour].built < 0.8 * right[hour].built
    assert found["GHI, year"] == right["GHI, year"]


def test_equal_seeds_give_equal_bytes(small_case: Path, tmp_path: Path) -> None:
    again = build_case("iquitos-128", 1, tmp_path / "again", SMALL)
    names = sorted(path.name for path in small_case.iterdir())
    assert sorted(path.name for path in again.iterdir()) == names
    assert filecmp.cmpfiles(small_case, again, names, shallow=False)[0] == names


def test_another_seed_changes_weather_load_and_visits_only(small_case: Path, tmp_path: Path) -> None:
    other = build_case("iquitos-128", 2, tmp_path / "other", SMALL)
    for name in ("Building_1.csv", "weather.csv", "moto_001.csv", "moto_002.csv", "mototaxi_001.csv"):
        assert (small_case / name).read_bytes() != (other / name).read_bytes(), name
    for name in ("schema.json", "tariff.json", "pricing.csv", "carbon_intensity.csv"):
        assert (small_case / name).read_bytes() == (other / name).read_bytes(), name
    assert (small_case / "moto_001.csv").read_bytes() != (small_case / "moto_002.csv").read_bytes()


def test_changing_the_sockets_leaves_weather_and_load(small_case: Path, case_128: Path, tmp_path: Path) -> None:
    more = build_case("iquitos-128", 1, tmp_path / "more", {"sockets.moto_count": 3, "sockets.mototaxi_count": 0})
    for name in ("Building_1.csv", "weather.csv"):
        assert (small_case / name).read_bytes() == (more / name).read_bytes()
    assert len(list(more.glob("moto*.csv"))) == 3


def test_visits_of_128_are_reachable_and_mostly_separated(case_128: Path) -> None:
    figures = json.loads((case_128 / "case.json").read_text(encoding="utf-8"))["figures"]
    assert 3.0 <= figures["mean_stay_hours"] <= 6.0
    assert figures["share_of_visits_out_of_reach"] <= 0.001
    assert figures["share_of_visits_without_free_row_before"] < 0.1


def test_visits_of_38_are_short_and_reachable(case_38: Path) -> None:
    figures = json.loads((case_38 / "case.json").read_text(encoding="utf-8"))["figures"]
    assert 1.0 <= figures["mean_stay_hours"] <= 2.0
    assert figures["share_of_visits_out_of_reach"] <= 0.005


@pytest.mark.parametrize(("preset", "shortest", "longest"), [("case_128", 3, 6), ("case_38", 1, 2)])
def test_charger_files_follow_the_conventions(
    preset: str, shortest: int, longest: int, request: pytest.FixtureRequest
) -> None:
    """Visit by visit, with plain loops: hours, stays, countdown, both arrival cells, wanted SOC."""
    folder = request.getfixturevalue(preset)
    visits, separated = 0, 0
    for name in ("moto_001.csv", "mototaxi_003.csv"):
        rows = [line.split(",") for line in (folder / name).read_text(encoding="utf-8").splitlines()[1:]]
        assert len(rows) == 8760
        assert all(row[0] in ("1", "2", "3") for row in rows)
        row = 0
        while row < 8760:
            if rows[row][0] != "1":
                assert rows[row][0] == "3" or rows[row + 1][0] == "1"
                row += 1
                continue
            session, stay = rows[row][6], 1
            while rows[row + stay][6] == session:
                stay += 1
            assert shortest <= stay <= longest
            assert row % 24 >= 9
            assert row % 24 + stay <= 22
            assert [int(later[2]) for later in rows[row : row + stay]] == list(range(stay - 1, -1, -1))
            assert len({later[3] for later in rows[row : row + stay]}) == 1
            assert 0 < float(rows[row][5]) < float(rows[row][3]) <= 1
            if rows[row - 1][0] != "1":
                assert rows[row - 1][0] == "2"
                assert rows[row - 1][1] == rows[row][1]
                assert rows[row - 1][5] == rows[row][5]
                separated += 1
            visits += 1
            row += stay
    assert visits > 1000
    assert separated >= 0.3 * visits
    assert (separated > 0.9 * visits) == (preset == "case_128")


def test_soc_on_arrival_and_wanted_follow_the_documented_normals(case_128: Path) -> None:
    arrival, required = [], []
    for path in sorted(case_128.glob("moto_*.csv"))[:30]:
        frame = pd.read_csv(path)
        first = (frame["electric_vehicle_charger_state"] == 1) & frame["electric_vehicle_estimated_soc_arrival"].notna()
        arrival.append(frame["electric_vehicle_estimated_soc_arrival"][first])
        required.append(frame["electric_vehicle_required_soc_departure"][first])
    arrived, wanted = np.concatenate(arrival), np.concatenate(required)
    assert np.median(arrived) == pytest.approx(0.245, abs=0.005)
    assert np.quantile(arrived, 0.8413) == pytest.approx(0.245 + 0.12, abs=0.01)
    assert np.median(wanted) == pytest.approx(0.78, abs=0.005)
    assert np.quantile(wanted, 0.1587) == pytest.approx(0.78 - 0.15, abs=0.01)
    assert wanted.max() <= 1.0
    assert arrived.min() >= 0.05


def test_forecasts_err_more_the_further_they_look(case_128: Path) -> None:
    weather = pd.read_csv(case_128 / "weather.csv")
    for name in ("outdoor_dry_bulb_temperature", "outdoor_relative_humidity", "direct_solar_irradiance"):
        truth = weather[name].to_numpy()
        mean_day = truth.reshape(365, 24).mean(0)
        naive = np.sqrt(np.mean((truth - np.tile(mean_day, 365)) ** 2))
        errors = [
            np.sqrt(np.mean((weather[f"{name}_predicted_{n}"].to_numpy() - np.roll(truth, -lead)) ** 2))
            for n, lead in ((1, 6), (2, 12), (3, 24))
        ]
        assert 0.2 * naive < errors[0] < errors[1] < errors[2] < naive, name


def test_price_outlook_is_the_exact_tariff(small_case: Path) -> None:
    pricing = pd.read_csv(small_case / "pricing.csv")
    price = pricing["electricity_pricing"].to_numpy()
    hour = np.arange(8760) % 24
    assert (price == np.where((hour >= 18) & (hour < 23), 0.45, 0.28)).all()
    for number, lead in ((1, 6), (2, 12), (3, 24)):
        assert (pricing[f"electricity_pricing_predicted_{number}"].to_numpy() == np.roll(price, -lead)).all()
    tariff = json.loads((small_case / "tariff.json").read_text(encoding="utf-8"))
    assert tariff == {
        "currency": "PEN",
        "peak_hours": [18, 19, 20, 21, 22],
        "demand_charge_peak": 48.5,
        "demand_charge_off_peak": 22.8,
    }


def test_the_sun_stands_in_the_middle_of_the_hour() -> None:
    settings = case_settings("iquitos-128")
    sun = sun_position(calendar_year(2018), settings.site, settings.weather.linke_turbidity)
    noon = sun.zenith.reshape(365, 24)
    # Solar noon is near 11:53 local time: 11:30 and 12:30 are the highest, 12:30 the farther.
    assert (noon[:, 11:13].min(1) == noon.min(1)).mean() > 0.95
    assert noon[:, 11].mean() < noon[:, 12].mean() < noon[:, 10].mean()
    assert sun.clear_ghi.reshape(365, 24)[:, [0, 5, 18, 23]].max() < 5


def test_irradiance_stays_below_the_clear_sky_and_pv_below_its_limits(case_128: Path) -> None:
    settings = case_settings("iquitos-128")
    sun = sun_position(calendar_of(case_128), settings.site, settings.weather.linke_turbidity)
    weather = pd.read_csv(case_128 / "weather.csv")
    beam = weather["direct_solar_irradiance"] * np.maximum(np.cos(np.radians(sun.zenith)), 0)
    ghi = (weather["diffuse_solar_irradiance"] + beam).to_numpy()
    assert (ghi <= CLOUD_EDGE * sun.clear_ghi + 0.1).all()
    pv_kw = pd.read_csv(case_128 / "Building_1.csv")["solar_generation"].to_numpy() * 4050 / 1000
    assert pv_kw.max() <= 3201.01
    assert (pv_kw[ghi == 0] == 0).all()
    assert 4.8e6 <= pv_kw.sum() <= 5.9e6


def test_documented_pv_is_scaled_with_a_warning_that_stays(tmp_path: Path) -> None:
    folder = build_case("iquitos-128", 0, tmp_path / "case", {**SMALL, "pv.model": "documented"})
    pv_kw = pd.read_csv(folder / "Building_1.csv")["solar_generation"].to_numpy() * 4050 / 1000
    figures = json.loads((folder / "case.json").read_text(encoding="utf-8"))["figures"]
    assert pv_kw.sum() == pytest.approx(8.04e6 * figures["ghi_kwh_m2"] / 1668, rel=1e-3)
    assert pv_kw.max() <= 3201.01
    warnings = json.loads((folder / "case.json").read_text(encoding="utf-8"))["warnings"]
    assert "performance ratio of 1.19, which no plant reaches" in warnings[0]
    report = check_case(folder)
    assert report.errors == []
    assert f"case.json: {warnings[0]}" in report.warnings
    assert any(text.startswith("Building_1.csv: PV of 2,0") for text in report.warnings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pv.modell": "pvwatts"}, "unknown setting 'pv.modell': pv has model, "),
        ({"solar.model": "x"}, "unknown setting 'solar.model': the groups are site, load, pv, "),
        ({"pv": {"modle": 1}}, "unknown setting 'pv.modle': pv has model, "),
        ({"pv": 3}, "unknown setting 'pv': pv has model, "),
        ({"pv.model": "best"}, "setting pv.model: "),
        ({"bess.capacity_kwh": -1}, "setting bess.capacity_kwh: "),
        ({"load.annual_kwh": float("inf")}, "setting load.annual_kwh: "),
        (
            {"visits.moto_per_socket": 9},
            "setting visits: moto_per_socket=9.0 visits of 3 h or more do not fit into 13 h",
        ),
        ({"pv.model": "metered"}, "setting pv.model: 'metered' needs a PV file, use the import command"),
        ({"pv.model": "documented", "pv.annual_kwh": 2e7}, "setting pv.annual_kwh: 20,"),
        ({"weather.monthly_ghi": [400] * 12}, "setting weather.monthly_ghi: month 1 asks for 400.0 kWh/m2"),
    ],
)
def test_impossible_settings_are_refused(overrides: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        build_case("iquitos-128", 0, tmp_path / "case", overrides)
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="exists and is not an empty folder: nothing written"):
        build_case("iquitos-38", 0, tmp_path, SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_tariff_brings_its_prices_and_keeps_overrides() -> None:
    assert case_settings("iquitos-38", {"tariff.kind": "bt5a"}).tariff.energy_peak == 0.50
    flat = case_settings("iquitos-38", {"tariff.energy_peak": 0.25, "tariff.kind": "flat"}).tariff
    assert (flat.currency, flat.energy_peak, flat.energy_off_peak, flat.demand_charge_peak) == ("USD", 0.25, 0.20, 0.0)


def test_overrides_may_be_nested_or_dotted() -> None:
    nested = case_settings("iquitos-38", {"pv": {"model": "documented", "tilt": 5}, "bess.power_kw": 500})
    dotted = case_settings("iquitos-38", {"pv.model": "documented", "pv.tilt": 5, "bess": {"power_kw": 500}})
    assert nested == dotted
    assert (nested.pv.model, nested.pv.tilt, nested.bess.power_kw) == ("documented", 5.0, 500.0)


def test_citylearn_reads_what_was_meant(case_38: Path) -> None:
    """PV in kWh, load, every battery parameter, and the SOC of each vehicle on arrival, over a day of full charging."""
    citylearn = pytest.importorskip("citylearn.citylearn")
    env = citylearn.CityLearnEnv(case_38 / "schema.json", offline=True)
    env.reset()
    building = env.buildings[0]
    battery = building.electrical_storage
    assert (battery.capacity, battery.nominal_power, battery.efficiency) == (1700.0, 400.0, 0.90)
    assert (battery.depth_of_discharge, battery.loss_coefficient, battery.initial_soc) == (0.80, 0.0, 0.5)
    frame = pd.read_csv(case_38 / "Building_1.csv")
    files = {c.charger_id: pd.read_csv(case_38 / f"{c.charger_id}.csv") for c in building.electric_vehicle_chargers}
    assert len(files) == 38
    arrivals = back_to_back = 0
    for step in range(24):
        assert building.solar_generation[step] == pytest.approx(-4.05 * frame["solar_generation"][step], abs=0.01)
        assert building.non_shiftable_load[step] == pytest.approx(frame["non_shiftable_load"][step], rel=1e-6)
        for charger in building.electric_vehicle_chargers:
            now, before = files[charger.charger_id].iloc[step], files[charger.charger_id].iloc[max(step - 1, 0)]
            vehicle = charger.connected_electric_vehicle
            assert (vehicle is not None) == (now["electric_vehicle_charger_state"] == 1)
            if vehicle is None:
                continue
            kind = "mototaxi" if "mototaxi" in charger.charger_id else "moto"
            assert vehicle.battery.capacity == {"moto": 4.6, "mototaxi": 7.4}[kind]
            if pd.notna(now["electric_vehicle_estimated_soc_arrival"]):
                arrivals += 1
                back_to_back += before["electric_vehicle_charger_state"] == 1
                expected = now["electric_vehicle_estimated_soc_arrival"]
                assert vehicle.battery.soc[step] == pytest.approx(expected, abs=1e-6)
        env.step([[0.0] + [1.0] * 38])
    assert arrivals > 250
    assert back_to_back > 80
    charged = sum(float(np.sum(c.electricity_consumption[:24])) for c in building.electric_vehicle_chargers)
    assert charged > 700


def test_january_is_the_first_month_of_the_year_of_the_same_seed(tmp_path: Path, year_38: Path) -> None:
    site = read_site(build_preset("iquitos-38-january", 0, tmp_path / "case", {}))
    whole = read_site(year_38)
    assert (site.rows, set(site.month.tolist())) == (744, {1})
    assert whole.month[744] == 2
    np.testing.assert_array_equal(site.buildings[0].load, whole.buildings[0].load[:744])
    report = check_case(site.path)
    assert (report.errors, report.warnings) == ([], [])
