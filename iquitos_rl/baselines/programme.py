"""A linear programme, with switches where it needs them, put together block by block and solved by HiGHS."""

from __future__ import annotations

from functools import partial

import numpy as np
import scipy.sparse as sparse
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from iquitos_rl.cases.site import Floats, Ints
from iquitos_rl.machine.aside import aside

GAP = 1e-6
"""Relative distance from the optimum at which a search over switches ends."""


class SolverError(Exception):
    """The solver did not reach an optimum."""


class Programme:
    """Minimise cost @ x subject to lower <= x <= upper, A x <= b and, for rows made so, A x = b."""

    def __init__(self) -> None:
        self._columns: list[Floats] = []
        self._rows: list[tuple[Floats, NDArray[np.bool_]]] = []
        self._entries: list[tuple[Ints, Ints, Floats]] = []
        self._shifts: list[tuple[Ints, Floats]] = []
        self._whole: list[Ints] = []
        self.variables_count = 0
        self.rows_count = 0
        self.constant = 0.0
        """Added to the cost, whatever x is."""

    def variables(self, count: int, cost: ArrayLike, lower: ArrayLike = 0.0, upper: ArrayLike = np.inf) -> Ints:
        """Add `count` variables and return their indices; cost and bounds are scalars or (count,)."""
        self._columns.append(np.stack([np.broadcast_to(value, (count,)) for value in (cost, lower, upper)], axis=-1))
        self.variables_count += count
        return np.arange(self.variables_count - count, self.variables_count)

    def switches(self, count: int) -> Ints:
        """Add `count` variables that are 0 or 1, at no cost, and return their indices."""
        found = self.variables(count, 0.0, upper=1.0)
        self._whole.append(found)
        return found

    def rows(self, right: ArrayLike, equal: bool = False) -> Ints:
        """Add the rows `... <= right` (or `= right`) and return their indices."""
        values = np.atleast_1d(np.asarray(right, dtype=np.float64))
        self._rows.append((values, np.full(len(values), equal)))
        self.rows_count += len(values)
        return np.arange(self.rows_count - len(values), self.rows_count)

    def shift(self, rows: ArrayLike, amount: ArrayLike) -> None:
        """Add `amount` to the right side of `rows`."""
        self._shifts.append((np.ravel(rows), np.ravel(amount)))

    def put(self, rows: ArrayLike, variables: ArrayLike, values: ArrayLike) -> None:
        """Add `values * variables` to the left side of `rows`; the three are broadcast together."""
        r, v, c = np.broadcast_arrays(rows, variables, np.asarray(values, dtype=np.float64))
        self._entries.append((r.ravel(), v.ravel(), c.ravel()))

    def entries(self) -> tuple[Ints, Ints, Floats]:
        """Row, variable and value of all that was put, (N,) each."""
        row, variable, value = (np.concatenate(parts) for parts in zip(*self._entries))
        return row, variable, value

    def solve(self) -> tuple[Floats, float]:
        """The optimal x and its cost. Raises SolverError: the programme is infeasible, unbounded or too hard."""
        right, equal = (np.concatenate(parts) for parts in zip(*self._rows))
        for rows, amount in self._shifts:
            np.add.at(right, rows, amount)
        row, column, value = self.entries()
        matrix = sparse.csr_matrix((value, (row, column)), shape=(self.rows_count, self.variables_count))
        columns = np.concatenate(self._columns)
        solve = partial(
            linprog,
            columns[:, 0],
            A_ub=matrix[~equal] if (~equal).any() else None,
            b_ub=right[~equal] if (~equal).any() else None,
            A_eq=matrix[equal] if equal.any() else None,
            b_eq=right[equal] if equal.any() else None,
            bounds=columns[:, 1:],
            method="highs",
            integrality=self._integrality(),
            options={"mip_rel_gap": GAP} if self._whole else None,
        )
        result = aside(solve)
        if result.status != 0:
            raise SolverError(f"HiGHS: {result.message}")
        return result.x, float(result.fun) + self.constant

    def _integrality(self) -> Ints | None:
        """(variables,) 1 for a switch; None where there is none."""
        if not self._whole:
            return None
        found = np.zeros(self.variables_count, dtype=np.int64)
        found[np.concatenate(self._whole)] = 1
        return found
