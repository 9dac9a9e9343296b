"""What is written down of a rule's years: the peaks still to come, and rewards that expect them."""

import numpy as np
import torch

from iquitos_rl.baselines.recording import peaks_ahead
from iquitos_rl.envs.task.trajectory import Trajectory

ROWS, YEARS, BUILDINGS = 60, 3, 2
STARTS = np.isin(np.arange(ROWS), [0, 20, 47])


def some_demand(seed=0):
    return torch.rand(YEARS, ROWS, BUILDINGS, 2, generator=torch.Generator().manual_seed(seed)) * 100


def make_trajectory():
    ahead, beyond = (x.transpose(0, 1) for x in peaks_ahead(some_demand(), STARTS))
    nothing = torch.zeros(0)
    place = torch.arange(ROWS).repeat(YEARS)
    return Trajectory(nothing, nothing, nothing, nothing, nothing, ahead, beyond, torch.tensor([2.0, 0.5]), place)


def test_peaks_ahead_are_the_highest_of_the_rest_of_the_month():
    demand = some_demand()
    ahead, beyond = peaks_ahead(demand, STARTS)
    ends = [*np.flatnonzero(STARTS)[1:], ROWS]
    for t in range(ROWS):
        end = next(end for end in ends if end > t)
        assert torch.equal(ahead[:, t], demand[:, t:end].amax(1))
        assert torch.equal(
            beyond[:, t], demand[:, t + 1 : end].amax(1) if t + 1 < end else torch.zeros_like(demand[:, t])
        )


def test_expected_charges_of_a_month_sum_to_its_charge():
    """Whatever is done, but for what the controller would have paid for the month, known at its start."""
    trajectory, done = make_trajectory(), some_demand(seed=1)[:, :20]
    rows = torch.arange(YEARS) * ROWS
    before, total = torch.zeros(YEARS, BUILDINGS, 2), torch.zeros(YEARS)
    for t in range(20):
        after = torch.maximum(before, done[:, t])
        plain = -((after - before) * trajectory.peak_price).sum((-1, -2))
        total += trajectory.expected(plain, rows + t, before, after)
        before = after
    charge = (before * trajectory.peak_price).sum((-1, -2))
    at_start = (trajectory.peak_ahead[0].mean(0) * trajectory.peak_price).sum()
    torch.testing.assert_close(total, at_start - charge, atol=1e-3, rtol=0)


def test_an_hour_below_all_that_is_to_come_costs_nothing():
    trajectory = make_trajectory()
    low = torch.full((1, BUILDINGS, 2), 1.0)
    row, nothing = torch.tensor([ROWS + 3]), torch.zeros(1)
    raised = trajectory.expected(-(low * trajectory.peak_price).sum((-1, -2)), row, torch.zeros_like(low), low)
    untouched = trajectory.expected(nothing, row, torch.zeros_like(low), torch.zeros_like(low))
    torch.testing.assert_close(raised, untouched)


def test_expected_charges_sum_to_the_charge_where_months_begin_in_other_rows():
    """As in a leap year: each year has its own calendar, and looks at all years by it."""
    ends, demand = (20, 22), some_demand()
    calendars = [np.isin(np.arange(ROWS), [0, end, 47]) for end in ends]
    each = [peaks_ahead(demand, own) for own in calendars]
    ahead, beyond = (torch.cat(peaks, dim=1).transpose(0, 1) for peaks in zip(*each))
    calendar = torch.arange(YEARS) % 2
    place = (calendar[:, None] * ROWS + torch.arange(ROWS)).flatten()
    nothing, price = torch.zeros(0), torch.tensor([2.0, 0.5])
    trajectory = Trajectory(nothing, nothing, nothing, nothing, nothing, ahead, beyond, price, place)
    done = some_demand(seed=1)
    for year in range(YEARS):
        before, total = torch.zeros(1, BUILDINGS, 2), torch.zeros(1)
        for t in range(ends[year % 2]):
            after = torch.maximum(before, done[year : year + 1, t])
            plain = -((after - before) * price).sum((-1, -2))
            total += trajectory.expected(plain, torch.tensor([year * ROWS + t]), before, after)
            before = after
        charge = (before * price).sum((-1, -2))
        at_start = (ahead[int(calendar[year]) * ROWS].mean(0) * price).sum()
        torch.testing.assert_close(total, at_start - charge, atol=1e-3, rtol=0)
