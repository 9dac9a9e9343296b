"""What a site pays besides the hourly price of its import: `tariff.json` in a case folder.

The one definition of the bill: engines, rules, the optimum and the report all read it from here. In all years, months
are those of the data; each building has its own meter.

T rows, P demand charges.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from iquitos_rl.cases.site import Bools, Floats, Ints, Site
from iquitos_rl.errors import UserError
from iquitos_rl.machine.inputs import read_json

TARIFF_FILE = "tariff.json"
SATURDAY = 6
"""The first day type of a weekend; Sunday is 7 and a holiday 8."""
Hour = Annotated[int, Field(ge=0, le=23)]
Month = Annotated[int, Field(ge=1, le=12)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Window(_Part):
    """Some rows of a year; what is left out restricts nothing."""

    hours: tuple[Hour, ...] | None = None
    """Clock hours, 18 is the hour from 18:00 to 19:00."""
    days: Literal["all", "workdays", "weekends"] = "all"
    """Holidays count as weekends."""
    months: tuple[Month, ...] | None = None

    def holds(self, month: Ints, day_type: Ints, hour: Ints) -> Bools:
        """(T,) of rows in these months (1 to 12), day types (1 to 8) and hours (0 to 23)."""
        found = np.ones(np.broadcast_shapes(month.shape, day_type.shape, hour.shape), dtype=bool)
        if self.hours is not None:
            found &= np.isin(hour, self.hours)
        if self.days != "all":
            found &= (day_type >= SATURDAY) == (self.days == "weekends")
        if self.months is not None:
            found &= np.isin(month, self.months)
        return found


class DemandCharge(_Part):
    """A price on the highest import of each month in some of its rows."""

    price: float = Field(0.0, ge=0, le=1e9)
    """Currency per kW and month."""
    when: tuple[Window, ...] = (Window(),)
    """The rows that count: those in any of these windows."""
    ratchet: float = Field(0.0, ge=0, le=1)
    """Each month pays at least this share of the highest import of the data's months up to it."""

    def counts(self, month: Ints, day_type: Ints, hour: Ints) -> Bools:
        """(T,) see `Window.holds`."""
        return np.any([window.holds(month, day_type, hour) for window in self.when], axis=0)

    def due(self, month: Ints) -> Bools:
        """(T,) whether the charge is due in these months (1 to 12)."""
        return np.any([Window(months=window.months).holds(month, month, month) for window in self.when], axis=0)


class Tariff(BaseModel):
    """Charges besides the energy price, taxes included."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    currency: str = "currency"
    peak_hours: tuple[Hour, ...] = ()
    """Short for two demand charges: one on the highest import in these hours, one on that in the others."""
    demand_charge_peak: float = Field(0.0, ge=0, le=1e9)
    """Currency per kW and month, on the highest import in peak hours."""
    demand_charge_off_peak: float = Field(0.0, ge=0, le=1e9)
    """Currency per kW and month, on the highest import in the other hours."""
    demand: tuple[DemandCharge, ...] = Field((), max_length=24)
    """Demand charges of any kind, in the place of those two."""
    export_price: float | tuple[float, ...] | None = None
    """Currency per kWh that is exported, one for all rows or one for each; None where exports earn nothing."""
    export_limit_kw: float | None = Field(None, ge=0)
    """What a building would export beyond this is lost."""
    standing_per_day: float = Field(0.0, ge=0, le=1e9)
    """Currency per building and day, whatever is consumed."""

    @cached_property
    def charges(self) -> tuple[DemandCharge, ...]:
        """(P,) every demand charge; two of them, which may cost nothing, where no list is given."""
        if self.demand:
            return self.demand
        others = tuple(hour for hour in range(24) if hour not in self.peak_hours)
        return (
            DemandCharge(price=self.demand_charge_peak, when=(Window(hours=self.peak_hours),)),
            DemandCharge(price=self.demand_charge_off_peak, when=(Window(hours=others),)),
        )

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """(P,) price of each charge."""
        return tuple(charge.price for charge in self.charges)

    @cached_property
    def ratchets(self) -> tuple[float, ...]:
        """(P,) ratchet of each charge."""
        return tuple(charge.ratchet for charge in self.charges)

    @cached_property
    def ratcheted(self) -> tuple[int, ...]:
        """(R,) the charges with a ratchet, as indices into `charges`."""
        return tuple(p for p, ratchet in enumerate(self.ratchets) if ratchet > 0)

    @property
    def meters(self) -> tuple[str, ...]:
        """(P + R,) names of the highest imports that a bill depends on: each charge's of the month, then, of those with
        a ratchet, the highest of all months so far."""
        if not self.demand:
            return "peak_running", "off_peak_running"
        month = [f"demand_{n}_running" for n in range(1, len(self.demand) + 1)]
        return (*month, *(f"demand_{p + 1}_highest" for p in self.ratcheted))

    @property
    def fixed(self) -> bool:
        """Whether something is paid that nothing changes."""
        return self.standing_per_day > 0


def read_tariff(folder: Path) -> Tariff:
    """Read `tariff.json` of a case folder; without the file there is nothing to pay but energy.

    Raises:
        UserError: the file is not JSON, or a value is not valid.
    """
    path = folder / TARIFF_FILE
    if not os.path.lexists(path):
        return Tariff()
    content = read_json(path)
    try:
        return Tariff.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(": ".join(map(str, (path, *first["loc"], first["msg"])))) from None


def counted(site: Site, tariff: Tariff) -> Bools:
    """(T, P) the rows whose import each demand charge looks at."""
    return np.stack([c.counts(site.month, site.day_type, site.hour) for c in tariff.charges], axis=-1)


def is_month_start(site: Site) -> Bools:
    """(T,) True on the first row of each month, where the running peaks go back to zero."""
    return np.concatenate([[True], site.month[1:] != site.month[:-1]])


def export_prices(site: Site, tariff: Tariff) -> Floats | None:
    """(T,) currency per kWh exported; None where exports earn nothing.

    Raises:
        UserError: the tariff has another number of prices than the site has rows.
    """
    price = tariff.export_price
    if price is None:
        return None
    if isinstance(price, tuple) and len(price) != site.rows:
        raise UserError(f"{site.path / TARIFF_FILE}: export_price has {len(price)} values for {site.rows} rows")
    return np.broadcast_to(np.asarray(price, dtype=np.float64), (site.rows,))


def paid_export(export_kwh: Floats, tariff: Tariff, hours_per_step: float) -> Floats:
    """What of an export, kWh per step, reaches the grid."""
    limit = np.inf if tariff.export_limit_kw is None else tariff.export_limit_kw * hours_per_step
    return np.minimum(export_kwh, limit)
