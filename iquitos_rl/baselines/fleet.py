"""Vehicles in a linear programme: charging-only stays aggregated exactly, the others step by step.

The hourly charging that one stay allows, { 0 <= e_t <= limit, sum e_t = need }, depends on which hours it spans and on
the need in units of the limit, q + r with q whole and 0 <= r < 1. Its rank function, min(need, k * limit) over any k
hours, equals that of a share (1 - r) of a vehicle needing exactly q hours plus a share r of one needing q + 1. Sums of
polymatroids have the sums of their rank functions (Edmonds 1970), so all stays that span the same hours add up to at
most as many blocks as there are hours: block j holds { 0 <= x_t <= weight_j, sum x_t = j * weight_j }. Nothing is lost,
and 140,000 stays become a few ten thousand variables.
"""

from __future__ import annotations

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
    weight: Floats
    """Most per step."""
    total: Floats
    """Over the whole stay."""
    gain: Floats
    """kWh in the battery for each kWh at the meter."""
    firm: Bools
    """Whether the total must be charged; else what is left out is missing at departure."""


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


class Steps(NamedTuple):
    """One entry for each step of each stay or block, R in all."""

    owner: Ints
    row: Ints
    is_first: Bools
    is_last: Bools


def unroll(first: Ints, last: Ints) -> Steps:
    count = last - first + 1
    owner = np.repeat(np.arange(len(first)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    return Steps(owner, first[owner] + offset, offset == 0, offset == count[owner] - 1)


class Fleet(NamedTuple):
    """Where a programme holds the vehicles' energies."""

    variable: Ints
    place: Ints
    """Index of each variable into the flattened (rows, buildings)."""
    sign: Floats
    """1 where a variable takes energy, -1 where it gives."""
    fixed: Floats
    """(rows, buildings) kWh that no plan changes."""

    def energy(self, x: Floats) -> Floats:
        """(rows, buildings) kWh at the meter in a solution."""
        planned = np.bincount(self.place, x[self.variable] * self.sign, self.fixed.size)
        return self.fixed + planned.reshape(self.fixed.shape)


def add_fleet(programme: Programme, stays: Stays, net_rows: Ints, missing_price: float) -> Fleet:
    """Add all stays to a programme.

    Args:
        net_rows: (rows, buildings) index of the programme's rows `everything planned - import <= PV - load`.
        missing_price: currency per kWh missing at departure.
    """
    alone = all_charging(stays)
    blocks, missing = make_blocks(select(stays, alone))
    programme.constant += missing_price * missing
    steps = unroll(blocks.first, blocks.last)
    building = blocks.building[steps.owner]
    forced = blocks.firm & (blocks.total >= (blocks.last - blocks.first + 1) * blocks.weight * (1 - 1e-12))
    fixed = np.zeros(net_rows.shape)
    now = forced[steps.owner]
    np.add.at(fixed, (steps.row[now], building[now]), blocks.weight[steps.owner[now]])
    programme.shift(net_rows, -fixed)

    owner, row, building = steps.owner[~now], steps.row[~now], building[~now]
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
    return Fleet(
        variable=np.concatenate([charge, up, down]),
        place=np.concatenate([place, one_place, one_place]),
        sign=np.repeat([1.0, 1.0, -1.0], [len(charge), len(up), len(down)]),
        fixed=fixed,
    )


def _add_one_by_one(
    programme: Programme, stays: Stays, net_rows: Ints, missing_price: float
) -> tuple[Ints, Ints, Ints]:
    """Add stays with a state of charge for every step; a stay may begin with what the previous one left.

    Returns:
        The variables of charging and of discharging, and the place of each pair.
    """
    steps = unroll(stays.first, stays.last)
    of = select(stays, steps.owner)
    count = len(steps.owner)
    charge = programme.variables(count, 0.0, upper=of.charge_limit)
    discharge = programme.variables(count, 0.0, upper=of.discharge_limit)
    stored = programme.variables(count, 0.0, lower=of.lowest * of.capacity, upper=of.capacity)
    meter = net_rows[steps.row, of.building]
    programme.put(meter, charge, 1.0)
    programme.put(meter, discharge, -1.0)
    known = steps.is_first & ~np.isnan(of.arrival)
    standing = (1 - of.kept) * of.lowest * of.capacity
    balance = programme.rows(np.where(known, of.arrival * of.capacity, standing))
    programme.put(balance, stored, 1.0)
    programme.put(balance, charge, -of.gain)
    programme.put(balance, discharge, of.drop)
    later = np.flatnonzero(~known)  # entries are sorted by vehicle and row, so the one before is the previous step
    programme.put(balance[later], stored[later - 1], -of.kept[later])
    leaves = np.flatnonzero(steps.is_last & (of.required > 0))
    missing = programme.variables(len(leaves), missing_price, upper=of.most_missing[leaves])
    wanted = programme.rows(-(of.required * of.capacity)[leaves])
    programme.put(wanted, missing, -1.0)
    programme.put(wanted, stored[leaves], -1.0)
    return charge, discharge, np.ravel_multi_index((steps.row, of.building), net_rows.shape)
