"""The perfect-foresight optimum: what no controller of a site can beat.

A linear programme over the whole year for the same bill, with every price, load, sunny hour and vehicle known. It is a
relaxation of CityLearn's physics (see `stays.py` and `horizon.py`): with constant efficiencies, as in the Iquitos case,
it differs from them only in forgetting capacity fade, so that the bound is nearly reached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iquitos_rl.baselines.bill import Bill, bill_of
from iquitos_rl.baselines.horizon import Plan, controllable, solve, year_horizon
from iquitos_rl.baselines.stays import read_stays
from iquitos_rl.cases.site import Site
from iquitos_rl.envs.task.objective import Objective


class Optimum(NamedTuple):
    bill: Bill
    plan: Plan


def optimum(site: Site, objective: Objective, ev_guard: bool = True) -> Optimum:
    """The lowest weighted bill of a site over its simulated rows, and the hourly plan that has it.

    Args:
        ev_guard: as in `TaskSettings`. Without the guard a controller may leave vehicles short at the shortfall price,
            and so may the optimum.

    Raises:
        UserError: see `year_horizon`.
        SolverError: the solver failed.
    """
    horizon = year_horizon(site, objective)
    tanks_of = site if site.thermal else None
    plan = solve(horizon, controllable(site), read_stays(site, ev_guard), objective, tanks_of)
    bill, weight = bill_of(site, objective, plan.net), objective.weights.shortfall
    # The rest of the cost is what vehicles lack.
    some = weight > 0 and len(site.sockets) > 0
    shortfall = max(plan.cost - float(bill.weighted(objective.weights)), 0.0) / weight if some else 0.0
    return Optimum(bill._replace(shortfall=np.asarray(shortfall)), plan)
