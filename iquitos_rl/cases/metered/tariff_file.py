"""An owner's tariff: prices by season, day and hour, or from a file, demand charges, export, standing charge, tax."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from iquitos_rl.assignments import read_value
from iquitos_rl.cases.iquitos.calendar import Calendar
from iquitos_rl.cases.metered.rate_file import ASK_PRICE, PRICES, rates
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.urdb import urdb
from iquitos_rl.cases.metered.zone import Zone
from iquitos_rl.cases.site import Bools, Floats
from iquitos_rl.cases.tariff import DemandCharge, Hour, Month, Tariff, Window
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import JSON_BYTES, json_value, read_text

DAYS_PER_YEAR = 365


def _hours(value: Any) -> Any:
    """Hours as a list, from 17-21 (17:00 to 21:00) or 22-6 too."""
    if isinstance(value, str) and value.count("-") == 1:
        first, end = (int(part) for part in value.split("-"))
        if not (0 <= first <= 24 and 0 <= end <= 24):
            raise ValueError("hours lie between 0 and 24")
        return list(range(first, end)) if first < end else [*range(first, 24), *range(end)]
    return value


Hours = Annotated[tuple[Hour, ...], BeforeValidator(_hours)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _When(_Part):
    """When something holds; what is left out holds always."""

    hours: Hours | None = None
    days: Literal["all", "workdays", "weekends"] = "all"
    """Holidays count as weekends."""
    months: tuple[Month, ...] | None = None

    @property
    def window(self) -> Window:
        return Window(hours=self.hours, days=self.days, months=self.months)


class EnergyPrice(_When):
    """A price and when it holds."""

    price: float = Field(description="currency per kWh")


class PriceFile(_Part):
    """Prices of every hour, such as those of a power exchange."""

    file: str
    unit: str | None = None
    """EUR/MWh, ct/kWh and the like; by the column's name where left out."""
    column: str | None = None
    factor: float = Field(1.0, ge=0)
    """Times the price, for taxes in per cent."""
    stamps: Literal["start", "end"] = "start"
    """What a row's time is of its hour; exchanges write the start."""
    add: float = 0.0
    """Plus this, currency per kWh, for network charges and levies."""


class DemandPrice(_Part):
    """Currency per kW and month of the highest import, and when an import counts."""

    price: float = Field(ge=0)
    hours: Hours | Literal["other"] | None = None
    """None for every hour, "other" for those that the other demand charges leave."""
    days: Literal["all", "workdays", "weekends"] = "all"
    months: tuple[Month, ...] | None = None
    when: tuple[_When, ...] = ()
    """Several such times, in the place of hours, days and months."""
    ratchet: float = Field(0.0, ge=0, le=1)
    """Share of the highest import of the months before that is billed at least."""


class Standing(_Part):
    """What is paid whatever is consumed."""

    day: float = Field(0.0, ge=0)
    month: float = Field(0.0, ge=0)
    year: float = Field(0.0, ge=0)

    @property
    def per_day(self) -> float:
        return self.day + (12 * self.month + self.year) / DAYS_PER_YEAR


class OwnTariff(_Part):
    """`tariff.yaml`."""

    currency: str
    energy: tuple[EnergyPrice, ...] = ()
    """The first that fits an hour holds."""
    prices: PriceFile | None = None
    """Instead of `energy`."""
    export: float | tuple[EnergyPrice, ...] | PriceFile | None = None
    """Currency per kWh: a feed-in tariff, prices by the time, or those of a file; None where exports earn nothing."""
    export_limit_kw: float | None = Field(None, ge=0)
    """Export beyond this is lost."""
    demand: tuple[DemandPrice, ...] = ()
    standing: Standing = Standing()
    tax: float = Field(0.0, ge=0, lt=1)
    """Share that is added to everything but what exports earn."""
    holidays: str | None = None
    """Country, or country and region: DE, DE-BY, US-CA."""


def read_tariff_file(path: Path, notes: list[str]) -> OwnTariff:
    """A tariff.yaml, or a rate of OpenEI's utility rate database (URDB) as JSON.

    Raises:
        UserError: the file cannot be read, a key or value is wrong.
    """
    try:
        text = read_text(path, JSON_BYTES)
        content = json_value(text) if path.suffix.lower() == ".json" else read_value(text)
    except ValueError as error:
        raise UserError(f"{path.name} is neither YAML nor JSON: {str(error).splitlines()[0]}") from None
    if isinstance(content, dict) and isinstance(content.get("items"), list) and content["items"]:
        content = content["items"][0]
    if not isinstance(content, dict):
        raise UserError(f"{path.name}: a tariff is a list of keys, see docs/owners.md")
    if "energyratestructure" in content:
        content = urdb(content, path.name, notes)
    try:
        tariff = OwnTariff.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path.name}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    if bool(tariff.energy) == (tariff.prices is not None):
        raise UserError(f"{path.name}: energy, or prices of a file, and not both")
    demand_charges(tariff, path.name)
    return tariff


def demand_charges(tariff: OwnTariff, name: str) -> dict[str, Any]:
    """The demand charges of a `Tariff`, with tax: short where there is one on some hours and one on the others.

    Raises:
        UserError: hours "other" than none.
    """
    gross = 1 + tariff.tax
    parts = [part for part in tariff.demand if part.hours != "other"]
    taken = {hour for part in parts for hour in (part.hours if isinstance(part.hours, tuple) else range(24))}
    others = tuple(hour for hour in range(24) if hour not in taken)
    rest = [part for part in tariff.demand if part.hours == "other"]
    if rest and not others:
        raise UserError(f"{name}: demand: hours: other are none, the other demand charges hold in all hours")
    timed = [part for part in parts if isinstance(part.hours, tuple)]
    plain = all(p.days == "all" and not (p.months or p.when or p.ratchet) for p in tariff.demand)
    if plain and len(parts) <= 1 and len(rest) <= 1:
        off_peak = rest or [part for part in parts if part not in timed]
        return {
            "peak_hours": timed[0].hours if timed else (),
            "demand_charge_peak": gross * timed[0].price if timed else 0.0,
            "demand_charge_off_peak": gross * off_peak[0].price if off_peak else 0.0,
        }
    charges = []
    for part in tariff.demand:
        hours = others if part.hours == "other" else part.hours
        one = Window(hours=hours, days=part.days, months=part.months)
        when = tuple(time.window for time in part.when) or (one,)
        charges.append(DemandCharge(price=gross * part.price, when=when, ratchet=part.ratchet))
    return {"demand": tuple(charges)}


def case_tariff(
    tariff: OwnTariff, calendar: Calendar, zone: Zone, folder: Path, name: str, notes: list[str]
) -> tuple[Floats, Tariff]:
    """(T,) currency per kWh imported, with tax, and everything else that the bill is made of.

    Args:
        folder: where a file of prices is looked for.

    Raises:
        UserError: hours without a price, or a file of prices that does not cover the case.
    """
    bought = tariff.energy or tariff.prices
    assert bought
    price = (1 + tariff.tax) * _series(bought, "energy", calendar, zone, folder, name, notes)
    _say(price, tariff.currency, f"{name}:", notes)
    earned: float | tuple[float, ...] | None = None
    if isinstance(tariff.export, float):
        earned = tariff.export
    elif tariff.export is not None:
        series = _series(tariff.export, "export", calendar, zone, folder, name, notes)
        _say(series, tariff.currency, f"{name}: export earns", notes)
        earned = float(series[0]) if np.ptp(series) == 0 else tuple(series.round(6).tolist())
    found = Tariff(
        currency=tariff.currency,
        **demand_charges(tariff, name),
        export_price=earned,
        export_limit_kw=tariff.export_limit_kw,
        standing_per_day=(1 + tariff.tax) * tariff.standing.per_day,
    )
    return price, found


def _say(price: Floats, currency: str, what: str, notes: list[str]) -> None:
    mean, low, high = price.mean(), price.min(), price.max()
    notes.append(f"{what} {mean:.4g} {currency} per kWh on average, from {low:.4g} to {high:.4g}")


def _series(
    said: tuple[EnergyPrice, ...] | PriceFile,
    what: str,
    calendar: Calendar,
    zone: Zone,
    folder: Path,
    name: str,
    notes: list[str],
) -> Floats:
    """(T,) currency per kWh of every row, without tax."""
    if isinstance(said, PriceFile):
        reading = Reading(stamps=said.stamps)
        path = folder / said.file
        found = rates(path, said.column, said.unit, PRICES, ASK_PRICE, reading, calendar, zone, notes)
        return found * said.factor + said.add
    found = np.full(calendar.rows, np.nan)
    for part in said:
        holds = np.isnan(found) & part.window.holds(calendar.month, calendar.day_type, calendar.hour)
        found[holds] = part.price
    if np.isnan(found).any():
        at = str(calendar.begin[int(np.argmax(np.isnan(found)))])
        raise UserError(f"{name}: {what}: no price holds at {at}; add one without hours, days and months at the end")
    return found


def holidays_in(calendar_name: str, calendar: Calendar, name: str) -> Bools:
    """(T,) whether a row lies on a holiday. Raises UserError: the country or region is not known."""
    import holidays

    days = calendar.begin.astype("datetime64[D]")
    country, _, region = calendar_name.partition("-")
    years = sorted({int(str(day)[:4]) for day in (days[0], days[-1])})
    try:
        found = holidays.country_holidays(country, subdiv=region or None, years=years)
    except NotImplementedError:
        raise UserError(
            f"{name}: holidays: {calendar_name} is no country or region known to the library holidays"
        ) from None
    return np.isin(days, np.array(sorted(found), dtype="datetime64[D]"))
