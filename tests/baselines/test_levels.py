"""Water levels against what they are defined by."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iquitos_rl.baselines.levels import shave_level

numbers = st.floats(-500, 3000, width=32)


def taken(expected, level, limit):
    return np.clip(expected - level, 0, limit).sum()


@settings(deadline=None)
@given(
    st.lists(numbers, min_size=1, max_size=8),
    st.integers(0, 255),
    st.floats(1, 2000),
    st.floats(0, 10000),
)
def test_the_level_takes_exactly_the_energy_out_of_the_live_hours(hours, mask, limit, energy):
    expected = np.array(hours)
    live = np.array([(mask >> k) & 1 == 1 for k in range(len(hours))])
    live[0] = True
    arguments = [torch.tensor(x, dtype=torch.float64) for x in (expected, limit, energy)]
    level = shave_level(*arguments, torch.tensor(live)).item()
    wanted = min(energy, limit * live.sum())
    assert taken(expected[live], level, limit) == pytest.approx(wanted, abs=1e-5)


def test_filling_is_shaving_upside_down_and_batches():
    expected = torch.tensor([[[100.0, 0.0, 50.0], [100.0, 0.0, 50.0]]])
    live = torch.tensor([[[True, True, True]]])
    level = -shave_level(-expected, torch.tensor([[1000.0, 20.0]]), torch.tensor([[50.0, 30.0]]), live)
    # 50 kWh raise the lowest hour to 50; at 20 kW the lowest takes 20 and the next 10.
    torch.testing.assert_close(level, torch.tensor([[50.0, 60.0]]))
