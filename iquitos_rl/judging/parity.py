"""The engine that agents train on against the simulator that judges them, on the very year that was judged."""

from __future__ import annotations

import torch

from iquitos_rl.envs.district.env import DistrictSite
from iquitos_rl.envs.task.site_task import TaskSettings
from iquitos_rl.judging.simulate import Year
from iquitos_rl.judging.summary import bill_terms


def replay(year: Year, settings: TaskSettings) -> dict[str, float]:
    """Give the district engine a simulated year's actions, hour by hour.

    Returns:
        By how many kWh a building's meter differs at most in an hour, and by how many percent the bill; empty where the
        district engine cannot reproduce the site.
    """
    if year.site.unsupported:
        return {}
    env = DistrictSite([year.site], 1, settings)
    env.reset(seed=0)
    actions, expected = torch.from_numpy(year.actions).float(), torch.from_numpy(year.flows.net)
    largest = bill = 0.0
    for action, net in zip(actions, expected):
        step = env.step(action.unsqueeze(0))
        assert env.last_flows is not None
        largest = max(largest, float((env.last_flows.net[0].double() - net).abs().max()))
        bill += sum(float(step.info[term]) for term in bill_terms(step.info))
    simulated = sum(float(year.info[term].sum()) for term in bill_terms(year.info))
    found = {"district_largest_net_difference_kwh": largest}
    if simulated > 0:
        found["district_bill_difference_percent"] = 100 * abs(bill / simulated - 1)
    return found
