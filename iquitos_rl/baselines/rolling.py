"""A linear programme that is solved every hour with new figures: the plan of a receding horizon, over scenarios.

The present hour is known and the ones after it are not. Each scenario says how they may turn out and has a probability.
What is done in the first hours is the same in all scenarios; later hours may differ, since by then more is known
(two-stage stochastic programming, Birge and Louveaux 2011). The programme's rows and columns never change, only costs
and bounds do, so HiGHS starts from the basis of the hour before, moved on by one hour.

A demand charge bills a month's highest import, and a horizon sees two days of it. So an import is charged by what it
adds to the highest that must be expected of the rest of the month anyway (`Ahead.later`).

K scenarios, B buildings, H hours (steps), P demand charges, M months: the present one and the next. kWh per step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import highspy
import numpy as np
import scipy.sparse as sparse

from iquitos_rl.baselines.programme import Programme, SolverError
from iquitos_rl.baselines.stays import best_power, best_root, kept_share
from iquitos_rl.cases.site import Battery, Bools, Floats, Ints

MONTHS = 2


class Ahead(NamedTuple):
    """What is known, or expected, of the hours ahead."""

    probability: Floats  # (K,) of the scenarios
    net: Floats  # (K, B, H) load and vehicles less PV, while nothing is stored
    cost: Floats  # (B, H) of an imported kWh
    earned: Floats  # (B, H) for an exported kWh; below `cost`
    counts: Bools  # (P, M, H) whether a charge looks at the hour, as one of each month
    rate: Floats  # (P, M) currency per kW
    so_far: Floats  # (B, P, M) kW that are billed already
    later: Floats  # (B, P, M, Q) kW that the rest of the month may come to after these hours, equally likely
    active: Bools  # (H,) whether the hour is planned; batteries rest in the others, which come last
    stored: Floats  # (B,) kWh in the batteries
    keep: Floats  # (B,) least kWh in the batteries at the end, where they can get there
    movable: Floats  # (B,) kWh that vehicles may take now or leave for the hours after
    stored_price: float  # currency that a kWh is worth that is stored at the end
    ready_price: (
        float  # the same for each hour that it is stored, which has a plan charge early among hours that cost alike
    )


class Step(NamedTuple):
    """The present hour's share of a plan, and what it leads to."""

    battery: Floats  # (B,) kWh taken, negative where given
    vehicles: Floats  # (B,) of what is movable
    stored: Floats  # (B, H) kWh after each hour, mean of the scenarios
    cost: float


class RollingPlan:
    """The programme of one site.

    Args:
        batteries: (B,) None where none obeys.
        scenarios: K.
        hours: H.
        hours_per_step: of the site.
        together: first hours in which all scenarios do the same; at least 1.
        defer: hours after the present one in which vehicles take what they left.
        charges: P.
        quantiles: Q.
        export_most: kWh per step that earn something; None where exports never do.
    """

    def __init__(
        self,
        batteries: list[Battery | None],
        scenarios: int,
        hours: int,
        hours_per_step: float,
        together: int,
        defer: int,
        charges: int,
        quantiles: int,
        export_most: float | None = None,
    ) -> None:
        buildings, together = len(batteries), min(together, hours)
        shape = scenarios, buildings, hours
        programme = Programme()

        def block(*sizes: int) -> Ints:
            return programme.variables(int(np.prod(sizes)), 0.0).reshape(sizes)

        def rows(*sizes: int) -> Ints:
            return programme.rows(np.zeros(int(np.prod(sizes)))).reshape(sizes)

        def partly_shared(new: Callable[..., Ints]) -> Ints:
            """(K, B, H) variables or rows, the same for all scenarios in the first hours."""
            first = np.broadcast_to(new(1, buildings, together), (scenarios, buildings, together))
            return np.concatenate([first, new(scenarios, buildings, hours - together)], axis=-1)

        self._imported = block(*shape)
        self._exported = block(*(shape if export_most is not None else (scenarios, buildings, 0)))
        self._charge, self._discharge, self._stored = (partly_shared(block) for _ in range(3))
        self._now, self._deferred = block(buildings), block(scenarios, buildings, defer)
        self._highest = block(scenarios, buildings, charges, MONTHS)
        self._pieces = block(scenarios, buildings, charges, MONTHS, quantiles + 1)

        self._net = rows(*shape)  # battery and vehicles - import + export <= PV - load
        for variables, sign in ((self._imported, -1), (self._charge, 1), (self._discharge, -1)):
            programme.put(self._net, variables, sign)
        programme.put(self._net[..., : self._exported.shape[-1]], self._exported, 1.0)
        programme.put(self._net[:, :, 0], self._now, 1.0)
        programme.put(self._net[:, :, 1 : 1 + defer], self._deferred, 1.0)

        self._taken = rows(scenarios, buildings)  # what vehicles take now and later is all that is movable
        programme.put(self._taken, self._now, 1.0)
        programme.put(self._taken[..., None], self._deferred, 1.0)

        self._balance = partly_shared(rows)  # stored - what the hour before left - charged + discharged <= 0
        self._power, self._lowest, self._capacity, self._standing, self._root = np.zeros((5, buildings, 1))
        for b, battery in enumerate(batteries):
            if battery is None:
                continue
            root, kept = best_root(battery), kept_share(battery, hours_per_step)
            lowest = battery.lowest_soc * battery.capacity
            self._power[b], self._lowest[b] = best_power(battery) * hours_per_step, lowest
            self._capacity[b], self._standing[b], self._root[b] = battery.capacity, (1 - kept) * lowest, root
            for k in range(scenarios):
                first = 0 if k == 0 else together
                at, before = self._balance[k, b, first:], self._stored[k, b, max(first - 1, 0) : -1]
                programme.put(at, self._stored[k, b, first:], 1.0)
                programme.put(at, self._charge[k, b, first:], -root)
                programme.put(at, self._discharge[k, b, first:], 1 / root)
                programme.put(at[-len(before) :], before, -kept)

        self._peak = rows(scenarios, buildings, charges, MONTHS, hours)  # import <= the month's highest
        programme.put(self._peak, self._imported[:, :, None, None], 1 / hours_per_step)
        programme.put(self._peak, self._highest[..., None], -1.0)
        self._billed = rows(scenarios, buildings, charges, MONTHS)  # the highest - its pieces <= what is billed already
        programme.put(self._billed, self._highest, 1.0)
        programme.put(self._billed[..., None], self._pieces, -1.0)

        self._cost, self._lower = np.zeros((2, programme.variables_count))
        self._upper, self._right = np.full(programme.variables_count, np.inf), np.zeros(programme.rows_count)
        self._upper[self._exported] = export_most
        self._upper[self._stored], self._lower[self._stored] = self._capacity, self._lowest
        self._left = np.full(programme.rows_count, -np.inf)
        self._solver = _warm_solver(programme)
        self._columns, self._rows = (np.arange(n, dtype=np.int32) for n in (len(self._cost), len(self._right)))
        self._next_column, self._next_row = self._an_hour_later()

    def solve(self, ahead: Ahead) -> Step:
        """The cheapest plan. Raises SolverError: HiGHS found none."""
        weight = ahead.probability[:, None, None]
        self._cost[self._imported] = weight * ahead.cost
        if self._exported.size:
            self._cost[self._exported] = -weight * ahead.earned
        self._cost[self._stored] = 0.0
        np.subtract.at(self._cost, self._stored, weight * ahead.ready_price * ahead.active)
        np.subtract.at(self._cost, self._stored[:, :, -1], weight[:, 0] * ahead.stored_price)
        # A kW above q of the Q equally likely later peaks is paid for with probability q / Q.
        quantiles = ahead.later.shape[-1]
        later = np.sort(np.maximum(ahead.later, ahead.so_far[..., None]), axis=-1)
        widths = np.diff(later, axis=-1, prepend=ahead.so_far[..., None])
        likely = np.arange(quantiles + 1) / quantiles
        self._cost[self._pieces] = weight[..., None, None] * (ahead.rate[..., None] * likely)
        self._upper[self._pieces[..., :quantiles]] = widths
        self._right[self._billed] = ahead.so_far

        self._upper[self._now] = ahead.movable
        self._right[self._taken] = self._left[self._taken] = ahead.movable
        self._right[self._net] = -ahead.net
        self._upper[self._charge] = self._upper[self._discharge] = self._power * ahead.active
        start = np.maximum(ahead.stored[:, None], self._lowest)
        self._right[self._balance] = self._standing
        self._right[self._balance[0, :, 0]] = start[:, 0]
        # A little less than could be reached, so that rounding leaves a plan.
        most = np.minimum(start + 0.999 * self._root * self._power * ahead.active.sum(), self._capacity)
        self._lower[self._stored[:, :, -1]] = np.clip(ahead.keep[:, None], self._lowest, most)[:, 0]
        self._right[self._peak] = np.where(ahead.counts, 0.0, np.inf)
        solver = self._solver
        solver.changeColsCost(len(self._columns), self._columns, self._cost)
        solver.changeColsBounds(len(self._columns), self._columns, self._lower, self._upper)
        solver.changeRowsBounds(len(self._rows), self._rows, self._left, self._right)  # type: ignore[attr-defined]
        self._start_an_hour_later()
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise SolverError(f"HiGHS: {solver.modelStatusToString(solver.getModelStatus())}")
        x = np.array(solver.getSolution().col_value)
        stored = np.tensordot(ahead.probability, x[self._stored], 1)
        battery = x[self._charge[0, :, 0]] - x[self._discharge[0, :, 0]]
        return Step(battery, x[self._now], stored, float(solver.getInfo().objective_function_value))

    def _an_hour_later(self) -> tuple[Ints, Ints]:
        """For each variable and row, the one that is the same an hour later; those without one stay."""
        columns, rows = np.arange(len(self._cost)), np.arange(len(self._right))
        for block in (self._imported, self._exported, self._charge, self._discharge, self._stored):
            columns[block[..., :-1]] = block[..., 1:]
        for block in (self._net, self._balance, self._peak):
            rows[block[..., :-1]] = block[..., 1:]
        return columns, rows

    def _start_an_hour_later(self) -> None:
        basis = self._solver.getBasis()
        if not basis.valid:
            return
        columns, rows = basis.col_status, basis.row_status
        basis.col_status = [columns[i] for i in self._next_column]
        basis.row_status = [rows[i] for i in self._next_row]
        self._solver.setBasis(basis)


class _Quiet(highspy.Highs):
    """HiGHS without the callbacks that nobody uses here, and whose switching on prints a banner."""

    def __init__(self) -> None:
        super(highspy.Highs, self).__init__()


def _warm_solver(programme: Programme) -> _Quiet:
    """HiGHS with the programme's matrix; costs and bounds are set before each run."""
    row, column, value = programme.entries()
    matrix = sparse.csc_matrix((value, (row, column)), shape=(programme.rows_count, programme.variables_count))
    found = highspy.HighsLp()
    found.num_row_, found.num_col_ = matrix.shape
    found.col_cost_, found.col_lower_ = np.zeros((2, matrix.shape[1]))
    found.col_upper_ = np.full(matrix.shape[1], np.inf)
    found.row_lower_, found.row_upper_ = np.full(matrix.shape[0], -np.inf), np.zeros(matrix.shape[0])
    found.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    found.a_matrix_.start_, found.a_matrix_.index_ = matrix.indptr, matrix.indices
    found.a_matrix_.value_ = matrix.data
    solver = _Quiet()
    for option, setting in (("output_flag", False), ("threads", 1), ("presolve", "off")):
        solver.setOptionValue(option, setting)
    solver.passModel(found)
    return solver
