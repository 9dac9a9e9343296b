"""An owner's tariff: prices by season, day and hour, or from a file, and demand charges, as far as the bill knows them.

The bill has an hourly price of what is imported, and a demand charge on the month's highest import in some hours of the
day and in the others. What a tariff has beyond that is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from iquitos_rl.assignments import read_value
from iquitos_rl.cases.iquitos.presets import TariffSettings
from iquitos_rl.cases.iquitos.solar import Calendar
from iquitos_rl.cases.metered.columns import number_columns
from iquitos_rl.cases.metered.grid import with_step
from iquitos_rl.cases.metered.meter import mean_of, open_meter
from iquitos_rl.cases.metered.reading import Reading
from iquitos_rl.cases.metered.zone import Zone
from iquitos_rl.cases.site import Bools, Floats
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import JSON_BYTES, json_value, read_text

PER_KWH = {"/kwh": 1.0, "ct/kwh": 0.01, "cent/kwh": 0.01, "/mwh": 0.001}
"""Of a price's unit, to currency per kWh."""
HOLDS = "the bill knows one price per kW for some hours of the day and one for the others, all year"


def _hours(value: Any) -> Any:
    """Hours as a list, from 17-21 (17:00 to 21:00) or 22-6 too."""
    if isinstance(value, str) and value.count("-") == 1:
        first, end = (int(part) for part in value.split("-"))
        if not (0 <= first <= 24 and 0 <= end <= 24):
            raise ValueError("hours lie between 0 and 24")
        return list(range(first, end)) if first < end else [*range(first, 24), *range(end)]
    return value


Hours = Annotated[tuple[Annotated[int, Field(ge=0, le=23)], ...], BeforeValidator(_hours)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EnergyPrice(_Part):
    """A price and when it holds; what is left out holds always."""

    price: float = Field(description="currency per kWh")
    hours: Hours | None = None
    days: Literal["all", "workdays", "weekends"] = "all"
    """Holidays count as weekends."""
    months: tuple[Annotated[int, Field(ge=1, le=12)], ...] | None = None


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
    price: float = Field(ge=0, description="currency per kW and month of the highest import")
    hours: Hours | Literal["other"] | None = None
    """None for every hour, "other" for those that the other demand charge leaves."""


class OwnTariff(_Part):
    """`tariff.yaml`."""

    currency: str
    energy: tuple[EnergyPrice, ...] = ()
    """The first that fits an hour holds."""
    prices: PriceFile | None = None
    """Instead of `energy`."""
    demand: tuple[DemandPrice, ...] = ()
    holidays: str | None = None
    """Country, or country and region: DE, DE-BY, US-CA."""


def read_tariff_file(path: Path, notes: list[str]) -> OwnTariff:
    """A tariff.yaml, or a rate of OpenEI's utility rate database (URDB) as JSON.

    Raises:
        UserError: the file cannot be read, a key or value is wrong, or the bill cannot hold what it says.
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
    for key in ("export", "feed_in", "sell"):
        if key in content:
            raise UserError(f"{path.name}: {key}: the bill does not pay for export yet; leave it out to go on without")
    try:
        tariff = OwnTariff.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path.name}: {where}: {first['msg'].removeprefix('Value error, ')}") from None
    if bool(tariff.energy) == (tariff.prices is not None):
        raise UserError(f"{path.name}: energy, or prices of a file, and not both")
    demand_settings(tariff, path.name)
    return tariff


def demand_settings(tariff: OwnTariff, name: str) -> TariffSettings:
    """What tariff.json says. Raises UserError: demand charges that the bill cannot hold."""
    if len(tariff.demand) > 2:
        raise UserError(f"{name}: demand has {len(tariff.demand)} entries; {HOLDS}")
    always = [part.price for part in tariff.demand if part.hours is None]
    rest = [part.price for part in tariff.demand if part.hours == "other"]
    some = [part for part in tariff.demand if isinstance(part.hours, tuple)]
    if (always and (rest or some)) or len(always) > 1 or len(some) > 1 or len(rest) > 1 or (rest and not some):
        raise UserError(f"{name}: demand: {HOLDS} (hours: 17-21, and hours: other)")
    hours = some[0].hours if some else ()
    assert isinstance(hours, tuple)
    return TariffSettings(
        kind="flat",
        currency=tariff.currency,
        peak_hours=hours,
        demand_charge_peak=some[0].price if some else 0.0,
        demand_charge_off_peak=(always or rest or [0.0])[0],
    )


def prices(tariff: OwnTariff, calendar: Calendar, zone: Zone, folder: Path, name: str, notes: list[str]) -> Floats:
    """(T,) currency per kWh of every row.

    Args:
        folder: where a file of prices is looked for.

    Raises:
        UserError: hours without a price, or a file of prices that does not cover the case.
    """
    if tariff.prices is not None:
        found = _of_file(tariff.prices, calendar, zone, folder, name, notes)
    else:
        found = np.full(calendar.rows, np.nan)
        free = _free_days(tariff.holidays, calendar, name)
        for part in tariff.energy:
            holds = np.isnan(found)
            if part.hours is not None:
                holds &= np.isin(calendar.hour, part.hours)
            if part.months is not None:
                holds &= np.isin(calendar.month, part.months)
            if part.days != "all":
                holds &= free if part.days == "weekends" else ~free
            found[holds] = part.price
        if np.isnan(found).any():
            at = str(calendar.begin[int(np.argmax(np.isnan(found)))])
            raise UserError(f"{name}: no price holds at {at}; add one without hours, days and months at the end")
    below = found < 0
    if below.any():
        notes.append(
            f"{name}: {int(below.sum())} rows with prices below 0 taken as 0, which is all that the bill knows"
        )
    mean, low, high = found.mean(), found.min(), found.max()
    notes.append(f"{name}: {mean:.4g} {tariff.currency} per kWh on average, from {low:.4g} to {high:.4g}")
    return np.maximum(found, 0.0)


def _free_days(calendar_name: str | None, calendar: Calendar, name: str) -> Bools:
    """(T,) whether a row lies on a weekend or a holiday."""
    free = calendar.day_type >= 6
    if calendar_name is None:
        return free
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
    return free | np.isin(days, np.array(sorted(found), dtype="datetime64[D]"))


def _of_file(said: PriceFile, calendar: Calendar, zone: Zone, folder: Path, name: str, notes: list[str]) -> Floats:
    path = folder / said.file
    file = open_meter(path, "weather", zone, Reading(column=said.column, stamps=said.stamps), notes)
    titles = number_columns(file.table, file.times.titles)
    if said.column is not None:
        titles = [said.column]
    if len(titles) != 1:
        raise UserError(f"{path.name}: which column holds the price? say prices: column: one of {', '.join(titles)}")
    unit = (said.unit or titles[0]).lower().replace(" ", "").replace("€", "eur")
    factors = [factor for ending, factor in PER_KWH.items() if ending in unit]
    if not factors:
        raise UserError(
            f"{path.name}: {titles[0]} names no unit of a price; say prices: unit: EUR/MWh (or ct/kWh, EUR/kWh)"
        )
    series = with_step(mean_of(file, titles[0]), calendar.seconds, 0, path.name, notes)
    utc = calendar.utc if calendar.utc is not None else calendar.begin.astype("datetime64[s]")
    slot = (utc - series.begin[0]).astype(np.int64) // calendar.seconds
    outside = (slot < 0) | (slot >= len(series.values))
    if outside.any():
        at = str(calendar.begin[int(np.argmax(outside))])
        raise UserError(f"{path.name}: has no price for {int(outside.sum())} rows of the case, first {at}")
    return np.asarray(series.values[slot] * min(factors) * said.factor + said.add, dtype=np.float64)


def urdb(rate: Mapping[str, Any], name: str, notes: list[str]) -> dict[str, Any]:
    """A rate of OpenEI's database in the form of tariff.yaml. Raises UserError: it has what the bill cannot hold."""
    try:
        tiers = rate["energyratestructure"]
        price = [float(period[0].get("rate", 0.0)) + float(period[0].get("adj", 0.0)) for period in tiers]
        schedules = {"workdays": rate["energyweekdayschedule"], "weekends": rate["energyweekendschedule"]}
        energy = [
            {"price": price[schedule[month][hour]], "hours": [hour], "days": days, "months": [month + 1]}
            for days, schedule in schedules.items()
            for month in range(12)
            for hour in range(24)
        ]
        demand = _urdb_demand(rate, name)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name} is not whole as a rate of OpenEI: {error!r}") from None
    if any(len(period) > 1 for period in tiers):
        notes.append(f"{name}: prices that rise with the month's energy are taken at their first tier")
    if rate.get("fixedchargefirstmeter") or rate.get("fixedmonthlycharge"):
        notes.append(f"{name}: the standing charge is left out, no controller changes it")
    return {"currency": "USD", "energy": energy, "demand": demand}


def _urdb_demand(rate: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    flat = [float(period[0].get("rate", 0.0)) for period in rate.get("flatdemandstructure", [])]
    by_month = {flat[period] for period in rate.get("flatdemandmonths", [0] * 12)} if flat else {0.0}
    timed = [float(period[0].get("rate", 0.0)) for period in rate.get("demandratestructure", [])]
    schedules = ("demandweekdayschedule", "demandweekendschedule") if timed else ()
    days = [[timed[period] for period in row] for key in schedules for row in rate[key]]
    first = days[0] if days else [0.0] * 24
    changes = len(by_month) > 1 or any(row != first for row in days) or len(set(first)) > 2
    if changes or (any(first) and by_month != {0.0}):
        raise UserError(f"{name}: its demand charges differ by season or day, or overlap; {HOLDS}")
    if any(first):
        low, high = min(first), max(first)
        hours = [hour for hour in range(24) if first[hour] == high]
        if low == high:
            return [{"price": high}]
        return [{"price": high, "hours": hours}, {"price": low, "hours": "other"}]
    charge = by_month.pop()
    return [{"price": charge}] if charge else []
