"""Vehicles in a linear programme: charging-only stays aggregated exactly, the others step by step.

The hourly charging that one stay allows, { 0 <= e_t <= limit, sum e_t = need }, depends on which hours it spans and on
the need in units of the limit, q + r with q whole and 0 <= r < 1. Its rank function, min(need, k * limit) over any k
hours, equals that of a share (1 - r) of a vehicle needing exactly q hours plus a share r of one needing q + 1. Sums of
polymatroids have the sums of their rank functions (Edmonds 1970), so all stays that span the same hours add up to at
most as many blocks as there are hours: block j holds { 0 <= x_t <= weight_j, sum x_t = j * weight_j }. Nothing is lost,
and 140,000 stays become a few ten thousand variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.programme import Programme
from iquitos_rl.baselines.stays import Stays, all_charging, select
from iquitos_rl.cases.site import Bools, Floats, Ints


class Blocks(NamedTuple):
    """Aggregated stays, G blocks; kWh at the meter."""

    building: Ints
    first: Ints
    last: Ints
    weight: Floats  # most per step
    total: Floats  # over the whole stay
    gain: Floats  # kWh in the battery for each kWh at the meter
    firm: Bools  # whether the total must be charged; else what is left out is missing at departure


def make_blocks(stays: Stays) -> tuple[Blocks, float]:
    """Aggregate charging-only stays; also the kWh that are missing whatever is done."""
    steps = stays.last - stays.first + 1
    wanted = np.maximum(stays.required - stays.arrival, 0) * stays.capacity
    firm = np.isfinite(stays.most_missing)
    most = steps * stays.charge_limit * stays.gain
    missing = float(np.maximum(wanted - most, 0).sum())
    # What capacity fade may keep a guarded vehicle from reaching is neither demanded nor priced.
    wanted = np.maximum(wanted - np.where(firm, stays.most_missing, 0.0), 0)
    need = np.minimum(wanted, most) / np.maximum(stays.gain, 1e-12)  # kWh at the meter
    in_steps = np.divide(need, stays.charge_limit, out=np.zeros_like(need), where=stays.charge_limit > 0)
    whole = np.minimum(np.floor(in_steps + 1e-12), steps)
    rest = np.clip(in_steps - whole, 0, 1)
    below = (whole, (1 - rest) * stays.charge_limit)
    above = (whole + 1, rest * stays.charge_limit)
    level, weight = (np.concatenate(pair) for pair in zip(below, above))
    alike = stays.building, stays.first, stays.last, firm, np.round(stays.gain, 12)
    keys = np.stack([*(np.tile(field, 2) for field in alike), level], axis=-1)
    some = (level > 0) & (weight > 0)
    unique, group = np.unique(keys[some], axis=0, return_inverse=True)
    total = np.bincount(group.ravel(), weight[some], len(unique)).astype(np.float64)
    building, first, last, is_firm = unique[:, :4].astype(np.int64).T
    return Blocks(building, first, last, total, unique[:, 5] * total, unique[:, 4], is_firm > 0), missing


def unroll(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """(R,) owner and row, for each step of each stay or block."""
    count = last - first + 1
    owner = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return owner, first[owner] + offset


def add_fleet(
    programme: Programme, stays: Stays, net_rows: Ints, missing_price: float, wasteful: Bools | None = None
) -> Callable[[Floats], Floats]:
    """Add all stays to a programme; returns what maps a solution to (rows, buildings) kWh at the meter.

    Args:
        net_rows: (rows, buildings) index of the programme's rows `everything planned - import <= PV - load`.
        missing_price: currency per kWh missing at departure.
        wasteful: (rows,) hours in which a kWh imported pays, so that a vehicle may take more than it wants; none by
            default. Stays with such hours are planned step by step.
    """
    alone = all_charging(stays)
    if wasteful is not None and wasteful.any():
        before = np.concatenate([[0], np.cumsum(wasteful)])
        alone &= before[stays.last + 1] == before[stays.first]
    blocks, missing = make_blocks(select(stays, alone))
    programme.constant += missing_price * missing
    owner, row = unroll(blocks.first, blocks.last)
    building = blocks.building[owner]
    forced = blocks.firm & (blocks.total >= (blocks.last - blocks.first + 1) * blocks.weight * (1 - 1e-12))
    fixed = np.zeros(net_rows.shape)
    now = forced[owner]
    np.add.at(fixed, (row[now], building[now]), blocks.weight[owner[now]])
    programme.shift(net_rows, -fixed)

    owner, row, building = owner[~now], row[~now], building[~now]
    # What is charged of a total that is not firm earns back the price of missing it.
    programme.constant += missing_price * float((blocks.gain * blocks.total)[~blocks.firm].sum())
    worth = missing_price * np.where(blocks.firm, 0.0, blocks.gain)
    charge = programme.variables(len(owner), -worth[owner], upper=blocks.weight[owner])
    programme.put(net_rows[row, building], charge, 1.0)
    for equal in (True, False):
        chosen = ~forced & (blocks.firm == equal)
        total_row = np.full(len(chosen), -1)
        total_row[chosen] = programme.rows(blocks.total[chosen], equal=equal)
        mine = chosen[owner]
        programme.put(total_row[owner[mine]], charge[mine], 1.0)

    place = np.ravel_multi_index((row, building), net_rows.shape)
    up, down, one_place = _add_one_by_one(programme, select(stays, ~alone), net_rows, missing_price)
    variable, places = np.concatenate([charge, up, down]), np.concatenate([place, one_place, one_place])
    sign = np.repeat([1.0, 1.0, -1.0], [len(charge), len(up), len(down)])

    def energy(x: Floats) -> Floats:
        return fixed + np.bincount(places, x[variable] * sign, fixed.size).reshape(fixed.shape)

    return energy


def _add_one_by_one(programme: Programme, stays: Stays, net_rows: Ints, missing_price: float) -> list[Ints]:
    """Add stays with a state of charge for every step; a stay may begin with what the previous one left.

    Returns the variables of charging and of discharging, and the place of each pair.
    """
    owner, row = unroll(stays.first, stays.last)
    of, count = select(stays, owner), len(owner)
    charge = programme.variables(count, 0.0, upper=of.charge_limit)
    discharge = programme.variables(count, 0.0, upper=of.discharge_limit)
    stored = programme.variables(count, 0.0, lower=of.lowest * of.capacity, upper=of.capacity)
    meter = net_rows[row, of.building]
    programme.put(meter, charge, 1.0)
    programme.put(meter, discharge, -1.0)
    known = (row == of.first) & ~np.isnan(of.arrival)
    standing = (1 - of.kept) * of.lowest * of.capacity
    balance = programme.rows(np.where(known, of.arrival * of.capacity, standing))
    programme.put(balance, stored, 1.0)
    programme.put(balance, charge, -of.gain)
    programme.put(balance, discharge, of.drop)
    later = np.flatnonzero(~known)  # entries are sorted by vehicle and row, so the one before is the previous step
    programme.put(balance[later], stored[later - 1], -of.kept[later])
    leaves = np.flatnonzero((row == of.last) & (of.required > 0))
    missing = programme.variables(len(leaves), missing_price, upper=of.most_missing[leaves])
    wanted = programme.rows(-(of.required * of.capacity)[leaves])
    programme.put(wanted, missing, -1.0)
    programme.put(wanted, stored[leaves], -1.0)
    return [charge, discharge, np.ravel_multi_index((row, of.building), net_rows.shape)]
