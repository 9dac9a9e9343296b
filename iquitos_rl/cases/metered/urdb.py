"""A rate of OpenEI's utility rate database (URDB) in the form of tariff.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iquitos_rl.errors import UserError

DAYS = {"workdays": "weekday", "weekends": "weekend"}
STANDING = {"$/day": "day", "$/month": "month", "$/year": "year"}
LOOKBACK = 11
"""Months that a ratchet looks back; the data have no more."""


def urdb(rate: Mapping[str, Any], name: str, notes: list[str]) -> dict[str, Any]:
    """What `OwnTariff` reads. Raises UserError: the rate is not whole."""
    try:
        tiers = rate["energyratestructure"]
        price = [float(period[0].get("rate", 0.0)) + float(period[0].get("adj", 0.0)) for period in tiers]
        found: dict[str, Any] = {"currency": "USD", "energy": _by_hour(rate, price)}
        sold = [period[0].get("sell") for period in tiers]
        if any(value is not None for value in sold):
            found["export"] = _by_hour(rate, [float(value or 0.0) for value in sold])
        _refuse_others(rate, name)
        found["demand"] = _flat_demand(rate, name) + _timed_demand(rate)
        found["standing"] = _standing(rate, name)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{name} is not whole as a rate of OpenEI: {error!r}") from None
    structures = (*tiers, *rate.get("flatdemandstructure", []), *rate.get("demandratestructure", []))
    if any(len(period) > 1 for period in structures):
        notes.append(f"{name}: prices that change with the amount are taken at their first tier")
    if any(rate.get(key) for key in ("mincharge", "minmonthlycharge", "annualmincharge")):
        notes.append(f"{name}: its least charge is left out; compare it with the bill")
    return found


def _by_hour(rate: Mapping[str, Any], price: Sequence[float]) -> list[dict[str, Any]]:
    return [
        {
            "price": price[rate[f"energy{days}schedule"][month][hour]],
            "hours": [hour],
            "days": key,
            "months": [month + 1],
        }
        for key, days in DAYS.items()
        for month in range(12)
        for hour in range(24)
    ]


def _flat_demand(rate: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Charges on all hours: one entry for each price, in the months that have it."""
    prices = [_first(period) for period in rate.get("flatdemandstructure", [])]
    if not prices:
        return []
    by_month = [prices[period] for period in rate["flatdemandmonths"]]
    share = _ratchet(rate, name)
    if len(set(by_month)) == 1:
        return [{"price": by_month[0], "ratchet": share}] if by_month[0] else []
    return [
        {"price": value, "months": [m + 1 for m in range(12) if by_month[m] == value], "ratchet": share}
        for value in sorted(set(by_month))
        if value
    ]


def _ratchet(rate: Mapping[str, Any], name: str) -> float:
    """Share of the highest import of the months before; months that alone are looked at are not known to the bill."""
    share = float(rate.get("lookbackpercent", rate.get("lookbackPercent", 0.0)) or 0.0)
    share = share / 100 if share > 1 else share
    months = rate.get("lookbackrange", rate.get("lookbackRange", LOOKBACK)) or LOOKBACK
    chosen = [bool(own) for own in rate.get("lookbackmonths", rate.get("lookbackMonths", [])) or []]
    if share and int(months) < LOOKBACK:
        raise UserError(f"{name}: its ratchet looks back {months} months; the bill knows one over the year")
    if share and any(chosen) and not all(chosen):
        raise UserError(f"{name}: its ratchet looks at some months alone; the bill knows one over all months")
    return share


def _refuse_others(rate: Mapping[str, Any], name: str) -> None:
    """Raise UserError where a rate charges for what the bill does not measure."""
    for key in ("demandunits", "demandUnits", "demandrateunit", "demandRateUnit", "flatdemandunit", "flatDemandUnit"):
        if str(rate.get(key) or "kW") != "kW":
            raise UserError(f"{name}: {key} is {rate[key]}; the bill knows demand charges per kW and month")
    for key in ("coincidentratestructure", "coincidentRateStructure"):
        if rate.get(key):
            raise UserError(f"{name}: {key}: the bill does not know when the utility's own peak is")
    ratchets = rate.get("demandratchetpercentage", rate.get("demandRatchetPercentage", [])) or []
    if any(float(own or 0) for own in ratchets):
        raise UserError(f"{name}: demandratchetpercentage: say the ratchet in a tariff.yaml, see docs/owners.md")


def _timed_demand(rate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Charges on some hours: one entry for each period of the schedule that costs something."""
    prices = [_first(period) for period in rate.get("demandratestructure", [])]
    found = []
    for period, value in enumerate(prices):
        when: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for key, days in DAYS.items():
            for month, row in enumerate(rate[f"demand{days}schedule"]):
                hours = tuple(hour for hour in range(24) if row[hour] == period)
                if hours:
                    when.setdefault((key, hours), []).append(month + 1)
        if value and when:
            windows = [{"hours": list(hours), "days": key, "months": own} for (key, hours), own in when.items()]
            found.append({"price": value, "when": windows})
    return found


def _first(period: Sequence[Mapping[str, Any]]) -> float:
    return float(period[0].get("rate", 0.0)) + float(period[0].get("adj", 0.0))


def _standing(rate: Mapping[str, Any], name: str) -> dict[str, float]:
    amount = float(rate.get("fixedchargefirstmeter", rate.get("fixedmonthlycharge", 0.0)) or 0.0)
    unit = str(rate.get("fixedchargeunits", "$/month"))
    if amount and unit not in STANDING:
        raise UserError(f"{name}: fixedchargeunits {unit}: one of {', '.join(STANDING)} is known")
    return {STANDING[unit]: amount} if amount else {}
