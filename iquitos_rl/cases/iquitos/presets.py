"""What an Iquitos case consists of: typed settings in groups, and the two presets.

Figures come from the design files of the Mall de Iquitos. Where those files disagree, the presets follow the vehicle
type data (4.6 and 7.4 kWh) and a physical PV model; `pv.model=documented` is the design files' PV energy instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iquitos_rl.errors import UserError

Fade = Annotated[float, Field(ge=0, lt=1, description="fade per full cycle, CityLearn's definition")]
Positive = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
Number = TypeVar("Number")
Monthly = Annotated[tuple[Number, ...], Field(min_length=12, max_length=12)]
Hourly = Annotated[tuple[Number, ...], Field(min_length=24, max_length=24)]


class Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SiteSettings(Group):
    """Where the site lies."""

    latitude: float = Field(-3.75, ge=-90, le=90, description="degrees north")
    longitude: float = Field(-73.25, ge=-180, le=180, description="degrees east")
    altitude: float = Field(104.0, ge=-500, le=9000, description="m")
    utc_offset: float = Field(-5.0, ge=-12, le=14, description="hours; America/Lima has no daylight saving")
    connection_kw: float | None = Field(
        None, gt=0, le=1e9, description="import that the connection carries; batteries and chargers keep below it"
    )


class LoadSettings(Group):
    """The mall's demand: the mean of many years, which is that metered in 2024, and how years differ."""

    annual_kwh: float = Field(12_368_653.0, gt=0, le=1e12, description="kWh per year, mean of many years")
    monthly_mwh: Monthly[Positive] = Field(
        (1067, 1017, 1009, 1000, 990, 938, 1005, 1041, 1093, 1103, 1048, 1056),
        description="MWh by month; scaled together to annual_kwh",
    )
    hourly_kw: Hourly[Positive] = Field(
        (
            *(531, 483, 470, 460, 453, 435, 514, 660, 868, 1121, 1712, 2194),
            *(2240, 2251, 2274, 2281, 2264, 2244, 2220, 2189, 2148, 1990, 1228, 657),
        ),
        description="mean kW in the hour beginning at 0, 1, ... 23; scaled together to annual_kwh",
    )
    level_std: float = Field(0.03, ge=0, le=0.2, description="spread of the years' levels, share of the mean")
    trend_std: float = Field(0.02, ge=0, le=0.2, description="spread of the growth within a year, share of the mean")
    daily_std: float = Field(0.03, ge=0, le=0.2, description="day-to-day variation, share of the mean")
    hourly_std: float = Field(
        0.068, ge=0, le=0.2, description="hour-to-hour variation between 10 and 22 h, share of the mean"
    )
    per_kelvin: float = Field(0.03, ge=0, le=0.2, description="rise of the load per K above the usual temperature")
    events: float = Field(1.0, ge=0, le=10, description="how often something happens, as a multiple of the usual")
    tenant_kw: float = Field(0.0, ge=0, le=1e6, description="kW of a tenant that moves in on the first of April")


class PvSettings(Group):
    """The PV plant. `solar_generation` is written in W per kW of DC nameplate."""

    model: Literal["pvwatts", "documented", "metered"] = Field(
        "pvwatts",
        description="pvwatts: from the weather; documented: that scaled to annual_kwh; metered: the file's column",
    )
    dc_kw: float = Field(
        4050.0, ge=0, le=1e12, description="DC nameplate, kW, 0 for none; the nominal_power of the schema"
    )
    ac_kw: float = Field(3201.0, gt=0, le=1e12, description="AC limit of the inverters, kW")
    tilt: float = Field(10.0, ge=0, le=90, description="degrees from horizontal")
    azimuth: float = Field(0.0, ge=0, lt=360, description="degrees clockwise from north; 0 faces north")
    losses: float = Field(0.136, ge=0, lt=1, description="system losses, share of DC energy")
    temperature_coefficient: float = Field(
        -0.0034, ge=-0.02, le=0, description="power change per K of cell temperature"
    )
    inverter_efficiency: float = Field(0.985, gt=0, le=1, description="nominal; AC over DC in the design files")
    annual_kwh: float = Field(
        8_040_000.0, gt=0, le=1e12, description="kWh that model=documented is scaled to, for a year of mean irradiation"
    )
    inverters: int = Field(8, ge=1, le=1000, description="how many share ac_kw")
    broken: int = Field(0, ge=0, le=1000, description="inverters that stand still from the first of May to September")


class BessSettings(Group):
    """The stationary battery. Every parameter is written out: CityLearn draws those that a schema omits."""

    capacity_kwh: float = Field(4520.0, ge=0, le=1e12, description="kWh; 0 for no battery")
    power_kw: float = Field(2712.0, gt=0, le=1e12, description="kW")
    round_trip_efficiency: float = Field(0.90, gt=0, le=1, description="CityLearn applies its square root each way")
    depth_of_discharge: float = Field(0.80, gt=0, le=1, description="usable share of the capacity")
    loss_coefficient: float = Field(0.0, ge=0, lt=1, description="share of the SOC lost per hour")
    capacity_loss_coefficient: Fade = 1e-5
    initial_soc: float = Field(0.5, ge=0, le=1, description="SOC on the first row")


class SocketSettings(Group):
    """Sockets by vehicle type; they only charge."""

    moto_count: int = Field(112, ge=0, le=2000, description="sockets for motos")
    moto_kw: float = Field(2.0, gt=0, le=1e12, description="kW each")
    mototaxi_count: int = Field(16, ge=0, le=2000, description="sockets for mototaxis")
    mototaxi_kw: float = Field(3.0, gt=0, le=1e12, description="kW each")
    efficiency: float = Field(0.95, gt=0, le=1, description="of the charger")


class VehicleSettings(Group):
    """Vehicle batteries. A depth of discharge below 1 would make CityLearn lift low arrival SOCs with free energy."""

    moto_kwh: float = Field(4.6, gt=0, le=1e12, description="kWh")
    mototaxi_kwh: float = Field(7.4, gt=0, le=1e12, description="kWh")
    round_trip_efficiency: float = Field(0.95, gt=0, le=1, description="CityLearn applies its square root each way")
    depth_of_discharge: float = Field(1.0, gt=0, le=1, description="usable share of the capacity")
    loss_coefficient: float = Field(0.0, ge=0, lt=1, description="share of the SOC lost per hour")
    capacity_loss_coefficient: Fade = 1e-5
    initial_soc: float = Field(0.5, ge=0, le=1, description="SOC before the first visit; has no effect on a visit")


PRICES = ("energy_peak", "energy_off_peak", "demand_charge_peak", "demand_charge_off_peak")


class TariffSettings(Group):
    """Energy prices and demand charges; a field left out takes the value of `kind`."""

    kind: Literal["mt3", "bt5a", "flat"] = Field("mt3", description="mt3 and bt5a in PEN, flat in USD")
    currency: str = Field("", description="ISO code")
    peak_hours: tuple[Annotated[int, Field(ge=0, le=23)], ...] = Field(
        (18, 19, 20, 21, 22), description="hours, 0 to 23, at which a peak hour begins"
    )
    energy_peak: float = Field(-1.0, ge=-1, le=1e6, description="currency per kWh in peak hours")
    energy_off_peak: float = Field(-1.0, ge=-1, le=1e6, description="currency per kWh otherwise")
    demand_charge_peak: float = Field(
        -1.0, ge=-1, le=1e6, description="currency per kW and month of the highest peak-hour demand"
    )
    demand_charge_off_peak: float = Field(
        -1.0, ge=-1, le=1e6, description="currency per kW and month of the highest other demand"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_kind(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**TARIFFS.get(str(values.get("kind", "mt3")), {}), **values}

    @model_validator(mode="after")
    def _sensible(self) -> TariffSettings:
        for name in PRICES:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        if not all(0 <= hour <= 23 for hour in self.peak_hours):
            raise ValueError("peak_hours must lie between 0 and 23")
        return self


TARIFFS: dict[str, dict[str, Any]] = {
    kind: {"currency": currency, **dict(zip(PRICES, prices))}
    for kind, currency, *prices in (
        ("mt3", "PEN", 0.45, 0.28, 48.5, 22.8),
        ("bt5a", "PEN", 0.50, 0.30, 0.0, 0.0),
        ("flat", "USD", 0.20, 0.20, 0.0, 0.0),
    )
}


class CarbonSettings(Group):
    """The isolated thermal grid."""

    kg_per_kwh: float = Field(0.4521, ge=0, le=1e12, description="kg CO2 per kWh imported, constant")


class WeatherSettings(Group):
    """The mean of many years, how years differ, and how well the weather is forecast."""

    monthly_ghi: Monthly[Positive] = Field(
        (141.7, 120.6, 146.6, 130.7, 123.4, 123.2, 130.2, 154.7, 158.2, 162.2, 143.9, 132.8),
        description="global horizontal irradiation by month, kWh per m2",
    )
    hourly_temperature: Hourly[Annotated[float, Field(ge=-90, le=70)]] = Field(
        (
            *(24.4, 24.2, 24.0, 23.9, 23.8, 23.7, 23.6, 24.1, 25.0, 26.1, 27.1, 28.0),
            *(28.5, 28.7, 28.4, 28.0, 27.4, 26.6, 26.2, 25.8, 25.5, 25.2, 24.9, 24.7),
        ),
        description="mean air temperature in the hour beginning at 0, 1, ... 23, degC",
    )
    monthly_warmth: Monthly[Annotated[float, Field(ge=-50, le=50)]] = Field(
        (0.30, 0.76, -0.05, -0.21, -0.34, -0.88, -0.97, -0.15, 0.43, 0.63, 0.12, 0.35),
        description="K of each month above the mean day, as in the typical year",
    )
    dew_point: float = Field(22.3, ge=-40, le=40, description="mean dew point, degC; sets the humidity")
    wind_speed: float = Field(0.8, ge=0, le=50, description="m/s, cools the modules")
    linke_turbidity: float = Field(4.0, ge=1, le=10, description="haze of the clear sky")
    yearly_std: float = Field(
        0.09, ge=0, le=5, description="spread of the years' cloudiness, El Nino and La Nina, logit units"
    )
    spell_std: float = Field(0.2, ge=0, le=5, description="spread of spells of about ten days, logit units")
    daily_std: float = Field(0.45, ge=0, le=5, description="spread of the daily cloudiness, logit units")
    hourly_std: float = Field(0.8, ge=0, le=5, description="spread of the hourly cloudiness, logit units")
    forecast_skill: tuple[Share, Share, Share] = Field(
        (0.35, 0.30, 0.25),
        description="share of the variance about the mean day that the forecasts 6, 12 and 24 h ahead explain",
    )

    @model_validator(mode="after")
    def _shares(self) -> WeatherSettings:
        if not all(0 <= skill <= 1 for skill in self.forecast_skill):
            raise ValueError("forecast_skill must lie between 0 and 1")
        return self


class VisitSettings(Group):
    """When vehicles come, how long they stay and what they need."""

    open_hour: int = Field(9, ge=1, le=23, description="earliest arrival, hour of the day")
    close_hour: int = Field(22, ge=2, le=24, description="by then every vehicle has left")
    moto_per_socket: float = Field(2.9, ge=0, le=24, description="mean visits per moto socket and day")
    mototaxi_per_socket: float = Field(2.9, ge=0, le=24, description="mean visits per mototaxi socket and day")
    stay_min: int = Field(3, ge=1, le=24, description="shortest stay, hours")
    stay_max: int = Field(6, ge=1, le=24, description="longest stay, hours")
    day_std: float = Field(0.04, ge=0, le=0.5, description="day-to-day variation of the visits, share of the mean")
    arrival_soc_mean: float = Field(0.245, ge=0, le=1, description="SOC on arrival")
    arrival_soc_std: float = Field(0.12, ge=0, le=1, description="its spread")
    required_soc_mean: float = Field(0.78, ge=0, le=1, description="SOC wanted at departure")
    required_soc_std: float = Field(0.15, ge=0, le=1, description="its spread")

    @model_validator(mode="after")
    def _sensible(self) -> VisitSettings:
        if self.close_hour <= self.open_hour:
            raise ValueError("close_hour must be later than open_hour")
        if self.stay_max < self.stay_min:
            raise ValueError("stay_max must not be below stay_min")
        rows = self.close_hour - self.open_hour
        for name in ("moto_per_socket", "mototaxi_per_socket"):
            if getattr(self, name) > rows // self.stay_min:
                each = f"{name}={getattr(self, name)} visits of {self.stay_min} h or more"
                raise ValueError(f"{each} do not fit into {rows} h")
        return self


class CaseSettings(Group):
    """Everything that decides what a case folder holds, apart from the preset's name and the year seed."""

    site: SiteSettings = SiteSettings()
    load: LoadSettings = LoadSettings()
    pv: PvSettings = PvSettings()
    bess: BessSettings = BessSettings()
    sockets: SocketSettings = SocketSettings()
    vehicles: VehicleSettings = VehicleSettings()
    tariff: TariffSettings = TariffSettings()
    carbon: CarbonSettings = CarbonSettings()
    weather: WeatherSettings = WeatherSettings()
    visits: VisitSettings = VisitSettings()


IQUITOS: dict[str, CaseSettings] = {
    # The design of late January: many slow sockets, a large battery.
    "iquitos-128": CaseSettings(),
    # The design of February: 19 double chargers, a small battery; 270 + 39 visits a day leave room for short stays.
    "iquitos-38": CaseSettings(
        bess=BessSettings(capacity_kwh=1700.0, power_kw=400.0),
        sockets=SocketSettings(moto_count=30, moto_kw=7.4, mototaxi_count=8, mototaxi_kw=7.4),
        visits=VisitSettings(moto_per_socket=9.0, mototaxi_per_socket=4.875, stay_min=1, stay_max=2),
    ),
}


Overrides = CaseSettings | Mapping[str, object] | None


def case_settings(preset: str, overrides: Overrides = None) -> CaseSettings:
    """The preset's settings with overrides applied, `{"group.key": value}` or `{"group": {"key": value}}`.

    Complete settings are returned unchanged.

    Raises:
        UserError: an unknown preset, an unknown key or an impossible value.
    """
    if preset not in IQUITOS:
        raise UserError(f"unknown preset {preset!r}: choose one of {', '.join(IQUITOS)}")
    if isinstance(overrides, CaseSettings):
        return overrides
    changes: dict[str, object] = {}
    for name, value in (overrides or {}).items():
        if isinstance(value, Mapping) and "." not in name:
            changes |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            changes[name] = value
    return with_changes(IQUITOS[preset], changes)


def with_changes(settings: CaseSettings, changes: Mapping[str, object]) -> CaseSettings:
    """The settings with `{"group.key": value}` changed.

    Raises:
        UserError: an unknown key or an impossible value.
    """
    values = settings.model_dump()
    for path in changes:
        group, dot, key = path.partition(".")
        if not dot or group not in values or key not in values[group]:
            keys, what = (values[group], f"{group} has") if group in values else (values, "the groups are")
            raise UserError(f"unknown setting {path!r}: {what} {', '.join(keys)}")
    if "tariff.kind" in changes:
        values["tariff"] = {}  # another kind brings its own prices
    for path, value in changes.items():
        group, _, key = path.partition(".")
        values[group][key] = value
    try:
        return CaseSettings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where, what = ".".join(str(part) for part in first["loc"]), first["msg"].removeprefix("Value error, ")
        raise UserError(f"setting {where}: {what}") from None
