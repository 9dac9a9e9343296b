"""Weather files: the right column, the right unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from owners import HOME, KWH, hours, save, table

from iquitos_rl.cases.metered.importer import Files, import_case
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.weather_file import read_weather
from iquitos_rl.cases.metered.zone import fixed_zone
from iquitos_rl.errors import UserError

GHI = np.tile(np.maximum(0, 500 * np.sin((np.arange(24) - 6) * np.pi / 12)).round(), 3)
TEMPERATURE = 5 + 4 * np.sin((np.arange(72) - 9) * np.pi / 12)


def read(path: Path) -> dict[str, np.ndarray]:
    found = read_weather(path, fixed_zone(1.0), Reading(), [])
    return {name: series.values for name, series in found.items()}


def weather(head: str, *columns: np.ndarray) -> str:
    rows = [",".join([f"{moment}", *(f"{column[n]:.6g}" for column in columns)]) for n, moment in enumerate(hours())]
    return "\n".join([head, *rows]) + "\n"


FORMS = {
    "plain": weather("time,ghi,temp", GHI, TEMPERATURE),
    "wind direction first": weather(
        "time,wind_direction,wind_speed,ghi,temp", np.full(72, 250.0), np.full(72, 2.0), GHI, TEMPERATURE
    ),
    "module temperature first": weather("time,module_temp,inverter temp,T2m,G(h)", GHI, GHI, TEMPERATURE, GHI),
    "kelvin": weather("time,ssrd_W_m2,t2m", GHI, TEMPERATURE + 273.15),
    "Fahrenheit": weather("time,ghi,temperature (°F)", GHI, TEMPERATURE * 1.8 + 32),
    "joules": weather("time,ssrd (J m-2),t2m", GHI * 3600, TEMPERATURE + 273.15),
    "kW/m2": weather("time,ghi [kW/m2],temp_air", GHI / 1000, TEMPERATURE),
    "Open-Meteo": "latitude,longitude\n50.0,10.0\n\n"
    + weather(
        "time,temperature_2m (°C),relative_humidity_2m (%),wind_speed_10m (km/h),wind_direction_10m (°),"
        "shortwave_radiation (W/m²)",
        TEMPERATURE,
        np.full(72, 70.0),
        np.full(72, 7.2),
        np.full(72, 250.0),
        GHI,
    ),
    "renewables.ninja": "# Renewables.ninja Weather\n# https://www.renewables.ninja\n"
    + weather("time,swgdn,temperature", GHI, TEMPERATURE),
    "NSRDB columns": "\n".join(
        [
            "Year,Month,Day,Hour,Minute,GHI,Temperature,Wind Speed,Wind Direction",
            *(
                f"{m.year},{m.month},{m.day},{m.hour},30,{g:.6g},{t:.6g},2,250"
                for m, g, t in zip(hours(), GHI, TEMPERATURE)
            ),
        ]
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_holds_the_same_weather(name: str, tmp_path: Path) -> None:
    found = read(save(tmp_path / "weather.csv", FORMS[name]))
    assert np.allclose(found["ghi"], GHI, atol=0.1)
    assert np.allclose(found["temperature"], TEMPERATURE, atol=0.01)
    if "wind" in found:
        assert np.allclose(found["wind"], 2.0)


def test_epw_is_read_by_pvlib(tmp_path: Path) -> None:
    rows = ["LOCATION,A,B,C,TMY,1,50.0,10.0,1.0,100.0", *(f"LINE {n}" for n in range(7))]
    for moment in pd.date_range("2019-01-01", periods=8760, freq="h"):
        cells = [moment.year, moment.month, moment.day, moment.hour + 1, 60, "?"]
        cells += [moment.hour, 1.0, 80, 101300, 0, 0, 300, 100 + moment.hour, 50, 60] + [0] * 5 + [3.0] + [0] * 13
        rows.append(",".join(map(str, cells)))
    found = read_weather(save(tmp_path / "a.epw", "\n".join(rows)), fixed_zone(1.0), Reading(), [])
    assert str(found["ghi"].begin[0]) == "2018-12-31T23:00:00"  # the first hour of the year at UTC+1
    assert found["ghi"].values[:3].tolist() == [100.0, 101.0, 102.0]
    assert found["temperature"].values[5] == 5.0


def test_what_is_no_irradiance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="W/m2 expected"):
        read(save(tmp_path / "weather.csv", weather("time,ghi,temp", GHI * 100 + 3, TEMPERATURE)))
    with pytest.raises(UserError, match="no column holds weather"):
        read(save(tmp_path / "weather.csv", weather("time,a,b", GHI, TEMPERATURE)))


def test_direct_irradiance_follows_from_global_and_diffuse(tmp_path: Path) -> None:
    text = weather("time,ghi,dhi,temp,wind_direction", GHI, GHI * 0.3, TEMPERATURE, np.full(72, 250.0))
    files = Files(
        load=save(tmp_path / "load.csv", table("time,kWh", KWH)), weather=save(tmp_path / "weather.csv", text)
    )
    folder, notes = import_case(None, None, None, 0, tmp_path / "case", HOME, files=files)
    columns = pd.read_csv(folder / "weather.csv")
    direct = columns["direct_solar_irradiance"].to_numpy()
    assert "weather: direct irradiance derived from the global and the diffuse one" in notes
    assert (direct[GHI == 0] == 0).all()
    assert 0 < direct.max() <= 1367
    assert np.allclose(columns["diffuse_solar_irradiance"], GHI * 0.3, atol=0.01)
